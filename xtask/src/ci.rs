//! `cargo xtask ci JOB`: what a workflow file calls, one word a job.

use clap::ValueEnum;

use crate::sim::soak::Soak;
use crate::{check, diff, ebpf, programs, setup, sim, test};

/// A job of CI.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job.
    #[arg(value_enum)]
    job: CiJob,
}

#[derive(Clone, Copy, ValueEnum)]
enum CiJob {
    /// Format, lints, layers, licences.
    Check,
    /// Plain `cargo test`, without root.
    Unit,
    /// The eBPF object on this kernel and in VMs of the kernel matrix.
    Ebpf,
    /// The differential test.
    Diff,
    /// The matrix on network namespaces, all routings and families.
    Netns,
    /// The simulator, as the tests run it: a soak of a minute and the matrix.
    Sim,
    /// A longer soak, then the seeded defects, every one of which has to be found.
    Nightly,
    /// Everything, as `.ci/run` does.
    All,
}

/// How long the simulator looks for what breaks at night: mostly at what nobody has seen yet.
const NIGHTLY: Soak = Soak { same: 60, fresh: 240 };

/// Runs one job with everything required: nothing may be skipped.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match args.job {
        CiJob::Check => {
            setup::ensure("build")?;
            check::run(&check::Args::default())
        }
        CiJob::Unit => test::unit(false),
        CiJob::Ebpf => {
            setup::ensure("verify")?;
            ebpf::verify_all()
        }
        CiJob::Diff => {
            setup::ensure("build")?;
            diff::run(&diff::Args::ci())
        }
        CiJob::Netns => {
            sim::scenario::all_on_both()?;
            test::matrix()
        }
        CiJob::Sim => test::simulator(&programs::build_only("the simulator", &["sim-native", "e2e"])?),
        CiJob::Nightly => {
            sim::soak::run(&programs::build_only("the simulator", &["sim-native"])?, NIGHTLY)?;
            sim::mutants::run(&sim::mutants::Args::default())
        }
        CiJob::All => {
            setup::ensure("ci")?;
            check::run(&check::Args::default())?;
            test::run(&test::Args::default())
        }
    }
}
