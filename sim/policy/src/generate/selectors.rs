//! The vocabulary: selectors, networks and ports.

use serde_json::{Value, json};

use super::cluster::NAMESPACES;
use super::{Draw, Feature};

/// Networks that hold some of the addresses outside, some of pods and some of nodes.
pub(super) const NETWORKS: &[&str] = &[
    "203.0.113.0/24",
    "203.0.113.64/26",
    "203.0.113.77/32",
    "198.51.100.0/24",
    "192.0.0.0/8",
    "0.0.0.0/0",
    "10.10.0.0/28",
    "10.10.0.0/16",
    "10.10.1.0/24",
    "10.10.1.2/31",
    "172.18.0.0/16",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "fd00:10::/32",
    "::/0",
];

/// Networks with exceptions in them.
const WITH_EXCEPTIONS: &[(&str, &[&str])] = &[
    ("203.0.113.0/24", &["203.0.113.64/26"]),
    ("203.0.113.0/24", &["203.0.113.77/32", "203.0.113.200/32"]),
    ("0.0.0.0/0", &["198.51.100.0/24", "10.0.0.0/8"]),
    ("10.0.0.0/8", &["10.10.2.0/24", "10.10.1.4/30"]),
    ("2001:db8::/32", &["2001:db8:1::/48"]),
    ("fd00:10::/32", &["fd00:10:2::/48"]),
    ("::/0", &["2001:db8::/32", "fd00::/8"]),
];

/// Ports by protocol that rules name and attempts try.
pub(super) const PORTS: &[(&str, u16)] = &[
    ("TCP", 80),
    ("TCP", 81),
    ("TCP", 5432),
    ("TCP", 8080),
    ("TCP", 8085),
    ("UDP", 53),
    ("UDP", 80),
    ("SCTP", 80),
    ("SCTP", 8085),
];

/// Names of ports of pods, and one that nobody has.
pub(super) const PORT_NAMES: &[&str] = &["web", "web", "dns", "data", "nobody"];

/// A selector of pods as NetworkPolicies have it.
pub(super) fn of_pods(draw: &mut Draw<'_>) -> Value {
    selector(draw, &|key| key.to_owned())
}

/// A selector of namespaces by labels.
pub(super) fn of_namespaces(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 5) {
        0 => json!({}),
        1 => json!({"matchLabels": {"env": draw.pick(&["prod", "dev"])}}),
        2 => json!({"matchLabels": {"kubernetes.io/metadata.name": draw.pick(NAMESPACES)}}),
        3 => {
            json!({"matchExpressions": [{"key": "team", "operator": draw.pick(&["Exists", "DoesNotExist"])}]})
        }
        4 => json!({"matchExpressions": [
            {"key": "env", "operator": draw.pick(&["In", "NotIn"]), "values": [draw.pick(&["prod", "dev"])]},
        ]}),
        _ => json!({"matchLabels": {"team": draw.pick(&["red", "blue"])}}),
    }
}

/// A selector of nodes by labels.
pub(super) fn of_nodes(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 2) {
        0 => json!({}),
        1 => json!({"matchLabels": {"zone": draw.pick(&["east", "west"])}}),
        _ => {
            json!({"matchExpressions": [{"key": "disk", "operator": draw.pick(&["Exists", "DoesNotExist"])}]})
        }
    }
}

/// The endpointSelector of a policy of Cilium's.
pub(super) fn of_subjects(draw: &mut Draw<'_>) -> Value {
    let source = draw.pick(&["", "", "k8s:", "any:"]);
    selector(draw, &|key| format!("{source}{key}"))
}

/// A selector in `fromEndpoints` and `toEndpoints`. `namespaced` is for policies of a namespace; in those of the cluster reserved
/// labels are what tells nodes and the world from pods.
pub(super) fn of_endpoints(draw: &mut Draw<'_>, namespaced: bool) -> Value {
    if draw.has(Feature::ReservedKeys) && draw.percent(if namespaced { 8 } else { 12 }) {
        return reserved(draw);
    }
    let source = draw.pick(&["", "", "k8s:", "any:"]);
    let mut selector = selector(draw, &|key| format!("{source}{key}"));
    let source = draw.pick(&["", "k8s:"]);
    let requirement = match draw.number(0, 9) {
        0 | 1 => {
            let key = format!("{source}io.kubernetes.pod.namespace");
            json!({"key": key, "operator": "In", "values": [draw.pick(NAMESPACES)]})
        }
        2 => {
            let key = format!("{source}io.kubernetes.pod.namespace");
            json!({"key": key, "operator": draw.pick(&["NotIn", "In"]), "values": ["shop", "team-a"]})
        }
        3 | 4 => {
            let key = format!("{source}io.cilium.k8s.namespace.labels.env");
            json!({"key": key, "operator": "In", "values": [draw.pick(&["prod", "dev"])]})
        }
        5 => json!({
            "key": format!("{source}io.cilium.k8s.policy.serviceaccount"), "operator": "In", "values": ["robot"],
        }),
        6 => json!({
            "key": format!("{source}io.cilium.k8s.policy.cluster"),
            "operator": "In",
            "values": [draw.pick(&["default", "default", "far"])],
        }),
        _ => return selector,
    };
    // Pairs do not have operators, so all are written as expressions.
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(list) => list.push(requirement),
        None => selector["matchExpressions"] = json!([requirement]),
    }
    selector
}

fn reserved(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 5) {
        0 => json!({"matchLabels": {"reserved:host": ""}}),
        1 => json!({"matchLabels": {"reserved:remote-node": ""}}),
        2 => json!({"matchLabels": {"reserved:world": ""}}),
        3 if draw.has(Feature::ApiServer) => {
            json!({"matchExpressions": [{"key": "reserved:kube-apiserver", "operator": "Exists"}]})
        }
        3 | 4 => json!({"matchExpressions": [
            {"key": "reserved:world", "operator": "DoesNotExist"},
            {"key": "tier", "operator": "DoesNotExist"},
        ]}),
        _ => json!({"matchExpressions": [
            {"key": "reserved:remote-node", "operator": "DoesNotExist"},
            {"key": "app", "operator": draw.pick(&["Exists", "DoesNotExist"])},
        ]}),
    }
}

/// By the labels that pods have; `name` says how a key is written.
fn selector(draw: &mut Draw<'_>, name: &dyn Fn(&str) -> String) -> Value {
    let app = name("app");
    let tier = name("tier");
    if draw.has(Feature::FilteredLabels) && draw.percent(6) {
        let key = name(draw.pick(&["pod-template-hash", "topology.kubernetes.io/zone"]));
        return match draw.number(0, 2) {
            0 => json!({"matchLabels": {key: draw.pick(&["aaa", "east"])}}),
            1 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
            _ => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": ["aaa", "west"]}]}),
        };
    }
    match draw.number(0, 8) {
        0 | 1 => json!({}),
        2 | 3 => json!({"matchLabels": {app: draw.pick(&["web", "db", "cache"])}}),
        4 => json!({"matchLabels": {app: draw.pick(&["web", "db"]), tier: draw.pick(&["front", "back"])}}),
        5 => json!({"matchExpressions": [
            {"key": app, "operator": draw.pick(&["In", "NotIn"]), "values": ["web", draw.pick(&["db", "cache"])]},
        ]}),
        6 => json!({"matchExpressions": [{"key": tier, "operator": draw.pick(&["Exists", "DoesNotExist"])}]}),
        7 => json!({"matchLabels": {name("app.kubernetes.io/name"): draw.pick(&["web", "db"])}}),
        _ => json!({
            "matchLabels": {tier: draw.pick(&["front", "back"])},
            "matchExpressions": [{"key": app, "operator": "NotIn", "values": [draw.pick(&["web", "db"])]}],
        }),
    }
}

/// A network, and exceptions in it if there are some.
pub(super) fn network(draw: &mut Draw<'_>) -> (&'static str, &'static [&'static str]) {
    if draw.percent(40) { draw.pick(WITH_EXCEPTIONS) } else { (draw.pick(NETWORKS), &[]) }
}
