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

fn rename(
    value: &Value,
    pairs: impl Iterator<Item = (&'static str, &'static str)> + Clone,
    api_version: &str,
) -> Value {
    let map = value.as_object().cloned().unwrap_or_default();
    let renamed: Map<String, Value> = map
        .into_iter()
        .map(|(k, v)| match pairs.clone().find(|(from, _)| *from == k) {
            Some((_, to)) => (to.to_owned(), v),
            None => (k, v),
        })
        .collect();
    let mut renamed = Value::Object(renamed);
    renamed["apiVersion"] = json!(api_version);
    renamed
}

/// From events.k8s.io/v1 to core/v1. Also right for patches.
pub(super) fn to_core(value: &Value) -> Value {
    rename(value, NAMES.iter().copied(), "v1")
}

/// From core/v1 to events.k8s.io/v1.
pub(super) fn from_core(value: &Value) -> Value {
    rename(value, NAMES.iter().map(|(a, b)| (*b, *a)), "events.k8s.io/v1")
}
