//! The two doors through which everything leaves that the agent does.
//!
//! Each trait has exactly two implementations: the kernel's (in the daemon) and the one in memory ([`crate::memory`]).
//! Both are synchronous; every call either did what it says or returned an error and may be repeated.

use std::fmt;

mod maps;
mod node;

pub use dataplane_abi::program::Program;
pub use maps::{CtClock, Cursor, MapStore, Row, Scan, Table};
pub use node::{
    BaseFacts, BaseSpec, Document, LinkFacts, NodeOps, PodInterfaceFacts, PodInterfaceSpec, PodLink,
    PodRoute, Route,
};

pub use dataplane_abi::config::VXLAN_PORT;

/// Name of the link through which the node's own traffic reaches pods; it carries the router addresses.
pub const HOST_LINK: &str = "bristle_host";
/// Name of the other end of [`HOST_LINK`].
pub const NET_LINK: &str = "bristle_net";
/// Name of the overlay device.
pub const OVERLAY_LINK: &str = "bristle_vxlan";
/// Names of the host's ends of pods' interfaces begin with this.
pub const POD_LINK_PREFIX: &str = "lxc";
/// Routing protocol number of our routes, so that they can be told from others'.
pub const ROUTE_PROTOCOL: u8 = 76;

/// Whether repeating the same call can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It may work later: busy, interrupted, full.
    Later,
    /// It will not work until something else changes: bad argument, not supported.
    Never,
}

/// What kind of failure it is, as far as the agent acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortErrorKind {
    /// The table is at its capacity.
    Full,
    /// The thing to work on is not there.
    NotFound,
    /// The pod's namespace is gone or is not a network namespace.
    NetnsGone,
    /// The interface exists already in the pod's namespace.
    InterfaceExists,
    /// The process is dying; nothing happens any more (only the memory implementation says so).
    Crashed,
    /// Anything else.
    Other,
}

/// A call to a port failed and changed nothing, or left only what the next call of the same kind mends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct PortError {
    /// What was tried, with its object: `upsert IPCACHE 10.0.1.0/24`.
    pub operation: String,
    /// Why it failed, with all causes.
    pub message: String,
    /// Whether repeating can help.
    pub retry: Retry,
    /// What kind of failure.
    pub kind: PortErrorKind,
}

impl PortError {
    /// A failure that may go away.
    pub fn retryable(operation: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            operation: operation.into(),
            message: message.to_string(),
            retry: Retry::Later,
            kind: PortErrorKind::Other,
        }
    }

    /// A failure that will stay.
    pub fn terminal(operation: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            operation: operation.into(),
            message: message.to_string(),
            retry: Retry::Never,
            kind: PortErrorKind::Other,
        }
    }

    /// The same failure, of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: PortErrorKind) -> Self {
        self.kind = kind;
        self
    }
}
