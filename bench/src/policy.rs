//! `bench policy`: an agent with the policies of a large cluster, events in and rows out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

use crate::figure::Figure;
use crate::{go_on, sim};

/// Most memory of an agent that knows all of the large cluster, in MiB.
const MEMORY_GOAL_MIB: f64 = 150.0;
/// Seconds from the last list until all rows are written.
const FIRST_GOAL_S: f64 = 10.0;
/// Milliseconds from a policy until its rows are written, of 99 in 100.
const UPDATE_GOAL_MS: f64 = 100.0;
/// Milliseconds until a policy for every pod of a full node is in force.
const WIDE_GOAL_MS: f64 = 100.0;

/// What `policy_scale cluster` prints.
#[derive(Debug, Deserialize)]
struct Cluster {
    resident_mib: f64,
    resident_after_updates_mib: f64,
    peak_mib: f64,
    taking_s: f64,
    first_s: f64,
    first_cpu_s: f64,
    rows: f64,
    update_p50_ms: f64,
    update_p99_ms: f64,
    update_rows: f64,
}

/// What `policy_scale node` prints.
#[derive(Debug, Deserialize)]
struct Node {
    come_p50_ms: f64,
    come_p99_ms: f64,
    go_p50_ms: f64,
    cpu_ms: f64,
    rows: f64,
}

/// Measures both, each in a process of its own, so that its memory is its own.
pub fn run(quick: bool, bin_dir: Option<&PathBuf>) -> anyhow::Result<Vec<Figure>> {
    let dir = sim::programs(bin_dir)?;
    let program = dir.join("examples").join("policy_scale");
    eprintln!("an agent in a cluster of 1000 nodes, 30000 pods, 6000 identities, 30000 policies");
    let cluster = measure(&program, "cluster", quick)?;
    go_on()?;
    eprintln!("an agent with 250 pods of its own and 100 policies");
    let node = measure(&program, "node", quick)?;
    Ok(cluster_figures(&cluster).into_iter().chain(node_figures(&node)).collect())
}

fn measure<T: for<'de> Deserialize<'de>>(program: &Path, what: &str, quick: bool) -> anyhow::Result<T> {
    let mut command = Command::new(program);
    command.arg(what).args(quick.then_some("--quick"));
    sim::json_of(&mut command).with_context(|| {
        format!("measure the agent ({what}); `cargo xtask bench policy` builds what it needs")
    })
}

fn cluster_figures(cluster: &Cluster) -> Vec<Figure> {
    let name = |what: &str| format!("policy.cluster.{what}");
    vec![
        Figure::at_most(name("memory"), cluster.resident_mib, "MiB", MEMORY_GOAL_MIB),
        Figure::plain(name("memory.after-updates"), cluster.resident_after_updates_mib, "MiB"),
        Figure::plain(name("memory.peak"), cluster.peak_mib, "MiB"),
        Figure::plain(name("taking-in"), cluster.taking_s, "s"),
        Figure::at_most(name("first"), cluster.first_s, "s", FIRST_GOAL_S),
        Figure::plain(name("first.cpu"), cluster.first_cpu_s, "s"),
        Figure::plain(name("first.rows"), cluster.rows, "rows"),
        Figure::plain(name("update.p50"), cluster.update_p50_ms, "ms"),
        Figure::at_most(name("update.p99"), cluster.update_p99_ms, "ms", UPDATE_GOAL_MS),
        Figure::plain(name("update.rows"), cluster.update_rows, "rows"),
    ]
}

fn node_figures(node: &Node) -> Vec<Figure> {
    let name = |what: &str| format!("policy.node.{what}");
    vec![
        Figure::plain(name("for-all-pods.p50"), node.come_p50_ms, "ms"),
        Figure::at_most(name("for-all-pods.p99"), node.come_p99_ms, "ms", WIDE_GOAL_MS),
        Figure::plain(name("for-all-pods.gone.p50"), node.go_p50_ms, "ms"),
        Figure::plain(name("for-all-pods.cpu"), node.cpu_ms, "ms"),
        Figure::plain(name("for-all-pods.rows"), node.rows, "rows"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_times_are_judged_and_counts_are_not() {
        let cluster: Cluster = serde_json::from_str(
            r#"{"resident_mib": 140.0, "resident_after_updates_mib": 155.0, "peak_mib": 160.0, "taking_s": 1.0,
                "first_s": 11.0, "first_cpu_s": 9.0, "rows": 5, "update_p50_ms": 1.0, "update_p99_ms": 90.0, "update_rows": 3}"#,
        )
        .expect("as the program prints it");
        let judged: Vec<_> = cluster_figures(&cluster)
            .into_iter()
            .filter_map(|figure| Some((figure.name, figure.met?)))
            .collect();
        let expected = [("memory", true), ("first", false), ("update.p99", true)];
        assert_eq!(judged, expected.map(|(name, met)| (format!("policy.cluster.{name}"), met)));
    }
}
