//! `bench service`: calls to services, ours beside the rule sets of kube-proxy, and what services cost the agent.
//!
//! The rule sets are made here, in the structure that kube-proxy documents, and loaded into network namespaces of the benchmark's own.
//! All contenders stand at once and take turns within each repeat; ratios are taken within a repeat.

pub mod model;
pub mod ours;
pub mod proxies;
pub mod rate;
pub mod rules_iptables;
pub mod rules_nft;
pub mod scale;
pub mod summary;

use std::path::PathBuf;

use anyhow::Context as _;
use dataplane_loader::measure;
use lab::bins::BinDir;

use crate::figure::Figure;
use crate::go_on;
use model::Size;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Connections through cluster IPs, and first packets, beside kube-proxy's rules and a direct veth pair
    Rate,
    /// Connections from outside through ports of the node
    NodePort,
    /// Nanoseconds per packet of an established connection that was called by a service's address
    Packets,
    /// How long the agent takes to write the tables
    Programming,
    /// The agent's memory
    Memory,
}

/// What to measure and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer and shorter repeats.
    pub quick: bool,
    /// Only these parts; empty: all.
    pub only: Vec<Part>,
    /// How many services there are; empty: all sizes.
    pub sizes: Vec<Size>,
    /// Repeats; none: 7, or 3 in a quick run.
    pub repeats: Option<u32>,
    /// Seconds of one measurement; none: 0.6, or 0.3 in a quick run.
    pub seconds: Option<f64>,
    /// CPU of client and server; none: the last one.
    pub cpu: Option<usize>,
    /// Directory with the programs.
    pub bin_dir: Option<PathBuf>,
}

impl Options {
    /// Whether a part is asked for.
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures and returns the figures; tables go to stdout on the way.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let bins = BinDir::find(options.bin_dir.clone()).context("find the programs and the eBPF object")?;
    let mut figures = Vec::new();
    if options.wants(Part::Rate) || options.wants(Part::NodePort) {
        let rows = rate::measure(options).await?;
        figures.extend(summary::figures(&rows));
        go_on()?;
    }
    if options.wants(Part::Packets) {
        let object =
            std::fs::read(&bins.object).with_context(|| format!("read {}", bins.object.display()))?;
        let samples = if options.quick { 60 } else { 400 };
        let cpu = cpu(options)?;
        // Of the pinned thread nothing else is wanted.
        let measured = std::thread::spawn(move || {
            crate::traffic::settle(None, Some(cpu))?;
            measure::services(&object, samples).context("measure packets of services")
        });
        let measured = measured
            .join()
            .map_err(|_panic| anyhow::anyhow!("measuring packets of services broke off"))??;
        figures.extend(summary::packet_figures(&measured));
        go_on()?;
    }
    for (part, word) in [(Part::Programming, "programming"), (Part::Memory, "memory")] {
        if options.wants(part) {
            figures.extend(scale::measure(&bins, word, options.quick)?);
            go_on()?;
        }
    }
    Ok(figures)
}

/// The CPU on which is measured.
fn cpu(options: &Options) -> anyhow::Result<usize> {
    let cpus = std::thread::available_parallelism().context("count the CPUs")?.get();
    Ok(options.cpu.unwrap_or(cpus - 1))
}
