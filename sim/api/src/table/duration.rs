//! Ages as people read them.

use jiff::Timestamp;
use serde_json::Value;

/// Seconds in the short form of `kubectl`: more digits the younger something is.
fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two =
        |a: i64, x: char, b: i64, y: char| if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") };
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// Time since a moment in RFC 3339, `<unknown>` if there is none.
pub(crate) fn age(since: &Value, now: Timestamp) -> String {
    match since.as_str().and_then(|s| s.parse::<Timestamp>().ok()) {
        Some(then) => human(now.as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// Time from one moment to another.
pub(crate) fn between(from: &Value, to: &Value, now: Timestamp) -> String {
    let to = to.as_str().and_then(|s| s.parse::<Timestamp>().ok()).unwrap_or(now);
    if from.is_null() { String::new() } else { age(from, to) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ages() {
        for (seconds, expect) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 300, "3h5m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (9 * 86400, "9d"),
            (800 * 86400, "2y70d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(super::human(seconds), expect);
        }
    }
}
