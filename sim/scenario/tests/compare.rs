//! Two outcomes: what counts as different and what does not.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};

use sim_scenario::flows::Flow;
use sim_scenario::model::{Expect, TrafficExpect};
use sim_scenario::outcome::{EndState, TrafficOutcome};
use sim_scenario::{Outcome, Scenario, compare};

fn scenario() -> Scenario {
    Scenario::builder("s")
        .pod("a", |p| p.node("node-1"))
        .pod("b", |p| p)
        .wait_ready()
        .traffic("ok", "pod/a", "pod/b", |t| t)
        .traffic("any", "pod/a", "pod/b", |t| t.expect(TrafficExpect::Any))
        .traffic("survive", "pod/a", "pod/b", |t| t.expect(TrafficExpect::Survive))
        .expect(Expect::Drops { reason: "TTL_EXCEEDED".to_owned(), at_least: 1 })
        .build()
        .unwrap()
}

fn by_node(rows: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    let set = |pods: &[&str]| pods.iter().map(ToString::to_string).collect();
    rows.iter().map(|(node, pods)| ((*node).to_owned(), set(pods))).collect()
}

fn outcome(arm: &str) -> Outcome {
    let verdict =
        |verdict: &str| TrafficOutcome { sent: 1, verdict: verdict.to_owned(), ..TrafficOutcome::default() };
    let pods = by_node(&[("node-1", &["default/a", "default/b"])]);
    let behind_two = BTreeMap::from([("node-2".to_owned(), 2)]);
    Outcome {
        scenario: "s".to_owned(),
        arm: arm.to_owned(),
        seed: Some(1),
        traffic: ["ok", "any", "survive"].into_iter().map(|id| (id.to_owned(), verdict("ok"))).collect(),
        drops: BTreeMap::from([("TTL_EXCEEDED".to_owned(), 4)]),
        end: EndState {
            pods: pods.clone(),
            endpoints: pods,
            ipcache: BTreeMap::from([("node-1".to_owned(), behind_two)]),
        },
        failures: Vec::new(),
    }
}

#[track_caller]
fn differences(change: impl FnOnce(&mut Outcome), expected: &[&str]) {
    let mut other = outcome("netns");
    change(&mut other);
    assert_eq!(compare(&outcome("native"), &other, &scenario()), expected);
}

fn set_verdict(outcome: &mut Outcome, id: &str, verdict: &str) {
    verdict.clone_into(&mut outcome.traffic.get_mut(id).unwrap().verdict);
}

#[test]
fn what_may_differ() {
    differences(|_| {}, &[]);
    differences(|o| o.seed = None, &[]);
    differences(|o| set_verdict(o, "any", "silent"), &[]);
    differences(|o| set_verdict(o, "survive", "lost"), &[]);
    differences(|o| o.traffic.get_mut("ok").unwrap().sent = 7, &[]);
    differences(|o| *o.drops.get_mut("TTL_EXCEEDED").unwrap() = 9, &[]);
    differences(|o| o.drops.extend([("STALE_OR_UNROUTABLE_IP".to_owned(), 1)]), &[]);
    let b_elsewhere = || by_node(&[("node-1", &["default/a"]), ("node-3", &["default/b"])]);
    differences(|o| o.end.pods = b_elsewhere(), &[]);
}

#[test]
fn what_may_not() {
    differences(
        |o| "x".clone_into(&mut o.scenario),
        &["the scenarios differ: native ran `s`, netns ran `x`"],
    );
    differences(|o| set_verdict(o, "ok", "lost"), &["traffic ok: ok on native, lost on netns"]);
    differences(|o| set_verdict(o, "survive", "silent"), &["traffic survive: ok on native, silent on netns"]);
    differences(|o| drop(o.traffic.remove("any")), &["traffic any: native has it, netns has not"]);
    differences(|o| o.drops.clear(), &["drops for TTL_EXCEEDED: native saw some, netns saw none"]);
    let a_elsewhere = || by_node(&[("node-1", &["default/b"]), ("node-2", &["default/a"])]);
    differences(
        |o| o.end.pods = a_elsewhere(),
        &["default/a is ready on node-1 on native, on node-2 on netns"],
    );
    differences(
        |o| o.end.endpoints = by_node(&[("node-1", &["default/b", "default/c"])]),
        &[
            "default/a is an endpoint at the end on native, not on netns",
            "default/c is an endpoint at the end on netns, not on native",
        ],
    );
    differences(
        |o| o.end.ipcache = BTreeMap::new(),
        &["the ipcache of node-1 has 2 prefixes behind node-2 on native, 0 on netns"],
    );
    differences(
        |o| o.failures.push("traffic ok: 1 lost".to_owned()),
        &["native passed, netns failed: traffic ok: 1 lost"],
    );
}

fn flow(event: &str) -> Flow {
    Flow {
        node: "node-1".to_owned(),
        event: event.to_owned(),
        source: "pod".to_owned(),
        destination: "pod".to_owned(),
        reply: false,
    }
}

/// What is compared of the flows of `t`, which one arm alone has seen something of.
fn compared(steps: &str) -> Vec<String> {
    let text = format!(
        "bristle: scenario/v1\nname: s\ncluster: {{nodes: 1}}\nsteps:\n- pod: {{name: a}}\n- pod: {{name: b}}\n{steps}"
    );
    let scenario = Scenario::parse(&text, "s.yaml").unwrap();
    let of = |arm: &str, events: &[&str]| {
        let flows = events.iter().map(|event| flow(event)).collect();
        let traffic = TrafficOutcome { flows: Some(flows), ..TrafficOutcome::default() };
        Outcome {
            scenario: "s".to_owned(),
            arm: arm.to_owned(),
            traffic: BTreeMap::from([("t".to_owned(), traffic)]),
            ..Outcome::default()
        }
    };
    compare(
        &of("native", &["trace to-endpoint"]),
        &of("netns", &["trace to-endpoint", "trace to-host"]),
        &scenario,
    )
}

const TRAFFIC: &str = "- traffic: {id: t, from: pod/a, to: pod/b, kind: ping}\n";
const END: &str = "- wait: {for: {traffic: t}}\n";
const REST: &str = "- wait: {for: rest}\n";

#[test]
fn flows_of_traffic_that_nothing_disturbs_are_the_same() {
    let differs =
        ["traffic t: `trace to-host` of a packet on node-1, pod to pod: seen on netns, not on native"];
    let change = "- apply: [{apiVersion: v1, kind: Namespace, metadata: {name: x}}]\n";
    let kill = "- fault: {node: node-1, kill: {}}\n";
    let stall = "- fault: {node: node-1, stall: null}\n";
    let heal = "- fault: heal\n";
    for steps in [
        format!("{REST}{TRAFFIC}"),
        format!("{REST}{TRAFFIC}{REST}{change}"),
        format!("{REST}{TRAFFIC}{END}{REST}{kill}"),
        format!("{kill}{REST}{TRAFFIC}"),
        format!("{stall}{heal}{REST}{TRAFFIC}"),
    ] {
        assert_eq!(compared(&steps), differs, "{steps}");
    }
    for steps in [
        TRAFFIC.to_owned(),
        format!("- wait: {{for: ready}}\n{TRAFFIC}"),
        format!("{REST}{change}{TRAFFIC}"),
        format!("{REST}{TRAFFIC}{change}"),
        format!("{REST}{TRAFFIC}{kill}{REST}"),
        format!("{REST}{TRAFFIC}{END}{kill}"),
        // What comes then may be of the same packets.
        format!("{REST}{TRAFFIC}{END}- traffic: {{id: u, from: pod/a, to: pod/b, kind: ping}}\n{REST}"),
        format!("{stall}{REST}{TRAFFIC}"),
        format!("{REST}- traffic: {{id: t, from: pod/a, to: pod/b, kind: ping, expect: any}}\n"),
        format!("{REST}- traffic: {{id: t, from: pod/a, to: pod/b, kind: ping, background: true}}\n{REST}"),
    ] {
        assert_eq!(compared(&steps), Vec::<String>::new(), "{steps}");
    }
}

#[test]
fn flows_that_one_arm_does_not_know_are_not_compared() {
    let (mut a, mut b) = (outcome("native"), outcome("netns"));
    let scenario =
        Scenario::builder("s").pod("a", |p| p).wait_rest().traffic("ok", "pod/a", "pod/a", |t| t).build();
    let scenario = scenario.unwrap();
    a.traffic.get_mut("ok").unwrap().flows = Some(BTreeSet::from([flow("trace to-host")]));
    assert_eq!(compare(&a, &b, &scenario), Vec::<String>::new());
    b.traffic.get_mut("ok").unwrap().flows = Some(BTreeSet::new());
    assert_eq!(compare(&a, &b, &scenario).len(), 1);
}
