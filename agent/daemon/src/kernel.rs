//! The kernel's implementations of the two ports of `agent-control`: tables by the loader, links and routes by `agent-node`.

mod base;
mod maps;
mod node;
mod rcu;
mod removal;

pub use maps::KernelMaps;
pub use node::KernelNode;
pub(crate) use node::{documents, is_pod_link};

use agent_control::PortError;

use crate::words::chain;

/// A failure that is worth another try; most kernel errors are: memory, a device that is just appearing, a busy lock.
fn later(operation: impl Into<String>, problem: &dyn std::error::Error) -> PortError {
    PortError::retryable(operation, chain(problem))
}
