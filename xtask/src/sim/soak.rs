//! Random clusters for a while: some that are the same every time, and some that are new every day.
//!
//! The same ones show what a change broke. New ones find what nobody has seen yet; they are told by their first seed.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::simulator;
use crate::cmd;

/// How long the simulator looks for what breaks, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Soak {
    /// From seed 1 on.
    pub(crate) same: u64,
    /// From the first seed of the day on.
    pub(crate) fresh: u64,
}

/// Seeds of a day: more than any soak gets to.
const OF_A_DAY: u64 = 1_000_000;

/// Runs both parts, the same ones first; `dir` holds the programs.
pub(crate) fn run(dir: &Path, soak: Soak) -> anyhow::Result<()> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for (what, first, seconds) in
        [("the same as ever", 1, soak.same), ("new today", first_seed(since_1970), soak.fresh)]
    {
        if seconds == 0 {
            continue;
        }
        let words = words(first, seconds);
        eprintln!("==> random clusters in the simulator for {seconds} s, {what}: cargo xtask sim {words}");
        cmd::pass(simulator(dir).arg("explore").args(words.split(' ')))?;
    }
    Ok(())
}

/// The first seed of the day (UTC).
const fn first_seed(since_1970: Duration) -> u64 {
    since_1970.as_secs() / (24 * 60 * 60) * OF_A_DAY
}

/// What `explore` is told; with these words after `cargo xtask sim` it can be repeated.
fn words(first: u64, seconds: u64) -> String {
    format!("--profile all --jobs 2 --first {first} --seconds {seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_has_seeds_of_its_own() {
        const DAY_S: u64 = 24 * 60 * 60;
        let [morning, evening, next] =
            [20_787 * DAY_S, 20_788 * DAY_S - 1, 20_788 * DAY_S].map(Duration::from_secs);
        assert_eq!(first_seed(morning), 20_787_000_000);
        assert_eq!(first_seed(evening), first_seed(morning));
        assert_eq!(first_seed(next) - first_seed(morning), OF_A_DAY);
    }
}
