//! What crosses the kernel boundary, said once: identifiers, drop reasons, events and one file per table.
//!
//! Packet programs, loader and agent meet only here, so a layout change is one change.
//! This crate must not know packets (that is `dataplane-core`) or Kubernetes (that is `agent-control`).
//! Start reading at [`table`] for what a table is, then at [`conntrack`] and [`endpoints`] for the two that matter most.
//!
//! Conventions: integers are in host byte order unless their type or name says otherwise (`Be16`); addresses are byte arrays
//! in network order, an IPv4 address in a 16-byte field occupies the first four bytes and the rest is zero;
//! padding is explicit and zero, because keys are compared byte by byte.
#![no_std]
#![forbid(unsafe_code)]

mod addr;
pub mod affinity;
pub mod backends;
pub mod clock;
pub mod config;
pub mod conntrack;
pub mod drop_reason;
pub mod endpoints;
pub mod events;
pub mod frags;
pub mod identity;
pub mod ipcache;
pub mod mark;
pub mod metrics;
pub mod nat;
pub mod no_masquerade;
pub mod policy;
pub mod program;
pub mod services;
pub mod sock_revnat;
pub mod table;

pub use addr::{Addr, Be16, Family, Mac};
pub use drop_reason::{DropReason, ForwardReason};
pub use identity::Identity;
pub use table::{TABLES, Table, TableKind, TableSpec};

/// Version of every layout in this crate; part of the pin path, raised by any change that an older program or agent would misread.
pub const ABI_VERSION: u32 = 1;

/// Directory below the node's bpffs in which tables are pinned by name.
pub const PIN_DIR: &str = "bristle/v1";

/// [`PIN_DIR`] on a node whose bpffs is mounted in the usual place.
pub const PIN_ROOT: &str = "/sys/fs/bpf/bristle/v1";

/// Directory of the pinned links.
pub const LINK_ROOT: &str = "/sys/fs/bpf/bristle/v1/links";
