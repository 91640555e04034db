//! Objects of the Kubernetes API beside nodes: what identity and policy come from.

mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use read::ReadError;

use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NetworkPolicy, Object as _,
};
use agent_policy::{NamedPort, PolicyObject};
use dataplane_abi::Identity;

use crate::few::{Few, FewMap};

/// Kinds of objects. Each is listed and watched by itself, so that what is known of one says nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// core/v1 Pod, those of the own node only.
    Pod,
    /// core/v1 Namespace.
    Namespace,
    /// `CiliumIdentity`.
    Identity,
    /// `CiliumEndpoint`, those of all nodes.
    Endpoint,
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 `EndpointSlice`.
    EndpointSlice,
    /// `CiliumCIDRGroup`.
    CidrGroup,
    /// networking.k8s.io/v1 `NetworkPolicy`.
    NetworkPolicy,
    /// `CiliumNetworkPolicy`.
    CiliumNetworkPolicy,
    /// `CiliumClusterwideNetworkPolicy`.
    CiliumClusterwideNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 `ClusterNetworkPolicy`.
    ClusterNetworkPolicy,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Pod,
        Self::Namespace,
        Self::Identity,
        Self::Endpoint,
        Self::Service,
        Self::EndpointSlice,
        Self::CidrGroup,
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// As the API names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Identity => "CiliumIdentity",
            Self::Endpoint => "CiliumEndpoint",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::CidrGroup => "CiliumCIDRGroup",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

impl ObjectKind {
    /// Whether it says who may speak with whom: the policies, and what they name by reference.
    pub const fn is_of_policy(self) -> bool {
        matches!(
            self,
            Self::CidrGroup
                | Self::NetworkPolicy
                | Self::CiliumNetworkPolicy
                | Self::CiliumClusterwideNetworkPolicy
                | Self::ClusterNetworkPolicy
        )
    }
}

/// Which object of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectName {
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The name of an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// An object as it is now.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A pod of the own node.
    Pod(PodObject),
    /// A namespace.
    Namespace(NamespaceObject),
    /// The number of a set of labels.
    Identity(CiliumIdentity),
    /// What an agent says of one of its endpoints.
    Endpoint(EndpointObject),
    /// A service.
    Service(ServiceObject),
    /// Some endpoints of a service.
    EndpointSlice(SliceObject),
    /// A group of CIDRs.
    CidrGroup(CiliumCIDRGroup),
    /// A policy.
    NetworkPolicy(NetworkPolicy),
    /// A policy.
    CiliumNetworkPolicy(CiliumNetworkPolicy),
    /// A policy.
    CiliumClusterwideNetworkPolicy(CiliumClusterwideNetworkPolicy),
    /// A policy.
    ClusterNetworkPolicy(ClusterNetworkPolicy),
}

impl Object {
    /// Its kind.
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Pod(_) => ObjectKind::Pod,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Identity(_) => ObjectKind::Identity,
            Self::Endpoint(_) => ObjectKind::Endpoint,
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::CidrGroup(_) => ObjectKind::CidrGroup,
            Self::NetworkPolicy(_) => ObjectKind::NetworkPolicy,
            Self::CiliumNetworkPolicy(_) => ObjectKind::CiliumNetworkPolicy,
            Self::CiliumClusterwideNetworkPolicy(_) => ObjectKind::CiliumClusterwideNetworkPolicy,
            Self::ClusterNetworkPolicy(_) => ObjectKind::ClusterNetworkPolicy,
        }
    }

    /// Its name.
    pub fn name(&self) -> ObjectName {
        let of = |meta: &agent_crd::ObjectMeta| ObjectName::new(&meta.namespace, &meta.name);
        match self {
            Self::Pod(pod) => ObjectName::new(&pod.namespace, &pod.name),
            Self::Namespace(namespace) => ObjectName::new("", &namespace.name),
            Self::Endpoint(endpoint) => (*endpoint.name).clone(),
            Self::Service(service) => ObjectName::new(&service.namespace, &service.name),
            Self::EndpointSlice(slice) => ObjectName::new(&slice.namespace, &slice.name),
            Self::Identity(object) => of(object.metadata()),
            Self::CidrGroup(object) => of(object.metadata()),
            Self::NetworkPolicy(object) => of(object.metadata()),
            Self::CiliumNetworkPolicy(object) => of(object.metadata()),
            Self::CiliumClusterwideNetworkPolicy(object) => of(object.metadata()),
            Self::ClusterNetworkPolicy(object) => of(object.metadata()),
        }
    }
}

impl Object {
    /// Its metadata, if it is a policy or what policies name.
    pub(crate) fn policy_metadata(&self) -> Option<&agent_crd::ObjectMeta> {
        Some(match self {
            Self::CidrGroup(object) => object.metadata(),
            Self::NetworkPolicy(object) => object.metadata(),
            Self::CiliumNetworkPolicy(object) => object.metadata(),
            Self::CiliumClusterwideNetworkPolicy(object) => object.metadata(),
            Self::ClusterNetworkPolicy(object) => object.metadata(),
            Self::Pod(_)
            | Self::Namespace(_)
            | Self::Identity(_)
            | Self::Endpoint(_)
            | Self::Service(_)
            | Self::EndpointSlice(_) => return None,
        })
    }

    /// The policy that it is, if it is one.
    pub const fn as_policy(&self) -> Option<PolicyObject<'_>> {
        match self {
            Self::NetworkPolicy(policy) => Some(PolicyObject::Kubernetes(policy)),
            Self::CiliumNetworkPolicy(policy) => Some(PolicyObject::Cilium(policy)),
            Self::CiliumClusterwideNetworkPolicy(policy) => Some(PolicyObject::CiliumClusterwide(policy)),
            Self::ClusterNetworkPolicy(policy) => Some(PolicyObject::Cluster(policy)),
            Self::Pod(_)
            | Self::Namespace(_)
            | Self::Identity(_)
            | Self::Endpoint(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::CidrGroup(_) => None,
        }
    }
}

/// What the agent reads of a core/v1 Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodObject {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// Container ports that have names.
    pub named_ports: Vec<NamedPort>,
}

/// What the agent reads of a core/v1 Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceObject {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// What the agent reads of a core/v1 Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceObject {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: FewMap<String, String>,
    /// `spec.selector`; empty: its endpoints are somebody else's matter.
    pub selector: FewMap<String, String>,
    /// `spec.clusterIPs`. What is no address is left out, as is `None`.
    pub cluster_ips: Few<IpAddr>,
    /// `metadata.creationTimestamp`; of two that claim one frontend the later one has it.
    pub created: Box<str>,
    /// `spec.externalIPs`. What is no address is left out.
    pub external_ips: Few<IpAddr>,
    /// `status.loadBalancer.ingress`, for a service of that type: addresses at which nodes take its traffic (`ipMode` is not `Proxy`).
    pub balancer_ips: Few<IpAddr>,
    /// `spec.ports`, those of protocols that are translated.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy` is `Local`: clients get endpoints of their own node only.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is `Local`: from outside, and at its port, a node gives its own endpoints only.
    pub external_local: bool,
    /// `spec.healthCheckNodePort`, for a load balancer with `external_local`: where nodes say whether they have endpoints of it.
    pub health_port: Option<u16>,
    /// Seconds for which a client stays with its backend (`spec.sessionAffinity` is `ClientIP`).
    pub affinity_s: Option<u32>,
    /// It is left to another proxy (label `service.kubernetes.io/service-proxy-name`) or to nobody (label
    /// `service.kubernetes.io/headless`), or is only a name (type `ExternalName`).
    pub is_anothers: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ServicePort {
    /// Its name, empty where it is the only one. Slices name their ports after it.
    pub name: Box<str>,
    /// IP protocol: TCP or UDP.
    pub proto: u8,
    /// Port at the service's addresses.
    pub port: u16,
    /// Port at every node, for services that have such ports.
    pub node_port: Option<u16>,
}

/// What the agent reads of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SliceObject {
    /// `metadata.namespace`, that of its service too.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Its service, by the label `kubernetes.io/service-name`; empty: none.
    pub service: String,
    /// Addresses of its endpoints, whether they are ready or not: who may be spoken to does not depend on that.
    /// Of an endpoint only the first address counts. What is no address is left out, as are names (`addressType` FQDN).
    pub addresses: Few<IpAddr>,
    /// TCP ports of its endpoints.
    pub tcp_ports: Few<u16>,
    /// Ports of its endpoints that are translated: those of services, with the number at the endpoints.
    pub ports: Vec<ServicePort>,
    /// Its endpoints with addresses, each with the first of them.
    pub endpoints: Vec<SliceEndpoint>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// `nodeName`; empty: it is said to be on none.
    pub node: Box<str>,
    /// Takes traffic (`conditions.ready`; not known counts as yes).
    pub ready: bool,
    /// Would be ready if it did not end (`conditions.serving`; not known counts as `ready`).
    pub serving: bool,
    /// Is about to end (`conditions.terminating`; not known counts as no).
    pub terminating: bool,
    /// Zones whose clients shall use it (`hints.forZones`).
    pub zones: Box<[Box<str>]>,
    /// Nodes whose clients shall use it (`hints.forNodes`).
    pub nodes: Box<[Box<str>]>,
}

/// What the agent reads of a `CiliumEndpoint`. What is wrong in it is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointObject {
    /// `metadata.namespace` and `metadata.name`, those of the pod.
    pub name: Arc<ObjectName>,
    /// `metadata.creationTimestamp`; of two that claim one address the later one has it.
    pub created: Box<str>,
    /// Number of its identity; 0: it has none yet.
    pub identity: u32,
    /// Its addresses.
    pub addresses: Box<[IpAddr]>,
    /// Address of its node.
    pub node: Option<IpAddr>,
    /// Container ports that have names.
    pub named_ports: Box<[NamedPort]>,
}

impl EndpointObject {
    /// Its identity; that of pods whose labels are not known, as long as it has none.
    pub(crate) fn identity(&self) -> Identity {
        if self.identity == 0 { Identity::INIT } else { Identity(self.identity) }
    }
}

impl From<&CiliumEndpoint> for EndpointObject {
    fn from(object: &CiliumEndpoint) -> Self {
        let status = &object.status;
        let networking = status.networking.as_ref();
        let pairs = networking.iter().flat_map(|networking| &networking.addressing);
        let texts = pairs.flat_map(|pair| [pair.ipv4.as_ref(), pair.ipv6.as_ref()]).flatten();
        let identity = status.identity.as_ref().and_then(|identity| identity.id);
        Self {
            name: Arc::new(ObjectName::new(&object.metadata.namespace, &object.metadata.name)),
            created: object.metadata.creation_timestamp.clone().unwrap_or_default().into(),
            identity: identity.and_then(|id| u32::try_from(id).ok()).unwrap_or_default(),
            addresses: texts.filter_map(|text| text.parse().ok()).collect(),
            node: networking.and_then(|n| n.node.as_ref()).and_then(|node| node.parse().ok()),
            named_ports: status
                .named_ports
                .iter()
                .filter_map(|port| named_port(&port.name, &port.protocol, port.port))
                .collect(),
        }
    }
}

/// A container port with a name, if the protocol is one that policies can name. An empty protocol is TCP.
pub fn named_port(name: &str, protocol: &str, port: u16) -> Option<NamedPort> {
    use agent_policy::proto;
    let proto = match protocol {
        "TCP" | "" => proto::TCP,
        "UDP" => proto::UDP,
        "SCTP" => proto::SCTP,
        _ => return None,
    };
    (!name.is_empty()).then(|| NamedPort { name: name.to_owned(), proto, port })
}
