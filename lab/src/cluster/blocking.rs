//! A cluster for code that is not asynchronous.

use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{Cluster, ClusterError, ExecOutput};

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

    /// As [`Cluster::exec`].
    ///
    /// # Errors
    /// When the pod does not run or the program cannot be started.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<ExecOutput, ClusterError> {
        self.runtime.block_on(self.cluster.exec(namespace, pod, command))
    }

    /// As [`Cluster::wait_running`].
    ///
    /// # Errors
    /// [`ClusterError::Timeout`] with the pod's status.
    pub fn wait_running(&self, namespace: &str, pod: &str, patience: Duration) -> Result<(), ClusterError> {
        self.runtime.block_on(self.cluster.wait_running(namespace, pod, patience))
    }
}

impl Deref for BlockingCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
