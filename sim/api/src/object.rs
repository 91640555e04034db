//! Reading of untyped objects.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The value at a path of field names, `Null` if there is none.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |v, key| v.get(key).unwrap_or(&Value::Null))
}

/// The text at a path, empty if there is none.
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or("")
}

/// The list at a path, empty if there is none.
pub fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The whole number at a path.
pub fn int_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The truth value at a path, false if there is none.
pub fn bool_at(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or(false)
}

/// `metadata.name`.
pub fn name(value: &Value) -> &str {
    str_at(value, &["metadata", "name"])
}

/// `metadata.namespace`, empty for objects of the cluster.
pub fn namespace(value: &Value) -> &str {
    str_at(value, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub fn uid(value: &Value) -> &str {
    str_at(value, &["metadata", "uid"])
}

/// `metadata.resourceVersion` as the number it is in this server, 0 if unset.
pub fn resource_version(value: &Value) -> u64 {
    str_at(value, &["metadata", "resourceVersion"]).parse().unwrap_or(0)
}

/// True once deletion has begun.
pub fn is_deleting(value: &Value) -> bool {
    at(value, &["metadata", "deletionTimestamp"]).is_string()
}

/// `metadata.labels`.
pub fn labels(value: &Value) -> Option<&Map<String, Value>> {
    at(value, &["metadata", "labels"]).as_object()
}

/// `metadata.labels` as text; what is no text is left out.
pub fn label_map(value: &Value) -> BTreeMap<String, String> {
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels(value).into_iter().flatten().filter_map(text).collect()
}

/// A text annotation.
pub fn annotation<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    at(value, &["metadata", "annotations", key]).as_str()
}

/// The condition of this type in `status.conditions`.
pub fn condition<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(value, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == kind)
}

/// True if the condition of this type is `True`.
pub fn condition_is_true(value: &Value, kind: &str) -> bool {
    condition(value, kind).is_some_and(|c| str_at(c, &["status"]) == "True")
}

/// The reference in `metadata.ownerReferences` that says `controller: true`.
pub fn controller_of(value: &Value) -> Option<&Value> {
    list_at(value, &["metadata", "ownerReferences"]).iter().find(|r| bool_at(r, &["controller"]))
}

/// The field map at a path, made where it is missing or not a map.
pub fn map_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = value;
    for key in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        // A missing key becomes Null here and a map in the next round or below.
        here = &mut here[*key];
    }
    if !here.is_object() {
        *here = Value::Object(Map::new());
    }
    here.as_object_mut().expect("made a map above")
}

/// Sets the value at a path, making the maps above it.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    if let Some((last, above)) = path.split_last() {
        map_mut(value, above).insert((*last).to_owned(), new);
    }
}

/// Sets the value at a path if there is none (or `null`).
pub fn set_default(value: &mut Value, path: &[&str], default: Value) {
    if at(value, path).is_null() {
        set(value, path, default);
    }
}

/// Removes the value at a path and keeps the maps above it.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, above) = path.split_last()?;
    let mut here = value;
    for key in above {
        here = here.get_mut(*key)?;
    }
    here.as_object_mut()?.shift_remove(*last)
}
