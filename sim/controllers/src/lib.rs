//! The cluster's controllers as plain functions over the store: scheduler, node IPAM, workloads, endpoints,
//! namespaces, garbage.
//!
//! Each reads the present objects and writes what is missing; none keeps anything that it could not find out again,
//! none waits, and time comes from the store's clock, so a simulator can step them in any order.
//!
//! What they must not know: HTTP, processes, networks. Start reading at [`Controllers`].

#![forbid(unsafe_code)]

use ipnet::IpNet;
use jiff::Timestamp;
use sim_api::Store;

/// How the controllers are set up.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// Ranges that nodes' pod CIDRs are cut from with the prefix length of one node, the primary family first;
    /// empty: pod CIDRs are given out by somebody else.
    pub pod_cidrs: Vec<(IpNet, u8)>,
    /// Seconds without a renewed lease after which a node counts as unreachable; 0: leases do not matter.
    pub node_grace_s: u32,
}

/// All controllers over one store.
pub struct Controllers {
    store: Store,
}

impl Controllers {
    /// Controllers that have seen nothing yet.
    pub fn new(store: Store, _options: ControllerOptions) -> Self {
        Self { store }
    }

    /// Lets every controller look once at what has changed and act; true if anything was written, so that it is
    /// worth stepping again. Never blocks.
    pub fn step(&mut self) -> bool {
        let _ = &self.store;
        false
    }

    /// Steps until nothing changes any more (at most `limit` times); true if it came to rest.
    pub fn settle(&mut self, limit: usize) -> bool {
        (0..limit).any(|_| !self.step())
    }

    /// When to step next even if the store does not change (grace periods), if at all.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
}
