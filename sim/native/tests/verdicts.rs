//! What agents and packet path decide on random clusters and policies is what the oracle says.

use sim_native::verdicts::{self, Tally};

/// Clusters that a plain `cargo test` compares; `bristle-sim policy` takes any number.
const CASES: u64 = 60;

#[test]
fn agents_and_packets_decide_as_the_oracle_says() {
    let mut tally = Tally::default();
    for seed in 1..=CASES {
        let differences = verdicts::compare(seed, &verdicts::case(seed, 100), &mut tally).unwrap();
        assert!(
            differences.is_empty(),
            "{} of seed {seed}; `bristle-sim policy --only {seed}` shows a smaller case:\n{}",
            differences.len(),
            differences[0]
        );
    }
    assert_eq!(tally.cases, CASES);
    let share = tally.allowed * 100 / tally.verdicts;
    assert!(
        (20..=80).contains(&share),
        "{share} % of {} are to be allowed: both answers are to be frequent",
        tally.verdicts
    );
}
