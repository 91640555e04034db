//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// Merges `patch` into `target`: maps merge, null deletes, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rfc_7386_examples() {
        let check = |target: Value, patch: Value, expect: Value| {
            let mut t = target;
            merge_patch(&mut t, &patch);
            assert_eq!(t, expect, "{patch}");
        };
        check(json!({"a": "b"}), json!({"a": null}), json!({}));
        check(json!({"a": [1]}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}));
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3}}), json!({"a": {"b": 3, "c": 2}}));
        check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}));
    }
}
