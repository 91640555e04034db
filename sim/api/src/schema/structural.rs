//! What a schema of a CustomResourceDefinition must be like
//! (Kubernetes documentation, "Specifying a structural schema").

use serde_json::{Map, Value};

use super::rules::pattern_error;
use crate::error::Cause;

/// Keywords that describe values and may stand in every place.
const RULES: &[&str] = &[
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "pattern",
    "required",
    "uniqueItems",
    "allOf",
    "anyOf",
    "oneOf",
    "properties",
    "items",
    "additionalProperties",
];

/// Keywords that the API server takes only outside of junctions.
const OUTSIDE: &[&str] = &[
    "type",
    "description",
    "title",
    "default",
    "nullable",
    "example",
    "externalDocs",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// Keywords that the API server takes at the root of a schema whose objects have a status subresource.
const ROOT_WITH_STATUS: &[&str] = &[
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// What is wrong with a schema, with paths that begin with `path`. `status`: objects have a status subresource.
pub(crate) fn causes(schema: &Value, path: &str, status: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, path, &mut causes);
    for key in schema.as_object().into_iter().flatten().map(|(key, _)| key) {
        if status && !ROOT_WITH_STATUS.contains(&key.as_str()) {
            causes.push(Cause::invalid(
                path,
                &Value::from(key.as_str()),
                &format!(
                    "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                    ROOT_WITH_STATUS.join(" ")
                ),
            ));
        }
    }
    causes
}

fn node(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(fields) = schema.as_object() else {
        causes.push(Cause::invalid(path, schema, "must be a schema"));
        return;
    };
    for key in fields.keys().filter(|key| !RULES.contains(&key.as_str()) && !OUTSIDE.contains(&key.as_str()))
    {
        causes.push(Cause::forbidden(format!("{path}.{key}"), "must not be used in a structural schema"));
    }
    let flag = |key: &str| fields.get(key) == Some(&Value::Bool(true));
    let int_or_string = flag("x-kubernetes-int-or-string");
    let open = flag("x-kubernetes-preserve-unknown-fields");
    match fields.get("type") {
        Some(Value::String(_)) if int_or_string => causes.push(Cause::forbidden(
            format!("{path}.type"),
            "must be empty if x-kubernetes-int-or-string is true",
        )),
        Some(Value::String(_)) => {}
        None if int_or_string || open => {}
        _ => causes
            .push(Cause::required(format!("{path}.type"), "must not be empty for specified object fields")),
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        causes.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if fields.get("type") == Some(&Value::from("array")) && !fields.contains_key("items") {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(error) = fields.get("pattern").and_then(Value::as_str).and_then(pattern_error) {
        causes.push(Cause::invalid(format!("{path}.pattern"), &fields["pattern"], &error));
    }
    junctions(fields, fields, path, int_or_string, causes);
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        node(property, &format!("{path}.properties[{name}]"), causes);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get(key).filter(|inner| inner.is_object()) {
            node(inner, &format!("{path}.{key}"), causes);
        }
    }
}

/// Parts of junctions: rules on values only, and on fields only that are named outside.
fn junctions(
    fields: &Map<String, Value>,
    outside: &Map<String, Value>,
    path: &str,
    int_or_string: bool,
    causes: &mut Vec<Cause>,
) {
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in fields.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
            part(inner, outside, &format!("{path}.{key}[{i}]"), int_or_string, causes);
        }
    }
    if let Some(inner) = fields.get("not") {
        part(inner, outside, &format!("{path}.not"), int_or_string, causes);
    }
}

fn part(
    schema: &Value,
    outside: &Map<String, Value>,
    path: &str,
    int_or_string: bool,
    causes: &mut Vec<Cause>,
) {
    let Some(fields) = schema.as_object() else { return };
    for key in fields.keys().filter(|key| !RULES.contains(&key.as_str())) {
        // The one exception: how "integer or string" is said.
        if !(int_or_string && key == "type") {
            causes.push(Cause::forbidden(format!("{path}.{key}"), "must be empty to be structural"));
        }
    }
    junctions(fields, outside, path, int_or_string, causes);
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{path}.properties[{name}]");
        match outside.get("properties").and_then(|p| p.get(name)).and_then(Value::as_object) {
            Some(known) => part(property, known, &at, false, causes),
            None => causes.push(Cause::required(at, "must be specified outside of the junction as well")),
        }
    }
    if let (Some(inner), Some(known)) = (fields.get("items"), outside.get("items").and_then(Value::as_object))
    {
        part(inner, known, &format!("{path}.items"), false, causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(schema: impl std::borrow::Borrow<Value>) -> Vec<String> {
        causes(schema.borrow(), "s", false).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn what_is_structural_passes() {
        let schema = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"properties": {"b": {"enum": ["x"]}}}],
        "properties": {
            "a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "b": {"type": "string", "pattern": "^x*$"},
            "c": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
        }});
        assert_eq!(fields(schema), Vec::<String>::new());
    }

    #[test]
    fn above_a_status_subresource_stand_no_junctions() {
        let schema = json!({"type": "object", "description": "d", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(causes(&schema, "s", false).is_empty());
        let found = causes(&schema, "s", true);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("at the root of the schema"), "{}", found[0].message);
    }

    #[test]
    fn what_is_not_is_named() {
        assert_eq!(fields(json!({"$ref": "x", "type": "object"})), ["s.$ref"]);
        assert_eq!(fields(json!({"properties": {"a": {}}, "type": "object"})), ["s.properties[a].type"]);
        assert_eq!(fields(json!({"type": ["string", "null"]})), ["s.type"]);
        assert_eq!(fields(json!({"type": "array"})), ["s.items"]);
        assert_eq!(fields(json!({"type": "string", "pattern": "("})), ["s.pattern"]);
        let both = json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}});
        assert_eq!(fields(both), ["s.additionalProperties"]);
        let typed = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "anyOf": [{"properties": {"a": {"type": "string"}}}, {"not": {"properties": {"b": {"minLength": 1}}}}]});
        assert_eq!(fields(typed), ["s.anyOf[0].properties[a].type", "s.anyOf[1].not.properties[b]"]);
    }
}
