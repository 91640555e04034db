//! Label and field selectors (Kubernetes documentation, "Labels and Selectors" and "Field Selectors").

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::object::{labels, list_at, name, namespace, str_at};

/// Which objects a list or watch is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// A selector for everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Parses `labelSelector` and `fieldSelector` of a request. `selectable` are the field paths allowed besides
    /// `metadata.name` and `metadata.namespace`.
    ///
    /// # Errors
    /// 400 if one of them cannot be parsed or names a field that may not be selected by.
    pub fn parse(
        label_selector: &str,
        field_selector: &str,
        selectable: &[String],
    ) -> Result<Self, ApiError> {
        Ok(Self { labels: parse_labels(label_selector)?, fields: parse_fields(field_selector, selectable)? })
    }

    /// The selector of a `metav1.LabelSelector` object (`matchLabels`, `matchExpressions`); an empty one selects
    /// everything, and so does `null` here.
    pub fn from_label_selector(selector: &Value) -> Self {
        let mut labels = Vec::new();
        for (k, v) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            labels.push(Requirement::In(k.clone(), vec![v.as_str().unwrap_or("").to_owned()]));
        }
        labels.extend(list_at(selector, &["matchExpressions"]).iter().filter_map(expression));
        Self { labels, fields: Vec::new() }
    }

    /// The selector of a plain map of labels, as services have it.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        let labels =
            map.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.as_str().unwrap_or("").to_owned()]));
        Self { labels: labels.collect(), fields: Vec::new() }
    }

    /// The selector of node selector `matchExpressions`.
    pub fn from_expressions(expressions: &[Value]) -> Self {
        Self { labels: expressions.iter().filter_map(expression).collect(), fields: Vec::new() }
    }

    /// True if it selects everything.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// True if the object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(labels(object)) && self.fields.iter().all(|f| f.matches(object))
    }

    /// True if its label part selects these labels.
    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.labels.iter().all(|r| r.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let get = |k: &str| labels.and_then(|l| l.get(k)).and_then(Value::as_str);
        let number = |k: &str| get(k).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(k, values) => get(k).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(k, values) => get(k).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(k) => get(k).is_some(),
            Self::Absent(k) => get(k).is_none(),
            Self::Greater(k, than) => number(k).is_some_and(|n| n > *than),
            Self::Less(k, than) => number(k).is_some_and(|n| n < *than),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let found = match self.path.as_str() {
            "metadata.name" => name(object).to_owned(),
            "metadata.namespace" => namespace(object).to_owned(),
            // Events have their source under another name than the selector says.
            "source" => str_at(object, &["source", "component"]).to_owned(),
            path => {
                let value = path.split('.').fold(object, |v, key| v.get(key).unwrap_or(&Value::Null));
                match value {
                    Value::String(s) => s.clone(),
                    Value::Null => String::new(),
                    other => other.to_string(),
                }
            }
        };
        // An unset truth value selects as "false" (spec.unschedulable, spec.hostNetwork).
        let boolean = matches!(self.value.as_str(), "true" | "false") && found.is_empty();
        (if boolean { self.value == "false" } else { found == self.value }) == self.equal
    }
}

fn expression(e: &Value) -> Option<Requirement> {
    let key = str_at(e, &["key"]).to_owned();
    let values: Vec<String> =
        list_at(e, &["values"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let number = || values.first().and_then(|v| v.parse().ok());
    Some(match str_at(e, &["operator"]) {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::Absent(key),
        "Gt" => Requirement::Greater(key, number()?),
        "Lt" => Requirement::Less(key, number()?),
        _ => return None,
    })
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    split_outside_brackets(text)
        .into_iter()
        .map(|part| {
            parse_label(part).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to parse requirement: invalid label selector \"{part}\""
                ))
            })
        })
        .collect()
}

fn parse_label(part: &str) -> Option<Requirement> {
    let key = |k: &str| Some(k.trim().to_owned()).filter(|k| is_label_key(k));
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].trim_end().strip_suffix(')')?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = part[..open].split_whitespace();
        let k = key(words.next()?)?;
        let operator = words.next()?;
        return match (operator, words.next()) {
            ("in", None) => Some(Requirement::In(k, values)),
            ("notin", None) => Some(Requirement::NotIn(k, values)),
            _ => None,
        };
    }
    if let Some((k, v)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key(k)?, vec![v.trim().to_owned()]));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(key(k)?, vec![v.trim().to_owned()]));
    }
    if let Some((k, v)) = part.split_once('>') {
        return Some(Requirement::Greater(key(k)?, v.trim().parse().ok()?));
    }
    if let Some((k, v)) = part.split_once('<') {
        return Some(Requirement::Less(key(k)?, v.trim().parse().ok()?));
    }
    match part.trim().strip_prefix('!') {
        Some(k) => Some(Requirement::Absent(key(k)?)),
        None => Some(Requirement::Exists(key(part)?)),
    }
}

fn is_label_key(k: &str) -> bool {
    !k.is_empty() && k.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn parse_fields(text: &str, selectable: &[String]) -> Result<Vec<FieldRequirement>, ApiError> {
    let parts = text.split(',').filter(|p| !p.trim().is_empty());
    parts
        .map(|part| {
            let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
                (p, v, false)
            } else if let Some((p, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (p, v, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid field selector: \"{part}\"")));
            };
            let path = path.trim().to_owned();
            if !matches!(path.as_str(), "metadata.name" | "metadata.namespace") && !selectable.contains(&path)
            {
                return Err(ApiError::bad_request(format!("field label not supported: {path}")));
            }
            Ok(FieldRequirement { path, value: value.trim().to_owned(), equal })
        })
        .collect()
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().filter(|p| !p.trim().is_empty()).collect()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "calls of test tables read better with plain values")]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(selector: &str, labels: Value, expect: bool) {
        let s = Selector::parse(selector, "", &[]).unwrap();
        assert_eq!(s.matches(&json!({"metadata": {"labels": labels}})), expect, "{selector}");
    }

    #[test]
    fn label_selectors() {
        check("", json!({}), true);
        check("a=b", json!({"a": "b"}), true);
        check("a==b,c", json!({"a": "b"}), false);
        check("a!=b", json!({}), true);
        check("a in (x, y),b notin (z)", json!({"a": "y"}), true);
        check("a notin (x)", json!({"a": "x"}), false);
        check("!a", json!({"a": ""}), false);
        check("n>3", json!({"n": "4"}), true);
        check("k8s.io/app-name", json!({"k8s.io/app-name": "x"}), true);
        assert_eq!(Selector::parse("a in x", "", &[]).unwrap_err().code, 400);
    }

    #[test]
    fn field_selectors() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "node-a"}, "status": {"phase": "Running"}});
        let fields = ["spec.nodeName".to_owned(), "status.phase".to_owned(), "spec.unschedulable".to_owned()];
        let check = |s: &str, expect| {
            assert_eq!(Selector::parse("", s, &fields).unwrap().matches(&pod), expect, "{s}");
        };
        check("metadata.name=p,spec.nodeName=node-a", true);
        check("status.phase!=Running", false);
        check("spec.unschedulable=false", true);
        assert_eq!(Selector::parse("", "spec.color=red", &fields).unwrap_err().code, 400);
    }
}
