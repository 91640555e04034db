//! The ports in memory, for tests and for the simulator: same contracts, no kernel, faults on demand.
//!
//! [`MemoryMaps`] and [`MemoryNode`] of one node share one [`Faults`], which counts their calls and can make any of them fail,
//! or end the agent's life after any of them: from then on nothing has an effect, as if the process had been killed there.

mod faults;
mod maps;
mod node;

pub use faults::Faults;
pub use maps::MemoryMaps;
pub use node::{MemoryLink, MemoryNode, PodEnd};
