//! Random policy objects of all kinds.

use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Object as _,
};
use agent_policy::PolicyObject;
use proptest::prelude::*;
use serde_json::{Value, json};

/// An object of some kind.
#[derive(Debug, Clone)]
pub(crate) enum AnyObject {
    Kubernetes(NetworkPolicy),
    Cilium(CiliumNetworkPolicy),
    CiliumClusterwide(CiliumClusterwideNetworkPolicy),
    Cluster(ClusterNetworkPolicy),
}

impl AnyObject {
    pub(crate) fn as_policy(&self) -> PolicyObject<'_> {
        match self {
            Self::Kubernetes(object) => PolicyObject::Kubernetes(object),
            Self::Cilium(object) => PolicyObject::Cilium(object),
            Self::CiliumClusterwide(object) => PolicyObject::CiliumClusterwide(object),
            Self::Cluster(object) => PolicyObject::Cluster(object),
        }
    }
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(values.to_vec())
}

/// A label selector over `app` with a key prefix.
fn selector(prefix: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(json!({})),
        3 => one_of(&["a", "b"]).prop_map(move |v| json!({"matchLabels": {format!("{prefix}app"): v}})),
        1 => one_of(&["In", "NotIn"]).prop_map(move |op| json!({"matchExpressions": [
            {"key": format!("{prefix}app"), "operator": op, "values": ["a", "c"]}]})),
        1 => one_of(&["Exists", "DoesNotExist"]).prop_map(move |op| json!({"matchExpressions": [
            {"key": format!("{prefix}tier"), "operator": op}]})),
    ]
}

fn namespaces() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        one_of(&["x", "y"]).prop_map(|env| json!({"matchLabels": {"env": env}})),
        Just(json!({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]})),
    ]
}

const NETS: &[&str] =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/16", "::/0"];

/// A CIDR, and parts of it.
fn cidr_with_parts() -> impl Strategy<Value = (String, Vec<String>)> {
    (one_of(NETS), proptest::collection::vec(one_of(NETS), 0..3)).prop_map(|(net, parts)| {
        let outer: ipnet::IpNet = net.parse().unwrap();
        let inside = parts
            .into_iter()
            .filter(|part| *part != net && outer.contains(&part.parse::<ipnet::IpNet>().unwrap()))
            .map(str::to_owned)
            .collect();
        (net.to_owned(), inside)
    })
}

fn kubernetes_peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector("").prop_map(|pods| json!({"podSelector": pods})),
        namespaces().prop_map(|ns| json!({"namespaceSelector": ns})),
        (selector(""), namespaces())
            .prop_map(|(pods, ns)| json!({"podSelector": pods, "namespaceSelector": ns})),
        cidr_with_parts().prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}})),
    ]
}

fn kubernetes_port() -> impl Strategy<Value = Value> {
    prop_oneof![
        one_of(&["TCP", "UDP", "SCTP"]).prop_map(|p| json!({"protocol": p})),
        one_of(&[53, 80, 8080]).prop_map(|port| json!({"port": port})),
        (one_of(&[1, 80, 8000]), one_of(&[8000, 8100, 65535]))
            .prop_map(|(first, last)| json!({"protocol": "UDP", "port": first, "endPort": last})),
        one_of(&["web", "dns"]).prop_map(|name| json!({"port": name, "protocol": "TCP"})),
    ]
}

fn few(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::vec(value, 0..3)
}

fn metadata(name: u8, namespace: Option<&str>, staged: bool) -> Value {
    let annotations = if staged { json!({"bristle.io/staged": "true"}) } else { json!({}) };
    match namespace {
        Some(namespace) => {
            json!({"name": format!("p{name}"), "namespace": namespace, "annotations": annotations})
        }
        None => json!({"name": format!("p{name}"), "annotations": annotations}),
    }
}

fn name_and_stage() -> impl Strategy<Value = (u8, &'static str, bool)> {
    (0_u8..3, one_of(&["n1", "n2"]), prop::bool::weighted(0.2))
}

fn kubernetes() -> impl Strategy<Value = AnyObject> {
    let rule = |peers: &'static str| {
        (few(kubernetes_peer()), few(kubernetes_port()))
            .prop_map(move |(from, ports)| json!({peers: from, "ports": ports}))
    };
    let types = one_of(&[json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    (name_and_stage(), selector(""), few(rule("from")), few(rule("to")), types).prop_map(
        |((name, ns, staged), pods, ingress, egress, types)| {
            let object = json!({"metadata": metadata(name, Some(ns), staged), "spec": {
                "podSelector": pods, "ingress": ingress, "egress": egress, "policyTypes": types}});
            AnyObject::Kubernetes(NetworkPolicy::from_json(object).unwrap())
        },
    )
}

fn cilium_peer(direction: &'static str) -> impl Strategy<Value = Value> {
    let field = move |name: &str| format!("{direction}{name}");
    let entities = one_of(&[
        "all",
        "world",
        "cluster",
        "host",
        "remote-node",
        "none",
        "world-ipv4",
        "unmanaged",
        "kube-apiserver",
    ]);
    prop_oneof![
        Just(json!({})),
        few(prop_oneof![
            selector(""),
            selector("k8s:"),
            one_of(&["n1", "n2"]).prop_map(|ns| json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": ns}})),
            one_of(&["x", "y"])
                .prop_map(|env| json!({"matchLabels": {"io.cilium.k8s.namespace.labels.env": env}})),
            Just(json!({"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["n1"]}]})),
            Just(json!({"matchLabels": {"reserved:host": ""}})),
        ])
        .prop_map(move |s| json!({field("Endpoints"): s})),
        few(entities.prop_map(Value::from)).prop_map(move |e| json!({field("Entities"): e})),
        few(one_of(NETS).prop_map(Value::from)).prop_map(move |c| json!({field("CIDR"): c})),
        few(prop_oneof![
            cidr_with_parts().prop_map(|(cidr, except)| json!({"cidr": cidr, "except": except})),
            Just(json!({"cidrGroupRef": "g1", "except": ["10.1.2.0/24"]})),
            Just(json!({"cidrGroupSelector": {"matchLabels": {"team": "x"}}})),
        ])
        .prop_map(move |c| json!({field("CIDRSet"): c})),
        Just(json!({field("Nodes"): [{"matchLabels": {"zone": "1"}}]})),
    ]
}

fn cilium_ports() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        one_of(&["0", "80", "443", "web", "dns"]).prop_map(|p| json!({"port": p})),
        one_of(&["TCP", "UDP", "SCTP", "ANY"]).prop_map(|p| json!({"port": "80", "protocol": p})),
        (one_of(&["1", "80", "8000"]), one_of(&[8000, 8100]), one_of(&["TCP", "ANY"]))
            .prop_map(|(first, last, p)| json!({"port": first, "endPort": last, "protocol": p})),
        Just(json!({"port": "0", "protocol": "GRE"})),
    ];
    let ports = proptest::collection::vec(port, 1..3);
    prop_oneof![
        2 => Just(json!({})),
        3 => ports.prop_map(|ports| json!({"toPorts": [{"ports": ports}]})),
        1 => Just(json!({"icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoRequest"}]}]})),
    ]
}

fn merged(a: Value, b: Value) -> Value {
    let (Value::Object(mut a), Value::Object(b)) = (a, b) else { panic!("maps") };
    a.extend(b);
    Value::Object(a)
}

fn entry(direction: &'static str) -> impl Strategy<Value = Value> {
    (cilium_peer(direction), cilium_ports()).prop_map(|(peer, ports)| merged(peer, ports))
}

fn allow_entry(direction: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => entry(direction),
        1 => cilium_peer(direction).prop_map(|peer| merged(peer, json!(
            {"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"path": "/"}]}}]}))),
        1 => Just(json!({})),
    ]
}

fn egress_entry() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => allow_entry("to"),
        1 => one_of(&["web", "none"]).prop_map(|name| json!({"toServices": [{"k8sService": {"serviceName": name, "namespace": "n1"}}]})),
        1 => Just(json!({"toFQDNs": [{"matchName": "example.com"}]})),
    ]
}

fn cilium_rule() -> impl Strategy<Value = Value> {
    let default_deny =
        one_of(&[json!({}), json!({}), json!({"ingress": false}), json!({"egress": false, "ingress": true})]);
    (
        selector(""),
        few(allow_entry("from")),
        few(entry("from")),
        few(egress_entry()),
        few(entry("to")),
        default_deny,
    )
        .prop_map(|(subject, ingress, ingress_deny, egress, egress_deny, default_deny)| {
            json!({"endpointSelector": subject, "ingress": ingress, "ingressDeny": ingress_deny,
                   "egress": egress, "egressDeny": egress_deny, "enableDefaultDeny": default_deny})
        })
}

fn cilium() -> impl Strategy<Value = AnyObject> {
    (name_and_stage(), proptest::collection::vec(cilium_rule(), 1..3)).prop_map(
        |((name, ns, staged), specs)| {
            let object = json!({"metadata": metadata(name, Some(ns), staged), "specs": specs});
            AnyObject::Cilium(CiliumNetworkPolicy::from_json(object).unwrap())
        },
    )
}

fn cilium_clusterwide() -> impl Strategy<Value = AnyObject> {
    (name_and_stage(), cilium_rule(), prop::bool::weighted(0.2)).prop_map(|((name, _, staged), rule, nodes)| {
        let mut rule = rule;
        if nodes {
            // Rules for nodes know no HTTP.
            rule = json!({"nodeSelector": {}, "ingress": [{"fromEntities": ["cluster"]}], "egressDeny": rule["egressDeny"]});
        }
        let object = json!({"metadata": metadata(name, None, staged), "spec": rule});
        AnyObject::CiliumClusterwide(CiliumClusterwideNetworkPolicy::from_json(object).unwrap())
    })
}

fn cluster() -> impl Strategy<Value = AnyObject> {
    let pods = || {
        prop_oneof![
            namespaces().prop_map(|ns| json!({"namespaces": ns})),
            (namespaces(), selector(""))
                .prop_map(|(ns, pods)| json!({"pods": {"namespaceSelector": ns, "podSelector": pods}})),
        ]
    };
    let outside = prop_oneof![
        3 => pods(),
        1 => one_of(NETS).prop_map(|net| json!({"networks": [net]})),
        1 => Just(json!({"nodes": {}})),
    ];
    let protocols = || {
        few(prop_oneof![
            Just(json!({"tcp": {"destinationPort": {"number": 80}}})),
            Just(json!({"udp": {"destinationPort": {"range": {"start": 50, "end": 9000}}}})),
            Just(json!({"sctp": {}})),
            Just(json!({"destinationNamedPort": "web"})),
        ])
    };
    let action = || one_of(&["Accept", "Deny", "Pass"]);
    let ingress = (action(), few(pods()), protocols()).prop_map(
        |(action, from, protocols)| json!({"action": action, "from": from, "protocols": protocols}),
    );
    let egress = (action(), few(outside), protocols())
        .prop_map(|(action, to, protocols)| json!({"action": action, "to": to, "protocols": protocols}));
    (name_and_stage(), one_of(&["Admin", "Baseline"]), 0..3, pods(), few(ingress), few(egress)).prop_map(
        |((name, _, staged), tier, priority, subject, ingress, egress)| {
            let object = json!({"metadata": metadata(name, None, staged), "spec": {
                "tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress}});
            AnyObject::Cluster(ClusterNetworkPolicy::from_json(object).unwrap())
        },
    )
}

/// An object of any kind. Some cannot be taken.
pub(crate) fn any_object() -> impl Strategy<Value = AnyObject> {
    prop_oneof![kubernetes(), cilium(), cilium_clusterwide(), cluster()]
}
