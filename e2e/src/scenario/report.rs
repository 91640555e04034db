//! An outcome for people.

use std::fmt::Write as _;

use sim_scenario::Outcome;

/// Traffic as a table, then drops and what failed.
pub fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    let width = outcome.traffic.keys().map(String::len).max().unwrap_or(0).max("TRAFFIC".len());
    // Writing to a String cannot fail.
    let _ =
        writeln!(text, "{:<width$}  {:>6}  {:>8}  {:>6}  VERDICT", "TRAFFIC", "SENT", "ANSWERED", "RESETS");
    for (id, of) in &outcome.traffic {
        let _ = writeln!(
            text,
            "{id:<width$}  {:>6}  {:>8}  {:>6}  {}",
            of.sent, of.answered, of.resets, of.verdict
        );
    }
    for (reason, packets) in &outcome.drops {
        let _ = writeln!(text, "dropped for {reason}: {packets} packets");
    }
    for failure in &outcome.failures {
        let _ = writeln!(text, "failed: {failure}");
    }
    let passed = if outcome.failures.is_empty() { "passed" } else { "failed" };
    let _ = write!(text, "{}: {passed}", outcome.scenario);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_scenario::outcome::TrafficOutcome;

    #[test]
    fn what_happened_and_what_failed_is_told() {
        let mut outcome = Outcome { scenario: "lossy".into(), ..Outcome::default() };
        let of = TrafficOutcome { sent: 10, answered: 9, resets: 0, verdict: "lost".into(), flows: None };
        outcome.traffic.insert("a-long-name".into(), of);
        outcome.drops.insert("INVALID_SOURCE_IP".into(), 2);
        let expected = "TRAFFIC        SENT  ANSWERED  RESETS  VERDICT\n\
                        a-long-name      10         9       0  lost\n\
                        dropped for INVALID_SOURCE_IP: 2 packets\n\
                        lossy: passed";
        assert_eq!(table(&outcome), expected);
        outcome.failures.push("step 2: why".into());
        assert!(table(&outcome).ends_with("failed: step 2: why\nlossy: failed"));
    }
}
