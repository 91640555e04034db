//! Specs of ClusterNetworkPolicies.

use serde_json::{Value, json};

use super::selectors::{self, NETWORKS, PORT_NAMES, PORTS};
use super::{Draw, Feature};

pub(super) fn spec(draw: &mut Draw<'_>) -> Value {
    let mut spec = json!({
        "tier": draw.pick(&["Admin", "Baseline"]),
        // Equal ones happen.
        "priority": draw.pick(&[0, 1, 5, 5, 10, 1000]),
        "subject": pods(draw),
    });
    for list in ["ingress", "egress"] {
        if draw.percent(70) {
            spec[list] = json!(draw.list(0, 3, |draw| rule(draw, list)));
        }
    }
    spec
}

fn pods(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 3) {
        0 | 1 => json!({"namespaces": selectors::of_namespaces(draw)}),
        2 => json!({"pods": {"podSelector": selectors::of_pods(draw)}}),
        _ => json!({"pods": {
            "namespaceSelector": selectors::of_namespaces(draw), "podSelector": selectors::of_pods(draw),
        }}),
    }
}

fn rule(draw: &mut Draw<'_>, list: &str) -> Value {
    let action = draw.pick(&["Accept", "Deny", "Deny", "Pass"]);
    let is_egress = list == "egress";
    // Networks and nodes have no names of ports.
    let is_named = draw.has(Feature::NamedPorts) && draw.percent(15);
    let peers = draw.list(1, 3, |draw| if is_egress && !is_named { egress_peer(draw) } else { pods(draw) });
    let mut rule = json!({"action": action, if is_egress { "to" } else { "from" }: peers});
    if is_named {
        rule["protocols"] = json!([{"destinationNamedPort": draw.pick(PORT_NAMES)}]);
    } else if draw.percent(50) {
        rule["protocols"] = json!(draw.list(1, 3, protocol));
    }
    rule
}

fn egress_peer(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 9) {
        0..=2 => json!({"networks": [draw.pick(NETWORKS)]}),
        3 => json!({"networks": ["203.0.113.0/24", "2001:db8::/32"]}),
        4 if draw.has(Feature::Nodes) => json!({"nodes": selectors::of_nodes(draw)}),
        _ => pods(draw),
    }
}

fn protocol(draw: &mut Draw<'_>) -> Value {
    let (protocol, number) = draw.pick(PORTS);
    let port = match draw.number(0, 3) {
        0 => json!({"range": {"start": 80, "end": draw.pick(&[81, 8080])}}),
        1 => json!({"range": {"start": 1, "end": 65535}}),
        _ => json!({"number": number}),
    };
    json!({protocol.to_lowercase(): {"destinationPort": port}})
}
