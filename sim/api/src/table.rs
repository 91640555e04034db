//! Tables: the columns `kubectl get` shows (`meta.k8s.io/v1` Table).

mod custom;
mod duration;
mod kinds;
mod pod;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::{ResourceDef, Version};

pub(crate) use duration::age;

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    /// 0: always shown; 1: with `-o wide`.
    pub(crate) priority: i64,
}

/// A column of a built-in kind.
pub(crate) fn column(name: &str, priority: i64) -> Column {
    let format = if name == "Name" { "name" } else { "" };
    let kind = match name {
        "Desired"
        | "Current"
        | "Up-to-date"
        | "Available"
        | "Data"
        | "Number"
        | "Count"
        | "Value"
        | "Allowed Disruptions" => "integer",
        _ => "string",
    };
    Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: String::new(),
        priority,
    }
}

/// Which part of the object goes with a row (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    /// Only its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

fn columns(def: &ResourceDef, version: &Version) -> Vec<Column> {
    if def.custom {
        return custom::columns(version);
    }
    kinds::columns(&def.gr.group, &def.kind)
}

fn cells(def: &ResourceDef, version: &Version, object: &Value, now: Timestamp) -> Vec<Value> {
    if def.custom {
        return custom::cells(version, object, now);
    }
    kinds::cells(&def.gr.group, &def.kind, object, now)
}

/// Only type and metadata of an object.
pub(crate) fn partial_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A table of objects. `with_columns` is false for all but the first event of a watch.
pub(crate) fn table<'a>(
    def: &ResourceDef,
    version: &Version,
    objects: impl Iterator<Item = &'a Value>,
    include: IncludeObject,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let definitions: Vec<Value> = if with_columns {
        let list = columns(def, version).into_iter();
        list.map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})).collect()
    } else {
        Vec::new()
    };
    let rows: Vec<Value> = objects
        .map(|object| {
            let shown = match include {
                IncludeObject::Metadata => partial_metadata(object),
                IncludeObject::Object => object.clone(),
                IncludeObject::None => Value::Null,
            };
            let mut row = json!({"cells": cells(def, version, object, now)});
            if !shown.is_null() {
                row["object"] = shown;
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions, "rows": rows})
}
