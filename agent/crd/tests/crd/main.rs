//! The objects as people write them, and the schemas that are made for them.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests: a panic is the report")]

mod api_server;
mod definitions;
mod round_trip;

use std::sync::LazyLock;

use agent_crd::crd;
use serde_json::Value;

/// All definitions. They take a while to make, and many tests need them.
static DEFINITIONS: LazyLock<Vec<Value>> =
    LazyLock::new(|| crd::needed().into_iter().chain([crd::cluster_network_policy()]).collect());

/// A manifest of `tests/manifests`.
fn manifest(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name);
    let text = std::fs::read_to_string(path).expect("the manifest is there");
    serde_yaml_ng::from_str(&text).expect("it is YAML")
}
