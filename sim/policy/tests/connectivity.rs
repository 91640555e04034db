//! The connectivity suite beside the oracle.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use sim_oracle::{Cluster, Family, Options};
use sim_policy::connectivity::{self, Case, PLACE, Who};

fn address(who: &Who, family: Family) -> Option<IpAddr> {
    let pods: Vec<Value> =
        connectivity::objects().into_iter().filter(|object| object["kind"] == "Pod").collect();
    let (v4, v6) = match who {
        Who::Pod(pod) => {
            let at = pods.iter().position(|object| object["metadata"]["name"] == *pod.name)?;
            (format!("10.10.0.{}", at + 1), format!("fd00:10::{}", at + 1))
        }
        Who::Node(node) => (format!("172.18.0.{}", node + 1), format!("fd00:18::{}", node + 1)),
        Who::World(number) => {
            ([198, 203][*number].to_string() + ".51.100.1", format!("2001:db8:{}::1", number + 1))
        }
    };
    (if family == Family::V4 { v4 } else { v6 }).parse().ok()
}

fn surroundings() -> Vec<Value> {
    let both = |who: &Who| [Family::V4, Family::V6].map(|family| address(who, family).unwrap());
    let nodes = (0..connectivity::NODES).map(|node| {
        let addresses: Vec<Value> = both(&Who::Node(node))
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{node}")},
            "status": {"addresses": addresses}})
    });
    let objects = connectivity::objects().into_iter().map(|mut object| {
        if object["kind"] == "Pod" {
            let name = |at: &str| object["metadata"][at].as_str().unwrap().to_owned();
            let who = Who::Pod(sim_policy::suite::Pod::new(&name("namespace"), &name("name")));
            let ips: Vec<Value> = both(&who).iter().map(|address| json!({"ip": address})).collect();
            let node = object["metadata"]["annotations"][PLACE].as_str().unwrap();
            object["spec"]["nodeName"] = json!(format!("node-{node}"));
            object["status"] = json!({"phase": "Running", "podIPs": ips});
        }
        object
    });
    nodes.chain(objects).collect()
}

/// What differs.
fn run(case: &Case, family: Family, with_policies: bool) -> Vec<String> {
    let mut oracle = Cluster::with_options(Options { host_policies: true, ..Options::by_identity() });
    for object in surroundings() {
        oracle.set(&object).unwrap();
    }
    let mut wrong = Vec::new();
    for step in &case.steps {
        for object in step.objects(|who| address(who, family)).unwrap() {
            if with_policies {
                oracle.set(&object).unwrap();
            }
        }
        for way in step.expect.iter().flat_map(|tried| tried.ways().unwrap()) {
            let world = |number| address(&Who::World(number), family);
            let attempt = way.attempt(family, |node| format!("node-{node}"), world).unwrap();
            let verdict = oracle.judge(&attempt);
            if verdict.allowed != way.open {
                wrong.push(format!("{}: {attempt} must be {}, but: {verdict}", case.name, way.open));
            }
        }
    }
    wrong
}

#[test]
fn the_oracle_passes() {
    for case in connectivity::cases().unwrap() {
        for family in [Family::V4, Family::V6] {
            let wrong = run(&case, family, true);
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }
}

#[test]
fn each_case_but_that_without_policies_can_fail() {
    let silent: Vec<String> = connectivity::cases()
        .unwrap()
        .into_iter()
        .filter(|case| run(case, Family::V4, false).is_empty())
        .map(|case| case.name)
        .collect();
    assert_eq!(silent, ["no-policies"]);
}

#[test]
fn names_are_those_of_one_case_each() {
    let cases = connectivity::cases().unwrap();
    let left_out = connectivity::left_out().unwrap();
    let names: BTreeSet<&str> = cases
        .iter()
        .map(|case| case.name.as_str())
        .chain(left_out.iter().map(|one| one.name.as_str()))
        .collect();
    assert_eq!(names.len(), cases.len() + left_out.len());
}
