//! CiliumEndpoint, cilium.io/v2: what an agent says of one of its endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::ObjectMeta;
use crate::object::object;
use crate::words::words;

/// An endpoint. It has the pod's name and is owned by the pod, so that it goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CiliumEndpoint {
    /// Metadata.
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The endpoint, written by the agent of its node.
    pub status: EndpointStatus,
}

object!(CiliumEndpoint, "cilium.io", "v2", "ciliumendpoints", namespaced: true);

/// State of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct EndpointStatus {
    /// Its number on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<EndpointIdentity>,
    /// Its addresses and its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<EndpointNetworking>,
    /// How policy is enforced on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicy>,
    /// Where it is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
    /// Its names elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_identifiers: Option<EndpointIdentifiers>,
    /// Container ports with names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named_ports: Vec<NamedPort>,
    /// The pod's service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// How traffic to it is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// How it is. Not always filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
    /// What has happened to it. Not always filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<EndpointStatusChange>,
}

/// An endpoint's identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointIdentity {
    /// Number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Labels as `source:key=value`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// An endpoint's addresses and its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointNetworking {
    /// Its addresses, one entry for each pair of families.
    pub addressing: Vec<AddressPair>,
    /// Address of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Up to one address of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AddressPair {
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// How policy is enforced on an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointPolicy {
    /// On what comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<EndpointPolicyDirection>,
    /// On what goes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EndpointPolicyDirection>,
}

/// How policy is enforced on one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointPolicyDirection {
    /// True if what no rule allows is dropped.
    pub enforcing: bool,
    /// What is allowed. Not always filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<IdentityTuple>,
    /// What is denied. Not always filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<IdentityTuple>,
    /// `enforcing`, `non-enforcing` or `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A peer and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct IdentityTuple {
    /// The peer's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<u64>,
    /// The peer's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub identity_labels: BTreeMap<String, String>,
    /// Port; 0 for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_port: Option<u16>,
    /// Protocol number; 0 for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
}

words! {
    /// Where an endpoint is in its life.
    pub enum EndpointState {
        /// It is being made.
        Creating = "creating",
        /// It has no identity yet.
        WaitingForIdentity = "waiting-for-identity",
        /// It cannot be reached yet.
        NotReady = "not-ready",
        /// Its rows will be written.
        WaitingToRegenerate = "waiting-to-regenerate",
        /// Its rows are being written.
        Regenerating = "regenerating",
        /// An agent that has just started takes it over.
        Restoring = "restoring",
        /// It works.
        Ready = "ready",
        /// It is being removed.
        Disconnecting = "disconnecting",
        /// It has been removed.
        Disconnected = "disconnected",
        /// It cannot be made.
        Invalid = "invalid",
    }
}

/// Names of an endpoint elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct EndpointIdentifiers {
    /// Container and interface, as CNI knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_attachment_id: Option<String>,
    /// Container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Endpoint, as Docker knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_endpoint_id: Option<String>,
    /// Network, as Docker knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_network_id: Option<String>,
    /// Namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// Namespace and name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// A container port with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NamedPort {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
}

/// How traffic to an endpoint is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Encryption {
    /// Number of the key; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<i64>,
}

/// How an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHealth {
    /// Its programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bpf: String,
    /// Whether it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// All together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub overall_health: String,
    /// Its policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
}

/// Something that has happened to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointStatusChange {
    /// One word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// One sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The state it came to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timestamp: String,
}
