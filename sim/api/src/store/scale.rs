//! The scale subresource.

use serde_json::{Value, json};

use super::core::Core;
use crate::error::ApiError;
use crate::object::{at, name, namespace, str_at};
use crate::resource::Gr;

pub(super) fn path(text: &str) -> Vec<&str> {
    text.split('.').filter(|p| !p.is_empty()).collect()
}

/// A label selector as text.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let labels = selector.get("matchLabels").or(selector.is_object().then_some(selector));
    for (k, v) in labels.and_then(Value::as_object).into_iter().flatten() {
        if let Some(v) = v.as_str() {
            parts.push(format!("{k}={v}"));
        }
    }
    for e in crate::object::list_at(selector, &["matchExpressions"]) {
        let key = str_at(e, &["key"]);
        let values: Vec<&str> =
            crate::object::list_at(e, &["values"]).iter().filter_map(Value::as_str).collect();
        parts.push(match str_at(e, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

impl Core {
    pub(super) fn scale(&self, r: &Gr, ns: &str, object_name: &str) -> Result<Value, ApiError> {
        let def = self.def(r)?;
        let object = self.get(r, ns, object_name)?;
        let paths = def.storage_version().scale.as_ref().ok_or_else(ApiError::no_such_path)?;
        let count = |p: &str| at(&object, &path(p)).as_i64().unwrap_or(0);
        let selector = match &paths.selector {
            Some(p) => str_at(&object, &path(p)).to_owned(),
            None => selector_text(at(&object, &["spec", "selector"])),
        };
        let mut status = json!({"replicas": count(&paths.status)});
        if !selector.is_empty() {
            status["selector"] = json!(selector);
        }
        Ok(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": name(&object), "namespace": namespace(&object), "uid": object["metadata"]["uid"],
                "resourceVersion": object["metadata"]["resourceVersion"], "creationTimestamp": object["metadata"]["creationTimestamp"],
            },
            "spec": {"replicas": count(&paths.spec)},
            "status": status,
        }))
    }
}
