//! `bristle-sim`: scenarios and random seeds in the simulator. `cargo xtask sim` builds and calls it.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// Runs clusters in one process, on virtual time, and looks for what must not happen.
#[derive(Parser)]
#[command(name = "bristle-sim", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    job: cli::Job,
}

const EXAMPLES: &str = "\
Examples:
  bristle-sim run sim/scenarios/traffic.yaml        one scenario, and what came of it
  bristle-sim explore --seeds 1000                  random scenarios until an invariant breaks
  bristle-sim explore --minutes 5 --profile crash   only agents that die
  bristle-sim replay sim-failures/crash-17.yaml     the same run again, exactly
  bristle-sim shrink sim-failures/crash-17.yaml     a smaller one that fails the same way
  bristle-sim generate --seed 17 --profile crash    the scenario of a seed, to read

Exit codes: 0 nothing was found, 1 an invariant or expectation was broken or something panicked, 2 it could not be run.";

fn main() -> ExitCode {
    match cli::run(&Cli::parse().job) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
