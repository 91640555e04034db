//! What the operator hears, and what it wants done.

use std::collections::BTreeMap;

use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::meta::Condition;
use agent_crd::{CiliumIdentity, NodePolicyStatus, ObjectMeta};

use super::validity::Validity;

/// A kind of objects that the operator watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 Pod.
    Pod,
    /// core/v1 Namespace.
    Namespace,
    /// CiliumIdentity.
    Identity,
    /// CiliumEndpoint.
    Endpoint,
    /// CiliumNetworkPolicy.
    NamespacedPolicy,
    /// CiliumClusterwideNetworkPolicy.
    ClusterwidePolicy,
    /// ClusterNetworkPolicy. A cluster may not have such a kind.
    ClusterPolicy,
    /// NodePolicyStatus.
    NodeStatus,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::Namespace,
        Self::Identity,
        Self::Endpoint,
        Self::NamespacedPolicy,
        Self::ClusterwidePolicy,
        Self::ClusterPolicy,
        Self::NodeStatus,
    ];

    /// Whether a cluster may not have such a kind.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ClusterPolicy)
    }

    /// Plural name in the API.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Namespace => "namespaces",
            Self::Identity => "ciliumidentities",
            Self::Endpoint => "ciliumendpoints",
            Self::NamespacedPolicy => "ciliumnetworkpolicies",
            Self::ClusterwidePolicy => "ciliumclusterwidenetworkpolicies",
            Self::ClusterPolicy => "clusternetworkpolicies",
            Self::NodeStatus => "nodepolicystatuses",
        }
    }
}

/// An object by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What the operator reads of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account; empty: none.
    pub service_account: String,
    /// True if it is in the network of its node; it has the node's identity then.
    pub host_network: bool,
    /// True if all its containers have ended and will not come back.
    pub finished: bool,
}

/// What the operator reads of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What the operator reads of a CiliumEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Number of its identity, if it has one.
    pub identity: Option<u32>,
}

/// A policy of a kind that has a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which kind.
    pub kind: Kind,
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is to be said of it by its text alone.
    pub validity: Validity,
    /// Its status.
    pub status: PolicyStatus,
}

/// An object as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A pod.
    Pod(Pod),
    /// A namespace.
    Namespace(Namespace),
    /// An identity.
    Identity(CiliumIdentity),
    /// An endpoint.
    Endpoint(Endpoint),
    /// A policy.
    Policy(Policy),
    /// What an agent says of the policies on its node.
    NodeStatus(NodePolicyStatus),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whether the operator leads. Lists that were begun before count for nothing.
    Leading(bool),
    /// A list of all objects of the kind begins. Objects that do not come again before [`Event::ListSynced`] are gone;
    /// a list that is cut short removes nothing.
    ListStarted(Kind),
    /// The list is complete.
    ListSynced(Kind),
    /// An object as it is now, from a list or a watch.
    Upsert(Seen),
    /// An object was deleted.
    Deleted(Key),
    /// What became of a command.
    Outcome {
        /// The command's number.
        id: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The identity was created, as it is now.
    Created(CiliumIdentity),
    /// There is an identity of this name already, and it is this one.
    Exists(CiliumIdentity),
    /// The object is not there (any more).
    Gone,
    /// It may or may not have been done; why it failed.
    Failed(String),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Goes into the outcome.
    pub id: u64,
    /// What.
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create an identity. If its name is taken, the object of that name is to be told as [`Outcome::Exists`].
    CreateIdentity(CiliumIdentity),
    /// Delete an identity, unless it is not exactly this one any more.
    DeleteIdentity {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Its version.
        resource_version: String,
    },
    /// Write the conditions of a policy's status, unless the policy is another one by now.
    WriteConditions {
        /// The policy.
        key: Key,
        /// Its version.
        resource_version: String,
        /// All of its conditions; one without a time is to get the present one.
        conditions: Vec<Condition>,
    },
}
