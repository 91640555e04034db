//! JSON patch (RFC 6902).

use serde_json::Value;

use crate::error::ApiError;

/// Applies a list of operations; all or nothing.
///
/// # Errors
/// 400 for a malformed patch, 422 if an operation cannot be applied.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, ApiError> {
    let Some(operations) = patch.as_array() else {
        return Err(ApiError::bad_request("error decoding patch: a JSON patch is a list of operations"));
    };
    let mut result = target.clone();
    for operation in operations {
        apply(&mut result, operation)?;
    }
    Ok(result)
}

fn failed(what: &str) -> ApiError {
    ApiError {
        code: 422,
        reason: "Invalid",
        message: format!("the server rejected our request due to an error in our request: {what}"),
        details: None,
        retry_after_s: None,
    }
}

fn apply(target: &mut Value, operation: &Value) -> Result<(), ApiError> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let op =
        text("op").ok_or_else(|| ApiError::bad_request("error decoding patch: operation without \"op\""))?;
    let path = text("path")
        .ok_or_else(|| ApiError::bad_request("error decoding patch: operation without \"path\""))?;
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| ApiError::bad_request(format!("error decoding patch: {op} without \"value\"")))
    };
    let from = || {
        text("from")
            .ok_or_else(|| ApiError::bad_request(format!("error decoding patch: {op} without \"from\"")))
    };
    match op {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            let place = target.pointer_mut(path).ok_or_else(|| {
                failed(&format!("replace operation does not apply: doc is missing path: {path}"))
            })?;
            *place = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(target, from()?)?;
            add(target, path, moved)
        }
        "copy" => {
            let source = from()?;
            let copy = target.pointer(source).cloned().ok_or_else(|| {
                failed(&format!("copy operation does not apply: doc is missing path: {source}"))
            })?;
            add(target, path, copy)
        }
        "test" => {
            if target.pointer(path).unwrap_or(&Value::Null) == &value()? {
                Ok(())
            } else {
                Err(failed(&format!("testing value {path} failed")))
            }
        }
        other => Err(ApiError::bad_request(format!("error decoding patch: unknown operation \"{other}\""))),
    }
}

/// Splits a pointer into its parent and its last key, unescaped.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), ApiError> {
    let Some((parent, key)) = split(path) else {
        *target = value;
        return Ok(());
    };
    let missing = || failed(&format!("add operation does not apply: doc is missing path: {path}"));
    match target.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) => {
            let index = if key == "-" { list.len() } else { key.parse().map_err(|_| missing())? };
            if index > list.len() {
                return Err(missing());
            }
            list.insert(index, value);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, ApiError> {
    let missing = || failed(&format!("remove operation does not apply: doc is missing path: {path}"));
    let (parent, key) = split(path).ok_or_else(missing)?;
    match target.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => map.shift_remove(&key).ok_or_else(missing),
        Value::Array(list) => {
            let index: usize = key.parse().map_err(|_| missing())?;
            if index < list.len() { Ok(list.remove(index)) } else { Err(missing()) }
        }
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        let doc = json!({"a": {"b/c": 1}, "l": [1, 2]});
        let check =
            |patch: Value, expect: Value| assert_eq!(json_patch(&doc, &patch).unwrap(), expect, "{patch}");
        check(json!([{"op": "add", "path": "/l/-", "value": 3}]), json!({"a": {"b/c": 1}, "l": [1, 2, 3]}));
        check(json!([{"op": "add", "path": "/l/0", "value": 0}]), json!({"a": {"b/c": 1}, "l": [0, 1, 2]}));
        check(json!([{"op": "remove", "path": "/a/b~1c"}]), json!({"a": {}, "l": [1, 2]}));
        check(
            json!([{"op": "test", "path": "/l/0", "value": 1}, {"op": "replace", "path": "/l", "value": []}]),
            json!({"a": {"b/c": 1}, "l": []}),
        );
        check(json!([{"op": "move", "from": "/a", "path": "/z"}]), json!({"l": [1, 2], "z": {"b/c": 1}}));
        check(
            json!([{"op": "copy", "from": "/l/1", "path": "/a/x"}]),
            json!({"a": {"b/c": 1, "x": 2}, "l": [1, 2]}),
        );
    }

    #[test]
    fn failures_leave_the_object_alone() {
        let doc = json!({"l": [1]});
        for patch in [
            json!([{"op": "remove", "path": "/nothing"}]),
            json!([{"op": "add", "path": "/l/7", "value": 1}]),
            json!([{"op": "test", "path": "/l/0", "value": 2}]),
            json!([{"op": "replace", "path": "/x/y", "value": 2}]),
        ] {
            assert_eq!(json_patch(&doc, &patch).unwrap_err().code, 422, "{patch}");
        }
        assert_eq!(json_patch(&doc, &json!({"op": "add"})).unwrap_err().code, 400);
        assert_eq!(json_patch(&doc, &json!([{"path": "/l"}])).unwrap_err().code, 400);
    }
}
