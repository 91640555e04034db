//! Whether two arms saw the same.
//!
//! Two arms differ in time, so only what does not hang on it is compared: what came of traffic of which something is expected, the flows of
//! traffic that nothing disturbs, where pods and endpoints are at the end, what the ipcaches know, and whether the drop reasons occurred
//! that the scenario speaks of.
//! Numbers of packets are not compared, nor on which node a pod is that the scheduler placed.

mod flows;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Action, Expect, Scenario, TrafficExpect};
use crate::outcome::Outcome;

/// How two outcomes of a scenario differ, one sentence each.
pub fn compare(a: &Outcome, b: &Outcome, scenario: &Scenario) -> Vec<String> {
    let mut found = Vec::new();
    if a.scenario != b.scenario {
        found.push(format!(
            "the scenarios differ: {} ran `{}`, {} ran `{}`",
            a.arm, a.scenario, b.arm, b.scenario
        ));
    }
    traffic(a, b, scenario, &mut found);
    flows::flows(a, b, scenario, &mut found);
    drops(a, b, scenario, &mut found);
    let free = placed_by_scheduler(scenario);
    places("ready", a, b, &a.end.pods, &b.end.pods, &free, &mut found);
    places("an endpoint", a, b, &a.end.endpoints, &b.end.endpoints, &free, &mut found);
    ipcache(a, b, &mut found);
    if a.failures.is_empty() != b.failures.is_empty() {
        let (passed, failed) = if a.failures.is_empty() { (a, b) } else { (b, a) };
        let first = &failed.failures[0];
        found.push(format!("{} passed, {} failed: {first}", passed.arm, failed.arm));
    }
    found
}

fn traffic(a: &Outcome, b: &Outcome, scenario: &Scenario, found: &mut Vec<String>) {
    for step in &scenario.steps {
        let Action::Traffic(wanted) = &step.action else {
            continue;
        };
        let id = &wanted.id;
        match (a.traffic.get(id), b.traffic.get(id)) {
            (None, None) => {}
            (Some(_), None) => found.push(format!("traffic {id}: {} has it, {} has not", a.arm, b.arm)),
            (None, Some(_)) => found.push(format!("traffic {id}: {} has it, {} has not", b.arm, a.arm)),
            (Some(of_a), Some(of_b)) => {
                let (in_a, in_b) = (&of_a.verdict, &of_b.verdict);
                let single_losses = |verdict: &String| matches!(verdict.as_str(), "ok" | "lost");
                let same = match wanted.expect {
                    TrafficExpect::Any => true,
                    TrafficExpect::Survive => in_a == in_b || (single_losses(in_a) && single_losses(in_b)),
                    TrafficExpect::Ok | TrafficExpect::Fail | TrafficExpect::Refused => in_a == in_b,
                };
                if !same {
                    found.push(format!("traffic {id}: {in_a} on {}, {in_b} on {}", a.arm, b.arm));
                }
            }
        }
    }
}

fn drops(a: &Outcome, b: &Outcome, scenario: &Scenario, found: &mut Vec<String>) {
    let reasons: BTreeSet<&String> = scenario
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Expect(Expect::Drops { reason, .. }) => Some(reason),
            _ => None,
        })
        .collect();
    for reason in reasons {
        let seen = |outcome: &Outcome| outcome.drops.get(reason).is_some_and(|packets| *packets > 0);
        if seen(a) != seen(b) {
            let (with, without) = if seen(a) { (a, b) } else { (b, a) };
            found.push(format!("drops for {reason}: {} saw some, {} saw none", with.arm, without.arm));
        }
    }
}

/// Pods that the scenario puts on no node, as `namespace/name`.
fn placed_by_scheduler(scenario: &Scenario) -> BTreeSet<String> {
    let mut placed = BTreeSet::new();
    let mut free = BTreeSet::new();
    for step in &scenario.steps {
        if let Action::Pod(pod) = &step.action {
            let of = if pod.node.is_some() { &mut placed } else { &mut free };
            of.insert(format!("{}/{}", pod.namespace, pod.name));
        }
    }
    &free - &placed
}

type ByNode = BTreeMap<String, BTreeSet<String>>;

fn places(
    what: &str,
    a: &Outcome,
    b: &Outcome,
    in_a: &ByNode,
    in_b: &ByNode,
    free: &BTreeSet<String>,
    found: &mut Vec<String>,
) {
    let (in_a, in_b) = (by_pod(in_a, free), by_pod(in_b, free));
    for (pod, node) in &in_a {
        match in_b.get(pod) {
            Some(other) if other != node => found.push(format!(
                "{pod} is {what} on {} on {}, on {} on {}",
                node.join(" and "),
                a.arm,
                other.join(" and "),
                b.arm
            )),
            Some(_) => {}
            None => found.push(format!("{pod} is {what} at the end on {}, not on {}", a.arm, b.arm)),
        }
    }
    for pod in in_b.keys().filter(|pod| !in_a.contains_key(*pod)) {
        found.push(format!("{pod} is {what} at the end on {}, not on {}", b.arm, a.arm));
    }
}

/// The nodes of each pod; of one that the scheduler placed, `some node`. Pods that no step names, those of workloads, are left as they are.
fn by_pod(by_node: &ByNode, free: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (node, names) in by_node {
        for name in names {
            let node = if free.contains(name) { "some node".to_owned() } else { node.clone() };
            pods.entry(name.clone()).or_default().push(node);
        }
    }
    pods
}

fn ipcache(a: &Outcome, b: &Outcome, found: &mut Vec<String>) {
    let nodes: BTreeSet<&String> = a.end.ipcache.keys().chain(b.end.ipcache.keys()).collect();
    let none = BTreeMap::new();
    for node in nodes {
        let in_a = a.end.ipcache.get(node).unwrap_or(&none);
        let in_b = b.end.ipcache.get(node).unwrap_or(&none);
        let others: BTreeSet<&String> = in_a.keys().chain(in_b.keys()).collect();
        for other in others {
            let count = |of: &BTreeMap<String, u32>| of.get(other).copied().unwrap_or(0);
            if count(in_a) != count(in_b) {
                found.push(format!(
                    "the ipcache of {node} has {} prefixes behind {other} on {}, {} on {}",
                    count(in_a),
                    a.arm,
                    count(in_b),
                    b.arm
                ));
            }
        }
    }
}
