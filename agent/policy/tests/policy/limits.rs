//! Too many rows: nothing opens, and it is told.

use agent_crd::{NetworkPolicy, Object as _};
use agent_policy::{Config, Direction, Label, NAMESPACE, Outcome, Policy, PolicyObject, Severity, proto};
use dataplane_abi::Identity;
use serde_json::json;

use crate::world::{WEB, web};

fn policy(from: &serde_json::Value) -> NetworkPolicy {
    NetworkPolicy::from_json(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {
        "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [from]}]}}))
    .unwrap()
}

/// An engine with ten peers `a` and one peer `b`.
fn engine(max_rows: usize) -> Policy {
    let mut engine = Policy::new(Config { max_rows, ..Config::default() });
    for n in 0..10 {
        let labels = [Label::k8s("app", "a"), Label::k8s("n", n.to_string()), Label::k8s(NAMESPACE, "n")];
        engine.upsert_identity(Identity(300 + n), labels.into_iter().collect(), &[]);
    }
    let labels = [Label::k8s("app", "b"), Label::k8s(NAMESPACE, "n")];
    engine.upsert_identity(Identity(400), labels.into_iter().collect(), &[]);
    engine
}

fn outcome(engine: &Policy, peer: u32) -> Option<Outcome> {
    engine
        .look_up(WEB, Direction::Ingress, Identity(peer), None, proto::TCP, 80)
        .map(|verdict| verdict.outcome)
}

#[test]
fn an_endpoint_keeps_its_rows_when_the_new_ones_are_too_many() {
    let mut engine = engine(5);
    engine.upsert_endpoint(WEB, web());
    let narrow = policy(&json!({"podSelector": {"matchLabels": {"app": "b"}}}));
    engine.upsert(PolicyObject::Kubernetes(&narrow)).unwrap();
    engine.commit();
    assert_eq!((outcome(&engine, 300), outcome(&engine, 400)), (Some(Outcome::NoRule), Some(Outcome::Allow)));
    assert!(engine.findings().is_empty());

    let wide = policy(&json!({"podSelector": {}}));
    engine.upsert(PolicyObject::Kubernetes(&wide)).unwrap();
    let changes = engine.commit();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!((outcome(&engine, 300), outcome(&engine, 400)), (Some(Outcome::NoRule), Some(Outcome::Allow)));
    let told: Vec<(String, Severity)> =
        engine.findings().into_iter().map(|finding| (finding.subject, finding.severity)).collect();
    assert_eq!(
        told,
        [("NetworkPolicy/n/web".to_owned(), Severity::Error), ("endpoint/n/web".to_owned(), Severity::Error)]
    );

    // Rows of who is gone go even so.
    engine.remove_identity(Identity(400));
    assert_eq!(engine.commit().unused.len(), 1);
    // With fewer peers it fits again.
    for n in 0..8 {
        engine.remove_identity(Identity(300 + n));
    }
    engine.commit();
    assert_eq!(outcome(&engine, 309), Some(Outcome::Allow));
    assert!(engine.findings().is_empty());
}

#[test]
fn an_endpoint_without_rows_is_closed_and_not_open() {
    let mut engine = engine(5);
    let wide = policy(&json!({"podSelector": {}}));
    engine.upsert(PolicyObject::Kubernetes(&wide)).unwrap();
    engine.upsert_endpoint(WEB, web());
    engine.commit();
    assert_eq!(
        (outcome(&engine, 300), outcome(&engine, 400)),
        (Some(Outcome::NoRule), Some(Outcome::NoRule))
    );
    assert!(engine.findings()[1].message.ends_with("nothing passes"), "{:?}", engine.findings());
    engine.set_config(Config::default());
    engine.commit();
    assert_eq!(outcome(&engine, 300), Some(Outcome::Allow));
    assert!(engine.findings().is_empty());
}
