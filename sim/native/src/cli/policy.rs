//! Verdicts of agents and packet path beside the oracle's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;
use sim_native::verdicts::{self, Difference, Tally};

use super::Output;

/// Attempts in each random cluster.
const ATTEMPTS: usize = 200;

/// Build random clusters with policies of every kind, send single packets through real agents' tables and the real programs, and compare
/// what becomes of them with the policy oracle. Ends with 1 at the first difference, after making its case smaller.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare at least so many verdicts.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    verdicts: u64,
    /// Begin with this seed.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
    /// Run this seed only.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seed", "verdicts"])]
    only: Option<u64>,
    /// Clusters at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Go on after a difference.
    #[arg(long)]
    keep_going: bool,
    /// Do not make the case of a difference smaller.
    #[arg(long)]
    no_shrink: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Compares; false if something differs.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let total = Mutex::new(Tally::default());
    let found: Mutex<Vec<Difference>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<verdicts::VerdictError>> = Mutex::new(None);
    let (next, stop) = (AtomicU64::new(args.only.unwrap_or(args.seed)), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let mut tally = Tally::default();
                    match verdicts::compare(seed, &verdicts::case(seed, ATTEMPTS), &mut tally) {
                        Ok(differences) => {
                            if !differences.is_empty() && !args.keep_going {
                                stop.store(true, Ordering::Relaxed);
                            }
                            lock(&found).extend(differences);
                        }
                        Err(error) => {
                            *lock(&failed) = Some(error);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    let mut total = lock(&total);
                    total.cases += tally.cases;
                    total.verdicts += tally.verdicts;
                    total.allowed += tally.allowed;
                    total.left_out += tally.left_out;
                    if args.only.is_some() || total.verdicts >= args.verdicts {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failed).take() {
        return Err(error.into());
    }
    let (total, mut found) = (*lock(&total), std::mem::take(&mut *lock(&found)));
    found.sort_by_key(|difference| difference.seed);
    let seconds = started.elapsed().as_secs_f64();
    match args.output {
        Output::Json => println!(
            "{}",
            json!({
                "cases": total.cases, "verdicts": total.verdicts, "allowed": total.allowed, "left_out": total.left_out,
                "differences": found.iter().map(ToString::to_string).collect::<Vec<_>>(), "seconds": seconds,
            })
        ),
        Output::Text => {
            println!(
                "{} verdicts in {} clusters, {} of them to allow, in {seconds:.1} s: {} differ from the oracle",
                total.verdicts,
                total.cases,
                total.allowed,
                found.len()
            );
            tell(&found, args);
        }
    }
    Ok(found.is_empty())
}

fn tell(found: &[Difference], args: &Args) {
    for difference in found.iter().take(20) {
        println!("{difference}");
    }
    let Some(first) = found.first().filter(|_| !args.no_shrink) else { return };
    let case = sim_policy::PolicyCase {
        attempts: vec![first.attempt.clone()],
        ..verdicts::case(first.seed, ATTEMPTS)
    };
    println!("\nThe first one, made smaller:\n{}", verdicts::shrink(first.seed, case));
    println!("again: bristle-sim policy --only {}", first.seed);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
