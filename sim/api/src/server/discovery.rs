//! Which groups, versions and resources there are: `/version`, `/api`, `/apis`, plain and aggregated.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::answer;
use super::reviews::REVIEWS;
use crate::registry::{ResourceDef, Version};
use crate::store::Store;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// A resource or subresource as discovery lists it.
struct Entry {
    name: String,
    singular: String,
    kind: String,
    /// Group and version of the kind where they differ from the resource's.
    of: Option<(&'static str, &'static str)>,
    namespaced: bool,
    verbs: Vec<&'static str>,
    short_names: Vec<String>,
    categories: Vec<String>,
}

/// Group → version → entries; versions best first.
type Catalogue = BTreeMap<String, Vec<(String, Vec<Entry>)>>;

fn catalogue(store: &Store) -> Catalogue {
    let mut all = Catalogue::new();
    let mut add = |group: &str, version: &str, entries: Vec<Entry>| {
        let versions = all.entry(group.to_owned()).or_default();
        match versions.iter_mut().find(|(v, _)| v == version) {
            Some((_, list)) => list.extend(entries),
            None => versions.push((version.to_owned(), entries)),
        }
    };
    for def in store.resources() {
        for version in &def.versions {
            add(&def.gr.group, &version.name, entries(&def, version));
        }
    }
    let events = Entry {
        name: "events".into(),
        singular: "event".into(),
        kind: "Event".into(),
        of: None,
        namespaced: true,
        verbs: VERBS.to_vec(),
        short_names: vec!["ev".into()],
        categories: vec![],
    };
    add("events.k8s.io", "v1", vec![events]);
    for (group, version, plural, kind, namespaced) in REVIEWS {
        let review = Entry {
            name: (*plural).into(),
            singular: kind.to_lowercase(),
            kind: (*kind).into(),
            of: None,
            namespaced: *namespaced,
            verbs: vec!["create"],
            short_names: vec![],
            categories: vec![],
        };
        add(group, version, vec![review]);
    }
    all
}

fn entries(def: &Arc<ResourceDef>, version: &Version) -> Vec<Entry> {
    let plural = &def.gr.resource;
    let mut list = vec![Entry {
        name: plural.to_string(),
        singular: def.singular.clone(),
        kind: def.kind.clone(),
        of: None,
        namespaced: def.namespaced,
        verbs: VERBS.to_vec(),
        short_names: def.short_names.clone(),
        categories: def.categories.clone(),
    }];
    let mut sub = |name: &str, kind: &str, of, verbs: &[&'static str]| {
        list.push(Entry {
            name: format!("{plural}/{name}"),
            singular: String::new(),
            kind: kind.into(),
            of,
            namespaced: def.namespaced,
            verbs: verbs.to_vec(),
            short_names: vec![],
            categories: vec![],
        });
    };
    if version.status {
        sub("status", &def.kind, None, &["get", "patch", "update"]);
    }
    if version.scale.is_some() {
        sub("scale", "Scale", Some(("autoscaling", "v1")), &["get", "patch", "update"]);
    }
    for extra in def.extra {
        match *extra {
            "attach" => sub(extra, "PodAttachOptions", None, &["create", "get"]),
            "exec" => sub(extra, "PodExecOptions", None, &["create", "get"]),
            "portforward" => sub(extra, "PodPortForwardOptions", None, &["create", "get"]),
            "binding" => sub(extra, "Binding", None, &["create"]),
            "eviction" => sub(extra, "Eviction", Some(("policy", "v1")), &["create"]),
            "token" => sub(extra, "TokenRequest", Some(("authentication.k8s.io", "v1")), &["create"]),
            "log" => sub(extra, "Pod", None, &["get"]),
            "finalize" => sub(extra, "Namespace", None, &["update"]),
            _ => sub(extra, &def.kind, None, &["get", "patch", "update"]),
        }
    }
    list
}

/// Answers a discovery path; `None` if it is none.
pub(super) fn answer(store: &Store, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let aggregated = accept
        .split(',')
        .any(|m| m.contains("as=APIGroupDiscoveryList") && m.contains("v=v2") && !m.contains("v2beta1"));
    match parts.as_slice() {
        ["api" | "apis"] if aggregated => {
            let core = parts == ["api"];
            let items: Vec<Value> = catalogue(store)
                .iter()
                .filter(|(g, _)| g.is_empty() == core)
                .map(|(g, v)| group_discovery(g, v))
                .collect();
            let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
            Some(answer::typed(StatusCode::OK, AGGREGATED, list.to_string()))
        }
        ["api"] => Some(answer::json(
            StatusCode::OK,
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        )),
        ["apis"] => {
            let groups: Vec<Value> =
                catalogue(store).iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, v)).collect();
            Some(answer::json(
                StatusCode::OK,
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
            ))
        }
        ["apis", name] => {
            let all = catalogue(store);
            let mut value = group(name, all.get(*name).filter(|_| !name.is_empty())?);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            Some(answer::json(StatusCode::OK, &value))
        }
        ["api", version] => resource_list(store, "", version),
        ["apis", name, version] => resource_list(store, name, version),
        _ => None,
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group(name: &str, versions: &[(String, Vec<Entry>)]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|(v, _)| json!({"groupVersion": group_version(name, v), "version": v})).collect();
    let preferred = list.first().cloned();
    json!({"name": name, "versions": list, "preferredVersion": preferred})
}

fn resource_list(store: &Store, group: &str, version: &str) -> Option<Response> {
    let all = catalogue(store);
    let (_, entries) = all.get(group)?.iter().find(|(v, _)| v == version)?;
    let resources: Vec<Value> = entries
        .iter()
        .map(|e| {
            let mut r = json!({"name": e.name, "singularName": e.singular, "namespaced": e.namespaced, "kind": e.kind, "verbs": e.verbs});
            if let Some((g, v)) = e.of {
                r["group"] = json!(g);
                r["version"] = json!(v);
            }
            if !e.short_names.is_empty() {
                r["shortNames"] = json!(e.short_names);
            }
            if !e.categories.is_empty() {
                r["categories"] = json!(e.categories);
            }
            r
        })
        .collect();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": resources});
    Some(answer::json(StatusCode::OK, &list))
}

fn group_discovery(group: &str, versions: &[(String, Vec<Entry>)]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|(version, entries)| {
            let kind = |e: &Entry| {
                let (g, v) = e.of.unwrap_or((group, version));
                json!({"group": g, "version": v, "kind": e.kind})
            };
            let scope = |e: &Entry| if e.namespaced { "Namespaced" } else { "Cluster" };
            let resources: Vec<Value> = entries
                .iter()
                .filter(|e| !e.name.contains('/'))
                .map(|e| {
                    let subs: Vec<Value> = entries
                        .iter()
                        .filter_map(|s| Some((s.name.strip_prefix(&e.name)?.strip_prefix('/')?, s)))
                        .map(|(name, s)| json!({"subresource": name, "responseKind": kind(s), "verbs": s.verbs}))
                        .collect();
                    let mut r = json!({"resource": e.name, "responseKind": kind(e), "scope": scope(e), "singularResource": e.singular, "verbs": e.verbs});
                    if !e.short_names.is_empty() {
                        r["shortNames"] = json!(e.short_names);
                    }
                    if !e.categories.is_empty() {
                        r["categories"] = json!(e.categories);
                    }
                    if !subs.is_empty() {
                        r["subresources"] = json!(subs);
                    }
                    r
                })
                .collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": list})
}
