//! The ends of a connection, as the user names them.

use super::cluster::{Cluster, Node, Pod};
use agent_crd::icmp::icmp_type;
use agent_policy::{Label, Party, proto};
use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use std::net::IpAddr;

/// Entities that stand for one reserved identity.
const ENTITIES: &[&str] =
    &["remote-node", "health", "init", "ingress", "unmanaged", "kube-apiserver", "world-ipv4", "world-ipv6"];

/// An end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    Pod(&'a Pod),
    /// A node by name.
    Node(&'a str),
    /// The node of the pod at the other end.
    OwnNode,
    /// Addresses that nobody in the cluster has.
    Outside(IpNet),
    /// Whoever has a reserved identity.
    Entity(&'static str),
}

impl<'a> Who<'a> {
    /// Finds out who is meant.
    ///
    /// # Errors
    /// When nobody or more than one is, with what could be.
    pub(crate) fn find(text: &str, cluster: &'a Cluster) -> Result<Self> {
        match text {
            "host" => return Ok(Self::OwnNode),
            "world" => return Ok(Self::Outside(all_addresses(false))),
            _ => {}
        }
        if let Some(entity) = ENTITIES.iter().find(|entity| **entity == text) {
            return Ok(match *entity {
                "world-ipv4" => Self::Outside(all_addresses(false)),
                "world-ipv6" => Self::Outside(all_addresses(true)),
                entity => Self::Entity(entity),
            });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::at(address, cluster));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            let net = net.trunc();
            let one = net.prefix_len() == net.max_prefix_len();
            return Ok(if one { Self::at(net.addr(), cluster) } else { Self::Outside(net) });
        }
        if let Some(name) = text.strip_prefix("node/") {
            let known = cluster.nodes.keys().find(|node| *node == name);
            return known.map(|node| Self::Node(node)).ok_or_else(|| {
                anyhow!("no node `{name}` in the files: add its object, or say host or remote-node")
            });
        }
        Self::pod(text, cluster)
    }

    fn at(address: IpAddr, cluster: &'a Cluster) -> Self {
        let pod = cluster.pods.iter().find(|pod| !pod.host_network && pod.addresses.contains(&address));
        let node = || cluster.nodes.iter().find(|(_, node)| node.addresses.contains(&address));
        match (pod, node()) {
            (Some(pod), _) => Self::Pod(pod),
            (None, Some((node, _))) => Self::Node(node),
            (None, None) => Self::Outside(IpNet::from(address)),
        }
    }

    fn pod(text: &str, cluster: &'a Cluster) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_kind = |word: &str| cluster.pods.iter().any(|pod| pod.kind == word);
        let (namespace, kind, name) = match parts[..] {
            [name] => (None, None, name),
            [kind, name] if is_kind(kind) => (None, Some(kind), name),
            [namespace, name] => (Some(namespace), None, name),
            [namespace, kind, name] => (Some(namespace), Some(kind), name),
            _ => bail!("`{text}` is no pod, address or entity: see `bristle policy explain --help`"),
        };
        let meant: Vec<&Pod> = cluster
            .pods
            .iter()
            .filter(|pod| pod.name == name && namespace.is_none_or(|namespace| pod.namespace == namespace))
            .filter(|pod| kind.is_none_or(|kind| pod.kind == kind))
            .collect();
        // A pod rather than a workload of the same name.
        let pods: Vec<&Pod> = meant.iter().copied().filter(|pod| pod.kind == "pod").collect();
        let meant = if pods.is_empty() { meant } else { pods };
        match meant[..] {
            [pod] if pod.host_network && pod.node.is_empty() => Ok(Self::Entity("remote-node")),
            [pod] if pod.host_network => Ok(Self::Node(&pod.node)),
            [pod] => Ok(Self::Pod(pod)),
            [] => Err(nobody(text, name, cluster)),
            _ => {
                let all: Vec<String> = meant
                    .iter()
                    .map(|pod| match pod.kind {
                        "pod" => format!("{}/{}", pod.namespace, pod.name),
                        kind => format!("{}/{kind}/{}", pod.namespace, pod.name),
                    })
                    .collect();
                bail!("`{text}` can be {}: say which", all.join(" or "))
            }
        }
    }

    /// Who it is, for people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Pod(pod) => pod.text(),
            Self::Node(name) => format!("node {name}"),
            Self::OwnNode => "its node".to_owned(),
            Self::Outside(net) if net.prefix_len() == 0 => {
                if net.addr().is_ipv4() {
                    "the world".to_owned()
                } else {
                    "the world by IPv6".to_owned()
                }
            }
            Self::Outside(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Self::Outside(net) => net.to_string(),
            Self::Entity(name) => (*name).to_owned(),
        }
    }

    /// Whether it is the node that a pod is on.
    pub(crate) fn is_node_of(&self, pod: &Pod) -> bool {
        match self {
            Self::OwnNode => true,
            Self::Node(name) => *name == pod.node,
            _ => false,
        }
    }

    /// Whether it can speak a family. Of a pod without addresses that is not known.
    pub(crate) fn speaks(&self, v4: bool) -> bool {
        match self {
            Self::Pod(pod) => {
                pod.addresses.is_empty() || pod.addresses.iter().any(|address| address.is_ipv4() == v4)
            }
            Self::Outside(net) => net.addr().is_ipv4() == v4,
            Self::Node(_) | Self::OwnNode | Self::Entity(_) => true,
        }
    }

    /// As the engine sees it from the other end, in a family.
    pub(crate) fn party(&self, other: &Who<'_>, v4: bool, cluster: &Cluster) -> Party {
        let reserved =
            |name: &str| Party { labels: [Label::reserved(name)].into_iter().collect(), ..Party::default() };
        match self {
            Self::Pod(pod) => {
                let pod_address = pod.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
                Party { pod_address, ..pod.party.clone() }
            }
            Self::OwnNode => {
                let node = match other {
                    Who::Pod(pod) => cluster.nodes.get(&pod.node),
                    _ => None,
                };
                node.map_or_else(|| reserved("host"), |node| of_node(node, true))
            }
            Self::Node(name) => {
                let own = matches!(other, Who::Pod(pod) if self.is_node_of(pod));
                let node = cluster.nodes.get(*name);
                let unknown = || reserved(if own { "host" } else { "remote-node" });
                node.map_or_else(unknown, |node| of_node(node, own))
            }
            Self::Outside(net) => {
                let world = if net.addr().is_ipv4() { "world-ipv4" } else { "world-ipv6" };
                let one = net.prefix_len() == net.max_prefix_len();
                let is_api_server = one && cluster.api_servers.contains(&net.addr());
                let names = ["world", world].into_iter().chain(is_api_server.then_some("kube-apiserver"));
                let labels = names.map(Label::reserved).collect();
                Party { address: Some(*net), labels, ..Party::default() }
            }
            Self::Entity(name) => reserved(name),
        }
    }
}

fn of_node(node: &Node, own: bool) -> Party {
    Party { labels: node.facts.peer_labels(own), ..Party::default() }
}

fn all_addresses(v6: bool) -> IpNet {
    if v6 { IpNet::V6(ipnet::Ipv6Net::default()) } else { IpNet::V4(ipnet::Ipv4Net::default()) }
}

fn nobody(text: &str, name: &str, cluster: &Cluster) -> anyhow::Error {
    let shown = |pod: &Pod| format!("{}/{}", pod.namespace, pod.name);
    let alike = cluster.pods.iter().filter(|pod| pod.name.contains(name) || name.contains(&pod.name));
    let mut names: Vec<String> = alike.map(shown).collect();
    if names.is_empty() {
        names = cluster.pods.iter().map(shown).collect();
    }
    names.sort();
    let more = if names.len() > 5 { ", …" } else { "" };
    names.truncate(5);
    if names.is_empty() {
        anyhow!("no pod `{text}`, for there are no pods in the files: add them with -f, or ask by address")
    } else {
        anyhow!("no pod `{text}` in the files; there are {}{more}", names.join(", "))
    }
}

/// Protocol and port, or type of ICMP, as the user writes them.
///
/// # Errors
/// When it is neither, or a name that the pod does not have.
pub(crate) fn port(text: &str, to: &Who<'_>) -> Result<(u8, u16)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let known = [proto::TCP, proto::UDP, proto::SCTP, proto::ICMP, proto::ICMPV6];
    let number = known
        .into_iter()
        .find(|number| proto::name(*number).is_some_and(|name| name.eq_ignore_ascii_case(protocol)))
        .or_else(|| protocol.parse().ok());
    let Some(protocol) = number else {
        bail!("`{protocol}` is no protocol: TCP, UDP, SCTP, ICMP, ICMPv6, or its number")
    };
    if protocol == proto::ICMP || protocol == proto::ICMPV6 {
        let kind = icmp_type(protocol == proto::ICMPV6, port);
        return kind.map(|kind| (protocol, u16::from(kind))).ok_or_else(|| {
            anyhow!("`{port}` is no type of ICMP: a number from 0 to 255, or a name such as EchoRequest")
        });
    }
    if let Ok(number) = port.parse::<u16>() {
        return Ok((protocol, number));
    }
    let Who::Pod(pod) = to else {
        bail!("`{port}` is no port: a number from 0 to 65535; only pods have names for ports")
    };
    let name = port.to_ascii_lowercase();
    let found = pod.party.named_ports.iter().find(|named| named.proto == protocol && named.name == name);
    found.map(|named| (protocol, named.port)).ok_or_else(|| {
        let names: Vec<&str> = pod.party.named_ports.iter().map(|named| named.name.as_str()).collect();
        let there = if names.is_empty() {
            "it names none".to_owned()
        } else {
            format!("it names {}", names.join(", "))
        };
        anyhow!("{} names no port `{port}` of this protocol; {there}", pod.text())
    })
}
