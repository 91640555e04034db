//! Fewer steps.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Shrinker;
use crate::model::{Action, AnsweredBy, Expect, ObjectRef, Place, Scenario, Until, Wait};
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
    let named = scenario.steps.iter().filter_map(|step| made(&step.action)).collect();
    let objects_named = scenario.steps.iter().flat_map(|step| applied(&step.action)).collect();
    let mut there = There { named, objects_named, ..There::default() };
    let mut smaller = Scenario { steps: Vec::new(), ..scenario.clone() };
    // In order, so that what was made or begun is known when something asks for it.
    for (index, step) in scenario.steps.iter().enumerate() {
        if gone.contains(&index) || !there.has_all(&step.action) {
            continue;
        }
        there.pods.extend(made(&step.action));
        there.objects.extend(applied(&step.action));
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

/// Kind, namespace and name.
type ObjectKey = (String, String, String);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn key_of(object: &Value) -> ObjectKey {
    let meta = &object["metadata"];
    (text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

/// Objects that are there after the step if they were not before.
fn applied(action: &Action) -> Vec<ObjectKey> {
    match action {
        Action::Apply(objects) => objects.iter().map(key_of).collect(),
        _ => Vec::new(),
    }
}

/// What there is at a step.
#[derive(Default)]
struct There {
    /// Pods that some step makes.
    named: BTreeSet<PodKey>,
    pods: BTreeSet<PodKey>,
    /// Objects that some step applies. The others are there from the beginning.
    objects_named: BTreeSet<ObjectKey>,
    objects: BTreeSet<ObjectKey>,
    traffic: BTreeSet<String>,
}

impl There {
    /// Whether the object is there to be deleted.
    fn has_object(&self, object: &ObjectRef) -> bool {
        let key = (object.kind.clone(), object.namespace.clone().unwrap_or_default(), object.name.clone());
        self.objects.contains(&key) || !self.objects_named.contains(&key)
    }

    /// Whether there is what an applied object only changes: the labels of a pod are nothing without it.
    fn has_changed(&self, object: &Value) -> bool {
        let (kind, namespace, name) = key_of(object);
        let namespace = if namespace.is_empty() { "default" } else { &namespace };
        kind != "Pod" || object.get("spec").is_some() || self.has_pod(&PodKey::new(namespace, &name))
    }

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
            Action::Delete(object) => self.has_object(object),
            Action::Apply(objects) => objects.iter().all(|object| self.has_changed(object)),
            Action::Traffic(begun) => {
                let answering = begun.answered_by.iter().flat_map(AnsweredBy::pods);
                let places = [&begun.from, &begun.to].into_iter().chain(&begun.seen_as);
                places.into_iter().all(|place| self.has_place(place))
                    && answering.into_iter().all(|pod| self.has_pod(&PodKey::parse(pod)))
            }
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
