//! Numbers that may be percentages.

use serde_json::Value;

/// Numbers of pods stay in the range of the API's 32-bit fields, so that sums of them cannot overflow.
const MOST: i64 = i32::MAX as i64;

/// An `IntOrString` of `total`: a number, or a percentage rounded up or down.
pub(crate) fn of_total(value: &Value, total: i64, round_up: bool) -> Option<i64> {
    match value {
        Value::Number(n) => Some(n.as_i64()?.clamp(-MOST, MOST)),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse::<i64>().ok()?.clamp(-1000, 1000);
            let hundredths = percent * total;
            Some(if round_up { (hundredths + 99) / 100 } else { hundredths / 100 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn percentages() {
        assert_eq!(super::of_total(&json!("25%"), 3, true), Some(1));
        assert_eq!(super::of_total(&json!("25%"), 3, false), Some(0));
        assert_eq!(super::of_total(&json!(2), 3, false), Some(2));
        assert_eq!(super::of_total(&json!("x"), 3, false), None);
        assert_eq!(super::of_total(&json!(i64::MAX), 3, false), Some(i64::from(i32::MAX)));
    }
}
