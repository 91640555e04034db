//! A cluster for code that is not asynchronous.

use std::future::Future;
use std::ops::Deref;

use tokio::runtime::Runtime;

use super::Cluster;

/// A cluster with a runtime of its own; removed when dropped.
#[derive(Debug)]
pub struct BlockingCluster {
    // Dropped first: its tasks need the runtime.
    cluster: Cluster,
    runtime: Runtime,
}

impl BlockingCluster {
    pub(super) fn new(cluster: Cluster, runtime: Runtime) -> Self {
        Self { cluster, runtime }
    }

    /// Waits for one of the cluster's asynchronous methods: `cluster.wait(|c| c.exec("default", "a", &["true"]))`. (A future that
    /// borrows the cluster.)
    pub fn wait<'a, F: Future>(&'a self, work: impl FnOnce(&'a Cluster) -> F) -> F::Output {
        self.runtime.block_on(work(&self.cluster))
    }
}

impl Deref for BlockingCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
