//! Events have two faces: core/v1 and events.k8s.io/v1. They are kept in the first.

use serde_json::{Map, Value, json};

/// Fields that have another name in events.k8s.io/v1: there, here.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(value: &Value, name: impl Fn(&str) -> Option<&'static str>, api_version: &str) -> Value {
    let map = value.as_object().cloned().unwrap_or_default();
    let renamed: Map<String, Value> =
        map.into_iter().map(|(k, v)| (name(&k).map_or(k, str::to_owned), v)).collect();
    let mut renamed = Value::Object(renamed);
    renamed["apiVersion"] = json!(api_version);
    renamed
}

/// From events.k8s.io/v1 to core/v1. Also right for patches.
pub(super) fn to_core(value: &Value) -> Value {
    rename(value, |k| NAMES.iter().find(|(there, _)| *there == k).map(|(_, here)| *here), "v1")
}

/// From core/v1 to events.k8s.io/v1.
pub(super) fn from_core(value: &Value) -> Value {
    rename(value, |k| NAMES.iter().find(|(_, here)| *here == k).map(|(there, _)| *there), "events.k8s.io/v1")
}
