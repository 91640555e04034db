//! OpenAPI documents, as far as `kubectl explain`, field validation and dry run need them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::answer;
use crate::registry::{ResourceDef, SchemaSource, Version};
use crate::schema::definitions;
use crate::store::Store;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers an OpenAPI path; `None` if it is none.
pub(super) fn answer(store: &Store, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["openapi", "v2"] => {
            let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
            Some(if accept.contains("protobuf") {
                answer::typed(StatusCode::OK, V2_PROTOBUF, empty_v2_protobuf())
            } else {
                let info = json!({"title": "Kubernetes", "version": "v1.33.0"});
                answer::json(
                    StatusCode::OK,
                    &json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}),
                )
            })
        }
        ["openapi", "v3"] => Some(answer::json(StatusCode::OK, &index(store))),
        ["openapi", "v3", "api", version] => document(store, "", version),
        ["openapi", "v3", "apis", group, version] => document(store, group, version),
        _ => None,
    }
}

/// A version 2 document without any model. Clients that ask for one (kubectl's client-side apply does) fall back to
/// what they know themselves about built-in kinds, which is all that is needed.
fn empty_v2_protobuf() -> Vec<u8> {
    let mut out = Vec::new();
    let mut field = |number: u8, bytes: &[u8]| {
        // Field number with wire type 2, length, bytes; all lengths here are below 128.
        out.push(number << 3 | 2);
        out.push(u8::try_from(bytes.len()).unwrap_or(0));
        out.extend_from_slice(bytes);
    };
    field(1, b"2.0");
    // Info { title = 1, version = 2 }
    field(2, b"\x0a\x0aKubernetes\x12\x07v1.33.0");
    field(8, b"");
    out
}

fn group_versions(store: &Store) -> BTreeSet<(String, String)> {
    let all = store.resources();
    all.iter().flat_map(|d| d.versions.iter().map(|v| (d.gr.group.to_string(), v.name.clone()))).collect()
}

fn index(store: &Store) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(store) {
        let path =
            if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        // The hash lets clients cache; revisions change it whenever a CRD may have.
        let url = format!("/openapi/v3/{path}?hash={}", store.revision());
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(store: &Store, group: &str, version: &str) -> Option<Response> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for def in store.resources().iter().filter(|d| d.gr.group == group) {
        let Some(v) = def.version(version) else { continue };
        let name = add_schema(def, v, &mut schemas);
        add_paths(def, v, &name, &mut paths);
    }
    if schemas.is_empty() {
        return None;
    }
    add_referenced(&mut schemas);
    let document = json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": paths, "components": {"schemas": schemas},
    });
    Some(answer::json(StatusCode::OK, &document))
}

fn gvk(def: &ResourceDef, version: &str) -> Value {
    json!({"group": def.gr.group, "version": version, "kind": def.kind})
}

fn add_schema(def: &Arc<ResourceDef>, version: &Version, schemas: &mut Map<String, Value>) -> String {
    let (name, mut schema) = match &version.schema {
        SchemaSource::Builtin(name) => (
            (*name).to_owned(),
            definitions().get(*name).cloned().unwrap_or_else(|| json!({"type": "object"})),
        ),
        SchemaSource::Custom(schema) => (custom_name(def, version), (**schema).clone()),
        SchemaSource::Open => (
            custom_name(def, version),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        ),
    };
    schema["x-kubernetes-group-version-kind"] = json!([gvk(def, &version.name)]);
    schemas.insert(name.clone(), schema);
    name
}

/// `com.example.v1.Widget` for kind `Widget` of `example.com/v1`.
fn custom_name(def: &ResourceDef, version: &Version) -> String {
    let mut parts: Vec<&str> = def.gr.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), version.name, def.kind)
}

/// Adds everything the schemas refer to.
fn add_referenced(schemas: &mut Map<String, Value>) {
    let mut wanted: Vec<String> = Vec::new();
    for schema in schemas.values() {
        references(schema, &mut wanted);
    }
    while let Some(name) = wanted.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let Some(schema) = definitions().get(&name) else { continue };
        references(schema, &mut wanted);
        schemas.insert(name, schema.clone());
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                match child.as_str().filter(|_| key == "$ref").and_then(|r| r.rsplit('/').next()) {
                    Some(name) => found.push(name.to_owned()),
                    None => references(child, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn add_paths(def: &ResourceDef, version: &Version, schema: &str, paths: &mut Map<String, Value>) {
    let base = if def.gr.group.is_empty() {
        format!("/api/{}", version.name)
    } else {
        format!("/apis/{}/{}", def.gr.group, version.name)
    };
    let base = if def.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", def.gr.resource)
    } else {
        format!("{base}/{}", def.gr.resource)
    };
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let write = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    let answer = json!({"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}}});
    let operation = |action: &str, parameters: &Value| json!({"parameters": parameters, "responses": answer, "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(def, &version.name)});
    let none = json!([]);
    paths.insert(base.clone(), json!({"get": operation("list", &none), "post": operation("post", &write), "delete": operation("deletecollection", &write)}));
    paths.insert(
        format!("{base}/{{name}}"),
        json!({"get": operation("get", &none), "put": operation("put", &write), "patch": operation("patch", &write), "delete": operation("delete", &write)}),
    );
}
