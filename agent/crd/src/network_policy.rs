//! NetworkPolicy, networking.k8s.io/v1.

use serde::{Deserialize, Serialize};

use crate::meta::{IntOrString, LabelSelector, ObjectMeta};
use crate::object::object;
use crate::words::words;

/// Isolates pods of a namespace and says what may still reach them or be reached by them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: NetworkPolicySpec,
}

object!(NetworkPolicy, "networking.k8s.io", "v1", "networkpolicies", namespaced: true);

/// What a NetworkPolicy demands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods of the namespace that it is about; empty: all.
    pub pod_selector: LabelSelector,
    /// What may reach them. No rules: nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<NetworkPolicyIngressRule>,
    /// What they may reach. No rules: nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<NetworkPolicyEgressRule>,
    /// The directions it isolates. None given: Ingress, and Egress if there are egress rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
}

impl NetworkPolicySpec {
    /// Whether the pods are isolated for ingress. A direction that this version does not know isolates for both.
    pub fn isolates_ingress(&self) -> bool {
        self.policy_types.is_empty() || self.has(&PolicyType::Ingress)
    }

    /// Whether the pods are isolated for egress. A direction that this version does not know isolates for both.
    pub fn isolates_egress(&self) -> bool {
        if self.policy_types.is_empty() { !self.egress.is_empty() } else { self.has(&PolicyType::Egress) }
    }

    fn has(&self, direction: &PolicyType) -> bool {
        self.policy_types.iter().any(|t| t == direction || matches!(t, PolicyType::Other(_)))
    }
}

words! {
    /// A direction that a NetworkPolicy isolates.
    pub enum PolicyType {
        /// Towards the pods.
        Ingress = "Ingress",
        /// From the pods.
        Egress = "Egress",
    }
}

/// Allows what comes from one of the peers to one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyIngressRule {
    /// Sources; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<NetworkPolicyPeer>,
    /// Ports of the selected pods; none given: all ports of all protocols.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NetworkPolicyPort>,
}

/// Allows what goes to one of the peers on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyEgressRule {
    /// Destinations; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<NetworkPolicyPeer>,
    /// Ports of the destinations; none given: all ports of all protocols.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NetworkPolicyPort>,
}

/// Other ends of connections: pods by labels, or addresses. One with no field set matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyPeer {
    /// Pods, in the selected namespaces or else in that of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; excludes the two others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses outside of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// A CIDR.
    pub cidr: String,
    /// CIDRs inside of it that are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicyPort {
    /// `TCP`, `UDP` or `SCTP`; not given: `TCP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<TransportProtocol>,
    /// Number, or name of a container port of the pod that is connected to; not given: all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Last port of a range that begins with `port`, which is a number then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i32>,
}

words! {
    /// Protocols of ports in core Kubernetes objects.
    pub enum TransportProtocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
    }
}
