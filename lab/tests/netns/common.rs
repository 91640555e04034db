//! What the tests on real clusters share.

use std::time::Duration;

use lab::preflight::can_test;
use lab::{BlockingCluster, ClusterBuilder};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a cluster, or nothing where that is not possible.
pub(crate) fn make(builder: ClusterBuilder) -> Option<BlockingCluster> {
    can_test().then(|| builder.blocking().unwrap_or_else(|e| panic!("{e}")))
}
