//! `cargo xtask sim`: the simulator, and what shows that it is worth its name.

pub(crate) mod mutants;

use clap::Subcommand;

/// What to do with the simulator.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Seeded defects: the simulator has to find each of them.
    Mutants(mutants::Args),
}

/// Does it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.job {
        Job::Mutants(args) => mutants::run(args),
    }
}
