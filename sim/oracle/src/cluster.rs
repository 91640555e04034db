//! The view of the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::attempt::{End, Family, ObjectName};
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::Labels;
use crate::objects::node::Node;
use crate::objects::pod::Pod;
use crate::objects::policy::Policy;
use crate::objects::service::Service;
use crate::objects::slice::Slice;

/// What the documentation leaves to implementations, or what they read in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Traffic between a pod and the node it runs on is allowed in both directions, whatever policies say.
    /// The documentation says so without conditions, as kubelet must probe; some implementations hold it towards the pod alone. Default: true.
    pub own_node_allowed: bool,
    /// `ipBlock` also matches pods by their addresses. The documentation says only that blocks should be of addresses outside the cluster,
    /// and implementations with identities match no pod by address. Default: true.
    pub blocks_match_pods: bool,
    /// `ipBlock` also matches nodes by their addresses, with the same freedom. Default: true.
    pub blocks_match_nodes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { own_node_allowed: true, blocks_match_pods: true, blocks_match_nodes: true }
    }
}

/// A view of a cluster's objects: the latest of each that was [`set`](Self::set).
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub(crate) options: Options,
    pub(crate) pods: BTreeMap<ObjectName, Pod>,
    pub(crate) nodes: BTreeMap<String, Node>,
    namespaces: BTreeMap<String, Labels>,
    pub(crate) policies: BTreeMap<ObjectName, Policy>,
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) slices: BTreeMap<ObjectName, Slice>,
}

impl Cluster {
    /// A cluster without objects, with the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// A cluster without objects.
    pub fn with_options(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Takes an object, new or in place of its older self. Kinds that matter are Pod, Node, Namespace, NetworkPolicy, Service and EndpointSlice in their
    /// `v1`; any other is ignored. With an error the view stays as it was.
    pub fn set(&mut self, object: &Value) -> Result<(), OracleError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let title = if namespace.is_empty() {
            format!("{kind} {name}")
        } else {
            format!("{kind} {namespace}/{name}")
        };
        let field = Field::root(title.trim_end(), object);
        match (version, kind) {
            ("v1", "Pod") => put(&mut self.pods, namespaced(&field)?, Pod::read(&field)?),
            ("v1", "Node") => put(&mut self.nodes, named(&field)?, Node::read(&field)?),
            ("v1", "Namespace") => put(&mut self.namespaces, named(&field)?, namespace_labels(&field)?),
            ("networking.k8s.io/v1", "NetworkPolicy") => {
                put(&mut self.policies, namespaced(&field)?, Policy::read(&field)?);
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                put(&mut self.slices, namespaced(&field)?, Slice::read(&field)?);
            }
            ("v1", "Service") => {
                let key = namespaced(&field)?;
                match Service::read(&field)? {
                    Some(service) => put(&mut self.services, key, service),
                    None => drop(self.services.remove(&key)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets an object; nothing happens if it is not there. The namespace of kinds without one does not matter.
    pub fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        let key = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        match kind {
            "Pod" => drop(self.pods.remove(&key)),
            "Node" => drop(self.nodes.remove(name)),
            "Namespace" => drop(self.namespaces.remove(name)),
            "NetworkPolicy" => drop(self.policies.remove(&key)),
            "Service" => drop(self.services.remove(&key)),
            "EndpointSlice" => drop(self.slices.remove(&key)),
            _ => {}
        }
    }

    /// Whose an address is: a node's, that of a pod which has not finished, or else nobody's in the cluster.
    pub fn locate(&self, address: IpAddr) -> End {
        if let Some((name, _)) = self.nodes.iter().find(|(_, node)| node.addresses.contains(&address)) {
            return End::Node { name: name.clone() };
        }
        let is_here = |pod: &Pod| !pod.finished && pod.addresses.contains(&address);
        match self.pods.iter().find(|(_, pod)| is_here(pod)) {
            Some((key, _)) => End::Pod { namespace: key.namespace.clone(), name: key.name.clone() },
            None => End::Outside(address),
        }
    }

    /// Labels of a namespace. One that was not seen has the label that every namespace has.
    pub(crate) fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces.get(name).cloned().unwrap_or_else(|| with_name_label(Labels::new(), name))
    }

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
            Some(address) => Party::Pod { key, pod, address },
            None => Party::Nobody,
        }
    }

    /// A node that no object describes is still the node of its pods.
    fn node_party<'a>(&'a self, name: &'a str) -> Party<'a> {
        Party::Node { name, addresses: self.nodes.get(name).map_or(&[], |node| &node.addresses) }
    }
}

/// An end of an attempt, looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Party<'a> {
    /// A pod with an address of its own.
    Pod {
        key: &'a ObjectName,
        pod: &'a Pod,
        /// Of the family of the attempt.
        address: IpAddr,
    },
    /// A node.
    Node {
        name: &'a str,
        /// Of both families.
        addresses: &'a [IpAddr],
    },
    /// An address outside the cluster.
    Outside(IpAddr),
    /// An end that no object describes, or that cannot take part in the attempt: selectors and blocks do not match it.
    Nobody,
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    map.insert(key, value);
}

fn named(object: &Field<'_>) -> Result<String, OracleError> {
    Ok(object.at("metadata.name")?.required_text()?.to_owned())
}

fn namespaced(object: &Field<'_>) -> Result<ObjectName, OracleError> {
    let namespace = object.at("metadata.namespace")?.required_text()?.to_owned();
    Ok(ObjectName { namespace, name: named(object)? })
}

fn namespace_labels(object: &Field<'_>) -> Result<Labels, OracleError> {
    Ok(with_name_label(object.at("metadata.labels")?.texts()?, &named(object)?))
}

/// The control plane sets the label `kubernetes.io/metadata.name` on every namespace, to its name.
fn with_name_label(mut labels: Labels, name: &str) -> Labels {
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels
}
