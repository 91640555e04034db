//! `cargo xtask sim run FILE`: one scenario on one arm, or on both with a comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::simulator;
use crate::{cmd, programs, setup};

/// The scenario, and where it runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenario.
    file: PathBuf,
    /// The arm; `both` compares what the two saw.
    #[arg(long, value_enum, default_value_t = Arm::Native)]
    on: Arm,
    /// Decides every order and delay.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the outcome here (not with `both`).
    #[arg(long, value_name = "FILE.json")]
    outcome: Option<PathBuf>,
    /// Write the last frames that were seen here (only `native`).
    #[arg(long, value_name = "FILE.pcap")]
    pcap: Option<PathBuf>,
    /// Run twice and compare (only `native`).
    #[arg(long)]
    twice: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arm {
    /// The simulator: one process, virtual time.
    Native,
    /// Network namespaces on this machine: real agents, real eBPF, real time; needs root.
    Netns,
    /// One after the other.
    Both,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.on != Arm::Native && (args.pcap.is_some() || args.twice) {
        anyhow::bail!("--pcap and --twice are for the simulator alone: leave out --on");
    }
    if args.on == Arm::Both && args.outcome.is_some() {
        anyhow::bail!("--outcome is for one arm: run each by itself, and `cargo xtask sim compare` the two");
    }
    match args.on {
        Arm::Native => {
            let dir = programs::build_only("the simulator", &["sim-native"])?;
            cmd::pass(&mut native(&dir, args, args.outcome.as_deref()))
        }
        Arm::Netns => {
            let dir = lab_programs()?;
            cmd::pass(&mut netns(&dir, args, args.outcome.as_deref()))
        }
        Arm::Both => both(args),
    }
}

fn lab_programs() -> anyhow::Result<PathBuf> {
    cmd::need_root("a scenario on netns")?;
    setup::ensure("lab")?;
    programs::build(&[])
}

fn native(dir: &Path, args: &Args, outcome: Option<&Path>) -> Command {
    let mut command = simulator(dir);
    command.arg("run").arg(&args.file).args(["--seed", &args.seed.to_string()]);
    for (flag, file) in [("--outcome", outcome), ("--pcap", args.pcap.as_deref())] {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    if args.twice {
        command.arg("--twice");
    }
    command
}

fn netns(dir: &Path, args: &Args, outcome: Option<&Path>) -> Command {
    let mut command = Command::new(dir.join("bristle-e2e"));
    command.arg("scenario").arg(&args.file).args(["--seed", &args.seed.to_string()]);
    command.arg("--bin-dir").arg(dir);
    if let Some(file) = outcome {
        command.arg("--outcome").arg(file);
    }
    command
}

/// Runs it on both arms, each whatever came of the other, then compares.
fn both(args: &Args) -> anyhow::Result<()> {
    let dir = lab_programs()?;
    let outcomes = cmd::target_dir().join("sim");
    std::fs::create_dir_all(&outcomes)?;
    let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
    let [a, b] = ["native", "netns"].map(|arm| outcomes.join(format!("{name}-{arm}.json")));
    for stale in [&a, &b] {
        drop(std::fs::remove_file(stale));
    }
    eprintln!("==> {} in the simulator", args.file.display());
    let in_simulator = cmd::pass(&mut native(&dir, args, Some(&a)));
    eprintln!("==> {} on network namespaces", args.file.display());
    let on_netns = cmd::pass(&mut netns(&dir, args, Some(&b)));
    for (result, outcome) in [(&in_simulator, &a), (&on_netns, &b)] {
        // Without an outcome it could not be run at all.
        if let (Err(error), false) = (result, outcome.is_file()) {
            anyhow::bail!("there is nothing to compare: {error}");
        }
    }
    eprintln!("==> compared");
    let compared = cmd::pass(simulator(&dir).arg("compare").args([&a, &b]).arg("--scenario").arg(&args.file));
    in_simulator.and(on_netns).and(compared)
}
