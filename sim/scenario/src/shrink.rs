//! A smaller scenario that fails the same way.
//!
//! Delta debugging (A. Zeller, R. Hildebrandt: "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28, 2002) over the steps,
//! then simpler clusters, faults, traffic and times, round after round until nothing helps any more.
//!
//! Every candidate is possible ([`Scenario::validate`]) and asks for nothing unsure that the scenario did not ask for before
//! ([`judge::doubts`]): to remove the wait before traffic, say, would make another failure and not a smaller one.

mod simpler;
mod steps;

use std::collections::BTreeSet;

use crate::judge;
use crate::model::Scenario;
use crate::validate::Known;

/// At most so many candidates are tried.
pub const MOST_TRIES: u32 = 2000;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShrinkProgress {
    /// Candidates tried so far.
    pub tries: u32,
    /// What was tried last.
    pub what: &'static str,
    /// Whether that still fails, and is what goes on.
    pub kept: bool,
    /// Steps of the smallest so far.
    pub steps: usize,
}

/// Makes `scenario`, which fails, smaller while `still_fails` says so. The same calls for the same answers.
pub fn shrink(
    scenario: Scenario,
    still_fails: &mut dyn FnMut(&Scenario) -> bool,
    progress: &mut dyn FnMut(&ShrinkProgress),
) -> Scenario {
    let allowed = subjects(&scenario);
    let mut shrinker = Shrinker { best: scenario, allowed, tries: 0, still_fails, progress };
    loop {
        let before = shrinker.best.clone();
        steps::fewer(&mut shrinker);
        simpler::cluster(&mut shrinker);
        simpler::steps(&mut shrinker);
        if shrinker.best == before || shrinker.done() {
            return shrinker.best;
        }
    }
}

/// What asks for something unsure.
fn subjects(scenario: &Scenario) -> BTreeSet<String> {
    judge::doubts(scenario).into_iter().map(|doubt| doubt.subject).collect()
}

struct Shrinker<'a> {
    best: Scenario,
    allowed: BTreeSet<String>,
    tries: u32,
    still_fails: &'a mut dyn FnMut(&Scenario) -> bool,
    progress: &'a mut dyn FnMut(&ShrinkProgress),
}

impl Shrinker<'_> {
    fn done(&self) -> bool {
        self.tries >= MOST_TRIES
    }

    /// Tries a candidate, and goes on with it if it fails too.
    fn attempt(&mut self, what: &'static str, candidate: Scenario) -> bool {
        let fair = candidate != self.best
            && candidate.validate(&Known::default()).is_ok()
            && subjects(&candidate).is_subset(&self.allowed);
        if self.done() || !fair {
            return false;
        }
        self.tries += 1;
        let kept = (self.still_fails)(&candidate);
        if kept {
            self.best = candidate;
        }
        (self.progress)(&ShrinkProgress { tries: self.tries, what, kept, steps: self.best.steps.len() });
        kept
    }

    /// Tries the best with a change.
    fn attempt_with(&mut self, what: &'static str, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.attempt(what, candidate)
    }
}
