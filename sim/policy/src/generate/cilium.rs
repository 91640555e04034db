//! Specs of policies of Cilium's kinds.

use serde_json::{Map, Value, json};

use super::selectors::{self, NETWORKS, PORT_NAMES, PORTS};
use super::{Draw, Feature};

/// What entries depend on.
#[derive(Clone, Copy)]
struct Place {
    scope: Scope,
    is_egress: bool,
    denies: bool,
}

/// What a spec is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Pods of one namespace.
    Namespace,
    /// Pods of all.
    Cluster,
    /// Nodes.
    Hosts,
}

/// One spec, or a few. `namespace` is none for policies of the cluster.
pub(super) fn specs(draw: &mut Draw<'_>, namespace: Option<&str>) -> Vec<Value> {
    let count = if draw.percent(85) { 1 } else { draw.number(2, 3) };
    (0..count).map(|_| spec(draw, namespace)).collect()
}

fn spec(draw: &mut Draw<'_>, namespace: Option<&str>) -> Value {
    let scope = match namespace {
        Some(_) => Scope::Namespace,
        None if draw.has(Feature::HostPolicies) && draw.percent(30) => Scope::Hosts,
        None => Scope::Cluster,
    };
    let (member, selector) = if scope == Scope::Hosts {
        ("nodeSelector", selectors::of_nodes(draw))
    } else {
        ("endpointSelector", selectors::of_subjects(draw))
    };
    let mut spec = json!({member: selector});
    let place =
        |list: &str| Place { scope, is_egress: list.starts_with("egress"), denies: list.ends_with("Deny") };
    let mut is_empty = true;
    for (list, percent) in [("ingress", 60), ("egress", 50), ("ingressDeny", 20), ("egressDeny", 20)] {
        if !draw.percent(percent) || (place(list).denies && !draw.has(Feature::Deny)) {
            continue;
        }
        let least = u64::from(draw.percent(95));
        let entries = draw.list(least, 3, |draw| entry(draw, place(list)));
        is_empty &= entries.is_empty();
        spec[list] = json!(entries);
    }
    if is_empty {
        spec["ingress"] = json!([entry(draw, place("ingress"))]);
    }
    if draw.has(Feature::DefaultDeny) && draw.percent(25) {
        let direction = draw.pick(&["ingress", "egress"]);
        spec["enableDefaultDeny"] = json!({direction: draw.percent(15)});
    }
    spec
}

/// At most one kind of peers, at most one of ports and ICMP types.
fn entry(draw: &mut Draw<'_>, place: Place) -> Value {
    let mut entry = Map::new();
    if draw.percent(3) {
        // The idiom for "nothing".
        return Value::Object(entry);
    }
    let begin = if place.is_egress { "to" } else { "from" };
    if draw.percent(85)
        && let Some((member, peers)) = peers(draw, place)
    {
        entry.insert(format!("{begin}{member}"), json!(peers));
    }
    if draw.has(Feature::Icmp) && draw.percent(8) {
        entry.insert("icmps".to_owned(), json!([{"fields": draw.list(1, 2, icmp)}]));
    } else if draw.percent(55) {
        entry.insert("toPorts".to_owned(), json!(draw.list(1, 2, |draw| port_rule(draw, place))));
    }
    if !place.denies && draw.has(Feature::Proxy) && draw.percent(4) {
        let mode = draw.pick(&["disabled", "required"]);
        entry.insert("authentication".to_owned(), json!({"mode": mode}));
    }
    Value::Object(entry)
}

#[derive(Clone, Copy)]
enum Member {
    Endpoints,
    Cidr,
    CidrSet,
    Entities,
    Nodes,
    Services,
    Fqdns,
    Nobody,
}

const MEMBERS: &[(Member, u64, Option<Feature>)] = &[
    (Member::Endpoints, 10, None),
    (Member::Cidr, 3, None),
    (Member::CidrSet, 5, None),
    (Member::Entities, 5, None),
    (Member::Nodes, 1, Some(Feature::Nodes)),
    (Member::Services, 2, Some(Feature::Services)),
    (Member::Fqdns, 1, Some(Feature::Proxy)),
    (Member::Nobody, 1, None),
];

fn peers(draw: &mut Draw<'_>, place: Place) -> Option<(&'static str, Vec<Value>)> {
    Some(match draw.weighted(MEMBERS) {
        Member::Endpoints => (
            "Endpoints",
            draw.list(1, 2, |draw| selectors::of_endpoints(draw, place.scope == Scope::Namespace)),
        ),
        Member::Cidr => ("CIDR", draw.list(1, 2, |draw| json!(draw.pick(NETWORKS)))),
        Member::CidrSet => ("CIDRSet", draw.list(1, 2, cidr_rule)),
        Member::Entities => ("Entities", draw.list(1, 2, entity)),
        Member::Nodes => ("Nodes", vec![selectors::of_nodes(draw)]),
        Member::Services if place.is_egress => ("Services", draw.list(1, 2, service)),
        Member::Fqdns if place.is_egress && !place.denies => {
            ("FQDNs", vec![json!({"matchName": "example.com"})])
        }
        Member::Nobody => ("Endpoints", Vec::new()),
        Member::Services | Member::Fqdns => return None,
    })
}

fn cidr_rule(draw: &mut Draw<'_>) -> Value {
    if draw.has(Feature::CidrGroups) && draw.percent(40) {
        let mut rule = match draw.number(0, 2) {
            0 => json!({"cidrGroupRef": draw.pick(&["partners", "strangers", "nobody"])}),
            1 => json!({"cidrGroupSelector": {"matchLabels": {"trust": draw.pick(&["high", "low"])}}}),
            _ => json!({"cidrGroupSelector": {}}),
        };
        if draw.percent(30) {
            rule["except"] = json!([draw.pick(&["203.0.113.64/26", "2001:db8:1::/48"])]);
        }
        return rule;
    }
    let (cidr, except) = selectors::network(draw);
    if except.is_empty() { json!({"cidr": cidr}) } else { json!({"cidr": cidr, "except": except}) }
}

fn entity(draw: &mut Draw<'_>) -> Value {
    json!(draw.weighted(&[
        ("all", 2, None),
        ("world", 4, None),
        ("cluster", 4, None),
        ("host", 2, None),
        ("remote-node", 2, None),
        ("none", 1, None),
        ("health", 1, None),
        ("kube-apiserver", 2, Some(Feature::ApiServer)),
    ]))
}

fn service(draw: &mut Draw<'_>) -> Value {
    let (member, mut service) = if draw.percent(60) {
        ("k8sService", json!({"serviceName": draw.pick(&["front", "store", "far", "nobody"])}))
    } else {
        let selector = json!({"matchLabels": {"tier": draw.pick(&["front", "back"])}});
        ("k8sServiceSelector", json!({"selector": selector}))
    };
    // Without one it is about all.
    if draw.percent(70) {
        service["namespace"] = json!("shop");
    }
    json!({member: service})
}

fn port_rule(draw: &mut Draw<'_>, place: Place) -> Value {
    if !place.denies && place.scope != Scope::Hosts && draw.has(Feature::Proxy) && draw.percent(10) {
        return match draw.number(0, 2) {
            0 => {
                json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}})
            }
            1 if place.is_egress => {
                json!({"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*"}]}})
            }
            _ => json!({"ports": [{"port": "80", "protocol": "TCP"}], "serverNames": ["example.com"]}),
        };
    }
    json!({"ports": draw.list(1, 3, port)})
}

fn port(draw: &mut Draw<'_>) -> Value {
    let (protocol, number) = draw.pick(PORTS);
    let number = number.to_string();
    match draw.number(0, 12) {
        12 => json!({"port": "0", "endPort": draw.pick(&[80, 80, 8080, 65535]), "protocol": protocol}),
        0 => json!({"port": "0", "protocol": protocol}),
        1 => json!({"port": "0"}),
        2 => json!({"protocol": protocol}),
        3 => json!({"port": number}),
        4 => json!({"port": number, "protocol": "ANY"}),
        5 => json!({"port": "80", "endPort": draw.pick(&[80, 81, 8080]), "protocol": "TCP"}),
        6 => json!({"port": "1", "endPort": 65535, "protocol": protocol}),
        7 | 8 if draw.has(Feature::NamedPorts) => {
            let name = draw.pick(PORT_NAMES);
            if draw.percent(50) { json!({"port": name}) } else { json!({"port": name, "protocol": protocol}) }
        }
        9 => json!({"port": "0", "protocol": draw.pick(&["VRRP", "IGMP"])}),
        _ => json!({"port": number, "protocol": protocol}),
    }
}

fn icmp(draw: &mut Draw<'_>) -> Value {
    draw.pick(&[
        json!({"type": 8}),
        json!({"type": "EchoRequest", "family": "IPv4"}),
        json!({"type": 3, "family": "IPv4"}),
        json!({"type": "EchoRequest", "family": "IPv6"}),
        json!({"type": 129, "family": "IPv6"}),
    ])
}
