//! A running cluster.

use tokio::task::JoinSet;

use crate::bins::BinDir;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::state::{LabDir, LabRecord};

pub mod builder;
pub mod node;

pub use builder::{BuildError, ClusterBuilder, Progress};
pub use node::Node;

/// A cluster with everything it consists of; all of it is removed when this is dropped, also by a panic.
#[derive(Debug)]
pub struct Cluster {
    // The order of the fields is the order in which they go.
    nodes: Vec<Node>,
    _outside_servers: JoinSet<()>,
    outside: Machine,
    fabric: Machine,
    bins: BinDir,
    record: LabRecord,
    dir: LabDir,
}

impl Cluster {
    /// Starts describing a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// Shape and addresses.
    pub fn plan(&self) -> &Plan {
        &self.record.plan
    }

    /// Files of the lab.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// The nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    /// The machine with bridge and router.
    pub fn fabric(&self) -> &Machine {
        &self.fabric
    }

    /// The machine outside the cluster.
    pub fn outside(&self) -> &Machine {
        &self.outside
    }

    /// The binaries in use.
    pub fn bins(&self) -> &BinDir {
        &self.bins
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.stop();
        }
        self.outside.stop();
        self.fabric.stop();
        if let Err(e) = self.dir.sweep() {
            tracing::error!(lab = %self.dir.name(), error = %e, "cannot remove the lab's files");
        }
    }
}
