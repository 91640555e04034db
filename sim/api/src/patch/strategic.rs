//! Strategic merge patch: a merge patch that knows which lists are keyed
//! (Kubernetes documentation, "Notes on the strategic merge patch").

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::schema::Schema;

/// Merges `patch` into `target`, whose lists merge as `schema` says.
///
/// # Errors
/// 400 for a directive that cannot be understood or a list element without its merge key.
pub fn strategic_patch(target: &mut Value, patch: &Value, schema: Schema<'_>) -> Result<(), ApiError> {
    match patch {
        Value::Object(patch) => merge_map(target, patch, schema),
        other => {
            *target = other.clone();
            Ok(())
        }
    }
}

fn bad(what: impl Into<String>) -> ApiError {
    ApiError::bad_request(what)
}

fn merge_map(target: &mut Value, patch: &Map<String, Value>, schema: Schema<'_>) -> Result<(), ApiError> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut new = patch.clone();
            new.shift_remove("$patch");
            *target = Value::Object(new);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(bad(format!("invalid value for $patch: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    if let Some(retain) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|k, _| retain.iter().any(|r| r.as_str() == Some(k)));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|v| !gone.contains(v));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        let child = schema.field_or_open(key);
        match value {
            Value::Null => {
                map.shift_remove(key);
            }
            Value::Object(p) if p.get("$patch").and_then(Value::as_str) == Some("delete") => {
                map.shift_remove(key);
            }
            Value::Object(p) => merge_map(map.entry(key.clone()).or_insert(Value::Null), p, child)?,
            Value::Array(p) => merge_list(map.entry(key.clone()).or_insert(Value::Null), p, schema, key)?,
            scalar => {
                map.insert(key.clone(), scalar.clone());
            }
        }
    }
    for (key, order) in patch {
        let Some(field) = key.strip_prefix("$setElementOrder/") else { continue };
        if let (Some(list), Some(order)) =
            (map.get_mut(field).and_then(Value::as_array_mut), order.as_array())
        {
            reorder(list, order, schema.merge_key(field));
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, patch: &[Value], schema: Schema<'_>, field: &str) -> Result<(), ApiError> {
    let directive = |v: &Value| v.get("$patch").and_then(Value::as_str).map(str::to_owned);
    let is_replace =
        |v: &Value| directive(v).as_deref() == Some("replace") && v.as_object().is_some_and(|m| m.len() == 1);
    if patch.iter().any(is_replace) {
        *target = patch.iter().filter(|v| !is_replace(v)).cloned().collect();
        return Ok(());
    }
    let merges = schema.merge_strategy(field).split(',').any(|s| s == "merge");
    if !merges {
        *target = Value::Array(patch.to_vec());
        return Ok(());
    }
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(list) = target.as_array_mut() else { return Ok(()) };
    let Some(merge_key) = schema.merge_key(field) else {
        for value in patch {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
        return Ok(());
    };
    let items = schema.field_or_open(field).items();
    for value in patch {
        let id = value
            .get(merge_key)
            .ok_or_else(|| bad(format!("map: {value} does not contain declared merge key: {merge_key}")))?;
        let found = list.iter().position(|v| v.get(merge_key) == Some(id));
        match (directive(value).as_deref(), found, value) {
            (Some("delete"), Some(_), _) => list.retain(|v| v.get(merge_key) != Some(id)),
            (Some("delete"), None, _) => {}
            (_, Some(i), Value::Object(p)) => merge_map(&mut list[i], p, items)?,
            (_, None, Value::Object(p)) => {
                let mut new = Value::Object(Map::new());
                merge_map(&mut new, p, items)?;
                list.push(new);
            }
            _ => return Err(bad(format!("element of {field} is not a map"))),
        }
    }
    Ok(())
}

/// Puts the elements named in `order` into that order; the others keep their place behind the one they followed.
fn reorder(list: &mut Vec<Value>, order: &[Value], merge_key: Option<&str>) {
    let id = |v: &Value| merge_key.map_or_else(|| v.clone(), |k| v.get(k).cloned().unwrap_or(Value::Null));
    let rank = |v: &Value| order.iter().position(|o| id(o) == id(v));
    let mut keyed: Vec<((usize, usize), Value)> = Vec::new();
    let mut last = 0;
    for (i, value) in std::mem::take(list).into_iter().enumerate() {
        match rank(&value) {
            Some(r) => {
                last = r + 1;
                keyed.push(((r + 1, 0), value));
            }
            None => keyed.push(((last, i + 1), value)),
        }
    }
    keyed.sort_by_key(|(k, _)| *k);
    list.extend(keyed.into_iter().map(|(_, v)| v));
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "calls of test tables read better with plain values")]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &str, target: Value, patch: Value, expect: Value) {
        let mut t = target;
        strategic_patch(&mut t, &patch, Schema::builtin(kind)).unwrap();
        assert_eq!(t, expect, "{patch}");
    }

    #[test]
    fn containers_merge_by_name_and_ports_by_number() {
        check(
            "io.k8s.api.core.v1.Pod",
            json!({"spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "y"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "z", "ports": [{"containerPort": 81}]}, {"name": "c", "image": "w"}]}}),
            json!({"spec": {"containers": [
                {"name": "a", "image": "z", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
                {"name": "b", "image": "y"}, {"name": "c", "image": "w"}]}}),
        );
    }

    #[test]
    fn directives() {
        let pod = "io.k8s.api.core.v1.Pod";
        check(
            pod,
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
        );
        check(
            pod,
            json!({"spec": {"containers": [{"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
            json!({"spec": {"containers": [{"name": "c"}]}}),
        );
        check(
            pod,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        );
        check(
            pod,
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        );
        check(
            pod,
            json!({"metadata": {"finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
            json!({"metadata": {"finalizers": ["a", "b"]}}),
        );
        check(
            pod,
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        );
        check(
            "io.k8s.api.apps.v1.Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            pod,
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
        );
        check(
            "io.k8s.api.core.v1.Node",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let mut t = json!({"spec": {}});
        let e = strategic_patch(
            &mut t,
            &json!({"spec": {"containers": [{"image": "x"}]}}),
            Schema::builtin("io.k8s.api.core.v1.Pod"),
        );
        assert_eq!(e.unwrap_err().code, 400);
    }
}
