//! The jobs of the command line.

mod compare;
mod coverage;
#[cfg(any(bristle_mutants, test))]
#[cfg_attr(
    not(bristle_mutants),
    allow(dead_code, reason = "only builds with mutants measure with it, and its test runs in every build")
)]
#[expect(clippy::disallowed_methods, reason = "it says how long it took by the clock of whoever runs it")]
mod cpu;
#[expect(clippy::disallowed_methods, reason = "it says how long it took by the clock of whoever runs it")]
mod explore;
mod files;
#[cfg(bristle_mutants)]
#[expect(clippy::disallowed_methods, reason = "it says how long it took by the clock of whoever runs it")]
mod mutants;
#[expect(clippy::disallowed_methods, reason = "it says how long it took by the clock of whoever runs it")]
mod policy;
mod replay;
#[expect(clippy::disallowed_methods, reason = "it says how long it took by the clock of whoever runs it")]
mod scale;
mod scenario;
mod shrink;
mod tell;

use clap::{Subcommand, ValueEnum};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Job {
    /// Run one scenario file.
    Run(scenario::Args),
    /// Run random scenarios, one for each seed, until an invariant breaks.
    Explore(explore::Args),
    /// Repeat a run from its replay file, exactly.
    Replay(replay::Args),
    /// Make the scenario of a replay file smaller while it still fails the same way.
    Shrink(shrink::Args),
    /// Print the random scenario of a seed.
    Generate(scenario::GenerateArgs),
    /// List the profiles of random scenarios.
    Profiles,
    /// Compare the outcomes of one scenario on two arms.
    Compare(compare::Args),
    /// Compare verdicts on random clusters and policies with the policy oracle.
    Policy(policy::Args),
    /// Build a cluster of a size, and say what that costs.
    Scale(scale::Args),
    /// Look for seeded defects (in builds that have them: `cargo xtask sim mutants`).
    #[cfg(bristle_mutants)]
    Mutants(mutants::Args),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Does it; false if something was found.
pub(crate) fn run(job: &Job) -> anyhow::Result<bool> {
    match job {
        Job::Run(args) => scenario::run(args),
        Job::Explore(args) => explore::run(args),
        Job::Replay(args) => replay::run(args),
        Job::Shrink(args) => shrink::run(args),
        Job::Generate(args) => scenario::generate(args),
        Job::Profiles => {
            scenario::profiles();
            Ok(true)
        }
        Job::Compare(args) => compare::run(args),
        Job::Policy(args) => policy::run(args),
        Job::Scale(args) => scale::run(args),
        #[cfg(bristle_mutants)]
        Job::Mutants(args) => mutants::run(args),
    }
}
