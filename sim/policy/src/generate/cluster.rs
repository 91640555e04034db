//! The cluster: namespaces, nodes, pods, services, groups of addresses, and addresses outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{Draw, Feature};

type Labels = BTreeMap<&'static str, &'static str>;

/// What there is.
pub(super) struct World {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
    pub(super) outside: Vec<IpAddr>,
    /// Services, slices and groups of addresses.
    others: Vec<Value>,
}

pub(super) struct Namespace {
    pub(super) name: String,
    labels: Labels,
}

pub(super) struct Node {
    pub(super) name: String,
    labels: Labels,
    pub(super) addresses: [IpAddr; 2],
}

pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    node: String,
    labels: Labels,
    account: &'static str,
    pub(super) host_network: bool,
    pub(super) addresses: Vec<IpAddr>,
    /// Name, number and protocol.
    ports: Vec<(&'static str, u16, &'static str)>,
}

/// Names of namespaces.
pub(super) const NAMESPACES: &[&str] = &["shop", "team-a", "team-b", "tools"];
/// Addresses outside; the networks of [`super::selectors`] hold some of them.
const OUTSIDE: &[&str] = &[
    "203.0.113.5",
    "203.0.113.77",
    "203.0.113.200",
    "198.51.100.9",
    "192.0.2.1",
    "2001:db8::5",
    "2001:db8:1::9",
    "2001:db8:1:2::9",
];

impl World {
    pub(super) fn draw(draw: &mut Draw<'_>) -> Self {
        let namespaces: Vec<Namespace> = NAMESPACES
            .iter()
            .take(usize::try_from(draw.number(2, 4)).unwrap_or(2))
            .map(|name| Namespace {
                name: (*name).to_owned(),
                labels: labels(draw, &[("env", &["prod", "dev"], 80), ("team", &["red", "blue"], 60)]),
            })
            .collect();
        let nodes: Vec<Node> =
            (1..=u8::try_from(draw.number(1, 4)).unwrap_or(1)).map(|n| node(draw, n)).collect();
        let pods = (1..=u16::try_from(draw.number(2, draw.plan().most_pods.max(2))).unwrap_or(2))
            .map(|n| pod(draw, n, &namespaces, &nodes))
            .collect();
        let outside: Vec<IpAddr> = OUTSIDE.iter().filter_map(|text| text.parse().ok()).collect();
        let others = others(draw, &nodes);
        Self { namespaces, nodes, pods, outside, others }
    }

    pub(super) fn objects(&self) -> Vec<Value> {
        let namespaces = self.namespaces.iter().map(|namespace| {
            let mut labels = json!(namespace.labels);
            labels["kubernetes.io/metadata.name"] = json!(namespace.name);
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": labels}})
        });
        let nodes = self.nodes.iter().map(|node| {
            let addresses: Vec<Value> = node
                .addresses
                .iter()
                .map(|address| json!({"type": "InternalIP", "address": address}))
                .collect();
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": node.name, "labels": node.labels},
                "status": {"addresses": addresses},
            })
        });
        let pods = self.pods.iter().map(Pod::object);
        namespaces.chain(nodes).chain(pods).chain(self.others.iter().cloned()).collect()
    }
}

/// Each key with one of its values, or so often of a hundred times as it says.
fn labels(draw: &mut Draw<'_>, keys: &[(&'static str, &[&'static str], u64)]) -> Labels {
    let mut labels = Labels::new();
    for (key, values, percent) in keys {
        if draw.percent(*percent) {
            labels.insert(key, draw.pick(values));
        }
    }
    labels
}

fn node(draw: &mut Draw<'_>, n: u8) -> Node {
    Node {
        name: format!("node-{n}"),
        labels: labels(draw, &[("zone", &["east", "west"], 80), ("disk", &["ssd"], 50)]),
        addresses: [
            Ipv4Addr::new(172, 18, 0, n).into(),
            Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, u16::from(n)).into(),
        ],
    }
}

fn pod(draw: &mut Draw<'_>, n: u16, namespaces: &[Namespace], nodes: &[Node]) -> Pod {
    let node = draw.one(nodes);
    let mut own = labels(
        draw,
        &[
            ("app", &["web", "db", "cache"], 90),
            ("tier", &["front", "back"], 60),
            ("app.kubernetes.io/name", &["web", "db"], 30),
        ],
    );
    if draw.has(Feature::FilteredLabels) {
        own.extend(labels(
            draw,
            &[
                ("pod-template-hash", &["aaa", "bbb"], 50),
                ("topology.kubernetes.io/zone", &["east", "west"], 30),
            ],
        ));
    }
    let host_network = draw.percent(5);
    let mut addresses: Vec<IpAddr> = if host_network {
        node.addresses.to_vec()
    } else {
        vec![
            Ipv4Addr::from_bits(0x0a0a_0000 + u32::from(n)).into(),
            Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, n).into(),
        ]
    };
    if !host_network && draw.percent(10) {
        addresses.remove(usize::from(draw.percent(50)));
    }
    Pod {
        namespace: draw.one(namespaces).name.clone(),
        name: format!("pod-{n}"),
        node: node.name.clone(),
        labels: own,
        account: draw.pick(&["default", "default", "robot"]),
        host_network,
        addresses,
        ports: named_ports(draw),
    }
}

/// The same name may have another number in another pod.
fn named_ports(draw: &mut Draw<'_>) -> Vec<(&'static str, u16, &'static str)> {
    let mut ports = Vec::new();
    if draw.percent(70) {
        ports.push(("web", draw.pick(&[80, 80, 8080]), "TCP"));
    }
    if draw.percent(40) {
        ports.push(("dns", 53, "UDP"));
    }
    if draw.percent(40) {
        ports.push(("data", draw.pick(&[5432, 8085]), draw.pick(&["TCP", "TCP", "SCTP"])));
    }
    ports
}

impl Pod {
    fn object(&self) -> Value {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|(name, number, protocol)| json!({"name": name, "containerPort": number, "protocol": protocol}))
            .collect();
        let addresses: Vec<Value> = self.addresses.iter().map(|address| json!({"ip": address})).collect();
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {
                "nodeName": self.node,
                "serviceAccountName": self.account,
                "containers": [{"name": "main", "image": "bristle/echo", "ports": ports}],
            },
            "status": {"phase": "Running", "podIP": self.addresses.first(), "podIPs": addresses},
        });
        if self.host_network {
            object["spec"]["hostNetwork"] = json!(true);
        }
        object
    }
}

fn others(draw: &mut Draw<'_>, nodes: &[Node]) -> Vec<Value> {
    let mut others = Vec::new();
    if draw.has(Feature::CidrGroups) {
        for (name, trust) in [("partners", "high"), ("strangers", "low")] {
            let mut cidrs: Vec<&str> = Vec::new();
            for cidr in super::selectors::NETWORKS {
                if draw.percent(35) {
                    cidrs.push(cidr);
                }
            }
            others.push(json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
                "metadata": {"name": name, "labels": {"trust": trust}},
                "spec": {"externalCIDRs": cidrs},
            }));
        }
    }
    if draw.has(Feature::Services) {
        others.push(service("front", &json!({"app": "web"}), "front"));
        others.push(service("store", &json!({"app": "db", "tier": "back"}), "back"));
        others.push(service("far", &json!({}), "back"));
        // Whose names are those of others, in another namespace.
        for name in ["front", "far"] {
            let mut other = service(name, &json!({"tier": "back"}), "front");
            other["metadata"]["namespace"] = json!(NAMESPACES[1]);
            others.push(other);
        }
        let address = draw.pick(&["203.0.113.77", "192.0.2.1", "198.51.100.9"]);
        others.push(slice("shop", "far", address));
    }
    if draw.has(Feature::ApiServer) {
        let address = match draw.one(nodes).addresses[0] {
            address if draw.percent(70) => address.to_string(),
            _ => draw.pick(&["203.0.113.5", "192.0.2.1"]).to_owned(),
        };
        others.push(slice("default", "kubernetes", &address));
    }
    others
}

/// A service of namespace `shop`.
fn service(name: &str, selector: &Value, tier: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"tier": tier}},
        "spec": {"clusterIP": "None", "selector": selector, "ports": [{"port": 80}]},
    })
}

fn slice(namespace: &str, service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
        "ports": [{"port": 80}],
    })
}
