//! Single steps that random histories meet seldom.

use agent_crd::{CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Object as _};
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
fn endpoints_with_the_same_rules_share_a_policy() {
    let mut engine = engine(Config::default());
    for n in 2..5 {
        let endpoint = Endpoint {
            name: format!("n/{n}"),
            identity: Identity(500 + n),
            labels: [Label::k8s(NAMESPACE, "n"), Label::k8s("n", n.to_string())].into_iter().collect(),
            audit: n == 4,
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
