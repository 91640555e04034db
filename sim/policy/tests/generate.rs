//! Random cases.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sim_oracle::{Cluster, End, Options, Reason};
use sim_policy::generate::FEATURES;
use sim_policy::{Feature, Plan, PolicyCase, generate};

/// The view of a case, and the objects that it refuses.
fn cluster(case: &PolicyCase, options: Options) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::with_options(options);
    let refused = case.objects.iter().filter_map(|object| cluster.set(object).err()).map(|e| e.to_string());
    let refused = refused.collect();
    (cluster, refused)
}

#[test]
fn seeds_come_again_and_differ() {
    let plan = Plan::default();
    let cases: Vec<PolicyCase> = (0..20).map(|seed| generate(seed, &plan)).collect();
    for (seed, case) in (0..).zip(&cases) {
        assert_eq!(generate(seed, &plan), *case);
        assert_eq!(case.attempts.len(), plan.attempts);
    }
    let texts: BTreeSet<String> = cases.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), cases.len());
}

#[test]
fn only_what_is_meant_to_be_invalid_is_refused() {
    let valid = Plan { attempts: 0, ..Plan::default() }.without(Feature::Invalid).with(Feature::HostPolicies);
    let mut refused = 0;
    for seed in 0..150 {
        assert_eq!(cluster(&generate(seed, &valid), Options::default()).1, [""; 0], "seed {seed}");
        refused +=
            cluster(&generate(seed, &valid.clone().with(Feature::Invalid)), Options::default()).1.len();
    }
    assert!(refused > 30, "{refused}");
}

/// Both answers, every reason, and a difference by staged policies are frequent.
#[test]
fn all_answers_are_frequent() {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut count = |what: &'static str| *counts.entry(what).or_default() += 1;
    for seed in 0..100 {
        let case = generate(seed, &Plan::default());
        let (cluster, _) = cluster(&case, Options::by_identity());
        for attempt in &case.attempts {
            let verdict = cluster.judge(attempt);
            count(if verdict.allowed { "allowed" } else { "forbidden" });
            if cluster.judge_with_staged(attempt).allowed != verdict.allowed {
                count("staged");
            }
            for because in &verdict.why {
                count(match &because.reason {
                    Reason::NotIsolated => "not isolated",
                    Reason::Itself => "itself",
                    Reason::OwnNode => "own node",
                    Reason::Rule(_) => "rule",
                    Reason::Denied(_) => "denied",
                    Reason::NoRule => "no rule",
                    Reason::NotEnforced => "not enforced",
                });
                if !because.passed_by.is_empty() {
                    count("passed");
                }
            }
        }
    }
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    let all = of("allowed") + of("forbidden");
    assert_eq!(all, 100 * 200);
    assert!((all / 4..all * 3 / 4).contains(&of("allowed")), "{counts:?}");
    for (what, least) in [
        ("rule", 1000),
        ("denied", 800),
        ("no rule", 1000),
        ("not isolated", 1000),
        ("passed", 250),
        ("staged", 150),
        ("own node", 25),
        ("itself", 25),
    ] {
        assert!(of(what) >= least, "{what}: {counts:?}");
    }
}

/// Every feature is used somewhere, and nowhere without being asked for.
#[test]
fn features_are_used_when_they_are_asked_for() {
    let words: &[(Feature, &[&str])] = &[
        (Feature::NetworkPolicies, &["\"NetworkPolicy\"", "podSelector", "ipBlock"]),
        (Feature::CiliumPolicies, &["\"CiliumNetworkPolicy\""]),
        (Feature::ClusterwidePolicies, &["\"CiliumClusterwideNetworkPolicy\""]),
        (Feature::Tiers, &["\"ClusterNetworkPolicy\"", "Baseline"]),
        (Feature::Deny, &["ingressDeny\":[{", "egressDeny\":[{"]),
        (Feature::DefaultDeny, &["enableDefaultDeny"]),
        (Feature::CidrGroups, &["CiliumCIDRGroup", "cidrGroupRef", "cidrGroupSelector"]),
        (Feature::Services, &["toServices", "k8sServiceSelector", "\"Service\""]),
        (Feature::Nodes, &["toNodes", "fromNodes", "\"nodes\""]),
        (Feature::ReservedKeys, &["reserved:host", "reserved:remote-node"]),
        (Feature::FilteredLabels, &["pod-template-hash"]),
        (Feature::ApiServer, &["kube-apiserver"]),
        (Feature::Icmp, &["icmps"]),
        (Feature::NamedPorts, &["\"port\":\"web\"", "destinationNamedPort"]),
        (Feature::Proxy, &["\"http\"", "serverNames", "toFQDNs", "authentication"]),
        (Feature::Staged, &["bristle.io/staged"]),
        (Feature::HostPolicies, &["nodeSelector"]),
    ];
    let all = Plan { features: FEATURES.iter().copied().collect(), attempts: 0, ..Plan::default() };
    let text = |plan: &Plan| -> String {
        (0..50).flat_map(|seed| generate(seed, plan).objects).map(|object| object.to_string()).collect()
    };
    let with = text(&all);
    for (feature, words) in words {
        // What is meant to be refused may use anything.
        let without = text(&all.clone().without(*feature).without(Feature::Invalid));
        let kinds = matches!(feature, Feature::NetworkPolicies | Feature::Tiers);
        for (place, word) in words.iter().enumerate() {
            assert!(with.contains(word), "{feature:?}: no {word}");
            // Words of kinds are also those of others.
            assert!(kinds && place > 0 || !without.contains(word), "{feature:?}: {word}");
        }
    }
}

#[test]
fn ends_are_there() {
    for seed in 0..50 {
        let case = generate(seed, &Plan::default());
        let (view, _) = cluster(&case, Options::default());
        let names: BTreeSet<(&str, &str)> = case
            .objects
            .iter()
            .map(|object| {
                let text =
                    |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                (text("/metadata/namespace"), text("/metadata/name"))
            })
            .collect();
        for attempt in &case.attempts {
            for end in [&attempt.from, &attempt.to] {
                match end {
                    End::Pod { namespace, name } => assert!(names.contains(&(namespace, name)), "{end}"),
                    End::Node { name } => assert!(names.contains(&("", name)), "{end}"),
                    End::Outside(address) => {
                        assert_eq!(address.is_ipv4(), attempt.family == sim_oracle::Family::V4);
                    }
                }
            }
            assert!(attempt.port.is_some());
            for end in [&attempt.from, &attempt.to] {
                let address = case.address(end, attempt.family);
                // A pod in the network of its node has its node's address.
                match end {
                    End::Outside(outside) => assert_eq!(address, Some(*outside)),
                    End::Pod { .. } | End::Node { .. } => {
                        let node =
                            End::Node { name: case.node_of(end).map(str::to_owned).unwrap_or_default() };
                        let found = address.map(|address| view.locate(address));
                        assert!(found.as_ref() == Some(end) || found == Some(node), "{end}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_case_is_written_as_yaml() {
    let case = generate(3, &Plan { attempts: 2, ..Plan::default() });
    let text = case.to_string();
    assert_eq!(text.lines().filter(|line| line.starts_with("# ")).count(), 2);
    let documents = text.split("---\n").filter(|part| !part.trim().is_empty());
    let objects: Vec<Value> = documents.map(|part| serde_yaml_ng::from_str(part).unwrap()).collect();
    assert_eq!(objects, case.objects);
}
