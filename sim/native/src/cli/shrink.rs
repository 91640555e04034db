//! A smaller scenario that fails the same way.

use std::path::PathBuf;

use anyhow::bail;
use sim_scenario::replay::Replay;
use sim_scenario::shrink::shrink;

use super::{files, tell};

/// Make the scenario of a replay file smaller while it still fails the same way.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The replay file.
    file: PathBuf,
    /// Where to write the smaller one; without it, beside the file with `.small` in its name.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Shrinks it.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let read = Replay::load(&args.file)?;
    if let Some(warning) = &read.warning {
        eprintln!("warning: {warning}");
    }
    let Replay { seed, scenario, violation, profile, .. } = read.replay;
    let options = super::replay::options(seed, profile.as_deref());
    let first = sim_native::run(&scenario, &options);
    if first.violation.as_ref().is_none_or(|found| found.invariant != violation.invariant) {
        bail!(
            "{} does not fail as it says ({}): there is nothing to shrink",
            args.file.display(),
            violation.invariant
        );
    }
    let invariant = violation.invariant;
    let before = scenario.steps.len();
    let small = shrink(
        scenario,
        &mut |candidate| {
            let report = sim_native::run(candidate, &options);
            report.violation.is_some_and(|found| found.invariant == invariant)
        },
        &mut |progress| {
            if progress.kept {
                eprintln!("{} tries, {} steps: {}", progress.tries, progress.steps, progress.what);
            }
        },
    );
    let report = sim_native::run(&small, &options);
    let Some(violation) = &report.violation else {
        bail!("the smaller scenario does not fail any more, which must not be");
    };
    let path = args.output.clone().unwrap_or_else(|| args.file.with_extension("small.yaml"));
    files::replay(seed, profile.as_deref(), &small, &report, violation).save(&path)?;
    tell::violation(violation);
    println!("{} steps instead of {before}: {}", small.steps.len(), path.display());
    Ok(true)
}
