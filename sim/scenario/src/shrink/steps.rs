//! Fewer steps.

use std::collections::BTreeSet;

use super::Shrinker;
use crate::model::{Action, Expect, Place, Scenario, Until, Wait};
use crate::validate::objects::PodKey;

/// Removes chunks of steps, large ones first, then single ones; with each what hangs on it.
pub(super) fn fewer(shrinker: &mut Shrinker<'_>) {
    let mut chunk = shrinker.best.steps.len().div_ceil(2).max(1);
    loop {
        let mut removed = false;
        // From the end: what comes late seldom matters to what has failed before.
        let mut end = shrinker.best.steps.len();
        while end > 0 && !shrinker.done() {
            let start = end.saturating_sub(chunk);
            let candidate = without(&shrinker.best, &(start..end).collect());
            removed |= shrinker.attempt("fewer steps", candidate);
            end = start.min(shrinker.best.steps.len());
        }
        if chunk == 1 && !removed {
            return;
        }
        if shrinker.done() {
            return;
        }
        if !removed || chunk > 1 {
            chunk = chunk.div_ceil(2).max(1);
        }
    }
}

/// The scenario without these steps and without what makes no sense without them.
fn without(scenario: &Scenario, gone: &BTreeSet<usize>) -> Scenario {
    // Pods that no step makes by name are those of applied objects: nothing is known of them.
    let named: BTreeSet<PodKey> = scenario.steps.iter().filter_map(|step| made(&step.action)).collect();
    let mut there = There { named, ..There::default() };
    let mut smaller = Scenario { steps: Vec::new(), ..scenario.clone() };
    // In order, so that what was made or begun is known when something asks for it.
    for (index, step) in scenario.steps.iter().enumerate() {
        if gone.contains(&index) || !there.has_all(&step.action) {
            continue;
        }
        there.pods.extend(made(&step.action));
        if let Action::Traffic(begun) = &step.action {
            there.traffic.insert(begun.id.clone());
        }
        smaller.steps.push(step.clone());
    }
    count_pods(scenario, &mut smaller);
    smaller
}

fn made(action: &Action) -> Option<PodKey> {
    match action {
        Action::Pod(pod) => Some(PodKey::of(pod)),
        _ => None,
    }
}

/// What there is at a step.
#[derive(Default)]
struct There {
    /// Pods that some step makes.
    named: BTreeSet<PodKey>,
    pods: BTreeSet<PodKey>,
    traffic: BTreeSet<String>,
}

impl There {
    fn has_pod(&self, key: &PodKey) -> bool {
        self.pods.contains(key) || !self.named.contains(key)
    }

    fn has_place(&self, place: &Place) -> bool {
        match place {
            Place::Pod { namespace, name } => self.has_pod(&PodKey::new(namespace, name)),
            _ => true,
        }
    }

    /// Whether all that the step speaks of is there.
    fn has_all(&self, action: &Action) -> bool {
        match action {
            Action::DeletePod(name) | Action::Expect(Expect::NotReady(name)) => {
                self.has_pod(&PodKey::parse(name))
            }
            Action::Traffic(begun) => self.has_place(&begun.from) && self.has_place(&begun.to),
            Action::Wait(Wait { until: Until::Traffic(id), .. })
            | Action::Expect(Expect::Lost { traffic: id, .. }) => self.traffic.contains(id),
            _ => true,
        }
    }
}

/// Expectations about the number of ready pods follow the pods.
fn count_pods(before: &Scenario, after: &mut Scenario) {
    let alive = |scenario: &Scenario, until: usize| {
        scenario.steps[..until].iter().fold(0_u32, |alive, step| match step.action {
            Action::Pod(_) => alive + 1,
            Action::DeletePod(_) => alive.saturating_sub(1),
            _ => alive,
        })
    };
    // Only those that spoke of all pods: the others are a matter of the scenario.
    let all = before.steps.iter().enumerate().all(|(index, step)| match step.action {
        Action::Expect(Expect::PodsReady(count)) => count == alive(before, index),
        _ => true,
    });
    if !all {
        return;
    }
    for index in 0..after.steps.len() {
        let count = alive(after, index);
        if let Action::Expect(Expect::PodsReady(expected)) = &mut after.steps[index].action {
            *expected = count;
        }
    }
}
