//! `bench net`: paths between two pods, ours and their yardsticks, interleaved in one run.
//!
//! The machine is noisy; so all contenders stand at once, take turns within each repeat, and are judged by ratios to
//! the direct veth pair within the same repeat. Trust p50 ratios first, then CPU ratios, then rates.

pub mod contender;
pub mod netns;
pub mod ours;
pub mod summary;
pub mod yardsticks;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::figure::Figure;
use crate::traffic::Metric;
use contender::Contender;
use summary::Row;

/// What to measure and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer and shorter repeats.
    pub quick: bool,
    /// Only contenders whose name contains one of these; empty: all.
    pub only: Vec<String>,
    /// Only these metrics; empty: all.
    pub metrics: Vec<Metric>,
    /// Repeats; none: 5, or 3 in a quick run.
    pub repeats: Option<u32>,
    /// Seconds of one measurement; none: 0.6, or 0.3 in a quick run.
    pub seconds: Option<f64>,
    /// CPU of client and server; none: the last one.
    pub cpu: Option<usize>,
    /// Directory with the programs of a lab.
    pub bin_dir: Option<PathBuf>,
}

/// Measures and returns the figures; tables go to stdout on the way.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let started = Instant::now();
    netns::sweep();
    let cpus = std::thread::available_parallelism().context("count the CPUs")?.get();
    let cpu = options.cpu.unwrap_or(cpus - 1);
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()));

    let mut contenders: Vec<Contender> = Vec::new();
    for (name, set_up) in yardsticks::ALL {
        // Every ratio needs the limit.
        if name == summary::LIMIT || wanted(name) {
            let topology = set_up(name).with_context(|| format!("set up {name}"))?;
            contenders.push(Contender::start(name, topology, cpu)?);
        }
    }
    let mut labs = ours::up(options.bin_dir.as_ref(), &wanted).await?;
    for (name, topology) in labs.topologies() {
        contenders.push(Contender::start(name, topology, cpu)?);
    }
    for contender in &contenders {
        contender.settle()?;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    eprintln!(
        "{} contenders ready after {:.0} s, load {}",
        contenders.len(),
        started.elapsed().as_secs_f64(),
        load.split_whitespace().next().unwrap_or("?")
    );

    let repeats = options.repeats.unwrap_or(if options.quick { 3 } else { 5 });
    let length = Duration::from_secs_f64(options.seconds.unwrap_or(if options.quick { 0.3 } else { 0.6 }));
    let metrics = if options.metrics.is_empty() { Metric::ALL.to_vec() } else { options.metrics.clone() };
    let mut rows: Vec<Row> = Vec::new();
    for metric in metrics {
        for repeat in 0..repeats {
            for contender in &contenders {
                crate::go_on()?;
                match contender.measure(metric, length) {
                    Ok(sample) => rows.push(Row { contender: contender.name(), metric, repeat, sample }),
                    // One lost measurement is no reason to lose the others; it is missing from the table.
                    Err(error) => eprintln!("{} {}: {error:#}", contender.name(), metric.word()),
                }
            }
        }
        println!("{}", summary::table(&rows, metric));
    }
    eprintln!(
        "{:.0} s in all, {repeats} repeats of {:.1} s",
        started.elapsed().as_secs_f64(),
        length.as_secs_f64()
    );
    drop(contenders);
    drop(labs);
    Ok(summary::figures(&rows))
}

/// A sample that a test can make.
#[cfg(test)]
pub(crate) fn sample(p50_us: f64, cpu_ns_per_unit: f64) -> crate::traffic::Sample {
    crate::traffic::Sample {
        rate: 1e6 / p50_us,
        p50_us,
        p99_us: p50_us * 2.0,
        first_p99_us: p50_us,
        cpu_ns_per_unit,
    }
}
