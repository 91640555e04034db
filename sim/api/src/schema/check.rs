//! Checks objects against their schemas: wrong types, unknown fields, and for CRDs what their schema demands.

use serde_json::Value;

use super::{ListType, Schema, rules};
use crate::error::Cause;

/// What a check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Fields the schema does not know, by path; they have been removed.
    pub unknown: Vec<String>,
    /// Values of the wrong type: the object cannot be understood at all.
    pub mistyped: Vec<String>,
    /// Values that break a rule of a CRD's schema.
    pub causes: Vec<Cause>,
}

/// Checks `value`, removes unknown fields and nulls. With `rules` also what a schema demands beyond types
/// (built-in kinds have their own checks for that), and defaults of the schema are filled in.
pub fn check(value: &mut Value, schema: Schema<'_>, rules: bool) -> Findings {
    let mut walk = Walk { rules, findings: Findings::default() };
    walk.value(value, schema, &mut String::new());
    walk.findings
}

/// True for a whole number in the range of the field's format.
fn fits(number: &serde_json::Number, schema: Schema<'_>) -> bool {
    let narrow = schema.keyword("format").and_then(Value::as_str) == Some("int32");
    number.as_i64().is_some_and(|n| !narrow || i32::try_from(n).is_ok())
}

struct Walk {
    rules: bool,
    findings: Findings,
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: Schema<'_>, path: &mut String) {
        if schema.is_open() && !schema.has_properties() {
            return;
        }
        if schema.is_int_or_string() {
            if !(value.is_string() || value.is_i64() || value.is_u64()) {
                self.mistyped(path, value, "integer or string");
            }
            return;
        }
        match (schema.type_name(), &mut *value) {
            ("object" | "", Value::Object(_)) => self.object(value, schema, path),
            ("array", Value::Array(items)) => {
                let length = path.len();
                for (i, item) in items.iter_mut().enumerate() {
                    path.push('[');
                    path.push_str(&i.to_string());
                    path.push(']');
                    self.value(item, schema.items(), path);
                    path.truncate(length);
                }
                if self.rules {
                    self.list_rules(items, schema, path);
                }
            }
            ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => {}
            ("integer", Value::Number(n)) if fits(n, schema) => {}
            // Quantities are strings that may be written as numbers.
            ("string", Value::Number(n)) if self.quantity(schema) => {
                let text = n.to_string();
                *value = Value::String(text);
            }
            ("number", Value::Number(_)) => {}
            (_, Value::Null) if schema.keyword("nullable") == Some(&Value::Bool(true)) => return,
            (wanted, _) => {
                self.mistyped(path, value, wanted);
                return;
            }
        }
        if self.rules {
            self.scalar_rules(value, schema, path);
        }
    }

    fn quantity(&self, schema: Schema<'_>) -> bool {
        !self.rules && schema.keyword("format").is_none()
    }

    fn mistyped(&mut self, path: &str, value: &Value, wanted: &str) {
        let given = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let path = path.trim_start_matches('.');
        if self.rules {
            self.findings.causes.push(Cause {
                field: path.to_owned(),
                reason: "FieldValueTypeInvalid",
                message: format!(
                    "Invalid value: \"{given}\": {path} in body must be of type {wanted}: \"{given}\""
                ),
            });
        } else {
            self.findings
                .mistyped
                .push(format!("cannot unmarshal {given} into field {path} of type {wanted}"));
        }
    }

    fn object(&mut self, value: &mut Value, schema: Schema<'_>, path: &mut String) {
        let length = path.len();
        if self.rules {
            Self::defaults(value, schema);
        }
        let Some(map) = value.as_object_mut() else { return };
        // Null means "not set" everywhere but where the schema says otherwise.
        map.retain(|key, v| {
            !v.is_null()
                || schema
                    .field(key)
                    .is_some_and(|s| s.is_open() || s.keyword("nullable") == Some(&Value::Bool(true)))
        });
        // Objects of which the schema says only that they are objects keep what they have, if built in.
        let free =
            !self.rules && !schema.has_properties() && schema.keyword("additionalProperties").is_none();
        let mut unknown = Vec::new();
        for (key, child) in map.iter_mut() {
            path.push('.');
            path.push_str(key);
            match schema.field(key) {
                Some(s) => self.value(child, s, path),
                None if free => {}
                None => unknown.push((key.clone(), path.clone())),
            }
            path.truncate(length);
        }
        for (key, at) in unknown {
            map.shift_remove(&key);
            self.findings.unknown.push(at.trim_start_matches('.').to_owned());
        }
        if !self.rules {
            return;
        }
        for required in schema
            .keyword("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !map.contains_key(required) {
                let field = format!("{path}.{required}");
                self.findings.causes.push(Cause::required(field.trim_start_matches('.'), ""));
            }
        }
    }

    fn defaults(value: &mut Value, schema: Schema<'_>) {
        let Some(map) = value.as_object_mut() else { return };
        for (key, property) in schema.properties() {
            if let Some(default) = property.keyword("default") {
                let unset = map
                    .get(key)
                    .is_none_or(|v| v.is_null() && property.keyword("nullable") != Some(&Value::Bool(true)));
                if unset {
                    map.insert(key.to_owned(), default.clone());
                }
            }
        }
    }

    fn list_rules(&mut self, items: &[Value], schema: Schema<'_>, path: &str) {
        let field = path.trim_start_matches('.');
        let count = items.len() as u64;
        let limit = |key: &str| schema.keyword(key).and_then(Value::as_u64);
        if let Some(max) = limit("maxItems").filter(|m| count > *m) {
            self.findings.causes.push(Cause {
                field: field.to_owned(),
                reason: "FieldValueTooMany",
                message: format!("Too many: {count}: must have at most {max} items"),
            });
        }
        if let Some(min) = limit("minItems").filter(|m| count < *m) {
            self.rule(
                field,
                &Value::from(count),
                &format!("{field} in body should have at least {min} items"),
            );
        }
        let duplicate = match schema.list_type() {
            ListType::Atomic => None,
            ListType::Set => (1..items.len()).find(|&i| items[..i].contains(&items[i])),
            ListType::Map(keys) => {
                let key = |v: &Value| keys.iter().map(|k| v.get(*k).cloned()).collect::<Vec<_>>();
                (1..items.len()).find(|&i| items[..i].iter().any(|other| key(other) == key(&items[i])))
            }
        };
        if let Some(i) = duplicate {
            self.findings.causes.push(Cause {
                field: format!("{field}[{i}]"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {}", items[i]),
            });
        }
    }

    fn scalar_rules(&mut self, value: &Value, schema: Schema<'_>, path: &str) {
        let field = path.trim_start_matches('.');
        if let Some(allowed) = schema.keyword("enum").and_then(Value::as_array).filter(|a| !a.contains(value))
        {
            let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            self.findings.causes.push(Cause {
                field: field.to_owned(),
                reason: "FieldValueNotSupported",
                message: format!("Unsupported value: {value}: supported values: {}", list.join(", ")),
            });
        }
        for broken in schema.keywords().into_iter().flat_map(|node| rules::broken_junctions(value, node)) {
            self.rule(field, &Value::from(""), &format!("\"{field}\" {broken}"));
        }
        if let Some(map) = value.as_object() {
            for message in schema.keywords().into_iter().flat_map(|node| rules::missing_fields(map, node)) {
                self.findings.causes.push(Cause {
                    field: if field.is_empty() { "<nil>".to_owned() } else { field.to_owned() },
                    reason: "FieldValueInvalid",
                    message: format!("Invalid value: {message}"),
                });
            }
            let count = map.len() as u64;
            let limit = |key: &str| schema.keyword(key).and_then(Value::as_u64);
            if let Some(min) = limit("minProperties").filter(|min| count < *min) {
                self.rule(field, value, &format!("{field} in body should have at least {min} properties"));
            }
            if let Some(max) = limit("maxProperties").filter(|max| count > *max) {
                self.findings.causes.push(Cause {
                    field: field.to_owned(),
                    reason: "FieldValueTooMany",
                    message: format!("Too many: {count}: must have at most {max} items"),
                });
            }
        }
        let number = |key: &str| schema.keyword(key).and_then(Value::as_f64);
        if let Some(n) = value.as_f64() {
            if let Some(min) = number("minimum").filter(|min| n < *min) {
                self.rule(field, value, &format!("{field} in body should be greater than or equal to {min}"));
            }
            if let Some(max) = number("maximum").filter(|max| n > *max) {
                self.rule(field, value, &format!("{field} in body should be less than or equal to {max}"));
            }
        }
        if let Some(text) = value.as_str() {
            let count = text.chars().count() as u64;
            let limit = |key: &str| schema.keyword(key).and_then(Value::as_u64);
            if let Some(min) = limit("minLength").filter(|min| count < *min) {
                self.rule(field, value, &format!("{field} in body should be at least {min} chars long"));
            }
            if let Some(max) = limit("maxLength").filter(|max| count > *max) {
                self.findings.causes.push(Cause {
                    field: field.to_owned(),
                    reason: "FieldValueTooLong",
                    message: format!("Too long: may not be more than {max} bytes"),
                });
            }
            let word = |key: &str| schema.keyword(key).and_then(Value::as_str);
            if let Some(pattern) = word("pattern").filter(|pattern| !rules::matches(pattern, text)) {
                self.rule(field, value, &format!("{field} in body should match '{pattern}'"));
            }
            if let Some(format) = word("format").filter(|format| !rules::is_of_format(format, text)) {
                self.rule(field, value, &format!("{field} in body must be of type {format}: {value}"));
            }
        }
    }

    fn rule(&mut self, field: &str, value: &Value, detail: &str) {
        self.findings.causes.push(Cause::invalid(field, value, detail));
    }
}
