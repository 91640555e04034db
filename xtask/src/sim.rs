//! `cargo xtask sim`: the simulator, and what shows that it is worth its name.

pub(crate) mod mutants;
pub(crate) mod scenario;
pub(crate) mod soak;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use clap::Subcommand;

use crate::{cmd, programs};

/// What to do with the simulator. Without a job: random scenarios, one for each seed, until an invariant breaks.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    job: Option<Job>,
    /// --seeds N or --minutes M, --profile NAME|all, --nodes N, --jobs J, --keep-going, --out DIR …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    explore: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask sim --seeds 1000 --jobs 2                 random scenarios of all kinds
  cargo xtask sim --minutes 5 --profile crash           only agents that die
  cargo xtask sim run sim/scenarios/traffic.yaml        one scenario
  cargo xtask sim run sim/scenarios/traffic.yaml --on both  also with eBPF, and compared
  cargo xtask sim policy --verdicts 1000000 --jobs 2    agents and packets beside the policy oracle
  cargo xtask sim replay sim-failures/crash-17.yaml     a failure again, exactly

Exit codes: 0 nothing was found, 1 something was, 2 it could not be run.";

#[derive(Subcommand)]
enum Job {
    /// Run one scenario, in the simulator, on network namespaces, or on both and compare.
    Run(scenario::Args),
    /// Random scenarios, as without a job.
    #[command(disable_help_flag = true)]
    Explore(Words),
    /// Repeat a run from its replay file, exactly.
    #[command(disable_help_flag = true)]
    Replay(Words),
    /// Make the scenario of a replay file smaller while it still fails the same way.
    #[command(disable_help_flag = true)]
    Shrink(Words),
    /// Print the random scenario of a seed.
    #[command(disable_help_flag = true)]
    Generate(Words),
    /// List the profiles of random scenarios.
    Profiles,
    /// Compare the outcomes of one scenario on two arms.
    #[command(disable_help_flag = true)]
    Compare(Words),
    /// Random clusters and policies: what agents and packet path decide, beside what the policy oracle says.
    #[command(disable_help_flag = true)]
    Policy(Words),
    /// Build a cluster of a size in one process, and say what that costs.
    #[command(disable_help_flag = true)]
    Scale(Words),
    /// Seeded defects: the simulator has to find each of them.
    Mutants(mutants::Args),
}

/// Handed over to `bristle-sim` as they are.
#[derive(clap::Args)]
struct Words {
    /// Words for `bristle-sim`; --help tells which.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Does it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.job {
        None => hand_over("explore", &args.explore),
        Some(Job::Run(args)) => scenario::run(args),
        Some(Job::Explore(args)) => hand_over("explore", &args.words),
        Some(Job::Replay(args)) => hand_over("replay", &args.words),
        Some(Job::Shrink(args)) => hand_over("shrink", &args.words),
        Some(Job::Generate(args)) => hand_over("generate", &args.words),
        Some(Job::Profiles) => hand_over("profiles", &[]),
        Some(Job::Compare(args)) => hand_over("compare", &args.words),
        Some(Job::Policy(args)) => hand_over("policy", &args.words),
        Some(Job::Scale(args)) => hand_over("scale", &args.words),
        Some(Job::Mutants(args)) => mutants::run(args),
    }
}

/// So many verdicts on random clusters and policies, beside the policy oracle's; `dir` holds the programs.
pub(crate) fn verdicts(dir: &Path, verdicts: u64) -> anyhow::Result<()> {
    eprintln!("==> {verdicts} verdicts on random clusters and policies");
    let verdicts = verdicts.to_string();
    cmd::pass(simulator(dir).args(["policy", "--jobs", "2", "--verdicts", &verdicts]))
}

fn hand_over(job: &str, words: &[OsString]) -> anyhow::Result<()> {
    let dir = programs::build_only("the simulator", &["sim-native"])?;
    cmd::pass(simulator(&dir).arg(job).args(words))
}

/// The simulator, to be run where the user is: files are named from there.
fn simulator(dir: &Path) -> Command {
    Command::new(dir.join("bristle-sim"))
}
