//! Single steps that random histories meet seldom.

use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Object as _,
};
use agent_policy::{
    Config, Direction, Endpoint, EndpointId, Families, Label, NAMESPACE, Outcome, Policy, PolicyObject,
    normalise, proto,
};
use dataplane_abi::Identity;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{WEB, web};

const PEER: Identity = Identity(300);

fn engine(config: Config) -> Policy {
    let mut engine = Policy::new(config);
    let labels = [Label::k8s("app", "a"), Label::k8s(NAMESPACE, "n")];
    engine.upsert_identity(PEER, labels.into_iter().collect(), &[]);
    engine.upsert_endpoint(WEB, web());
    engine
}

fn policy(spec: &Value) -> NetworkPolicy {
    NetworkPolicy::from_json(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap()
}

fn outcome(engine: &Policy, direction: Direction, peer: Identity) -> Option<Outcome> {
    outcome_at(engine, direction, peer, None)
}

fn outcome_at(
    engine: &Policy,
    direction: Direction,
    peer: Identity,
    address: Option<&str>,
) -> Option<Outcome> {
    let address = address.map(|text| text.parse().unwrap());
    engine.look_up(WEB, direction, peer, address, proto::TCP, 80).map(|verdict| verdict.outcome)
}

#[test]
fn a_direction_that_is_judged_no_more_keeps_its_rows_until_the_endpoint_says_so() {
    let mut engine = engine(Config::default());
    let ingress = policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}));
    engine.upsert(PolicyObject::Kubernetes(&ingress)).unwrap();
    let number = engine.commit().endpoints[0].1.number;
    assert_eq!(outcome(&engine, Direction::Ingress, PEER), Some(Outcome::Allow));

    let egress = policy(&json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    engine.upsert(PolicyObject::Kubernetes(&egress)).unwrap();
    let changes = engine.commit();
    assert!(changes.removed.is_empty(), "{changes:?}");
    assert_eq!(changes.unused.len(), 2);
    let (_, told) = changes.endpoints[0];
    assert_eq!((told.number, told.ingress, told.egress), (number, false, true));
    assert_eq!(outcome(&engine, Direction::Egress, PEER), Some(Outcome::NoRule));
}

#[test]
fn with_one_family_the_others_cidrs_get_no_identity() {
    let mut engine = engine(Config { families: Families { v4: true, v6: false }, ..Config::default() });
    let egress = policy(&json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}}]}]}));
    engine.upsert(PolicyObject::Kubernetes(&egress)).unwrap();
    engine.commit();
    let prefixes: Vec<_> = engine.prefixes().collect();
    assert_eq!(prefixes.len(), 1);
    assert_eq!(prefixes[0].0, "10.0.0.0/8".parse().unwrap());
    assert_eq!(outcome(&engine, Direction::Egress, Identity::WORLD), Some(Outcome::Allow));
    assert_eq!(outcome(&engine, Direction::Egress, prefixes[0].1), Some(Outcome::NoRule));
    assert_eq!(outcome(&engine, Direction::Egress, PEER), Some(Outcome::NoRule), "no address is known");
}

#[test]
fn a_block_is_about_pods_at_its_addresses() {
    let mut engine = engine(Config::default());
    let ingress = policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.8/32"]}}], "ports": [{"port": 80}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.8/31"}}], "ports": [{"port": 443}]}]}));
    engine.upsert(PolicyObject::Kubernetes(&ingress)).unwrap();
    engine.commit();
    let (_, blocks) = engine.all_blocks().next().unwrap();
    assert_eq!((engine.all_blocks().count(), blocks.0.len()), (1, 5), "{blocks:?}");
    let from = |identity, address| outcome_at(&engine, Direction::Ingress, identity, Some(address));
    assert_eq!(from(PEER, "10.0.0.7"), Some(Outcome::Allow));
    assert_eq!(from(PEER, "10.0.0.8"), Some(Outcome::NoRule), "that is an exception");
    assert_eq!(from(PEER, "10.0.0.9"), Some(Outcome::Allow), "both blocks have it");
    assert_eq!(from(PEER, "10.0.1.7"), Some(Outcome::NoRule));
    assert_eq!(from(Identity::UNMANAGED, "10.0.0.7"), Some(Outcome::Allow), "a pod without an identity yet");
    assert_eq!(from(Identity::REMOTE_NODE, "10.0.0.7"), Some(Outcome::NoRule), "blocks select no nodes");

    let allow_all = policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}));
    engine.upsert(PolicyObject::Kubernetes(&allow_all)).unwrap();
    engine.commit();
    assert_eq!(engine.all_blocks().count(), 0, "nothing depends on addresses any more");
}

#[test]
fn cidrs_of_ciliums_kinds_are_not_about_pods() {
    let mut engine = engine(Config::default());
    let rule = json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {
        "endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.0/24"]}]}});
    engine.upsert(PolicyObject::Cilium(&CiliumNetworkPolicy::from_json(rule).unwrap())).unwrap();
    engine.commit();
    assert_eq!(engine.all_blocks().count(), 0);
    assert_eq!(outcome_at(&engine, Direction::Ingress, PEER, Some("10.0.0.7")), Some(Outcome::NoRule));
}

#[test]
fn a_block_says_nothing_against_those_before_it() {
    let mut engine = engine(Config::default());
    let block = policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]}));
    engine.upsert(PolicyObject::Kubernetes(&block)).unwrap();
    let from = |engine: &mut Policy| {
        engine.commit();
        outcome_at(engine, Direction::Ingress, PEER, Some("10.0.0.7"))
    };
    assert_eq!(from(&mut engine), Some(Outcome::Allow));
    let tier = |action: &str| {
        let rule = json!({"metadata": {"name": "first"}, "spec": {"tier": "Admin", "priority": 1,
            "subject": {"namespaces": {}}, "ingress": [{"action": action, "from": [{"namespaces": {}}]}]}});
        ClusterNetworkPolicy::from_json(rule).unwrap()
    };
    engine.upsert(PolicyObject::Cluster(&tier("Pass"))).unwrap();
    assert_eq!(from(&mut engine), Some(Outcome::Allow));
    engine.upsert(PolicyObject::Cluster(&tier("Deny"))).unwrap();
    assert_eq!(from(&mut engine), Some(Outcome::Deny));
    assert_eq!(engine.all_blocks().count(), 1, "everybody's, for pods that the first tier is not about");
}

#[test]
fn networks_of_cluster_policies_are_about_pods_too() {
    let mut engine = engine(Config::default());
    let rule = json!({"metadata": {"name": "first"}, "spec": {"tier": "Admin", "priority": 1,
        "subject": {"namespaces": {}}, "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/24"]}]}]}});
    engine.upsert(PolicyObject::Cluster(&ClusterNetworkPolicy::from_json(rule).unwrap())).unwrap();
    engine.commit();
    let to = |address| outcome_at(&engine, Direction::Egress, PEER, Some(address));
    assert_eq!((to("10.0.0.7"), to("10.0.1.7")), (Some(Outcome::Deny), Some(Outcome::Allow)));
}

#[test]
fn policies_may_come_before_the_families_are_known() {
    let families = Families { v4: true, v6: false };
    let egress = policy(&json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]}]}));
    let mut early = Policy::new(Config::default());
    early.upsert(PolicyObject::Kubernetes(&egress)).unwrap();
    early.set_families(families);
    early.upsert_endpoint(WEB, web());
    early.commit();
    let mut late = Policy::new(Config { families, ..Config::default() });
    late.upsert_endpoint(WEB, web());
    late.upsert(PolicyObject::Kubernetes(&egress)).unwrap();
    late.commit();
    assert!(early.rows().eq(late.rows()) && early.prefixes().eq(late.prefixes()));
    assert_eq!(outcome(&early, Direction::Egress, Identity::WORLD), Some(Outcome::Allow));
}

#[test]
fn endpoints_with_the_same_rules_share_a_policy() {
    let mut engine = engine(Config::default());
    for n in 2..5 {
        let endpoint = Endpoint {
            name: format!("n/{n}"),
            identity: Identity(500 + n),
            labels: [Label::k8s(NAMESPACE, "n"), Label::k8s("n", n.to_string())].into_iter().collect(),
            audit: (n == 4).then_some(true),
            ..web()
        };
        engine.upsert_endpoint(EndpointId(n), endpoint);
    }
    engine.upsert(PolicyObject::Kubernetes(&policy(&json!({"podSelector": {}})))).unwrap();
    let changes = engine.commit();
    let numbers: std::collections::BTreeSet<u32> = changes.endpoints.iter().map(|(_, p)| p.number).collect();
    assert_eq!((changes.endpoints.len(), numbers.len()), (4, 1));
    assert_eq!(engine.rows().count(), 1);
}

#[test]
fn a_rule_for_who_is_selected_already_changes_rows_and_no_number() {
    let mut engine = engine(Config::default());
    let namespace = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    engine.upsert(PolicyObject::Kubernetes(&policy(&namespace))).unwrap();
    let (_, told) = engine.commit().endpoints[0];

    // Another one for the pods of the namespace, and one for all pods.
    let allow = json!({"podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]});
    let mut second = policy(&allow);
    second.metadata.name = "second".to_owned();
    engine.upsert(PolicyObject::Kubernetes(&second)).unwrap();
    let changes = engine.commit();
    assert!(changes.endpoints.is_empty() && changes.unused.is_empty(), "{changes:?}");
    assert_eq!((changes.rows.len(), changes.everybody.len()), (1, 1), "{changes:?}");
    assert_eq!(outcome(&engine, Direction::Ingress, PEER), Some(Outcome::Allow));

    let wide = json!({"metadata": {"name": "wide"},
        "spec": {"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]}});
    let wide = CiliumClusterwideNetworkPolicy::from_json(wide).unwrap();
    engine.upsert(PolicyObject::CiliumClusterwide(&wide)).unwrap();
    let changes = engine.commit();
    assert!(changes.endpoints.is_empty(), "{changes:?}");
    assert_eq!(outcome(&engine, Direction::Ingress, PEER), Some(Outcome::Deny));

    // With both gone, and whatever the order, the rows are those of the first.
    engine.delete(&PolicyObject::CiliumClusterwide(&wide).name());
    engine.delete(&PolicyObject::Kubernetes(&second).name());
    assert!(engine.commit().endpoints.is_empty());
    assert_eq!(engine.endpoint(WEB), Some(told));
    assert_eq!(engine.rows().count(), 1);
}

#[test]
fn nothing_told_is_nothing_to_do() {
    let mut engine = engine(Config::default());
    engine.upsert(PolicyObject::Kubernetes(&policy(&json!({"podSelector": {}})))).unwrap();
    assert!(!engine.commit().is_empty());
    assert!(engine.commit().is_empty());
    engine.remove_endpoint(WEB);
    assert_eq!(engine.commit().unused.len(), 1, "the rows that nobody has any more");
    assert!(engine.commit().is_empty());
    assert_eq!(engine.rows().count(), 0);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-z./:-]{0,8}", "\\PC{0,6}", Just("80".to_owned()), Just("10.0.0.0/8".to_owned())]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(t in proptest::collection::vec(text(), 12), number in any::<i32>()) {
        let selector = json!({"matchLabels": {t[0].clone(): t[1]}, "matchExpressions": [
            {"key": t[2], "operator": t[3], "values": [t[4]]}]});
        let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "endpointSelector": {"matchLabels": {t[5].clone(): t[6]}},
            "ingress": [{"fromEndpoints": [selector]}, {"fromEntities": [t[7]]},
                {"toPorts": [{"ports": [{"port": t[8], "endPort": number, "protocol": t[9]}, {"port": t[8], "endPort": number}]}]},
                {"icmps": [{"fields": [{"type": t[8]}, {"type": number}]}]}],
            "egress": [{"toCIDRSet": [{"cidr": t[10], "except": [t[11]]}]}, {"toCIDR": [t[10]]}]}});
        let Ok(policy) = CiliumNetworkPolicy::from_json(object) else { return Ok(()) };
        for at in 0..4 {
            // Each entry alone, so that one that is wrong does not hide the others.
            let mut one = policy.clone();
            let rule = one.spec.as_mut().unwrap();
            rule.ingress = rule.ingress.drain(..).skip(at).take(1).collect();
            rule.egress = rule.egress.drain(..).skip(at).take(1).collect();
            if let Ok(normal) = normalise(PolicyObject::Cilium(&one), "default") {
                prop_assert_eq!(normal.specs.len(), 1);
            }
        }
    }
}
