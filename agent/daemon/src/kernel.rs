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

/// An error with all its causes, each said once, as a port's message.
fn chain(problem: &dyn std::error::Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

/// A failure that is worth another try; most kernel errors are: memory, a device that is just appearing, a busy lock.
fn later(operation: impl Into<String>, problem: &dyn std::error::Error) -> PortError {
    PortError::retryable(operation, chain(problem))
}
