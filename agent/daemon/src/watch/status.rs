//! How the watches are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use agent_api::Timestamp;
use agent_api::status::KubernetesStatus;
use tracing::{info, warn};

use crate::metrics::{Metrics, count};

/// What the local API shows of the watches, all together.
#[derive(Clone, Debug)]
pub(crate) struct WatchStatus {
    shared: Arc<Mutex<Shared>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Shared {
    status: KubernetesStatus,
    /// What does not work, by kind.
    problems: BTreeMap<&'static str, String>,
    /// Kinds of which no whole list has been seen.
    unsynced: BTreeSet<&'static str>,
}

impl Shared {
    fn mended(&mut self, what: &'static str) {
        self.problems.remove(what);
        self.status.error = self.problems.values().next().cloned();
        let connected = self.problems.is_empty();
        if connected && !self.status.connected {
            info!(server = self.status.server, "connected to the API server");
        }
        self.status.connected = connected;
    }
}

impl WatchStatus {
    /// Not connected yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { shared: Arc::default(), metrics }
    }

    /// As it is now.
    pub(crate) fn get(&self) -> KubernetesStatus {
        self.with(|shared| shared.status.clone())
    }

    fn with<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        change(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The server's address is known.
    pub(super) fn server(&self, url: &str) {
        self.with(|shared| url.trim_end_matches('/').clone_into(&mut shared.status.server));
    }

    /// A kind will be listed.
    pub(super) fn expect(&self, what: &'static str) {
        self.with(|shared| {
            shared.unsynced.insert(what);
            shared.status.synced = false;
        });
    }

    /// A whole list of a kind has been seen.
    pub(super) fn synced(&self, what: &'static str) {
        self.with(|shared| {
            shared.unsynced.remove(what);
            shared.status.synced = shared.unsynced.is_empty();
        });
    }

    /// Notes that the server has begun to answer: a list comes, or a watch is established, perhaps without anything to tell for
    /// hours. One log line when this ends a time of failures.
    pub(crate) fn answered(&self, what: &'static str) {
        self.with(|shared| shared.mended(what));
    }

    /// Notes that a watch delivered something.
    pub(super) fn delivered(&self, what: &'static str) {
        count(if what == "nodes" { &self.metrics.node_events } else { &self.metrics.object_events });
        self.with(|shared| {
            shared.mended(what);
            shared.status.last_event = Some(Timestamp::now());
        });
    }

    /// Notes a failure; one log line per kind of failure, not per try.
    pub(crate) fn failed(&self, what: &'static str, problem: String) {
        count(&self.metrics.watch_failures);
        self.with(|shared| {
            // What several watches meet at once is said once.
            if !shared.problems.values().any(|known| *known == problem) {
                warn!(
                    server = shared.status.server,
                    "{problem}; pods keep their network meanwhile, trying again"
                );
            }
            shared.problems.insert(what, problem);
            shared.status.connected = false;
            shared.status.error = shared.problems.values().next().cloned();
        });
    }
}
