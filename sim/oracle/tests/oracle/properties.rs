//! What holds for all policies.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use sim_oracle::{Attempt, Cluster, Direction, End, Family, Options, Protocol, Reason};

use crate::support::{cluster, end, pod, policy};

/// Everybody who may be an end.
const ENDS: &[&str] = &[
    "default/db",
    "default/db2",
    "default/frontend",
    "default/plain",
    "default/host",
    "default/done",
    "mine/worker",
    "mine/frontend",
    "alice/client",
    "alice/cron",
    "node:node-1",
    "node:node-2",
    "172.17.0.1",
    "172.17.1.1",
    "10.0.0.1",
    "2001:db8::1",
];

fn attempts() -> Vec<Attempt> {
    let whats = [
        (Protocol::Tcp, Some(6379)),
        (Protocol::Tcp, Some(80)),
        (Protocol::Udp, Some(53)),
        (Protocol::Icmp, None),
    ];
    let mut attempts = Vec::new();
    for from in ENDS.iter().map(|text| end(text)) {
        for to in ENDS.iter().map(|text| end(text)) {
            for (protocol, port) in whats {
                for family in [Family::V4, Family::V6] {
                    let fits =
                        |end: &End| !matches!(end, End::Outside(address) if Family::of(*address) != family);
                    if fits(&from) && fits(&to) {
                        attempts.push(Attempt { from: from.clone(), to: to.clone(), family, protocol, port });
                    }
                }
            }
        }
    }
    attempts
}

fn answers(cluster: &Cluster, attempts: &[Attempt]) -> Vec<bool> {
    attempts.iter().map(|attempt| cluster.judge(attempt).allowed).collect()
}

fn selector() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"matchLabels": {"role": "db"}}),
        json!({"matchLabels": {"project": "myproject"}}),
        json!({"matchExpressions": [{"key": "role", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["db", "cron"]}]}),
        json!({"matchExpressions": [{"key": "user", "operator": "DoesNotExist"}]}),
    ])
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        select(vec!["172.17.0.0/16", "10.244.0.0/25", "::/0", "192.168.0.2/32"])
            .prop_map(|cidr| json!({"ipBlock": {"cidr": cidr}})),
        Just(json!({"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"port": 80}),
        json!({"port": "client"}),
        json!({"port": 6000, "endPort": 7000}),
        json!({"protocol": "UDP"}),
        json!({"protocol": "UDP", "port": "dns"}),
    ])
}

/// A rule, with the name of its peers to be set.
fn rule() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3))
}

fn spec() -> impl Strategy<Value = Value> {
    let rules = || prop::collection::vec(rule(), 0..3);
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    (selector(), rules(), rules(), types).prop_map(|(pods, ingress, egress, types)| {
        let list = |rules: Vec<(Vec<Value>, Vec<Value>)>, peers: &str| -> Vec<Value> {
            rules.into_iter().map(|(ends, ports)| json!({peers: ends, "ports": ports})).collect()
        };
        json!({
            "podSelector": pods, "ingress": list(ingress, "from"), "egress": list(egress, "to"), "policyTypes": types,
        })
    })
}

fn with_policies(specs: &[Value]) -> Cluster {
    let objects: Vec<Value> = specs.iter().enumerate().map(|(index, spec)| named(index, spec)).collect();
    cluster(Options::default(), &objects)
}

fn named(index: usize, spec: &Value) -> Value {
    policy(&format!("policy-{index}"), &spec.to_string())
}

fn specs() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(spec(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Policies add up: once a pod is isolated in a direction, another policy can only allow more.
    #[test]
    fn another_policy_takes_nothing_from_an_isolated_pod(specs in specs(), more in spec()) {
        let mut cluster = with_policies(&specs);
        let all = attempts();
        let before: Vec<_> = all.iter().map(|attempt| cluster.judge(attempt)).collect();
        cluster.set(&named(specs.len(), &more)).unwrap();
        for (attempt, before) in all.iter().zip(before) {
            let after = cluster.judge(attempt);
            for (before, after) in before.why.iter().zip(&after.why) {
                if !before.isolated_by.is_empty() {
                    prop_assert!(!before.reason.allows() || after.reason.allows(), "{attempt}: {before}, then {after}");
                }
            }
        }
    }

    /// The view is the set of objects, not their history.
    #[test]
    fn order_does_not_matter(specs in specs(), swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..40)) {
        let mut objects = crate::support::world();
        objects.extend(specs.iter().enumerate().map(|(index, spec)| named(index, spec)));
        for (one, other) in swaps {
            let (one, other) = (one.index(objects.len()), other.index(objects.len()));
            objects.swap(one, other);
        }
        let mut shuffled = Cluster::new();
        for object in &objects {
            shuffled.set(object).unwrap();
        }
        let straight = with_policies(&specs);
        for attempt in attempts() {
            prop_assert_eq!(shuffled.judge(&attempt), straight.judge(&attempt), "{}", attempt);
        }
    }

    /// A policy that selects no pod changes nothing, not even a reason.
    #[test]
    fn a_policy_that_selects_nothing_changes_nothing(specs in specs(), mut more in spec()) {
        more["podSelector"] = json!({"matchLabels": {"role": "nobody"}});
        let mut cluster = with_policies(&specs);
        let all = attempts();
        let before: Vec<_> = all.iter().map(|attempt| cluster.judge(attempt)).collect();
        cluster.set(&named(specs.len(), &more)).unwrap();
        for (attempt, before) in all.iter().zip(before) {
            prop_assert_eq!(cluster.judge(attempt), before, "{}", attempt);
        }
    }

    /// What was set and removed again has never been there.
    #[test]
    fn removal_undoes(specs in specs(), more in spec()) {
        let mut cluster = with_policies(&specs);
        let all = attempts();
        let before = answers(&cluster, &all);
        cluster.set(&named(specs.len(), &more)).unwrap();
        cluster.set(&pod("mine/other", &json!({"role": "db"}), "node-1", 77)).unwrap();
        cluster.remove("NetworkPolicy", "default", &format!("policy-{}", specs.len()));
        cluster.remove("Pod", "mine", "other");
        prop_assert_eq!(answers(&cluster, &all), before);
    }

    /// An attempt is allowed exactly if both directions are, and each says which policies isolate its end.
    #[test]
    fn verdicts_follow_from_their_reasons(specs in specs()) {
        let cluster = with_policies(&specs);
        for attempt in attempts() {
            let verdict = cluster.judge(&attempt);
            let directions: Vec<Direction> = verdict.why.iter().map(|because| because.direction).collect();
            prop_assert_eq!(directions, [Direction::Egress, Direction::Ingress]);
            prop_assert_eq!(verdict.allowed, verdict.why.iter().all(|because| because.reason.allows()));
            for because in &verdict.why {
                match &because.reason {
                    Reason::NotIsolated => prop_assert!(because.isolated_by.is_empty()),
                    Reason::Rule(rule) => prop_assert!(because.isolated_by.contains(&rule.policy)),
                    Reason::NoRule => prop_assert!(!because.isolated_by.is_empty()),
                    Reason::Itself | Reason::OwnNode => {}
                    other => prop_assert!(false, "{other:?} without such policies"),
                }
            }
        }
    }
}
