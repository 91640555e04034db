//! Seeded defects, one after the other: which seed finds each, and how long that takes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;
use sim_native::Options;
use sim_scenario::generate::generate;
use sim_scenario::profile::Profile;

use super::cpu::Stopwatch;
use super::scenario;

/// Look for seeded defects.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The list of mutants.
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Only these.
    #[arg(long)]
    only: Vec<String>,
    /// Most seeds for one mutant.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// Most seconds for one mutant, of CPU where the machine tells.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Most seconds for all of them together, of CPU where the machine tells: what takes longer is no check that anybody runs.
    #[arg(long, default_value_t = 300)]
    most_seconds: u64,
    /// Write what was found.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is read of a mutant here.
#[derive(Deserialize)]
struct Mutant {
    id: String,
    what: String,
    #[serde(default)]
    profile: Option<String>,
    /// Why no run can show it.
    #[serde(default)]
    unseen: Option<String>,
}

/// Who found it.
struct Found {
    seed: u64,
    invariant: String,
    message: String,
}

/// Looks for all; false if one was not found, or if it took too long.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(&args.list)
        .with_context(|| format!("cannot read {}", args.list.display()))?;
    let mut mutants: Vec<Mutant> = serde_yaml_ng::from_str(&text).context("the list of mutants")?;
    if !args.only.is_empty() {
        mutants.retain(|mutant| args.only.contains(&mutant.id));
    }
    if mutants.is_empty() {
        bail!("there is no such mutant in {}", args.list.display());
    }
    let mut rows = Vec::new();
    let mut unfound = Vec::new();
    let all = Stopwatch::start();
    let width = mutants.iter().map(|mutant| mutant.id.len()).max().unwrap_or(0);
    println!("{:width$} {:>6} {:>8}  FOUND BY", "MUTANT", "SEED", "SECONDS");
    for mutant in &mutants {
        if let Some(why) = &mutant.unseen {
            println!("{:width$} {:>6} {:>8}  not looked for: {why}", mutant.id, "-", "-");
            continue;
        }
        let watch = Stopwatch::start();
        let found = look(mutant, args)?;
        let seconds = watch.read().counts().as_secs_f64();
        match &found {
            Some(found) => println!(
                "{:width$} {:>6} {seconds:>8.2}  {}: {}",
                mutant.id,
                found.seed,
                found.invariant,
                shortened(&found.message)
            ),
            None => {
                println!("{:width$} {:>6} {seconds:>8.2}  NOT FOUND: {}", mutant.id, "-", mutant.what);
                unfound.push(mutant.id.clone());
            }
        }
        rows.push(json!({
            "id": mutant.id, "found": found.is_some(), "seconds": seconds,
            "seed": found.as_ref().map(|found| found.seed),
            "invariant": found.as_ref().map(|found| &found.invariant),
        }));
    }
    let sought = mutants.iter().filter(|mutant| mutant.unseen.is_none()).count();
    let took = all.read();
    println!("{} of {sought} found in {took}", sought - unfound.len());
    let most = Duration::from_secs(args.most_seconds);
    let in_time = took.counts() <= most;
    if !in_time {
        println!("TOO SLOW: {} s are the most that they may take together", most.as_secs());
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(unfound.is_empty() && in_time)
}

fn look(mutant: &Mutant, args: &Args) -> anyhow::Result<Option<Found>> {
    let Some(number) = dataplane_abi::mutant::by_name(&mutant.id) else {
        bail!("this build does not have the mutant {}: build it again", mutant.id);
    };
    let profile = scenario::profile(mutant.profile.as_deref().unwrap_or("mixed"))?;
    let watch = Stopwatch::start();
    for seed in 1..=args.seeds {
        if watch.read().counts() > Duration::from_secs(args.seconds) {
            break;
        }
        dataplane_abi::mutant::set(number);
        let Some(found) = broken(seed, profile) else { continue };
        // What breaks without the defect too is not its doing.
        dataplane_abi::mutant::set(0);
        if broken(seed, profile).is_none() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What breaks in the run of a seed.
fn broken(seed: u64, profile: &Profile) -> Option<Found> {
    let scenario = generate(seed, profile, None);
    let report = sim_native::run(&scenario, &Options::of_generated(seed, profile.name));
    report.violation.map(|violation| Found {
        seed,
        invariant: violation.invariant,
        message: violation.message,
    })
}

fn shortened(text: &str) -> String {
    const MOST: usize = 90;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST).chain(['…']).collect()
    }
}
