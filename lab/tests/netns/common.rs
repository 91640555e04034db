//! What the tests on real clusters share.

use std::time::Duration;

use lab::bins::BinDir;
use lab::{BlockingCluster, ClusterBuilder, preflight};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether clusters can be made here. Says loudly when not, and fails where everything is required to run.
pub(crate) fn able() -> bool {
    let problem = preflight::machine().and_then(|()| BinDir::find(None).map(drop));
    let Err(problem) = problem else { return true };
    assert!(
        std::env::var_os("BRISTLE_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "this test must run, but {problem}"
    );
    eprintln!("SKIPPED: this test needs root, network namespaces and the built programs: {problem}");
    false
}

/// Makes a cluster, or nothing where that is not possible.
pub(crate) fn make(builder: ClusterBuilder) -> Option<BlockingCluster> {
    able().then(|| builder.blocking().unwrap_or_else(|e| panic!("{e}")))
}
