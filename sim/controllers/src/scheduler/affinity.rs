//! Pods that want to be near to or far from other pods.

use serde_json::Value;
use sim_api::Selector;
use sim_api::object::{at, int_at, list_at, name, namespace, str_at};
use sim_api::store::Object;

use super::View;
use crate::pods::label;

/// The required terms of `podAffinity` or `podAntiAffinity`.
fn required<'a>(pod: &'a Value, kind: &str) -> &'a [Value] {
    list_at(pod, &["spec", "affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"])
}

/// True if a term of `pod` means `other`.
fn means(view: &View, pod: &Value, term: &Value, other: &Value) -> bool {
    let names = list_at(term, &["namespaces"]);
    let by_label = at(term, &["namespaceSelector"]);
    let here = if names.is_empty() && by_label.is_null() {
        namespace(other) == namespace(pod)
    } else {
        let selected = || {
            let selector = Selector::from_label_selector(by_label);
            view.namespaces.iter().any(|n| name(n) == namespace(other) && selector.matches(n))
        };
        names.iter().any(|n| n == namespace(other)) || !by_label.is_null() && selected()
    };
    let selector = at(term, &["labelSelector"]);
    here && !selector.is_null() && Selector::from_label_selector(selector).matches(other)
}

/// Pods in the same domain of a topology as `node`.
fn nearby<'a>(view: &'a View, node: &Value, topology: &str) -> impl Iterator<Item = &'a Object> {
    let domain = label(node, topology).to_owned();
    let topology = topology.to_owned();
    let nodes = view.nodes.iter().filter(move |n| !domain.is_empty() && label(n, &topology) == domain);
    nodes.filter_map(|n| view.placed.get(name(n))).flatten()
}

/// Checks required affinity and anti-affinity, that of the pods already there included.
pub(super) fn fits(view: &View, pod: &Value, node: &Value) -> Result<(), String> {
    for term in required(pod, "podAffinity") {
        let topology = str_at(term, &["topologyKey"]);
        if nearby(view, node, topology).any(|p| means(view, pod, term, p)) {
            continue;
        }
        // The first of a group that wants to be together has nobody to join.
        let alone = !view.placed.values().flatten().any(|p| means(view, pod, term, p));
        if !(alone && means(view, pod, term, pod) && !label(node, topology).is_empty()) {
            return Err("node(s) didn't match pod affinity rules".into());
        }
    }
    for term in required(pod, "podAntiAffinity") {
        if nearby(view, node, str_at(term, &["topologyKey"])).any(|p| means(view, pod, term, p)) {
            return Err("node(s) didn't match pod anti-affinity rules".into());
        }
    }
    let objects = view.placed.values().flatten().any(|other| {
        required(other, "podAntiAffinity").iter().any(|term| {
            means(view, other, term, pod)
                && nearby(view, node, str_at(term, &["topologyKey"]))
                    .any(|p| std::sync::Arc::ptr_eq(p, other))
        })
    });
    if objects { Err("node(s) didn't satisfy existing pods anti-affinity rules".into()) } else { Ok(()) }
}

/// Sum of the weights of preferred terms that hold on this node.
pub(super) fn preference(view: &View, pod: &Value, node: &Value) -> i64 {
    let sum = |kind: &str| -> i64 {
        let preferred =
            list_at(pod, &["spec", "affinity", kind, "preferredDuringSchedulingIgnoredDuringExecution"]);
        let holds = |p: &&Value| {
            let term = at(p, &["podAffinityTerm"]);
            nearby(view, node, str_at(term, &["topologyKey"])).any(|other| means(view, pod, term, other))
        };
        preferred.iter().filter(holds).filter_map(|p| int_at(p, &["weight"])).sum()
    };
    sum("podAffinity") - sum("podAntiAffinity")
}
