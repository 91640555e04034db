//! NodePolicyStatus, bristle.io/v1alpha1: what an agent says of the policies on its node.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::ObjectMeta;
use crate::object::object;

/// Which policies are in force on a node. Its name is the node's, and the agent of that node writes it.
///
/// What is in force is not listed: an object of a kind is in force on the node if its version is not above that of
/// `revisions`, and it is not among the exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePolicyStatus {
    /// Metadata; the name is that of the node.
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// By kind of policy, the highest `resourceVersion` up to which all objects of the kind are in force.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, i64>")]
    pub revisions: BTreeMap<String, u64>,
    /// How many policies are not enforced as they are written, those that `exceptions` has no room for included.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub not_enforced: u32,
    /// Policies that are not enforced as they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<PolicyException>,
    /// Policies that are only staged and would have decided otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub staged: Vec<StagedPolicy>,
    /// `always` or `never`, where the agent isolates every pod, or enforces nothing, whatever policies say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub enforcement: String,
    /// What policies deny passes there, and is only told of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// Why the newest policies are not in force yet, if writing them fails.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

object!(NodePolicyStatus, "bristle.io", "v1alpha1", "nodepolicystatuses", namespaced: false);

impl NodePolicyStatus {
    /// Exceptions, and staged policies, that an object has at most: it must stay far below what the API takes.
    pub const MOST: usize = 500;

    /// The last exception that is listed, where there is no room for all: of policies after it, by kind, namespace and name, the object
    /// does not say whether they are enforced. `None`: it says it of all.
    pub fn listed_up_to(&self) -> Option<(&str, &str, &str)> {
        let listed = u32::try_from(self.exceptions.len()).unwrap_or(u32::MAX);
        let last = self.exceptions.last().filter(|_| self.not_enforced > listed)?;
        Some((&last.kind, &last.namespace, &last.name))
    }

    /// Why a policy of which the object does not say whether it is enforced may not be.
    pub fn why_unlisted(&self) -> String {
        format!(
            "it names {} of {} policies that are not enforced there; `bristle policy list` has all",
            self.exceptions.len(),
            self.not_enforced
        )
    }

    /// Why no policy is enforced on the node; `None`: as far as that goes all are.
    pub fn lax(&self) -> Option<Lax> {
        match self.enforcement.as_str() {
            "never" => Some(Lax::Never),
            _ => self.audit.then_some(Lax::Audited),
        }
    }
}

/// Why a node enforces no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lax {
    /// Its agent enforces nothing.
    Never,
    /// Its agent lets pass what policies deny, and tells of it.
    Audited,
}

impl Lax {
    /// The same in words, said of a policy.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Never => "enforcement is off there",
            Self::Audited => "it is only audited there: what it denies passes",
        }
    }
}

/// A policy that is not enforced on a node as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyException {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for policies of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is wrong, and what holds instead.
    pub message: String,
}

/// What a staged policy would have decided otherwise on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StagedPolicy {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for policies of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Packets that were dropped, and that it would let through.
    #[schemars(with = "i64")]
    pub would_allow: u64,
    /// Connections that passed, and that it would deny.
    #[schemars(with = "i64")]
    pub would_deny: u64,
}
