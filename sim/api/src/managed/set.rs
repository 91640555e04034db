//! Sets of fields in the form of `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{ListType, Schema};

/// A set of field paths as a tree. Keys are path elements as `FieldsV1` writes them: `f:name` for a field,
/// `k:{"name":"x"}` for an element of a keyed list, `v:"x"` for an element of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// True if no path is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// All fields of a value.
    pub fn of(value: &Value, schema: Schema<'_>) -> Self {
        match value {
            Value::Object(map) if !schema.is_atomic_map() => Self::of_map(map, schema),
            Value::Array(items) => match schema.list_type() {
                ListType::Atomic => Self::leaf(),
                list => {
                    let children = items.iter().map(|item| {
                        let mut child = if list == ListType::Set {
                            Self::default()
                        } else {
                            Self::of(item, schema.items())
                        };
                        child.member = true;
                        (element(item, &list), child)
                    });
                    Self { member: false, children: children.collect() }
                }
            },
            _ => Self::leaf(),
        }
    }

    fn of_map(map: &Map<String, Value>, schema: Schema<'_>) -> Self {
        let children = map.iter().map(|(key, value)| {
            let mut child = Self::of(value, schema.field_or_open(key));
            let fixed = schema.property(key).is_some();
            // Elements of free maps and empty structs are members themselves.
            if !fixed || value.is_null() || value.as_object().is_some_and(Map::is_empty) {
                child.member = true;
            }
            (format!("f:{key}"), child)
        });
        Self { member: false, children: children.collect() }
    }

    /// Reads `fieldsV1`.
    pub fn from_json(value: &Value) -> Self {
        let mut root = Self::parse(value);
        root.member = false;
        root
    }

    fn parse(value: &Value) -> Self {
        let map = value.as_object();
        let children: BTreeMap<String, Self> = map
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != ".")
            .map(|(k, v)| (k.clone(), Self::parse(v)))
            .collect();
        Self { member: children.is_empty() || value.get(".").is_some(), children }
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (key, child) in self.children.iter().filter(|(_, c)| !c.is_empty()) {
            map.insert(key.clone(), child.to_json());
        }
        Value::Object(map)
    }

    /// Paths in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.member |= other.member;
        for (key, child) in &other.children {
            let merged = result.children.get(key).map_or_else(|| child.clone(), |mine| mine.union(child));
            result.children.insert(key.clone(), merged);
        }
        result
    }

    /// Paths in this and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(key, child)| {
            let rest = other.children.get(key).map_or_else(|| child.clone(), |theirs| child.minus(theirs));
            (!rest.is_empty()).then(|| (key.clone(), rest))
        });
        Self { member: self.member && !other.member, children: children.collect() }
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(key, child)| {
            let both = child.intersection(other.children.get(key)?);
            (!both.is_empty()).then(|| (key.clone(), both))
        });
        Self { member: self.member && other.member, children: children.collect() }
    }

    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        self.children.get(key)
    }

    pub(crate) fn child_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.children.get_mut(key)
    }

    pub(crate) fn remove_child(&mut self, key: &str) {
        self.children.remove(key);
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member
    }

    /// The paths as users read them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect_paths("", &mut all);
        all
    }

    fn collect_paths(&self, prefix: &str, all: &mut Vec<String>) {
        if self.member {
            all.push(prefix.to_owned());
        }
        for (key, child) in &self.children {
            let step = if let Some(field) = key.strip_prefix("f:") {
                format!(".{field}")
            } else if let Some(keys) = key.strip_prefix("k:") {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let list: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", list.join(","))
            } else {
                format!("[={}]", key.split_once(':').map_or("", |(_, v)| v))
            };
            child.collect_paths(&format!("{prefix}{step}"), all);
        }
    }
}

/// The path element of a list element.
pub(crate) fn element(item: &Value, list: &ListType<'_>) -> String {
    match list {
        ListType::Map(keys) => {
            let mut sorted: Vec<&str> = keys.clone();
            sorted.sort_unstable();
            let pairs = sorted.iter().filter_map(|k| {
                // The protocol of a port is part of its key and has a default.
                let value = k.split('.').try_fold(item, |v, part| v.get(part)).cloned();
                let value = value.or_else(|| (*k == "protocol").then(|| Value::from("TCP")))?;
                Some(((*k).to_owned(), value))
            });
            format!("k:{}", Value::Object(pairs.collect()))
        }
        _ => format!("v:{item}"),
    }
}

/// What differs between two values: paths that are new or have another value, and paths that are gone.
pub fn compare(old: &Value, new: &Value, schema: Schema<'_>) -> (FieldSet, FieldSet) {
    if old == new {
        return (FieldSet::default(), FieldSet::default());
    }
    let (mut changed, mut removed) = (FieldSet::default(), FieldSet::default());
    match (old, new) {
        (Value::Null, _) => changed = FieldSet::of(new, schema),
        (_, Value::Null) => removed = FieldSet::of(old, schema),
        (Value::Object(a), Value::Object(b)) if !schema.is_atomic_map() => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let (x, y) = (a.get(key), b.get(key));
                let fixed = schema.property(key).is_some();
                let (mut c, mut r) =
                    compare(x.unwrap_or(&Value::Null), y.unwrap_or(&Value::Null), schema.field_or_open(key));
                let counts =
                    |v: Option<&Value>| !fixed || v.and_then(Value::as_object).is_some_and(Map::is_empty);
                c.member |= x.is_none() && counts(y);
                r.member |= y.is_none() && counts(x);
                insert(&mut changed, &format!("f:{key}"), c);
                insert(&mut removed, &format!("f:{key}"), r);
            }
        }
        (Value::Array(a), Value::Array(b)) if schema.list_type() != ListType::Atomic => {
            let list = schema.list_type();
            let index = |items: &[Value]| {
                items.iter().map(|i| (element(i, &list), i.clone())).collect::<BTreeMap<_, _>>()
            };
            let (a, b) = (index(a), index(b));
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let (x, y) = (a.get(key), b.get(key));
                let (mut c, mut r) = if list == ListType::Set {
                    (FieldSet::default(), FieldSet::default())
                } else {
                    compare(x.unwrap_or(&Value::Null), y.unwrap_or(&Value::Null), schema.items())
                };
                c.member |= x.is_none();
                r.member |= y.is_none();
                insert(&mut changed, key, c);
                insert(&mut removed, key, r);
            }
        }
        _ => {
            changed = FieldSet::of(new, schema);
            // A place that turned from a tree into a leaf (or back) loses its old paths.
            removed = FieldSet::of(old, schema).minus(&changed);
        }
    }
    (changed, removed)
}

fn insert(set: &mut FieldSet, key: &str, child: FieldSet) {
    if !child.is_empty() {
        set.children.insert(key.to_owned(), child);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_of_a_pod() {
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}], "nodeSelector": {"x": "y"}}});
        let set = FieldSet::of(&pod, Schema::builtin("io.k8s.api.core.v1.Pod"));
        let expect = json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}, "f:nodeSelector": {}},
        });
        assert_eq!(set.to_json(), expect);
        assert_eq!(FieldSet::from_json(&expect), set);
    }
}
