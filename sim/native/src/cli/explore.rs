//! Seeds, one after the other, until something breaks.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use sim_native::{Options, Report};
use sim_scenario::Scenario;
use sim_scenario::generate::generate;
use sim_scenario::profile::{PROFILES, Profile};

use super::coverage::Coverage;
use super::{Output, files, scenario, tell};

/// Run random scenarios, one for each seed, until an invariant breaks or something panics.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, conflicts_with_all = ["minutes", "seconds"])]
    seeds: Option<u64>,
    /// Minutes instead of a number of seeds.
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// Seconds instead of a number of seeds.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Number of nodes, instead of a random one.
    #[arg(long)]
    nodes: Option<u16>,
    /// What kind of scenarios; `bristle-sim profiles` lists them. `all`: the profiles in turn, by seed.
    #[arg(long, default_value = "mixed")]
    profile: String,
    /// Runs side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Do not stop at the first failure.
    #[arg(long)]
    keep_going: bool,
    /// Where replay files and captures of failures are written.
    #[arg(long, value_name = "DIR", default_value = files::DIR)]
    out: PathBuf,
    /// How to print the summary.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Seeds when neither number nor time is given.
const SEEDS: u64 = 100;
/// Stands for all profiles.
const ALL: &str = "all";

/// What all runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    failures: u64,
    events: u64,
    packets: u64,
    virtual_time: Duration,
    coverage: Coverage,
    replays: Vec<PathBuf>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.stats.events;
        self.packets += report.stats.packets;
        self.virtual_time += report.virtual_time;
        self.coverage.add_faults(&report.faults);
        self.coverage.add_drops(&report.outcome.drops);
    }
}

/// Explores; false if something was found.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let profiles = profiles(&args.profile)?;
    let limit = match (args.minutes, args.seconds) {
        (Some(minutes), _) => Some(Duration::from_secs(minutes * 60)),
        (None, Some(seconds)) => Some(Duration::from_secs(seconds)),
        (None, None) => None,
    };
    let seeds = if limit.is_some() { u64::MAX } else { args.seeds.unwrap_or(SEEDS) };
    let started = Instant::now();
    let (next, stop, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let problem: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    // Threads run whole simulations each; within one there is only one.
    std::thread::scope(|threads| {
        for _ in 0..args.jobs.max(1) {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = number >= seeds || limit.is_some_and(|limit| started.elapsed() >= limit);
                    if over || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = args.first.wrapping_add(number);
                    let turn = usize::try_from(seed % profiles.len() as u64).unwrap_or(0);
                    match one(args, profiles[turn], seed, &sum, started) {
                        Ok(true) => {}
                        Ok(false) if args.keep_going => {}
                        Ok(false) => stop.store(true, Ordering::Relaxed),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            *problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = problem.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary(args, &sum, started.elapsed())?;
    Ok(sum.failures == 0)
}

/// The profiles of which each seed takes one.
fn profiles(name: &str) -> anyhow::Result<Vec<&'static Profile>> {
    if name == ALL { Ok(PROFILES.iter().collect()) } else { Ok(vec![scenario::profile(name)?]) }
}

/// Runs one seed; false if it fails.
fn one(
    args: &Args,
    profile: &Profile,
    seed: u64,
    sum: &Mutex<Sum>,
    started: Instant,
) -> anyhow::Result<bool> {
    let scenario: Scenario = generate(seed, profile, args.nodes);
    let options = Options::of_generated(seed, profile.name);
    let report = sim_native::run(&scenario, &options);
    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    sum.add(&report);
    if std::io::stderr().is_terminal() {
        eprint!("\r{} runs, {:.0} s, seed {seed} ", sum.runs, started.elapsed().as_secs_f64());
    } else if sum.runs.is_multiple_of(100) {
        eprintln!("{} runs, {:.0} s", sum.runs, started.elapsed().as_secs_f64());
    }
    let Some(violation) = &report.violation else { return Ok(true) };
    sum.failures += 1;
    let replay = files::replay(&options, Some(profile.name), &scenario, &report, violation);
    let path = files::save(&args.out, &scenario.name, &replay, &report).context("keep the failure")?;
    println!("\nseed {seed} of profile {}:", profile.name);
    tell::violation(violation);
    println!("{}", files::hints(&path));
    sum.replays.push(path);
    Ok(false)
}

fn summary(args: &Args, sum: &Sum, took: Duration) -> anyhow::Result<()> {
    let seconds = took.as_secs_f64().max(f64::EPSILON);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = |n: u64| n as f64 / seconds;
    if args.output == Output::Json {
        let mut json = json!({
            "profile": args.profile, "first": args.first, "runs": sum.runs, "failures": sum.failures,
            "seconds": seconds, "virtual-hours": sum.virtual_time.as_secs_f64() / 3600.0,
            "events-per-second": rate(sum.events), "packets-per-second": rate(sum.packets),
            "replays": sum.replays,
        });
        for (field, value) in sum.coverage.json() {
            json[field] = value;
        }
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    println!(
        "{} runs of profile {} in {seconds:.1} s: {} failed; {:.2} virtual hours, {:.0} events/s, {:.0} packets/s",
        sum.runs,
        args.profile,
        sum.failures,
        sum.virtual_time.as_secs_f64() / 3600.0,
        rate(sum.events),
        rate(sum.packets)
    );
    println!("{}", sum.coverage.text());
    Ok(())
}
