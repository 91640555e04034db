//! The view of the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::attempt::{End, ObjectName};
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::Labels;
use crate::objects::cilium::CiliumPolicy;
use crate::objects::cilium::group::CidrGroup;
use crate::objects::cluster_policy::{ClusterPolicy, Tier};
use crate::objects::node::Node;
use crate::objects::pod::Pod;
use crate::objects::policy::Policy;
use crate::objects::service::{Service, ServiceRole};
use crate::objects::slice::Slice;
use crate::options::Options;
use crate::party::NAMESPACE_NAME;

/// A view of a cluster's objects: the latest valid of each that was [`set`](Self::set).
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub(crate) options: Options,
    pub(crate) pods: BTreeMap<ObjectName, Pod>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) policies: BTreeMap<ObjectName, Policy>,
    /// Those of the cluster have an empty namespace.
    pub(crate) cilium_policies: BTreeMap<ObjectName, CiliumPolicy>,
    pub(crate) cidr_groups: BTreeMap<String, CidrGroup>,
    /// In the order in which they are asked: by tier, priority and name.
    pub(crate) tiers: BTreeMap<(Tier, u64, String), ClusterPolicy>,
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) service_roles: BTreeMap<ObjectName, ServiceRole>,
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

    /// How this cluster reads the documentation.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Takes an object, new or in place of its older self. Kinds that matter are Pod, Node, Namespace, NetworkPolicy, Service and EndpointSlice in their
    /// `v1`, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup in `cilium.io/v2` (groups also in `v2alpha1`), and
    /// ClusterNetworkPolicy in `policy.networking.k8s.io/v1alpha2`; any other is ignored.
    ///
    /// An object that the documentation calls invalid is refused as a whole: the view stays as it was, so the last valid version stays in force.
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
            ("cilium.io/v2", "CiliumNetworkPolicy") => {
                let key = namespaced(&field)?;
                let policy = CiliumPolicy::read(&field, Some(&key.namespace))?;
                put(&mut self.cilium_policies, key, policy);
            }
            ("cilium.io/v2", "CiliumClusterwideNetworkPolicy") => {
                put(
                    &mut self.cilium_policies,
                    clusterwide(named(&field)?),
                    CiliumPolicy::read(&field, None)?,
                );
            }
            ("cilium.io/v2" | "cilium.io/v2alpha1", "CiliumCIDRGroup") => {
                put(&mut self.cidr_groups, named(&field)?, CidrGroup::read(&field)?);
            }
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
                let name = named(&field)?;
                let policy = ClusterPolicy::read(&field)?;
                self.forget_cluster_policy(&name);
                put(&mut self.tiers, (policy.tier, policy.priority, name), policy);
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                put(&mut self.slices, namespaced(&field)?, Slice::read(&field)?);
            }
            ("v1", "Service") => {
                let key = namespaced(&field)?;
                let (service, role) = (Service::read(&field)?, ServiceRole::read(&field)?);
                put(&mut self.service_roles, key.clone(), role);
                match service {
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
            "CiliumNetworkPolicy" => drop(self.cilium_policies.remove(&key)),
            "CiliumClusterwideNetworkPolicy" => {
                drop(self.cilium_policies.remove(&clusterwide(name.to_owned())));
            }
            "CiliumCIDRGroup" => drop(self.cidr_groups.remove(name)),
            "ClusterNetworkPolicy" => self.forget_cluster_policy(name),
            "Service" => {
                self.services.remove(&key);
                self.service_roles.remove(&key);
            }
            "EndpointSlice" => drop(self.slices.remove(&key)),
            _ => {}
        }
    }

    /// Its place among the others may be another than before.
    fn forget_cluster_policy(&mut self, name: &str) {
        self.tiers.retain(|(_, _, other), _| other != name);
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

fn clusterwide(name: String) -> ObjectName {
    ObjectName { namespace: String::new(), name }
}

/// The control plane sets a label on every namespace, to its name.
fn namespace_labels(object: &Field<'_>) -> Result<Labels, OracleError> {
    let mut labels = object.at("metadata.labels")?.texts()?;
    labels.insert(NAMESPACE_NAME.to_owned(), named(object)?);
    Ok(labels)
}
