//! Who owns which field: `metadata.managedFields` and server-side apply
//! (Kubernetes documentation, "Server-Side Apply").

mod apply;
mod set;

use serde_json::{Value, json};

use crate::object::{at, list_at, map_mut, str_at};
use crate::schema::Schema;

pub use apply::{ApplyError, Conflict, apply};
pub use set::{FieldSet, compare};

/// Who writes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// `apiVersion` of the object as written.
    pub api_version: &'a str,
    /// `status` or another subresource, empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, seconds.
    pub time: &'a str,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) apply: bool,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

impl Entry {
    fn is(&self, writer: &Writer<'_>, apply: bool) -> bool {
        self.apply == apply
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && self.api_version == writer.api_version
    }
}

/// Metadata that nobody owns.
const UNOWNED_METADATA: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:generateName",
    "f:uid",
    "f:resourceVersion",
    "f:creationTimestamp",
    "f:selfLink",
    "f:generation",
    "f:managedFields",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
];

/// The fields of an object that can be owned. Without a subresource the status does not count if `status` is one.
pub(crate) fn owned_fields(value: &Value, schema: Schema<'_>) -> FieldSet {
    strip(FieldSet::of(value, schema))
}

pub(crate) fn strip(mut set: FieldSet) -> FieldSet {
    set.remove_child("f:apiVersion");
    set.remove_child("f:kind");
    if let Some(metadata) = set.child_mut("f:metadata") {
        for field in UNOWNED_METADATA {
            metadata.remove_child(field);
        }
        if metadata.is_empty() {
            set.remove_child("f:metadata");
        }
    }
    set
}

pub(crate) fn decode(object: &Value) -> Vec<Entry> {
    let entries = list_at(object, &["metadata", "managedFields"]).iter();
    entries
        .filter(|e| e.get("fieldsV1").is_some())
        .map(|e| Entry {
            manager: str_at(e, &["manager"]).to_owned(),
            apply: str_at(e, &["operation"]) == "Apply",
            api_version: str_at(e, &["apiVersion"]).to_owned(),
            subresource: str_at(e, &["subresource"]).to_owned(),
            time: str_at(e, &["time"]).to_owned(),
            fields: FieldSet::from_json(&e["fieldsV1"]),
        })
        .collect()
}

pub(crate) fn encode(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    // Appliers first, then updaters by time, as the API server sorts them.
    entries.sort_by(|a, b| {
        (b.apply, &a.time, &a.manager, &a.subresource).cmp(&(a.apply, &b.time, &b.manager, &b.subresource))
    });
    let metadata = map_mut(object, &["metadata"]);
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
        return;
    }
    let list = entries.into_iter().map(|e| {
        let mut entry = json!({
            "manager": e.manager,
            "operation": if e.apply { "Apply" } else { "Update" },
            "apiVersion": e.api_version,
            "time": e.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": e.fields.to_json(),
        });
        if !e.subresource.is_empty() {
            entry["subresource"] = json!(e.subresource);
        }
        entry
    });
    let list = list.collect();
    metadata.insert("managedFields".into(), list);
}

/// Notes who changed what by a create, update or patch that is not an apply.
pub fn record_update(old: Option<&Value>, new: &mut Value, schema: Schema<'_>, writer: &Writer<'_>) {
    // A client may rewrite managedFields (kubectl does when it turns client-side into server-side apply); an empty
    // list means that it left them out.
    let mut entries = decode(new);
    let reset =
        at(new, &["metadata", "managedFields"]).as_array().is_some_and(|l| l.len() == 1 && l[0] == json!({}));
    if entries.is_empty() && !reset {
        entries = old.map(decode).unwrap_or_default();
    }
    let (changed, removed) = compare(old.unwrap_or(&Value::Null), new, schema);
    let (changed, removed) = (strip(changed), strip(removed));
    if changed.is_empty() && removed.is_empty() {
        encode(new, entries);
        return;
    }
    let gone = changed.union(&removed);
    for entry in entries.iter_mut().filter(|e| !e.is(writer, false)) {
        entry.fields = entry.fields.minus(&gone);
    }
    match entries.iter_mut().find(|e| e.is(writer, false)) {
        Some(mine) => {
            mine.fields = mine.fields.union(&changed).minus(&removed);
            writer.time.clone_into(&mut mine.time);
        }
        None => entries.push(Entry {
            manager: writer.manager.to_owned(),
            apply: false,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.time.to_owned(),
            fields: changed,
        }),
    }
    encode(new, entries);
}
