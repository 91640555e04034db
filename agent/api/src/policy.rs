//! `GET /v1/identities`, `GET /v1/policies`, `GET` and `POST /v1/policies/explain`: who is who, and who may speak with whom.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A set of labels and its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Number: 1 to 255 reserved, 256 to 65535 of the cluster, from 16777217 on CIDRs, which differ from node to node.
    pub id: u32,
    /// Name of a reserved one; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels as `source:key=value`.
    pub labels: Vec<String>,
    /// Numbers of the endpoints of this node that have it.
    pub endpoints: Vec<u16>,
}

/// A policy object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its kind, as the API names it.
    pub kind: String,
    /// Its namespace; empty for policies of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Numbers of the endpoints of this node that it selects; 0: the node itself.
    pub endpoints: Vec<u16>,
    /// It is not in force, and this is what it would have decided otherwise; absent: it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// What is wrong with it, and what was done about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// What a staged policy would have decided otherwise on this node, since it is staged. Counted by the dataplane, and read from
/// it every five seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Packets that were dropped, and that it would let through.
    pub would_allow: u64,
    /// Connections that passed, and that it would deny; each once for each direction in which a policy was asked.
    pub would_deny: u64,
}

/// Why a connection passes or does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The end that connects.
    pub from: Party,
    /// The end that is connected to.
    pub to: Party,
    /// It passes: policies of both ends allow it, or those that do not are only audited there.
    pub passes: bool,
    /// What the policies of `from` say; absent for ends that have none, and where they do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Side>,
    /// What the policies of `to` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Side>,
}

/// Objects that are to be changed: the body of `POST /v1/policies/explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Policies and groups of CIDRs as they would be applied, as the Kubernetes API has them.
    #[serde(default)]
    pub with: Vec<Value>,
    /// Those that would be deleted; before any is applied.
    #[serde(default)]
    pub without: Vec<ObjectRef>,
}

/// Which policy or group of CIDRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind in full; upper and lower case are the same.
    pub kind: String,
    /// Its namespace; empty for objects of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a [`Change`] would do to a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIf {
    /// It passes now and would not then, or the other way round.
    pub changes: bool,
    /// As it is.
    pub now: Explanation,
    /// As it would be.
    pub then: Explanation,
}

/// An end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Pod or address.
    pub name: String,
    /// Number of its identity.
    pub identity: u32,
    /// Labels of its identity as `source:key=value`.
    pub labels: Vec<String>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// There is a policy for it.
    pub judged: bool,
    /// These policies let it pass.
    pub passes: bool,
    /// The end is in audit mode: what these policies deny passes all the same, and is told of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audited: bool,
    /// The decision in words.
    pub outcome: String,
    /// Rules that decided, as `Kind/namespace/name ingress[0]`.
    pub decided_by: Vec<String>,
    /// Rules that isolate this end, so that something has to allow the connection.
    pub isolated_by: Vec<String>,
    /// What staged policies would change: `would allow`, `would deny`, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub staged: String,
    /// Rules that would decide then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged_by: Vec<String>,
}
