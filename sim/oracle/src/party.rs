//! The ends of an attempt, looked up.

use std::net::IpAddr;

use crate::attempt::{End, Family, ObjectName};
use crate::cluster::Cluster;
use crate::objects::Labels;
use crate::objects::node::Node;
use crate::objects::pod::Pod;

/// An end of an attempt, looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Party<'a> {
    /// A pod with an address of its own.
    Pod {
        key: &'a ObjectName,
        pod: &'a Pod,
        /// Of the family of the attempt.
        address: IpAddr,
        /// None if its namespace was not seen.
        namespace: Option<&'a Labels>,
    },
    /// A node.
    Node {
        name: &'a str,
        /// None if no object describes it.
        node: Option<&'a Node>,
    },
    /// An address outside the cluster.
    Outside(IpAddr),
    /// An end that no object describes, or that cannot take part in the attempt: selectors and blocks do not match it.
    Nobody,
}

impl Cluster {
    /// An end as policies see it, for packets of a family.
    pub(crate) fn party<'a>(&'a self, end: &'a End, family: Family) -> Party<'a> {
        match end {
            End::Outside(address) => Party::Outside(*address),
            End::Node { name } => self.node_party(name),
            End::Pod { namespace, name } => {
                let key = ObjectName { namespace: namespace.clone(), name: name.clone() };
                self.pod_party(&key, family)
            }
        }
    }

    /// A pod with `hostNetwork` is its node. One that has finished, or has no address of the family, takes part in nothing.
    fn pod_party(&self, key: &ObjectName, family: Family) -> Party<'_> {
        let Some((key, pod)) = self.pods.get_key_value(key) else {
            return Party::Nobody;
        };
        if pod.finished {
            return Party::Nobody;
        }
        if pod.host_network {
            return pod.node.as_deref().map_or(Party::Nobody, |node| self.node_party(node));
        }
        match pod.address(family) {
            Some(address) => Party::Pod { key, pod, address, namespace: self.namespaces.get(&key.namespace) },
            None => Party::Nobody,
        }
    }

    /// A node that no object describes is still the node of its pods.
    fn node_party<'a>(&'a self, name: &'a str) -> Party<'a> {
        Party::Node { name, node: self.nodes.get(name) }
    }

    /// Whether a party has one of the addresses of the API server: those of the endpoints of the service `kubernetes` in `default`.
    pub(crate) fn is_api_server(&self, party: Party<'_>) -> bool {
        self.slices
            .iter()
            .filter(|(key, slice)| {
                key.namespace == "default" && slice.service.as_deref() == Some("kubernetes")
            })
            .flat_map(|(_, slice)| &slice.endpoints)
            .any(|endpoint| party.has_address(endpoint.address))
    }
}

impl Party<'_> {
    /// Whether it has this address. Of a node any address may be seen in packets.
    pub(crate) fn has_address(self, wanted: IpAddr) -> bool {
        match self {
            Self::Pod { address, .. } | Self::Outside(address) => address == wanted,
            Self::Node { node, .. } => node.is_some_and(|node| node.addresses.contains(&wanted)),
            Self::Nobody => false,
        }
    }

    /// Whether any of its addresses of a family is one that `is_it`.
    pub(crate) fn any_address(self, family: Family, is_it: impl Fn(IpAddr) -> bool) -> bool {
        match self {
            Self::Pod { address, .. } | Self::Outside(address) => is_it(address),
            Self::Node { node, .. } => node.is_some_and(|node| {
                node.addresses.iter().any(|address| Family::of(*address) == family && is_it(*address))
            }),
            Self::Nobody => false,
        }
    }

    /// A label of the namespace of a pod. One that was not seen has the label that every namespace has.
    pub(crate) fn namespace_label(&self, wanted: &str) -> Option<&str> {
        match self {
            Self::Pod { namespace: Some(labels), .. } => labels.get(wanted).map(String::as_str),
            Self::Pod { key, namespace: None, .. } => {
                (wanted == NAMESPACE_NAME).then_some(key.namespace.as_str())
            }
            Self::Node { .. } | Self::Outside(_) | Self::Nobody => None,
        }
    }

    /// Whether both are the same pod, or the same node.
    pub(crate) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Pod { key, .. }, Self::Pod { key: other, .. }) => key == other,
            (Self::Node { name, .. }, Self::Node { name: other, .. }) => name == other,
            _ => false,
        }
    }

    /// Whether `other` is the node that this pod runs on, or this node itself.
    pub(crate) fn has_own_node(self, other: Self) -> bool {
        match (self, other) {
            (Self::Pod { pod, .. }, Self::Node { name, .. }) => pod.node.as_deref() == Some(name),
            (Self::Node { name, .. }, Self::Node { name: other, .. }) => name == other,
            _ => false,
        }
    }
}

/// The control plane sets this label on every namespace, to its name.
pub(crate) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
