//! Random scenarios are valid, sure, the same for the same seed, and read back.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sim_scenario::model::{Action, Expect, FaultKind, TrafficExpect};
use sim_scenario::profile::{PROFILES, Subject};
use sim_scenario::{Known, Profile, Scenario, generate, judge};

fn count(scenario: &Scenario, expect: TrafficExpect) -> usize {
    let traffic = scenario.steps.iter().filter(|step| match &step.action {
        Action::Traffic(traffic) => traffic.expect == expect,
        _ => false,
    });
    traffic.count()
}

#[test]
fn many_seeds_of_every_profile_are_valid_and_sure() {
    for profile in PROFILES {
        let mut expectations = BTreeMap::new();
        for seed in 0..500 {
            let scenario = generate(seed, profile, None);
            scenario.validate(&Known::default()).unwrap_or_else(|e| panic!("{} {seed}: {e}", profile.name));
            let doubts = judge::doubts(&scenario);
            assert!(doubts.is_empty(), "{} {seed}: {doubts:?}", profile.name);
            assert_eq!(scenario.steps.last().unwrap().action, Action::Expect(Expect::Allocated(0)));
            for expect in [TrafficExpect::Ok, TrafficExpect::Fail, TrafficExpect::Any, TrafficExpect::Survive]
            {
                *expectations.entry(format!("{expect:?}")).or_insert(0) += count(&scenario, expect);
            }
        }
        // A profile that asks for nothing finds nothing.
        let all: usize = expectations.values().sum();
        // While there are policies, nothing gets through for sure.
        let share = if profile.subject == Subject::All { 3 } else { 10 };
        assert!(expectations["Ok"] * share > all, "{}: {expectations:?}", profile.name);
        assert!(expectations["Fail"] > 0, "{}: {expectations:?}", profile.name);
    }
}

#[test]
fn the_seed_alone_decides() {
    for profile in PROFILES {
        let texts: Vec<String> = (0..20).map(|seed| generate(seed, profile, Some(3)).to_yaml()).collect();
        for (seed, text) in (0..).zip(&texts) {
            assert_eq!(*text, generate(seed, profile, Some(3)).to_yaml());
        }
        let different: std::collections::BTreeSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
    }
}

#[test]
fn profiles_break_what_they_say() {
    let words = |name: &str| -> Vec<&'static str> {
        let profile = Profile::by_name(name).unwrap();
        let mut words: Vec<&str> = (0..100)
            .flat_map(|seed| generate(seed, profile, None).steps)
            .filter_map(|step| match step.action {
                Action::Fault(fault) => Some(fault.kind.word()),
                _ => None,
            })
            .collect();
        words.sort_unstable();
        words.dedup();
        words
    };
    for (name, expected) in [
        ("quiet", &["heal"][..]),
        ("crash", &["failures", "heal", "kill", "skew", "stall"]),
        ("api", &["api", "heal", "kill", "stall"]),
        ("net", &["heal", "link", "partition"]),
        ("cni", &["cni", "failures", "heal", "kill", "stall"]),
        ("full", &["failures", "heal", "kill", "ring-full", "table-full"]),
        ("policy", &["api", "failures", "heal", "kill", "stall", "table-full"]),
        (
            "mixed",
            &[
                "api",
                "cni",
                "failures",
                "heal",
                "kill",
                "link",
                "partition",
                "ring-full",
                "skew",
                "stall",
                "table-full",
            ],
        ),
    ] {
        assert_eq!(words(name), expected, "{name}");
    }
    assert_eq!(Profile::by_name("none"), None);
}

#[test]
fn connections_must_outlive_agents_and_survive_links() {
    let streams = |name: &str, expect: TrafficExpect| -> usize {
        let profile = Profile::by_name(name).unwrap();
        let steps = (0..300).flat_map(|seed| generate(seed, profile, None).steps);
        let wanted =
            |action: &Action| matches!(action, Action::Traffic(t) if t.background && t.expect == expect);
        steps.filter(|step| wanted(&step.action)).count()
    };
    for name in ["crash", "api", "cni", "mixed"] {
        assert!(streams(name, TrafficExpect::Ok) > 30, "{name}: {}", streams(name, TrafficExpect::Ok));
    }
    assert!(streams("net", TrafficExpect::Survive) > 10, "{}", streams("net", TrafficExpect::Survive));
    assert_eq!(streams("crash", TrafficExpect::Survive), 0);
}

#[test]
fn addresses_run_out_and_are_used_again() {
    let profile = Profile::by_name("cni").unwrap();
    let tight = (0..100).map(|seed| generate(seed, profile, None)).filter(|scenario| {
        let made = |node: &str| {
            let here =
                |action: &Action| matches!(action, Action::Pod(pod) if pod.node.as_deref() == Some(node));
            scenario.steps.iter().filter(|step| here(&step.action)).count()
        };
        scenario.cluster.pod_cidr_bits == 29
            && (1..=scenario.cluster.nodes).any(|n| made(&format!("node-{n}")) > 5)
    });
    assert!(tight.count() > 10);
}

#[test]
fn policies_are_of_every_sort() {
    let profile = Profile::by_name("policy").unwrap();
    let scenarios: Vec<Scenario> = (0..100).map(|seed| generate(seed, profile, None)).collect();
    let with = |what: &dyn Fn(&serde_json::Value) -> bool| {
        let applies = |scenario: &&Scenario| {
            scenario
                .steps
                .iter()
                .any(|step| matches!(&step.action, Action::Apply(objects) if objects.iter().any(what)))
        };
        scenarios.iter().filter(applies).count()
    };
    let annotations = |object: &serde_json::Value| object["metadata"]["annotations"].clone();
    let for_nodes = |object: &serde_json::Value| !object["spec"]["nodeSelector"].is_null();
    let found = [
        with(&for_nodes),
        with(&|object| for_nodes(object) && annotations(object)["bristle.io/allow-api-cut"] == "true"),
        with(&|object| for_nodes(object) && annotations(object)["bristle.io/allow-api-cut"].is_null()),
        with(&|object| annotations(object)["bristle.io/staged"] == "true"),
        with(&|object| object.to_string().contains("\"except\"")),
        with(&|object| object["kind"] == "Node" && !object["metadata"]["labels"]["zone"].is_null()),
    ];
    assert!(found.iter().all(|count| *count > 10), "{found:?}");
    let needless = scenarios.iter().filter(|scenario| !scenario.cluster.host_firewall);
    let mut steps = needless.flat_map(|scenario| &scenario.steps);
    let applies = |action: &Action| matches!(action, Action::Apply(objects) if objects.iter().any(for_nodes));
    assert!(!steps.any(|step| applies(&step.action)), "nobody would put it in force");
}

#[test]
fn faults_come_with_and_without_an_end() {
    let profile = Profile::by_name("mixed").unwrap();
    let faults: Vec<_> = (0..100)
        .flat_map(|seed| generate(seed, profile, None).steps)
        .filter_map(|step| match step.action {
            Action::Fault(fault) if fault.kind == FaultKind::Stall => Some(fault),
            _ => None,
        })
        .collect();
    assert!(
        faults.iter().any(|fault| fault.lasts.is_some()) && faults.iter().any(|fault| fault.lasts.is_none())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_reads_back_the_same(seed: u64, profile in 0..PROFILES.len(), nodes in 1_u16..8) {
        let scenario = generate(seed, &PROFILES[profile], Some(nodes));
        let text = scenario.to_yaml();
        prop_assert_eq!(&Scenario::parse_valid(&text, "t.yaml", &Known::default()).unwrap(), &scenario);
        let json = serde_json::to_string(&scenario).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Scenario>(&json).unwrap(), &scenario);
    }
}
