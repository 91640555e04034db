//! What a cluster of a size costs.

use std::time::Instant;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use sim_native::Stretch;

use super::Output;

/// Build a cluster of a size in this process, and say what that costs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 100)]
    nodes: u16,
    /// Pods; ten for each node unless said otherwise.
    #[arg(long)]
    pods: Option<u32>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Builds it.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let pods = args.pods.unwrap_or_else(|| u32::from(args.nodes) * 10);
    let started = Instant::now();
    let report = sim_native::scale(args.nodes, pods, &|| started.elapsed()).map_err(|why| anyhow!(why))?;
    let peak = peak_bytes()?;
    let stretches =
        [("converge", report.converge), ("node-joins", report.node_joins), ("pod-comes", report.pod_comes)];
    match args.output {
        Output::Json => {
            let mut object = json!({"nodes": report.nodes, "pods": report.pods, "peak-bytes": peak});
            for (name, stretch) in stretches {
                object[name] = json!({
                    "seconds": stretch.took.as_secs_f64(), "events": stretch.events, "tasks": stretch.tasks,
                });
            }
            println!("{}", serde_json::to_string_pretty(&object)?);
        }
        Output::Text => {
            println!("{} nodes, {} pods, at most {} MiB", report.nodes, report.pods, peak >> 20);
            println!(
                "{:<10} {:>10} {:>10} {:>10} {:>10}",
                "STRETCH", "SECONDS", "EVENTS", "TASKS", "µs/EVENT"
            );
            for (name, stretch) in stretches {
                println!(
                    "{name:<10} {:>10.3} {:>10} {:>10} {:>10.2}",
                    stretch.took.as_secs_f64(),
                    stretch.events,
                    stretch.tasks,
                    per_event(stretch)
                );
            }
        }
    }
    Ok(true)
}

fn per_event(stretch: Stretch) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let events = stretch.events.max(1) as f64;
    stretch.took.as_secs_f64() * 1e6 / events
}

/// The most memory that this process has had, in bytes.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read the memory of this process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).context("this kernel does not tell the peak memory of a process")
}
