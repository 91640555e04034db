//! Reports for people.

use sim_native::{Report, Violation};

/// An invariant that is broken: which, when, what, and the packet's way.
pub(crate) fn violation(violation: &Violation) {
    println!("{} broken at {:.6} s: {}", violation.invariant, violation.at.as_secs_f64(), violation.message);
    for line in &violation.details {
        println!("  {line}");
    }
}

/// What came of a scenario.
pub(crate) fn outcome(report: &Report) {
    let outcome = &report.outcome;
    if !outcome.traffic.is_empty() {
        let width = outcome.traffic.keys().map(String::len).max().unwrap_or(0);
        println!("{:width$}  {:<8} {:>6} {:>9} {:>6}", "TRAFFIC", "VERDICT", "SENT", "ANSWERED", "RESETS");
        for (id, traffic) in &outcome.traffic {
            println!(
                "{id:width$}  {:<8} {:>6} {:>9} {:>6}",
                traffic.verdict, traffic.sent, traffic.answered, traffic.resets
            );
        }
    }
    for (reason, packets) in &outcome.drops {
        println!("dropped: {reason} {packets}");
    }
    for failure in &outcome.failures {
        println!("failed: {failure}");
    }
    if !report.unrested.is_empty() {
        println!(
            "not at rest in the end: {}; what must hold at rest was not looked at (end with `wait: {{for: rest}}`)",
            report.unrested
        );
    }
    let stats = &report.stats;
    println!(
        "seed {}, {:.3} s of virtual time, {} packets through programs, {} events, trace {}",
        outcome.seed.unwrap_or(0),
        report.virtual_time.as_secs_f64(),
        stats.packets,
        stats.events,
        report.trace_hash
    );
}
