//! Rules of schemas that are about several fields, or about the form of a text.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

/// Whether `value` keeps all rules of `schema`, which is a part of `anyOf`, `oneOf`, `allOf` or `not`, or a whole schema.
pub(super) fn holds(value: &Value, schema: &Value) -> bool {
    let Some(node) = schema.as_object() else { return true };
    let words = |key: &str| node.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let within = |count: usize, least: &str, most: &str| {
        let limit = |key: &str| node.get(key).and_then(Value::as_u64);
        limit(least).is_none_or(|least| count as u64 >= least)
            && limit(most).is_none_or(|most| count as u64 <= most)
    };
    let of_kind = match value {
        Value::Object(fields) => {
            let required = words("required").iter().filter_map(Value::as_str);
            required.into_iter().all(|field| fields.contains_key(field))
                && within(fields.len(), "minProperties", "maxProperties")
                && fields.iter().all(|(name, field)| {
                    let schema = node.get("properties").and_then(|p| p.get(name));
                    schema
                        .or_else(|| node.get("additionalProperties"))
                        .is_none_or(|schema| holds(field, schema))
                })
        }
        Value::Array(items) => {
            within(items.len(), "minItems", "maxItems")
                && node.get("items").is_none_or(|schema| items.iter().all(|item| holds(item, schema)))
        }
        Value::String(text) => {
            within(text.chars().count(), "minLength", "maxLength")
                && node.get("pattern").and_then(Value::as_str).is_none_or(|pattern| matches(pattern, text))
        }
        Value::Number(number) => {
            let limit = |key: &str| node.get(key).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or_default();
            limit("minimum").is_none_or(|least| number >= least)
                && limit("maximum").is_none_or(|most| number <= most)
        }
        Value::Null | Value::Bool(_) => true,
    };
    of_kind
        && node.get("type").and_then(Value::as_str).is_none_or(|kind| is_of(kind, value))
        && (words("enum").is_empty() || words("enum").contains(value))
        && broken_junctions(value, node).next().is_none()
}

/// Messages of the rules in `x-kubernetes-validations` that the object does not keep. Of that language only the demand that one
/// of several fields be there is understood, `has(self.a) || has(self.b)`; other rules are taken to be kept.
pub(super) fn missing_fields<'a>(
    fields: &'a Map<String, Value>,
    node: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a str> {
    let rules = node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(|rule| {
        let names = rule.get("rule")?.as_str()?.split("||").map(|term| {
            let name = term.trim().strip_prefix("has(self.")?.strip_suffix(')')?;
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(name)
        });
        let names: Vec<&str> = names.collect::<Option<_>>()?;
        let kept = names.into_iter().any(|name| fields.contains_key(name));
        (!kept).then(|| rule.get("message").and_then(Value::as_str).unwrap_or("failed rule"))
    })
}

/// What is said of `anyOf`, `oneOf`, `allOf` and `not` of a schema that the value does not keep, in the words of the
/// API server without the name of the field.
pub(super) fn broken_junctions(value: &Value, node: &Map<String, Value>) -> impl Iterator<Item = String> {
    let kept = |key: &str| {
        let parts = node.get(key)?.as_array()?;
        // References of built-in kinds stand in `allOf` and are followed elsewhere.
        Some((
            parts.iter().filter(|part| part.get("$ref").is_some() || holds(value, part)).count(),
            parts.len(),
        ))
    };
    let any = kept("anyOf").filter(|(kept, _)| *kept == 0);
    let one = kept("oneOf").filter(|(kept, _)| *kept != 1);
    let all = kept("allOf").filter(|(kept, parts)| kept != parts);
    let not = node.get("not").filter(|schema| holds(value, schema));
    let one = one.map(|(kept, _)| match kept {
        0 => "must validate one and only one schema (oneOf). Found none valid".to_owned(),
        _ => "must validate one and only one schema (oneOf). Found more than one valid".to_owned(),
    });
    [
        any.map(|_| "must validate at least one schema (anyOf)".to_owned()),
        one,
        all.map(|_| "must validate all the schemas (allOf)".to_owned()),
        not.map(|_| "must not validate the schema (not)".to_owned()),
    ]
    .into_iter()
    .flatten()
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

/// Whether a pattern is one; the syntax that the API server takes and that of `regex` agree but for rare things.
pub(crate) fn pattern_error(pattern: &str) -> Option<String> {
    with_pattern(pattern, |read| read.as_ref().err().cloned())
}

/// Whether the text has the pattern in it. One that cannot be read has been refused with its definition.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    with_pattern(pattern, |read| read.as_ref().ok().is_none_or(|regex| regex.is_match(text)))
}

/// Patterns are read once in a process: that takes longer than all else that a definition needs, and a simulation makes
/// the same definitions again in each new cluster.
fn with_pattern<T>(pattern: &str, then: impl FnOnce(&Result<Regex, String>) -> T) -> T {
    static READ: Mutex<BTreeMap<String, Result<Regex, String>>> = Mutex::new(BTreeMap::new());
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    match read.get(pattern) {
        Some(known) => then(known),
        None => {
            let new = Regex::new(pattern).map_err(|error| error.to_string());
            then(read.entry(pattern.to_owned()).or_insert(new))
        }
    }
}

/// Whether the text is of a format that the API server checks; of one that it does not know it is always.
pub(super) fn is_of_format(format: &str, text: &str) -> bool {
    match format {
        // What Go's net.ParseCIDR takes: bits behind the prefix may be set.
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_of_junctions() {
        let one = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        let broken = |value: Value| broken_junctions(&value, one.as_object().unwrap()).collect::<Vec<_>>();
        assert!(broken(json!({"a": 1})).is_empty());
        assert!(broken(json!({}))[0].ends_with("Found none valid"));
        assert!(broken(json!({"a": 1, "b": 1}))[0].ends_with("Found more than one valid"));
        let not = json!({"not": {"properties": {"a": {"enum": [1]}}, "required": ["a"]}});
        assert!(!holds(&json!({"a": 1}), &not));
        assert!(holds(&json!({"a": 2}), &not) && holds(&json!({}), &not));
        let any =
            json!({"anyOf": [{"type": "integer"}, {"pattern": "^x", "type": "string", "maxLength": 2}]});
        assert!(holds(&json!(1), &any) && holds(&json!("xy"), &any));
        assert!(!holds(&json!("y"), &any) && !holds(&json!("xyz"), &any) && !holds(&json!([]), &any));
    }

    #[test]
    fn one_of_several_fields_can_be_demanded() {
        let schema = json!({"x-kubernetes-validations": [
            {"rule": "has(self.a) || has(self.b)", "message": "a or b"},
            {"rule": "self.c < self.d", "message": "not understood here"},
        ]});
        let broken = |value: &Value| -> Vec<String> {
            let (fields, node) = (value.as_object().unwrap(), schema.as_object().unwrap());
            missing_fields(fields, node).map(str::to_owned).collect()
        };
        assert_eq!(broken(&json!({"c": 2, "d": 1})), ["a or b"]);
        assert!(broken(&json!({"a": 1})).is_empty() && broken(&json!({"a": 1, "b": 1})).is_empty());
    }

    #[test]
    fn formats() {
        assert!(is_of_format("cidr", "10.0.0.1/8") && !is_of_format("cidr", "10.0.0.1"));
        assert!(is_of_format("date-time", "2026-01-01T00:00:00Z") && !is_of_format("date-time", "today"));
        assert!(is_of_format("no-such-format", "x"));
    }
}
