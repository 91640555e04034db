//! The cluster's controllers as plain functions over the store: scheduler, node IPAM, workloads, endpoints,
//! namespaces, garbage.
//!
//! Each reads the present objects and writes what is missing; none keeps anything that it could not find out again,
//! none waits, and time comes from the store's clock, so a simulator can step them in any order.
//!
//! What they must not know: HTTP, processes, networks. Start reading at [`Controllers`].

#![forbid(unsafe_code)]

mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod event;
mod garbage;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod quantity;
mod replicaset;
mod scheduler;

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use sim_api::resource::{
    DAEMONSETS, DEPLOYMENTS, ENDPOINTS, ENDPOINTSLICES, EVENTS, LEASES, NODES, PODDISRUPTIONBUDGETS, PODS,
    REPLICASETS, SERVICES,
};
use sim_api::{Gr, Store};

/// How the controllers are set up.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// Ranges that nodes' pod CIDRs are cut from with the prefix length of one node, the primary family first;
    /// empty: pod CIDRs are given out by somebody else.
    pub pod_cidrs: Vec<(IpNet, u8)>,
    /// Seconds without a renewed lease after which a node counts as unreachable; 0: leases do not matter.
    pub node_grace_s: u32,
}

/// What a controller may use.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) options: &'a ControllerOptions,
    pub(crate) now: Timestamp,
}

/// One controller: what wakes it, and what it then does.
struct Controller {
    /// Resources whose changes it must look at; `None`: of all resources.
    inputs: Option<&'static [Gr]>,
    run: fn(&Context<'_>),
}

const CONTROLLERS: &[Controller] = &[
    Controller { inputs: None, run: namespace::run },
    Controller { inputs: Some(&[NODES]), run: node_ipam::run },
    Controller { inputs: Some(&[NODES, LEASES]), run: node_lifecycle::run },
    Controller { inputs: Some(&[DEPLOYMENTS, REPLICASETS, PODS]), run: deployment::run },
    Controller { inputs: Some(&[REPLICASETS, PODS]), run: replicaset::run },
    Controller { inputs: Some(&[DAEMONSETS, NODES, PODS]), run: daemonset::run },
    Controller { inputs: Some(&[PODS, NODES]), run: scheduler::run },
    Controller { inputs: Some(&[SERVICES, PODS, ENDPOINTSLICES, ENDPOINTS]), run: endpoints::run },
    Controller { inputs: Some(&[PODDISRUPTIONBUDGETS, PODS]), run: disruption::run },
    Controller { inputs: None, run: garbage::run },
    Controller { inputs: Some(&[PODS, NODES]), run: pod_gc::run },
];

/// How often everything is looked at again for what time alone changes (leases, `minReadySeconds`, old events).
const RESYNC: SignedDuration = SignedDuration::from_secs(5);

/// All controllers over one store.
pub struct Controllers {
    store: Store,
    options: ControllerOptions,
    /// The revision up to which changes have been looked at.
    seen: u64,
    /// When everything is looked at next.
    resync: Option<Timestamp>,
}

impl Controllers {
    /// Controllers that have seen nothing yet.
    pub fn new(store: Store, options: ControllerOptions) -> Self {
        Self { store, options, seen: 0, resync: None }
    }

    /// Lets every controller look once at what has changed and act; true if anything was written, so that it is
    /// worth stepping again. Never blocks.
    pub fn step(&mut self) -> bool {
        let now = self.store.now();
        let everything = self.resync.is_none_or(|at| now >= at);
        if everything {
            self.resync = Some(now.saturating_add(RESYNC).unwrap_or(now));
        }
        let start = self.store.revision();
        // None stands for "everything": the first time, now and then, and when the log has been outrun.
        let changed: Option<BTreeSet<Gr>> = match self.store.changes(self.seen) {
            Ok(changes) if !everything => Some(changes.into_iter().map(|c| c.resource).collect()),
            _ => None,
        };
        self.seen = start;
        if changed.as_ref().is_some_and(BTreeSet::is_empty) {
            return false;
        }
        let context = Context { store: &self.store, options: &self.options, now };
        for controller in CONTROLLERS {
            let wakes = match (&changed, controller.inputs) {
                (None, _) => true,
                // Events and leases come often and mean nothing to those who look at everything.
                (Some(changed), None) => changed.iter().any(|r| *r != EVENTS && *r != LEASES),
                (Some(changed), Some(inputs)) => inputs.iter().any(|r| changed.contains(r)),
            };
            if wakes {
                (controller.run)(&context);
            }
        }
        self.store.revision() != start
    }

    /// Steps until nothing changes any more (at most `limit` times); true if it came to rest.
    pub fn settle(&mut self, limit: usize) -> bool {
        (0..limit).any(|_| !self.step())
    }

    /// When to step next even if the store does not change (grace periods), if at all.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.resync
    }
}

/// Logs a failed write and goes on: the next step sees the present state and tries again.
pub(crate) fn tried<T>(what: &str, result: Result<T, sim_api::ApiError>) -> Option<T> {
    result.inspect_err(|error| tracing::debug!(%error, what, "controller write failed")).ok()
}
