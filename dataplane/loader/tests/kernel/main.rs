//! The loader against the running kernel: needs root, and the eBPF object (`cargo xtask ebpf`).

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

mod events;
mod hooks;
mod memory;
mod object;
mod sockets;
mod support;
mod tables;
