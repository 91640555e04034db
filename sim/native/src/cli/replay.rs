//! The same run again.

use std::path::PathBuf;

use sim_native::Options;
use sim_scenario::replay::Replay;

use super::{files, tell};

/// Repeat a run from its replay file, exactly.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The replay file.
    file: PathBuf,
    /// Write the last frames that were seen.
    #[arg(long, value_name = "FILE.pcap")]
    pcap: Option<PathBuf>,
}

/// Repeats it; false if it fails, as it did.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let read = Replay::load(&args.file)?;
    if let Some(warning) = &read.warning {
        eprintln!("warning: {warning}");
    }
    let replay = read.replay;
    let report = sim_native::run(&replay.scenario, &Options::of_replay(&replay));
    if let Some(path) = &args.pcap {
        files::capture(path, &report)?;
    }
    let Some(violation) = &report.violation else {
        println!(
            "nothing is broken any more (it was {}: {})",
            replay.violation.invariant, replay.violation.message
        );
        return Ok(true);
    };
    tell::violation(violation);
    tell::outcome(&report);
    if report.trace_hash == replay.trace_hash {
        println!("the run is the same as the one recorded");
    } else {
        println!(
            "the run is not the same as the one recorded ({}): the code has changed since",
            replay.trace_hash
        );
    }
    Ok(false)
}
