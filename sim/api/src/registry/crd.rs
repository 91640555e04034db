//! Resources that come from CustomResourceDefinitions (apiextensions.k8s.io/v1).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{CrdColumn, ResourceDef, ScalePaths, SchemaSource, Version};
use crate::object::{at, bool_at, int_at, list_at, map_mut, set, str_at};
use crate::resource::Gr;

/// The resource a CRD defines; `None` if it serves no version.
pub(crate) fn definition_from_crd(crd: &Value) -> Option<ResourceDef> {
    let spec = at(crd, &["spec"]);
    let names = at(spec, &["names"]);
    let mut versions: Vec<Version> =
        list_at(spec, &["versions"]).iter().filter(|v| bool_at(v, &["served"])).map(version).collect();
    versions.sort_by_key(|v| std::cmp::Reverse(priority(&v.name)));
    let first = versions.first()?.name.clone();
    let storage = list_at(spec, &["versions"]).iter().find(|v| bool_at(v, &["storage"]));
    let storage =
        storage.map(|v| str_at(v, &["name"]).to_owned()).filter(|n| versions.iter().any(|v| v.name == *n));
    let kind = str_at(names, &["kind"]).to_owned();
    let texts =
        |key: &str| list_at(names, &[key]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let or = |key: &str, default: String| {
        Some(str_at(names, &[key])).filter(|s| !s.is_empty()).map_or(default, str::to_owned)
    };
    let selectable = list_at(spec, &["versions"])
        .iter()
        .flat_map(|v| list_at(v, &["selectableFields"]))
        .map(|f| str_at(f, &["jsonPath"]).trim_start_matches('.').to_owned())
        .collect();
    Some(ResourceDef {
        gr: Gr::of(str_at(spec, &["group"]), str_at(names, &["plural"])),
        list_kind: or("listKind", format!("{kind}List")),
        singular: or("singular", kind.to_lowercase()),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: str_at(spec, &["scope"]) == "Namespaced",
        storage: storage.unwrap_or(first),
        generation: true,
        custom: true,
        extra: &[],
        kind,
        versions,
        selectable,
    })
}

fn version(v: &Value) -> Version {
    let subresources = at(v, &["subresources"]);
    let scale = at(subresources, &["scale"]);
    let path = |key: &str| str_at(scale, &[key]).trim_start_matches('.').to_owned();
    let mut schema = at(v, &["schema", "openAPIV3Schema"]).clone();
    let schema = if schema.is_object() {
        // Every object has these, whether the CRD lists them or not.
        let properties = map_mut(&mut schema, &["properties"]);
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
        properties.insert(
            "metadata".into(),
            json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}),
        );
        SchemaSource::Custom(Arc::new(schema))
    } else {
        SchemaSource::Open
    };
    let columns = list_at(v, &["additionalPrinterColumns"]).iter().map(|c| CrdColumn {
        name: str_at(c, &["name"]).to_owned(),
        kind: str_at(c, &["type"]).to_owned(),
        format: str_at(c, &["format"]).to_owned(),
        description: str_at(c, &["description"]).to_owned(),
        priority: int_at(c, &["priority"]).unwrap_or(0),
        path: str_at(c, &["jsonPath"]).to_owned(),
    });
    Version {
        name: str_at(v, &["name"]).to_owned(),
        schema,
        status: subresources.get("status").is_some(),
        scale: scale.is_object().then(|| ScalePaths {
            spec: path("specReplicasPath"),
            status: path("statusReplicasPath"),
            selector: Some(path("labelSelectorPath")).filter(|p| !p.is_empty()),
        }),
        columns: columns.collect(),
    }
}

/// Sorts `v2` before `v1` before `v1beta1` before `v1alpha1` before names without that form
/// (Kubernetes documentation, "Versions in CustomResourceDefinitions", version priority).
fn priority(name: &str) -> (u8, u32, u32) {
    let Some(rest) = name.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (major, tail) = rest.split_at(digits);
    let Ok(major) = major.parse() else { return (0, 0, 0) };
    let number = |t: &str| t.parse().ok();
    if tail.is_empty() {
        (3, major, 0)
    } else if let Some(minor) = tail.strip_prefix("beta").and_then(number) {
        (2, major, minor)
    } else if let Some(minor) = tail.strip_prefix("alpha").and_then(number) {
        (1, major, minor)
    } else {
        (0, 0, 0)
    }
}

/// Fills in what the API server decides about a CRD: names it left out, that they are accepted, that it is served.
pub(crate) fn establish(crd: &mut Value, now: &str) {
    let kind = str_at(crd, &["spec", "names", "kind"]).to_owned();
    for (key, default) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if str_at(crd, &["spec", "names", key]).is_empty() {
            set(crd, &["spec", "names", key], json!(default));
        }
    }
    if at(crd, &["spec", "conversion"]).is_null() {
        set(crd, &["spec", "conversion"], json!({"strategy": "None"}));
    }
    let names = at(crd, &["spec", "names"]).clone();
    let stored = list_at(crd, &["spec", "versions"])
        .iter()
        .find(|v| bool_at(v, &["storage"]))
        .map(|v| v["name"].clone());
    let mut stored_versions: Vec<Value> = list_at(crd, &["status", "storedVersions"]).to_vec();
    if let Some(stored) = stored.filter(|s| !stored_versions.contains(s)) {
        stored_versions.push(stored);
    }
    let keep = |kind: &str| {
        crate::object::condition(crd, kind)
            .and_then(|c| c["lastTransitionTime"].as_str())
            .unwrap_or(now)
            .to_owned()
    };
    let (accepted, established) = (keep("NamesAccepted"), keep("Established"));
    let conditions = json!([
        {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found", "lastTransitionTime": accepted},
        {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted", "lastTransitionTime": established},
    ]);
    let terminating = crate::object::condition(crd, "Terminating").cloned();
    set(crd, &["status", "acceptedNames"], names);
    set(crd, &["status", "storedVersions"], Value::Array(stored_versions));
    set(crd, &["status", "conditions"], conditions);
    if let (Some(t), Some(list)) = (terminating, crd["status"]["conditions"].as_array_mut()) {
        list.push(t);
    }
}
