//! `GET /v1/nodes`: the nodes of the cluster as this agent knows them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// It is the node of this agent.
    pub local: bool,
    /// Addresses of type `InternalIP`, in the order of the Node object.
    pub internal_ips: Vec<IpAddr>,
    /// Pod CIDRs of the node (`spec.podCIDRs`).
    pub pod_cidrs: Vec<IpNet>,
}
