//! Schemas of objects: types of fields, how lists and maps merge, checking and pruning.

mod builtin;
mod check;
mod rules;
pub(crate) mod structural;

use serde_json::Value;

pub use builtin::definitions;
pub use check::{Findings, check};

/// How the elements of a list belong together (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType<'a> {
    /// Replaced as a whole.
    Atomic,
    /// Different scalars.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<&'a str>),
}

/// A place in a schema. References lead into the built-in definitions.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    node: &'a Value,
}

static NOTHING: Value = Value::Null;

impl Schema<'static> {
    /// A built-in definition by its full name; open if there is none of that name.
    pub fn builtin(name: &str) -> Self {
        Self { node: definitions().get(name).unwrap_or(&NOTHING) }
    }

    /// A schema that allows everything.
    pub fn open() -> Self {
        Self { node: &NOTHING }
    }
}

impl<'a> Schema<'a> {
    /// The schema `node`.
    pub fn new(node: &'a Value) -> Self {
        Self { node }.resolved()
    }

    fn anything() -> Self {
        Self { node: &NOTHING }
    }

    fn resolved(self) -> Self {
        let mut node = self.node;
        // A chain of references is short; the bound guards against a circle in a CRD.
        for _ in 0..8 {
            let reference = node.get("$ref").or_else(|| node.get("allOf")?.as_array()?.first()?.get("$ref"));
            let Some(target) = reference.and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) else {
                break;
            };
            node = definitions().get(target).unwrap_or(&NOTHING);
        }
        Self { node }
    }

    /// True if nothing is known about the fields, so that any may stand here.
    pub fn is_open(self) -> bool {
        self.node.is_null()
            || self.preserves_unknown()
            || self.type_name().is_empty() && !self.is_int_or_string()
    }

    /// `type`, empty if any.
    pub fn type_name(self) -> &'a str {
        self.node.get("type").and_then(Value::as_str).unwrap_or("")
    }

    /// The plain value of a keyword.
    pub fn keyword(self, key: &str) -> Option<&'a Value> {
        self.node.get(key)
    }

    /// All keywords with their plain values.
    pub fn keywords(self) -> Option<&'a serde_json::Map<String, Value>> {
        self.node.as_object()
    }

    /// `x-kubernetes-preserve-unknown-fields`.
    pub fn preserves_unknown(self) -> bool {
        self.flag("x-kubernetes-preserve-unknown-fields")
    }

    /// `x-kubernetes-int-or-string`.
    pub fn is_int_or_string(self) -> bool {
        self.flag("x-kubernetes-int-or-string")
    }

    fn flag(self, key: &str) -> bool {
        self.node.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// True if fields of this place have fixed names.
    pub fn has_properties(self) -> bool {
        self.node.get("properties").is_some()
    }

    /// The fixed fields.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        self.node
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), Schema::new(v)))
    }

    /// The schema of a fixed field.
    pub fn property(self, name: &str) -> Option<Self> {
        Some(Self::new(self.node.get("properties")?.get(name)?))
    }

    /// The unresolved node of a fixed field, which carries what is said about the field and not about its type.
    fn raw_property(self, name: &str) -> Option<&'a Value> {
        self.node.get("properties")?.get(name)
    }

    /// The schema of a field, fixed or free; `None` if no such field may stand here.
    pub fn field(self, name: &str) -> Option<Self> {
        if let Some(property) = self.property(name) {
            return Some(property);
        }
        match self.node.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Self::anything()),
            Some(schema @ Value::Object(_)) => Some(Self::new(schema)),
            _ if self.is_open() => Some(Self::anything()),
            // `type: object` without anything else says nothing about its fields (built-in definitions only:
            // in a CRD this means that they are pruned, and the check does that).
            _ => None,
        }
    }

    /// The schema of a field, open if it may not stand here.
    #[must_use]
    pub fn field_or_open(self, name: &str) -> Self {
        self.field(name).unwrap_or_else(Self::anything)
    }

    /// The schema of list elements.
    #[must_use]
    pub fn items(self) -> Self {
        self.node.get("items").map_or_else(Self::anything, Self::new)
    }

    /// How the list at `field` merges.
    pub fn list_type(self) -> ListType<'a> {
        match self.node.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => {
                let keys = self.node.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                ListType::Map(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            _ => ListType::Atomic,
        }
    }

    /// True if a map here is replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub fn is_atomic_map(self) -> bool {
        self.node.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
    }

    /// The field that tells elements apart in a strategic merge patch of the list at `field`, if it merges.
    pub fn merge_key(self, field: &str) -> Option<&'a str> {
        self.raw_property(field)?.get("x-kubernetes-patch-merge-key")?.as_str()
    }

    /// The strategy of a strategic merge patch of `field` (`merge`, `replace`, `retainKeys`, or several).
    pub fn merge_strategy(self, field: &str) -> &'a str {
        self.raw_property(field)
            .and_then(|n| n.get("x-kubernetes-patch-strategy"))
            .and_then(Value::as_str)
            .unwrap_or("")
    }
}
