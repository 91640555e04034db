//! Structural schemas, as CustomResourceDefinitions need them, from the types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Stands in a type's schema for `default`, which is otherwise taken from the type and of no use to the API server:
/// it would write out every field that is not set.
pub(crate) const DEFAULT: &str = "x-default";

/// The structural schema of objects of type `T`.
///
/// It has no references, no null, and types outside of `anyOf`, `oneOf` and `not` only
/// (Kubernetes documentation, "Specifying a structural schema").
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
        properties.insert("metadata".into(), json!({"type": "object"}));
        properties.sort_keys();
    }
    schema
}

const API_VERSION: &str = "Group and version in which the object is written.";
const KIND: &str = "Kind of the object.";

/// Fields of the object that its schema does not know, as paths like `spec.ingress[0].fromEndpoint`, in order.
/// Metadata are not looked at.
pub fn unknown_fields(schema: &Value, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, object, "", &mut found);
    found
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let free = schema.get("additionalProperties");
            for (name, field) in fields {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if let Some(known) = properties.and_then(|properties| properties.get(name)) {
                    if !(path.is_empty() && name == "metadata") {
                        walk(known, field, &at, found);
                    }
                } else if let Some(known) = free {
                    walk(known, field, &at, found);
                } else if properties.is_some() {
                    found.push(at);
                }
            }
        }
        Value::Array(items) => {
            let Some(known) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                walk(known, item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn structural(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    without_null(node);
    for key in ["title", "$schema", "default", "nullable"] {
        node.remove(key);
    }
    if let Some(default) = node.remove(DEFAULT) {
        node.insert("default".into(), default);
    }
    if let Some(Value::String(format)) = node.get_mut("format") {
        match format.as_str() {
            "uint8" | "uint16" => *format = "int32".into(),
            "uint32" | "uint64" => *format = "int64".into(),
            _ => {}
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get_mut(key) {
            structural(inner);
        }
    }
    if let Some(Value::String(text)) = node.get_mut("description") {
        *text = without_links(text);
    }
    node.sort_keys();
}

/// "Not there" is said by leaving a field out, never by null.
fn without_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            node.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(words)) = node.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let null = json!({"type": "null"});
    let optional = match node.get("anyOf") {
        Some(Value::Array(ways)) => match ways.as_slice() {
            [what, other] if *other == null => Some(what.clone()),
            _ => None,
        },
        _ => None,
    };
    if let Some(Value::Object(what)) = optional {
        node.remove("anyOf");
        for (key, value) in what {
            // What is said of the field stands before what is said of its type.
            if !node.contains_key(&key) {
                node.insert(key, value);
            }
        }
    }
}

/// Descriptions are for people without the sources: one line, and names instead of links.
fn without_links(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").split_whitespace().collect::<Vec<_>>().join(" ")
}
