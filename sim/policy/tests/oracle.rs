//! What must hold for the oracle whatever the policies are.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use serde_json::{Value, json};
use sim_oracle::{Cluster, Enforcement, Options, Reason, Verdict};
use sim_policy::generate::FEATURES;
use sim_policy::{Feature, Plan, PolicyCase, generate};
use sim_scenario::Rng;

const SEEDS: std::ops::Range<u64> = 1000..1060;

fn plan() -> Plan {
    Plan { features: FEATURES.iter().copied().collect(), attempts: 100, ..Plan::default() }
        .without(Feature::Invalid)
}

fn options() -> Options {
    Options { host_policies: true, ..Options::by_identity() }
}

fn cluster<'a>(options: Options, objects: impl IntoIterator<Item = &'a Value>) -> Cluster {
    let mut cluster = Cluster::with_options(options);
    for object in objects {
        cluster.set(object).unwrap();
    }
    cluster
}

/// Compares two views for each seed.
fn compare(view: impl Fn(&PolicyCase) -> (Cluster, Cluster), holds: impl Fn(&Verdict, &Verdict) -> bool) {
    for seed in SEEDS {
        let case = generate(seed, &plan());
        let (one, other) = view(&case);
        for attempt in &case.attempts {
            let (one, other) = (one.judge(attempt), other.judge(attempt));
            assert!(holds(&one, &other), "seed {seed}: {attempt}\n  {one}\n  {other}");
        }
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    compare(
        |case| {
            let mut objects: Vec<&Value> = case.objects.iter().collect();
            Rng::new(7).shuffle(&mut objects);
            (cluster(options(), &case.objects), cluster(options(), objects))
        },
        |one, other| one == other,
    );
}

#[test]
fn what_is_removed_has_never_been_there() {
    let is_removed = |object: &&Value| {
        let kind = object["kind"].as_str().unwrap();
        // About half of the policies: those with numbers of one digit.
        let is_short = object["metadata"]["name"].as_str().unwrap().len() == 2;
        (kind.contains("Policy") && is_short) || kind == "CiliumCIDRGroup"
    };
    compare(
        |case| {
            let mut one = cluster(options(), &case.objects);
            for object in case.objects.iter().filter(is_removed) {
                let text =
                    |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                one.remove(text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
            }
            (one, cluster(options(), case.objects.iter().filter(|object| !is_removed(object))))
        },
        |one, other| one == other,
    );
}

#[test]
fn with_staged_is_the_same_as_without_the_annotation() {
    for seed in SEEDS {
        let case = generate(seed, &plan());
        let mut objects = case.objects.clone();
        for object in &mut objects {
            object["metadata"].as_object_mut().unwrap().remove("annotations");
        }
        let (staged, plain) = (cluster(options(), &case.objects), cluster(options(), &objects));
        for attempt in &case.attempts {
            assert_eq!(staged.judge_with_staged(attempt), plain.judge(attempt), "seed {seed}: {attempt}");
        }
    }
}

/// A deny in the middle tier takes away, and nothing else: only what is accepted before it stays.
#[test]
fn a_policy_that_denies_all_leaves_what_comes_before() {
    let deny = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "deny-all"},
        "spec": {
            "endpointSelector": {},
            "ingressDeny": [{"fromEntities": ["all"]}],
            "egressDeny": [{"toEntities": ["all"]}],
        },
    });
    compare(
        |case| (cluster(options(), &case.objects), cluster(options(), case.objects.iter().chain([&deny]))),
        |before, after| {
            before.why.iter().zip(&after.why).all(|(before, after)| {
                before.reason == after.reason
                    || (!after.reason.allows() && matches!(after.reason, Reason::Denied(_)))
            })
        },
    );
}

/// Where something isolates already, another policy that allows can only open.
#[test]
fn a_policy_that_allows_takes_nothing_from_the_isolated() {
    let allow = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "allow-some"},
        "spec": {
            "endpointSelector": {},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "web"}}]}],
            "egress": [{"toEntities": ["world"], "toPorts": [{"ports": [{"port": "80"}]}]}],
        },
    });
    compare(
        |case| (cluster(options(), &case.objects), cluster(options(), case.objects.iter().chain([&allow]))),
        |before, after| {
            before.why.iter().zip(&after.why).all(|(before, after)| {
                before.isolated_by.is_empty() || !before.reason.allows() || after.reason.allows()
            })
        },
    );
}

#[test]
fn modes_differ_only_as_they_say() {
    let with = |case: &PolicyCase, enforcement| cluster(Options { enforcement, ..options() }, &case.objects);
    compare(
        |case| (with(case, Enforcement::Default), with(case, Enforcement::Never)),
        |_, never| never.allowed,
    );
    compare(
        |case| (with(case, Enforcement::Default), with(case, Enforcement::Always)),
        |usual, always| usual.allowed || !always.allowed,
    );
    compare(
        |case| {
            let audit = cluster(Options { audit: true, ..options() }, &case.objects);
            (with(case, Enforcement::Default), audit)
        },
        |usual, audit| audit.allowed && audit.audited != usual.allowed && audit.why == usual.why,
    );
}

/// The reasons carry the verdict, and name policies that are there and isolate.
#[test]
fn verdicts_follow_from_their_reasons() {
    compare(
        |case| (cluster(options(), &case.objects), Cluster::new()),
        |verdict, _| {
            verdict.allowed == verdict.why.iter().all(|because| because.reason.allows())
                && verdict.why.iter().all(|because| match because.reason {
                    Reason::NotIsolated => because.isolated_by.is_empty(),
                    Reason::NoRule => !because.isolated_by.is_empty(),
                    _ => true,
                })
        },
    );
}
