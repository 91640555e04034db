//! `bench sim`: packets through the native host, the matrix in the simulator, and clusters of up to a thousand nodes in one process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::dataplane;
use crate::figure::Figure;
use crate::go_on;

/// Packets of an established flow that one core takes through the native host in a second, at least.
const PACKETS_GOAL: f64 = 2_000_000.0;
/// Seconds for the cases without policies on three nodes.
const MATRIX_GOAL_S: f64 = 1.0;
/// The cases without policies.
const MATRIX_CASES: &str = "1-23";
/// Cluster sizes, each with ten pods a node.
const SIZES: [u16; 3] = [10, 100, 1000];
/// Sizes where less is measured.
const QUICK_SIZES: [u16; 2] = [10, 100];
/// Seconds until the largest cluster is at rest.
const CONVERGE_GOAL_S: f64 = 60.0;
/// Memory of the largest cluster, in GiB.
const MEMORY_GOAL_GIB: f64 = 8.0;
/// How much more an event may cost in the largest cluster than in the smallest.
const FLAT_GOAL: f64 = 2.0;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Measures all of it; every cluster in a process of its own, so that its peak of memory is its own.
pub fn run(quick: bool, bin_dir: Option<&PathBuf>) -> anyhow::Result<Vec<Figure>> {
    let dir = programs(bin_dir)?;
    let mut figures = packets(dir.parent().unwrap_or(&dir));
    if figures.is_empty() {
        eprintln!(
            "packets per second are left out: `cargo xtask bench sim` has criterion measure them first"
        );
    }
    figures.push(matrix(&dir)?);
    let sizes: &[u16] = if quick { &QUICK_SIZES } else { &SIZES };
    let mut scales = Vec::new();
    for nodes in sizes {
        go_on()?;
        eprintln!("a cluster of {nodes} nodes and {} pods", u32::from(*nodes) * 10);
        scales.push(scale(&dir, *nodes)?);
    }
    figures.extend(scale_figures(&scales));
    Ok(figures)
}

/// The directory with the programs: that which was given, or this program's.
pub(crate) fn programs(bin_dir: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    Ok(match bin_dir {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()
            .context("find this program")?
            .parent()
            .context("this program lies in no directory")?
            .to_owned(),
    })
}

/// Packets in a second, by what criterion measured just before.
fn packets(target: &Path) -> Vec<Figure> {
    let measured = dataplane::native_figures(&target.join("criterion"));
    let established =
        measured.into_iter().filter(|figure| figure.name.contains("from_container established"));
    established
        .map(|figure| {
            let family = if figure.name.ends_with("v6") { "v6" } else { "v4" };
            let name = format!("sim.packets.established.{family}");
            Figure::at_least(name, (1e9 / figure.value).round(), "packets/s", PACKETS_GOAL)
        })
        .collect()
}

fn matrix(dir: &Path) -> anyhow::Result<Figure> {
    #[derive(Deserialize)]
    struct Report {
        seconds: f64,
    }
    let captures = std::env::temp_dir().join(format!("bristle-bench-sim-{}", std::process::id()));
    let mut command = Command::new(dir.join("bristle-e2e"));
    command
        .args(["native", "--kube-proxy-replacement", "--case", MATRIX_CASES, "-o", "json", "--captures"])
        .arg(&captures);
    let report: anyhow::Result<Report> = json_of(&mut command);
    drop(std::fs::remove_dir_all(&captures));
    Ok(Figure::at_most("sim.matrix.no-policies", report?.seconds, "s", MATRIX_GOAL_S))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Scale {
    nodes: u16,
    peak_bytes: f64,
    converge: Stretch,
    node_joins: Stretch,
    pod_comes: Stretch,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Stretch {
    seconds: f64,
    events: f64,
}

impl Stretch {
    fn us_per_event(self) -> f64 {
        self.seconds * 1e6 / self.events.max(1.0)
    }
}

fn scale(dir: &Path, nodes: u16) -> anyhow::Result<Scale> {
    json_of(Command::new(dir.join("bristle-sim")).args([
        "scale",
        "-o",
        "json",
        "--nodes",
        &nodes.to_string(),
    ]))
}

/// What a program prints. The matrix fails where features are missing and reports all the same.
pub(crate) fn json_of<T: serde::de::DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    serde_json::from_slice(&output.stdout)
        .or_else(|_| bail!("{name} reported nothing: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn scale_figures(scales: &[Scale]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let largest = SIZES[SIZES.len() - 1];
    for scale in scales {
        let name = |what: &str| format!("sim.scale.{}.{what}", scale.nodes);
        let judged = |what: &str, value: f64, unit: &'static str, goal: f64| {
            if scale.nodes == largest {
                Figure::at_most(name(what), value, unit, goal)
            } else {
                Figure::plain(name(what), value, unit)
            }
        };
        figures.extend([
            judged("converge", scale.converge.seconds, "s", CONVERGE_GOAL_S),
            judged("memory", scale.peak_bytes / GIB, "GiB", MEMORY_GOAL_GIB),
            Figure::plain(name("event"), scale.converge.us_per_event(), "µs"),
            Figure::plain(name("node-joins"), scale.node_joins.seconds, "s"),
            Figure::plain(name("node-joins.event"), scale.node_joins.us_per_event(), "µs"),
            Figure::plain(name("pod-comes"), scale.pod_comes.seconds, "s"),
        ]);
    }
    if let [first, .., last] = scales {
        let ratio = last.converge.us_per_event() / first.converge.us_per_event();
        let name = format!("sim.scale.event.{}-to-{}", last.nodes, first.nodes);
        figures.push(Figure::at_most(name, ratio, "x", FLAT_GOAL));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_cluster_is_judged_and_the_cost_of_events_is_compared() {
        let scale = |nodes, seconds| Scale {
            nodes,
            peak_bytes: GIB,
            converge: Stretch { seconds, events: 1000.0 },
            node_joins: Stretch { seconds: 0.5, events: 10.0 },
            pod_comes: Stretch { seconds: 0.1, events: 0.0 },
        };
        let figures = scale_figures(&[scale(10, 2.0), scale(1000, 3.0)]);
        let find = |name: &str| figures.iter().find(|figure| figure.name == name).expect("is there");
        assert_eq!(find("sim.scale.10.converge").goal, None);
        assert_eq!(find("sim.scale.1000.converge").goal, Some(60.0));
        assert_eq!(find("sim.scale.1000.memory").met, Some(true));
        let ratio = find("sim.scale.event.1000-to-10");
        assert!((ratio.value - 1.5).abs() < 1e-9 && ratio.met == Some(true), "{ratio:?}");
    }
}
