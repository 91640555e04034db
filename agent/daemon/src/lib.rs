//! The process around the agent's mind: sockets, the watch on the API server, the kernel's side of the two ports, metrics.
//!
//! It must not decide anything about endpoints, policy or packets: what it hears it hands to `agent-control` as one event,
//! and what `agent-control` wants it does through the ports in [`kernel`].
//! Start reading at [`start::run`], which is the check-list of a start, then [`control`], the one thread that does things.

#![forbid(unsafe_code)]

pub mod cleanup;
mod cni_socket;
mod conflist;
pub mod control;
pub mod flags;
mod health_ports;
mod http;
pub mod kernel;
pub mod logs;
pub mod metrics;
mod monitor;
mod place;
mod process;
mod publish;
pub mod start;
pub mod status;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod underlay;
mod watch;
mod words;
