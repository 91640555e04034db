//! That every kind of rule decides about some attempts: what never decides finds no defect.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::BTreeMap;

use serde_json::Value;
use sim_oracle::{Because, Cluster, Direction, Options, PolicyKind, Reason, RuleName};
use sim_policy::generate::FEATURES;
use sim_policy::{Feature, Plan, PolicyCase, generate};

/// The rule as it stands in its policy.
fn rule<'a>(case: &'a PolicyCase, name: &RuleName, because: &Because) -> &'a Value {
    let text =
        |object: &Value, member: &str| object["metadata"][member].as_str().unwrap_or_default().to_owned();
    let policy = case
        .objects
        .iter()
        .find(|object| {
            object["kind"] == name.policy.kind.to_string()
                && text(object, "namespace") == name.policy.namespace
                && text(object, "name") == name.policy.name
        })
        .unwrap();
    let spec = policy.get("spec").unwrap_or_else(|| &policy["specs"][name.spec]);
    let is_cilium = matches!(
        name.policy.kind,
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy
    );
    let list = match (because.direction, is_cilium && matches!(because.reason, Reason::Denied(_))) {
        (Direction::Ingress, false) => "ingress",
        (Direction::Egress, false) => "egress",
        (Direction::Ingress, true) => "ingressDeny",
        (Direction::Egress, true) => "egressDeny",
    };
    &spec[list][name.index]
}

/// What is in rules of each kind, and how often such a rule must decide at least.
const PARTS: &[(&str, &[(&str, u32)])] = &[
    (
        "NetworkPolicy",
        &[
            ("podSelector", 100),
            ("namespaceSelector", 100),
            ("ipBlock", 50),
            ("except", 10),
            ("endPort", 20),
            ("\"port\":\"web\"", 3),
            ("In", 20),
            ("NotIn", 20),
            ("Exists", 20),
            ("DoesNotExist", 20),
        ],
    ),
    (
        "Cilium",
        &[
            ("fromEndpoints", 50),
            ("toEndpoints", 50),
            ("fromCIDR\"", 5),
            ("toCIDR\"", 10),
            ("CIDRSet", 20),
            ("except", 5),
            ("cidrGroupRef", 3),
            ("cidrGroupSelector", 5),
            ("\"all\"", 20),
            ("\"world\"", 20),
            ("\"cluster\"", 20),
            ("\"host\"", 2),
            ("\"remote-node\"", 2),
            ("kube-apiserver", 2),
            ("toServices", 3),
            ("k8sServiceSelector", 1),
            ("Nodes", 1),
            ("reserved:", 3),
            ("reserved:world", 1),
            ("reserved:kube-apiserver", 1),
            ("io.kubernetes.pod.namespace", 10),
            ("io.cilium.k8s.namespace.labels", 10),
            ("io.cilium.k8s.policy.serviceaccount", 3),
            ("icmps", 5),
            ("endPort", 10),
            ("\"port\":\"web\"", 3),
            ("\"port\":\"0\"", 10),
            ("ANY", 5),
            ("k8s:app", 5),
            ("any:app", 5),
        ],
    ),
    (
        "ClusterNetworkPolicy",
        &[
            ("namespaces", 50),
            ("podSelector", 50),
            ("networks", 20),
            ("nodes", 2),
            ("destinationNamedPort", 5),
            ("range", 20),
            ("number", 10),
            ("Accept", 50),
            ("Deny", 50),
        ],
    ),
];

#[test]
fn every_part_of_rules_decides_somewhere() {
    let plan =
        Plan { features: FEATURES.iter().copied().collect(), ..Plan::default() }.without(Feature::Invalid);
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for seed in 0..100 {
        let case = generate(seed, &plan);
        let mut cluster = Cluster::with_options(Options { host_policies: true, ..Options::by_identity() });
        for object in &case.objects {
            cluster.set(object).unwrap();
        }
        for because in case.attempts.iter().flat_map(|attempt| cluster.judge(attempt).why) {
            let (Reason::Rule(name) | Reason::Denied(name)) = &because.reason else { continue };
            let text = rule(&case, name, &because).to_string();
            let kind = name.policy.kind.to_string();
            for (begin, parts) in PARTS.iter().filter(|(begin, _)| kind.starts_with(begin)) {
                for (part, _) in parts.iter().filter(|(part, _)| text.contains(part)) {
                    *counts.entry((begin, part)).or_default() += 1;
                }
            }
        }
    }
    let rare: Vec<String> = PARTS
        .iter()
        .flat_map(|(kind, parts)| parts.iter().map(move |(part, least)| (kind, part, least)))
        .filter_map(|(kind, part, least)| {
            let count = counts.get(&(*kind, *part)).copied().unwrap_or(0);
            (count < *least).then(|| format!("{kind}, {part}: {count} times"))
        })
        .collect();
    assert!(rare.is_empty(), "{}\n{counts:#?}", rare.join("\n"));
}
