//! `cargo xtask`: every job of the repository, the same for people and for CI.
//!
//! It knows no other crate of the workspace: it builds them with cargo and runs the programs.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod ci;
mod cmd;
mod crds;
mod diff;
mod e2e;
mod ebpf;
mod engine;
mod lab;
mod layers;
mod programs;
mod setup;
mod sim;
mod test;
mod tidy;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests and measures Bristle; starts clusters on this machine.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab up                     a three-node cluster on this machine, in seconds
  cargo xtask lab kubectl -- get pods -A what runs in it
  cargo xtask lab down                   all of it gone
  cargo xtask test                       every test, also those that need root
  cargo xtask e2e --on netns --case 1-6,20-23
  cargo xtask e2e --suite network-policy the Kubernetes network policy suite on a lab
  cargo xtask e2e --on native            the matrix in the simulator, in a second
  cargo xtask sim --seeds 100            random clusters until an invariant breaks
  cargo xtask check                      what CI checks before it tests";

#[derive(Subcommand)]
enum Job {
    /// Find or install what builds, labs and tests need; says what it does.
    Setup(setup::Args),
    /// Format, lints, layers, licences and documents, as CI checks them.
    Check(check::Args),
    /// Every test: plain ones, those with root, the differential run and the matrix.
    Test(test::Args),
    /// Write the CustomResourceDefinitions to deploy/crds, as the types of agent-crd say.
    Crds(crds::Args),
    /// Build the eBPF object; with --verify, load it on this kernel and in VMs.
    Ebpf(ebpf::Args),
    /// The same frames through the native and the kernel host: no difference allowed.
    Diff(diff::Args),
    /// Clusters for people: up, status, shell, capture, kubectl, down.
    Lab(lab::Args),
    /// The connectivity matrix, with packet captures and reports.
    E2e(e2e::Args),
    /// The simulator: random clusters until an invariant breaks, scenarios, replays, seeded defects.
    Sim(sim::Args),
    /// Measure: dataplane, net, lab, cni, sim.
    Bench(bench::Args),
    /// One job of CI: check, test, ebpf, netns, kind, all.
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().job {
        Job::Setup(args) => setup::run(&args),
        Job::Check(args) => check::run(&args),
        Job::Test(args) => test::run(&args),
        Job::Crds(args) => crds::run(&args),
        Job::Ebpf(args) => ebpf::run(&args),
        Job::Diff(args) => diff::run(&args),
        Job::Lab(args) => lab::run(&args),
        Job::E2e(args) => e2e::run(&args),
        Job::Sim(args) => sim::run(&args),
        Job::Bench(args) => bench::run(&args),
        Job::Ci(args) => ci::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<cmd::Failed>() {
            // It has said why.
            Some(cmd::Failed(code)) => ExitCode::from(*code),
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(test)]
mod cli_tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_for_the_simulator_stand_with_and_without_a_job() {
        for line in [
            "sim --seeds 5 --profile all --keep-going",
            "sim explore --seeds 5",
            "sim run a.yaml --on both --seed 3",
            "sim replay a.yaml --pcap a.pcap",
            "sim profiles",
            "sim mutants --list",
            "e2e --on native --case 1-6 --routing native",
            "e2e --on netns --suite network-policy --case 1-6",
            "bench sim --quick",
        ] {
            let words = std::iter::once("xtask").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
