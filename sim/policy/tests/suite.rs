//! The conformance suite, asked of the oracle.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use sim_oracle::{Attempt, Cluster, End, Family, Options};
use sim_policy::suite::{self, Case, Change, Need, Pod};

/// The cluster of the suite on two nodes, as it is now.
struct World {
    cluster: Cluster,
    objects: BTreeMap<(String, String), Value>,
    family: Family,
}

impl World {
    fn new(options: Options, family: Family) -> Self {
        let mut world = Self { cluster: Cluster::with_options(options), objects: BTreeMap::new(), family };
        for mut object in suite::objects() {
            if object["kind"] == "Pod" {
                let pod = pod(&object);
                object["spec"]["nodeName"] = json!(if pod.name == "a" { "node-1" } else { "node-2" });
                object["status"] = json!({"phase": "Running", "podIPs": [{"ip": address(&pod, family)}]});
            }
            world.set(object);
        }
        world
    }

    fn set(&mut self, object: Value) {
        self.cluster.set(&object).unwrap();
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.objects.insert((text("/metadata/namespace"), text("/metadata/name")), object);
    }

    fn label(&mut self, namespace: &str, name: &str, labels: &Value) {
        let mut object = self.objects[&(namespace.to_owned(), name.to_owned())].clone();
        let all = object["metadata"]["labels"].as_object_mut().unwrap();
        all.extend(labels.as_object().unwrap().clone());
        self.set(object);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Apply(policy) => self.cluster.set(&policy).unwrap(),
            Change::Delete(policy) => self.cluster.remove("NetworkPolicy", &policy.namespace, &policy.name),
            Change::LabelNamespace { name, labels } => self.label("", &name, &labels),
            Change::LabelPod { pod, labels } => self.label(&pod.namespace, &pod.name, &labels),
        }
    }
}

fn pod(object: &Value) -> Pod {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
    Pod::new(text("/metadata/namespace"), text("/metadata/name"))
}

fn address(pod: &Pod, family: Family) -> IpAddr {
    let place = suite::pods().position(|other| other == *pod).unwrap() + 1;
    match family {
        Family::V4 => format!("10.244.0.{place}").parse().unwrap(),
        Family::V6 => format!("fd00:244::{place}").parse().unwrap(),
    }
}

/// What comes out wrong.
fn run(case: &Case, options: Options, family: Family) -> Vec<String> {
    let mut world = World::new(options, family);
    let mut wrong = Vec::new();
    for (place, step) in case.steps.iter().enumerate() {
        for change in step.changes(|pod| Some(address(pod, family))).unwrap() {
            world.apply(change);
        }
        for expected in &step.expect {
            for (from, to) in suite::pods().flat_map(|from| suite::pods().map(move |to| (from.clone(), to))) {
                let end = |pod: &Pod| End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() };
                let attempt = Attempt {
                    from: end(&from),
                    to: end(&to),
                    family: world.family,
                    protocol: expected.protocol,
                    port: Some(expected.port),
                };
                let verdict = world.cluster.judge(&attempt);
                if expected.is_reachable(&from, &to).is_some_and(|reachable| reachable != verdict.allowed) {
                    wrong.push(format!("{}, step {place}: {attempt}: {verdict}", case.name));
                }
            }
        }
    }
    wrong
}

#[test]
fn there_are_as_many_cases_as_in_the_suite_with_names_of_their_own() {
    let cases = suite::cases().unwrap();
    assert_eq!(cases.len(), 48);
    assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), 48);
    assert!(cases.iter().all(|case| case.steps.iter().all(|step| !step.expect.is_empty())));
}

#[test]
fn the_oracle_passes() {
    for case in suite::cases().unwrap() {
        for family in [Family::V4, Family::V6] {
            let wrong = run(&case, Options::default(), family);
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }
}

#[test]
fn by_identity_it_passes_too_and_needs_addresses_of_pods_where_the_case_says_so() {
    for case in suite::cases().unwrap() {
        let wrong = run(&case, Options::by_identity(), Family::V4);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let without = Options { blocks_match_pods: false, ..Options::by_identity() };
        let wrong = run(&case, without, Family::V4);
        assert_eq!(wrong.is_empty(), !case.needs.contains(&Need::BlocksMatchPods), "{}", wrong.join("\n"));
    }
}

/// Each case can fail: with its changes left out it does, unless it expects that nothing changes.
#[test]
fn the_cases_see_what_is_missing() {
    let mut silent = Vec::new();
    for mut case in suite::cases().unwrap() {
        let expects = case.steps.clone();
        for step in &mut case.steps {
            *step = serde_json::from_value(json!({"expect": []})).unwrap();
        }
        for (step, with) in case.steps.iter_mut().zip(expects) {
            step.expect = with.expect;
        }
        if run(&case, Options::default(), Family::V4).is_empty() {
            silent.push(case.name);
        }
    }
    assert_eq!(silent, ["from-all-namespaces", "allow-all"]);
}
