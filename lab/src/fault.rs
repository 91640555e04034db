//! Faults on demand: links, agents, the API server as one node sees it, the container runtime.
//!
//! [`Cluster::fault`](crate::Cluster::fault) breaks something, for a time or until it is healed. Everything goes wrong from outside: the
//! agent, its plugin and the eBPF programs are those that a healthy cluster runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod api;
mod desk;

pub use crate::kubelet::CniFault;
pub use crate::switch::LinkFault;
pub(crate) use desk::{Desk, NodeParts};

/// Something that is broken on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The node it happens to; without one: to all.
    pub node: Option<String>,
    /// How long it lasts; without it until it is healed. Not for what has no duration.
    pub lasts: Option<Duration>,
    /// What breaks.
    pub kind: FaultKind,
}

/// Kinds of faults. Of one kind a node has one at a time: the next takes the place of the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The node's link to the other nodes and the outside. Traffic of the API server is spared: for it there is [`FaultKind::Api`].
    Link(LinkFault),
    /// The node reaches no other node and is reached by none; router and API server stay.
    Partition,
    /// The agent is killed.
    Kill {
        /// It is started again so much later; zero: at once.
        restart_after: Duration,
        /// It finds its state directory as it was so much before its death; zero: as it left it. Needs a lab that records states.
        snapshot_age: Duration,
    },
    /// The agent's process stands still, while packets go on.
    Stall,
    /// What the API server does to calls from the node's addresses.
    Api(ApiFault),
    /// What the container runtime does.
    Cni(CniFault),
    /// The container runtime calls GC with the present attachments, once.
    Gc,
}

/// What the API server does to calls from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiFault {
    /// Watches are cut and cannot go on where they were, so that the client lists again. Once.
    Cut,
    /// Connections break without an answer.
    Down,
    /// Changes are delivered this late.
    Slow(Duration),
    /// Of several changes of one object within half a second only the last is seen.
    Coalesce,
    /// Every change is delivered twice, the second time behind others of the same half second.
    Duplicate,
    /// Changes of different objects within half a second come in another order.
    Reorder,
    /// Watches are cut, and the list that follows is that of a replica which is behind by so many changes. Once.
    Stale(u32),
    /// Watches are cut, and the list that follows breaks off half way. Once.
    PartialList,
    /// Lists and watches are answered with this HTTP status; 410: watches alone.
    Error(u16),
}

/// Why something could not be broken.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(String),
    /// The kernel's bridge joins the nodes.
    #[error(
        "this lab's nodes are joined by the kernel's bridge, which breaks nothing: make the lab with a software fabric (`lab up --software-fabric`)"
    )]
    NoSwitch,
    /// Nobody looked at the state directories.
    #[error(
        "older states of the agents' directories are not recorded in this lab: make it with `lab up --record-state TIME`"
    )]
    NotRecorded,
    /// It has no end.
    #[error("{0} has no duration")]
    NoDuration(&'static str),
    /// A number that makes no sense.
    #[error("{0}")]
    Value(String),
    /// No process to stall.
    #[error("the agent of {0} does not run")]
    NoAgent(String),
    /// GC failed.
    #[error("GC on {node}: {why}")]
    Gc {
        /// Where.
        node: String,
        /// The plugin's words.
        why: String,
    },
}

impl FaultKind {
    /// What people call it: `link`, `api down`, `cni late-del`, …
    pub fn name(&self) -> &'static str {
        match self {
            Self::Link(_) => "link",
            Self::Partition => "partition",
            Self::Kill { .. } => "kill",
            Self::Stall => "stall",
            Self::Api(fault) => fault.name(),
            Self::Cni(fault) => match fault {
                CniFault::RepeatAdd => "cni repeat-add",
                CniFault::RepeatDel(_) => "cni repeat-del",
                CniFault::LateDel(_) => "cni late-del",
                CniFault::DelFirst => "cni del-first",
                CniFault::NetnsGone => "cni netns-gone",
            },
            Self::Gc => "cni gc",
        }
    }

    /// Whether it happens once, so that there is nothing to end.
    pub const fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::Kill { .. }
                | Self::Gc
                | Self::Api(ApiFault::Cut | ApiFault::Stale(_) | ApiFault::PartialList)
        )
    }
}

impl ApiFault {
    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "api cut",
            Self::Down => "api down",
            Self::Slow(_) => "api slow",
            Self::Coalesce => "api coalesce",
            Self::Duplicate => "api duplicate",
            Self::Reorder => "api reorder",
            Self::Stale(_) => "api stale",
            Self::PartialList => "api partial-list",
            Self::Error(_) => "api error",
        }
    }
}

/// A fault that lasts, as the lab shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFault {
    /// The node.
    pub node: String,
    /// [`FaultKind::name`].
    pub name: String,
    /// How long it still lasts; without it until it is healed.
    pub left: Option<Duration>,
}
