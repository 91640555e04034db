//! The agent: state, and the two calls that move it.

use std::collections::BTreeMap;

use agent_api::{Endpoint, IpcacheEntry, Node, status};

use crate::cni::Reply;
use crate::config::Config;
use crate::event::Event;
use crate::finding::Finding;
use crate::ports::{Document, MapStore, NodeOps, PortError, Table};
use crate::time::Now;

/// What one [`Agent::reconcile`] did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReconcileReport {
    /// Answers to requests that are finished now.
    pub replies: Vec<Reply>,
    /// Rows written, by table.
    pub rows_written: BTreeMap<Table, usize>,
    /// Rows removed, by table (connections that expired too).
    pub rows_removed: BTreeMap<Table, usize>,
    /// Routes, links, programs and documents that were changed.
    pub node_changes: usize,
    /// Rows, routes and links that were computed again because something they depend on changed.
    pub recomputed: usize,
    /// What failed; it will be tried again, see [`Agent::next_deadline`].
    pub errors: Vec<PortError>,
    /// Rows, routes and links that still wait.
    pub pending: usize,
}

/// The brain of the node agent.
#[derive(Debug)]
pub struct Agent {
    config: Config,
}

impl Agent {
    /// An agent that knows what an earlier one left in the state directory, and nothing else yet.
    /// Documents that cannot be read become findings.
    pub fn new(config: Config, restored: Vec<Document>) -> Self {
        let _ = restored;
        Self { config }
    }

    /// Takes note of an event. No effect leaves the agent before the next [`Agent::reconcile`]; requests that need none are answered at once.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Reply> {
        let _ = (now, event);
        Vec::new()
    }

    /// Makes maps and node equal to what the state asks for, as far as it can now. Cheap when nothing changed.
    /// The first call reads back what is there. Call it after each batch of events: what is waiting is done together.
    pub fn reconcile(&mut self, now: Now, maps: &mut dyn MapStore, node: &mut dyn NodeOps) -> ReconcileReport {
        let _ = (now, maps, node);
        ReconcileReport::default()
    }

    /// When [`Event::Tick`] and [`Agent::reconcile`] are due without any other event.
    pub fn next_deadline(&self) -> Option<Now> {
        None
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Views for the local API.
impl Agent {
    /// All endpoints, by id.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// The ipcache as it shall be.
    pub fn ipcache(&self) -> Vec<IpcacheEntry> {
        Vec::new()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    /// The node's network.
    pub fn network(&self) -> status::NetworkStatus {
        status::NetworkStatus::default()
    }

    /// Address pools, one per pod CIDR of the node.
    pub fn ipam(&self, now: Now) -> Vec<status::IpamStatus> {
        let _ = now;
        Vec::new()
    }

    /// Where the agent is in its life, and why it is not ready.
    pub fn state(&self) -> (status::AgentState, Option<String>) {
        (status::AgentState::Starting, None)
    }

    /// What waits and what failed, by object.
    pub fn failures(&self) -> Vec<(String, PortError)> {
        Vec::new()
    }

    /// What is wrong with the input at present.
    pub fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// A complete list of nodes has been seen since the agent started.
    pub fn nodes_synced(&self) -> bool {
        false
    }
}
