//! `GET /v1/endpoints` and `GET /v1/endpoints/{id}`: the pods of this node; `PATCH /v1/endpoints/{id}/config`: what is set for one alone.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Known from the state directory; its device has not been seen again yet.
    Restoring,
    /// Links, rows or programs are still being put in place.
    #[default]
    Creating,
    /// Traffic flows.
    Ready,
    /// Being taken down; its addresses are not free yet.
    Disconnecting,
}

/// One pod as the dataplane knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Number of the endpoint, unique on this node, 1 to 65535.
    pub id: u16,
    /// Where it is in its life.
    pub state: EndpointState,
    /// Security identity (compat: 1–255 reserved, 256–65535 by labels).
    pub identity: u32,
    /// Namespace of the pod; empty when the runtime did not say.
    pub namespace: String,
    /// Name of the pod; empty when the runtime did not say.
    pub pod: String,
    /// UID of the pod; empty when the runtime did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// Container (sandbox) id that the runtime gave.
    pub container_id: String,
    /// Name of the device inside the pod, as a rule `eth0`.
    pub ifname: String,
    /// IPv4 address, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// MAC address of the device in the pod, as `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Device on the node's side: `lxc` and a hash.
    pub device: String,
    /// Interface index of `device` on the node.
    pub ifindex: u32,
    /// MAC address of `device`.
    pub device_mac: String,
    /// When it was added; absent for endpoints restored from older state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// What is enforced on it; absent where policy is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicy>,
    /// What is set for it alone.
    #[serde(default)]
    pub config: EndpointConfig,
}

/// What can be set for an endpoint alone, under the names that Cilium's options have. It stays until the pod goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointConfig {
    /// When policies isolate it.
    pub policy_enforcement: PolicyEnforcement,
    /// Whether what policies deny passes, and is only told of.
    pub policy_audit_mode: PolicyAuditMode,
}

/// A change of it: what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct EndpointConfigChange {
    /// When policies isolate it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_enforcement: Option<PolicyEnforcement>,
    /// Whether what policies deny passes, and is only told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_audit_mode: Option<PolicyAuditMode>,
}

impl EndpointConfig {
    /// What holds after a change.
    #[must_use]
    pub fn with(self, change: EndpointConfigChange) -> Self {
        Self {
            policy_enforcement: change.policy_enforcement.unwrap_or(self.policy_enforcement),
            policy_audit_mode: change.policy_audit_mode.unwrap_or(self.policy_audit_mode),
        }
    }
}

/// When policies isolate an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyEnforcement {
    /// As the agent's flags say for the node.
    #[default]
    Node,
    /// As policies say.
    Default,
    /// Always, in both directions.
    Always,
    /// Never: nothing is enforced on it, whatever policies say.
    Never,
}

/// Whether what policies deny to an endpoint passes, and is only told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAuditMode {
    /// As the agent's flags say for the node.
    #[default]
    #[serde(rename = "node")]
    Node,
    /// It passes.
    Enabled,
    /// It does not.
    Disabled,
}

/// What is enforced on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPolicy {
    /// Number of its policy in the dataplane's tables; 0: none. Endpoints of the same rules share one.
    pub number: u32,
    /// Connections to it are judged.
    pub ingress: bool,
    /// Connections from it are judged.
    pub egress: bool,
    /// What would be dropped passes, and is told of.
    pub audit: bool,
}
