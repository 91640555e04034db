//! A smaller scenario that fails the same way.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use sim_native::{Options, Violation};
use sim_scenario::Scenario;
use sim_scenario::replay::Replay;
use sim_scenario::shrink::shrink;

use super::{files, tell};

/// Make the scenario of a replay file smaller while it still fails the same way; with `--seed` that of a scenario file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The replay file, or with `--seed` a scenario file.
    file: PathBuf,
    /// The file is a scenario that fails with this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the smaller one; without it, beside the file with `.small` in its name.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is to fail, and how.
struct Subject {
    scenario: Scenario,
    options: Options,
    profile: Option<String>,
    broken: Violation,
}

/// Shrinks it.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let Subject { scenario, options, profile, broken } = subject(args)?;
    let before = scenario.steps.len();
    let small = shrink(
        scenario,
        &mut |candidate| {
            let report = sim_native::run(candidate, &options);
            report.violation.is_some_and(|found| is_like(&found, &broken))
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
    files::replay(&options, profile.as_deref(), &small, &report, violation).save(&path)?;
    tell::violation(violation);
    println!("{} steps instead of {before}: {}", small.steps.len(), path.display());
    Ok(true)
}

/// Reads what is to be made smaller, and sees that it fails.
fn subject(args: &Args) -> anyhow::Result<Subject> {
    let broken = |scenario: &Scenario, options: &Options| sim_native::run(scenario, options).violation;
    if let Some(seed) = args.seed {
        let scenario = Scenario::load_valid(&args.file, &sim_native::known())?;
        let options = Options { seed, ..Options::default() };
        let broken = broken(&scenario, &options).with_context(|| {
            format!("{} does not fail with seed {seed}: there is nothing to shrink", args.file.display())
        })?;
        return Ok(Subject { scenario, options, profile: None, broken });
    }
    let read = Replay::load(&args.file)?;
    if let Some(warning) = &read.warning {
        eprintln!("warning: {warning}");
    }
    let options = Options::of_replay(&read.replay);
    let Replay { scenario, violation, profile, .. } = read.replay;
    let Some(broken) = broken(&scenario, &options).filter(|found| found.invariant == violation.invariant)
    else {
        bail!(
            "{} does not fail as it says ({}): there is nothing to shrink",
            args.file.display(),
            violation.invariant
        );
    };
    Ok(Subject { scenario, options, profile, broken })
}

/// Whether two runs fail for the same reason, as far as can be told.
fn is_like(one: &Violation, other: &Violation) -> bool {
    // An invariant is one reason, whatever it was about. Expectations and panics are many, each with a sentence of its own.
    let same = || without_numbers(&one.message) == without_numbers(&other.message);
    one.invariant == other.invariant && (!matches!(one.invariant.as_str(), "expectation" | "panic") || same())
}

/// A sentence with all numbers made alike but zero: how many were sent does not matter, but whether any were.
fn without_numbers(sentence: &str) -> String {
    let mut text = String::new();
    let mut number = String::new();
    for c in sentence.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        if !number.is_empty() {
            text.push(if number.chars().all(|digit| digit == '0') { '0' } else { '#' });
            number.clear();
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn broken(invariant: &str, message: &str) -> Violation {
        Violation {
            invariant: invariant.to_owned(),
            at: Duration::ZERO,
            message: message.to_owned(),
            details: Vec::new(),
        }
    }

    #[test]
    fn an_invariant_is_one_reason_and_expectations_and_panics_are_many() {
        for (one, other, alike) in [
            (("drop", "packet 3"), ("drop", "another one"), true),
            (("drop", "packet 3"), ("delivery", "packet 3"), false),
            (("expectation", "step 7: pod b is ready"), ("expectation", "step 12: pod b is ready"), true),
            (("expectation", "step 7: pod b is ready"), ("expectation", "traffic t is answered"), false),
            (("expectation", "t: 10 sent, 9 answered"), ("expectation", "t: 2 sent, 1 answered"), true),
            (("expectation", "t: 10 sent, 9 answered"), ("expectation", "t: 0 sent, 0 answered"), false),
            (("panic", "no row (a.rs:17:3)"), ("panic", "no row (a.rs:18:3)"), true),
            (("panic", "no row (a.rs:17:3)"), ("panic", "no link (b.rs:17:3)"), false),
        ] {
            assert_eq!(is_like(&broken(one.0, one.1), &broken(other.0, other.1)), alike, "{one:?} {other:?}");
        }
    }
}
