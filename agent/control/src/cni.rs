//! CNI requests as they reach the agent. Operations, results and errors are the types of [`agent_api::cni`].

use agent_api::cni::{Operation, PodRef};
use agent_api::{Timestamp, cni};

/// Names one request, so that its reply finds the way back. Chosen by the daemon, unique while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names the descriptor of a pod's network namespace that came with a request.
/// The daemon keeps the descriptor under this number until it has sent the request's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsHandle(pub u64);

/// A pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Names the descriptor to [`crate::NodeOps`].
    pub handle: NetnsHandle,
    /// `CNI_NETNS`, for results and messages; never opened.
    pub path: String,
}

/// A request of the container runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct CniRequest {
    /// Comes back in the reply.
    pub id: RequestId,
    /// When it came, for display only: no decision depends on it.
    pub received: Timestamp,
    /// The descriptor that came with it. ADD and CHECK need one.
    pub netns: Option<NetnsHandle>,
    /// The pod that the runtime named.
    pub pod: Option<PodRef>,
    /// What is wanted.
    pub operation: Operation,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request's id.
    pub id: RequestId,
    /// What it came to.
    pub outcome: cni::Reply,
}
