//! Specs of NetworkPolicies.

use serde_json::{Map, Value, json};

use super::selectors::{self, PORT_NAMES, PORTS};
use super::{Draw, Feature};

pub(super) fn spec(draw: &mut Draw<'_>) -> Value {
    let mut spec = json!({"podSelector": selectors::of_pods(draw)});
    let types = match draw.number(0, 5) {
        0 => None,
        1 | 2 => Some(vec!["Ingress"]),
        3 => Some(vec!["Egress"]),
        _ => Some(vec!["Ingress", "Egress"]),
    };
    if let Some(types) = types {
        spec["policyTypes"] = json!(types);
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        if draw.percent(80) {
            spec[list] = json!(draw.list(0, 3, |draw| rule(draw, peers)));
        }
    }
    spec
}

/// Peers and ports may be missing or empty, which both mean all.
fn rule(draw: &mut Draw<'_>, peers: &str) -> Value {
    let mut rule = Map::new();
    if draw.percent(85) {
        let least = u64::from(draw.percent(95));
        rule.insert(peers.to_owned(), json!(draw.list(least, 3, peer)));
    }
    if draw.percent(55) {
        let least = u64::from(draw.percent(95));
        rule.insert("ports".to_owned(), json!(draw.list(least, 3, port)));
    }
    Value::Object(rule)
}

fn peer(draw: &mut Draw<'_>) -> Value {
    match draw.number(0, 9) {
        0..=2 => json!({"podSelector": selectors::of_pods(draw)}),
        3 | 4 => json!({"namespaceSelector": selectors::of_namespaces(draw)}),
        5 | 6 => {
            json!({"namespaceSelector": selectors::of_namespaces(draw), "podSelector": selectors::of_pods(draw)})
        }
        _ => {
            let (cidr, except) = selectors::network(draw);
            let mut block = json!({"cidr": cidr});
            if !except.is_empty() {
                block["except"] = json!(except);
            }
            json!({"ipBlock": block})
        }
    }
}

fn port(draw: &mut Draw<'_>) -> Value {
    let (protocol, number) = draw.pick(PORTS);
    match draw.number(0, 9) {
        0 => json!({"protocol": protocol}),
        1 => json!({"protocol": "TCP", "port": 80, "endPort": draw.pick(&[80, 81, 8080])}),
        2 => json!({"protocol": protocol, "port": 1, "endPort": 65535}),
        3 if protocol == "TCP" => json!({"port": number}),
        4 | 5 if draw.has(Feature::NamedPorts) => {
            json!({"protocol": protocol, "port": draw.pick(PORT_NAMES)})
        }
        _ => json!({"protocol": protocol, "port": number}),
    }
}
