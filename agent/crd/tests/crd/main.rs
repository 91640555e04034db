//! The objects as people write them, and the schemas that are made for them.

mod definitions;
mod round_trip;

use serde_json::Value;

/// A manifest of `tests/manifests`.
fn manifest(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name);
    let text = std::fs::read_to_string(path).expect("the manifest is there");
    serde_yaml_ng::from_str(&text).expect("it is YAML")
}
