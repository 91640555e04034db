//! The condition `Enforced`.

use std::time::Duration;

use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::meta::{Condition, STAGED};
use agent_crd::node_policy_status::{PolicyException, StagedPolicy};
use agent_crd::{NodePolicyStatus, ObjectMeta};
use bristle_operator::core::validity::Validity;
use bristle_operator::core::{Event, Key, Kind, Policy};

use crate::world::World;

const KIND: &str = "CiliumNetworkPolicy";

fn policy(name: &str, generation: i64) -> Policy {
    Policy {
        kind: Kind::NamespacedPolicy,
        metadata: ObjectMeta { namespace: "a".into(), generation, ..ObjectMeta::named(name) },
        validity: Validity::default(),
        status: PolicyStatus::default(),
    }
}

/// A node that has taken in everything up to this version.
fn node(name: &str, revision: u64) -> NodePolicyStatus {
    NodePolicyStatus {
        metadata: ObjectMeta::named(name),
        revisions: [(KIND.to_owned(), revision)].into(),
        ..NodePolicyStatus::default()
    }
}

fn with_exception(name: &str, revision: u64, policy: &str) -> NodePolicyStatus {
    let exception = PolicyException {
        kind: KIND.into(),
        namespace: "a".into(),
        name: policy.into(),
        message: "too many rows".into(),
    };
    NodePolicyStatus { not_enforced: 1, exceptions: vec![exception], ..node(name, revision) }
}

impl World {
    fn enforced(&self, name: &str) -> Option<&Condition> {
        let policy = &self.policies[&(Kind::NamespacedPolicy, "a".to_owned(), name.to_owned())];
        policy.status.condition("Enforced")
    }

    #[track_caller]
    fn assert_enforced(&self, name: &str, status: &str, reason: &str, message: &str) {
        let is = self.enforced(name).map(|c| (c.status.as_str(), c.reason.as_str(), c.message.as_str()));
        assert_eq!(is, Some((status, reason, message)));
    }

    /// Changes the rules of a policy; what was said of it stays in its status.
    fn change(&mut self, name: &str, generation: i64) {
        let place = (Kind::NamespacedPolicy, "a".to_owned(), name.to_owned());
        let status = self.policies.get(&place).map(|policy| policy.status.clone()).unwrap_or_default();
        self.add_policy(Policy { status, ..policy(name, generation) });
    }

    fn up() -> Self {
        let mut world = Self::new();
        world.restart();
        world.list_all();
        world
    }

    fn writes(&mut self, time: Duration) -> u64 {
        let before = self.revision();
        self.pass(time);
        self.revision() - before
    }
}

#[test]
fn says_whether_all_nodes_have_taken_a_policy_in() {
    let mut world = World::up();
    world.change("p", 1);
    world.settle();
    assert_eq!(world.enforced("p"), None, "no node says anything");
    world.says(node("n1", 1));
    world.says(node("n2", 1));
    world.settle();
    world.assert_enforced("p", "True", "InForce", "in force on every node");
    assert_eq!(world.enforced("p").unwrap().observed_generation, Some(1));
    // A change is given time.
    world.change("p", 2);
    let changed = world.revision();
    world.says(node("n1", changed));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.enforced("p").unwrap().observed_generation, Some(1));
    world.pass(Duration::from_secs(6));
    world.assert_enforced(
        "p",
        "False",
        "Behind",
        "not in force on 1 of 2 nodes: n2 (it has not been taken in there yet)",
    );
    world.says(NodePolicyStatus { problem: "upsert POLICY: full".into(), ..node("n2", 1) });
    world.pass(Duration::from_secs(6));
    world.assert_enforced(
        "p",
        "False",
        "Behind",
        "not in force on 1 of 2 nodes: n2 (it has not been taken in there yet: upsert POLICY: full)",
    );
    world.says(node("n2", changed));
    world.settle();
    world.assert_enforced("p", "True", "InForce", "in force on every node");
    assert_eq!(world.enforced("p").unwrap().observed_generation, Some(2));
}

#[test]
fn an_exception_of_one_node_appears_and_goes() {
    let mut world = World::up();
    world.change("p", 1);
    world.change("q", 1);
    let newest = world.revision();
    for name in ["n1", "n2", "n3", "n4", "n5"] {
        world.says(node(name, newest));
    }
    world.settle();
    world.says(with_exception("n2", newest, "p"));
    world.settle();
    world.assert_enforced("p", "False", "NotEnforced", "not in force on 1 of 5 nodes: n2 (too many rows)");
    world.assert_enforced("q", "True", "InForce", "in force on every node");
    for name in ["n1", "n3", "n4"] {
        world.says(with_exception(name, newest, "p"));
    }
    world.settle();
    world.assert_enforced(
        "p",
        "False",
        "NotEnforced",
        "not in force on 4 of 5 nodes: n1 (too many rows), n2 (too many rows), n3 (too many rows), and 1 more",
    );
    for name in ["n1", "n2", "n3"] {
        world.says(node(name, newest));
    }
    // The last one is gone with its node.
    world.statuses.remove("n4");
    world.event(Event::Deleted(Key { kind: Kind::NodeStatus, namespace: String::new(), name: "n4".into() }));
    world.settle();
    world.assert_enforced("p", "True", "InForce", "in force on every node");
}

#[test]
fn what_is_true_already_is_not_written_and_what_changes_often_now_and_then() {
    let mut world = World::up();
    world.change("p", 1);
    world.says(node("n1", world.revision()));
    world.settle();
    let newest = world.revision();
    for name in ["n2", "n3"] {
        world.says(node(name, newest));
    }
    assert_eq!(world.writes(Duration::from_mins(1)), 0, "one node more changes nothing");
    world.restart();
    world.list_all();
    assert_eq!(world.writes(Duration::from_mins(1)), 0, "nor does another operator");
    for name in ["n1", "n2", "n3"] {
        world.says(node(name, newest));
    }
    assert_eq!(world.writes(Duration::from_mins(1)), 0);
    let mut writes = 0;
    for round in 0..20 {
        let status = if round % 2 == 0 { with_exception("n1", newest, "p") } else { node("n1", newest) };
        world.says(status);
        writes += world.writes(Duration::from_secs(1));
    }
    assert!(writes <= 5, "{writes} writes in 20 seconds");
}

#[test]
fn a_staged_policy_says_what_it_would_do() {
    let mut world = World::up();
    let mut staged = policy("p", 1);
    staged.metadata.annotations = [(STAGED.to_owned(), "true".to_owned())].into();
    world.add_policy(staged);
    world.says(node("n1", 1));
    world.settle();
    world.assert_enforced(
        "p",
        "False",
        "Staged",
        "staged, and nothing so far would have been decided otherwise",
    );
    let would = |node_name: &str, would_allow, would_deny| NodePolicyStatus {
        staged: vec![StagedPolicy {
            kind: KIND.into(),
            namespace: "a".into(),
            name: "p".into(),
            would_allow,
            would_deny,
        }],
        ..node(node_name, 1)
    };
    world.says(would("n1", 2, 0));
    world.says(would("n2", 1, 5));
    world.settle();
    world.assert_enforced(
        "p",
        "False",
        "Staged",
        "staged: it would have denied 5 connections that passed, and allowed 3 packets that were dropped, on 2 nodes",
    );
    let mut writes = 0;
    for more in 0..60 {
        world.says(would("n1", 2 + more, 0));
        writes += world.writes(Duration::from_secs(1));
    }
    assert!(writes <= 2, "{writes} writes in a minute");
    // It comes into force: the annotation makes another policy of it, although the generation stays.
    let place = (Kind::NamespacedPolicy, "a".to_owned(), "p".to_owned());
    let status = world.policies[&place].status.clone();
    world.add_policy(Policy { status, ..policy("p", 1) });
    world.says(node("n1", world.revision()));
    world.says(node("n2", world.revision()));
    world.settle();
    world.assert_enforced("p", "True", "InForce", "in force on every node");
}

#[test]
fn parts_that_no_agent_enforces_are_told() {
    let mut world = World::up();
    let unenforced = ["a: needs a proxy", "b: needs a proxy", "c: is not known", "d: is not known"];
    let validity = Validity { unenforced: unenforced.map(str::to_owned).into(), ..Validity::default() };
    world.add_policy(Policy { validity, ..policy("p", 1) });
    world.says(node("n1", 1));
    world.settle();
    world.assert_enforced(
        "p",
        "False",
        "PartlyEnforced",
        "in force on every node, but for parts of it: a: needs a proxy; b: needs a proxy; c: is not known; and 1 more",
    );
    // What keeps all of it from being in force comes first.
    world.says(with_exception("n1", 1, "p"));
    world.pass(Duration::from_secs(6));
    world.assert_enforced("p", "False", "NotEnforced", "not in force on 1 of 1 nodes: n1 (too many rows)");
}

#[test]
fn nodes_that_enforce_nothing_are_told() {
    let mut world = World::up();
    world.change("p", 1);
    world.says(node("n1", 1));
    world.says(node("n2", 1));
    world.settle();
    world.says(NodePolicyStatus { audit: true, ..node("n2", 1) });
    world.pass(Duration::from_secs(6));
    world.assert_enforced(
        "p",
        "False",
        "Audited",
        "not in force on 1 of 2 nodes: n2 (it is only audited there: what it denies passes)",
    );
    world.says(NodePolicyStatus { enforcement: "never".into(), ..node("n1", 1) });
    world.pass(Duration::from_secs(6));
    world.assert_enforced(
        "p",
        "False",
        "NotEnforced",
        "not in force on 2 of 2 nodes: n1 (enforcement is off there), n2 (it is only audited there: what it denies passes)",
    );
    // A policy that comes now says the same, and a node that goes is not named any more.
    world.change("q", 1);
    world.says(NodePolicyStatus { enforcement: "always".into(), ..node("n1", world.revision()) });
    world.statuses.remove("n2");
    world.event(Event::Deleted(Key { kind: Kind::NodeStatus, namespace: String::new(), name: "n2".into() }));
    world.pass(Duration::from_secs(6));
    world.assert_enforced("p", "True", "InForce", "in force on every node");
    world.assert_enforced("q", "True", "InForce", "in force on every node");
}

#[test]
fn policies_of_tiers_have_conditions_too() {
    let mut world = World::up();
    let metadata = ObjectMeta { generation: 1, ..ObjectMeta::named("p") };
    world.add_policy(Policy { kind: Kind::ClusterPolicy, metadata, ..policy("p", 1) });
    let revisions = [("ClusterNetworkPolicy".to_owned(), world.revision())].into();
    world.says(NodePolicyStatus { revisions, ..node("n1", 1) });
    world.settle();
    let status = &world.policies[&(Kind::ClusterPolicy, String::new(), "p".to_owned())].status;
    for (kind, reason) in [("Valid", "Valid"), ("Enforced", "InForce")] {
        let condition = status.condition(kind).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", reason));
    }
}

/// What a node has no room to say is not taken for a yes.
#[test]
fn exceptions_that_are_not_listed_leave_what_comes_after_them_unknown() {
    let mut world = World::up();
    for name in ["p", "q", "r"] {
        world.change(name, 1);
    }
    let newest = world.revision();
    world.says(node("n1", newest));
    world.says(NodePolicyStatus { not_enforced: 3, ..with_exception("n2", newest, "q") });
    world.settle();
    world.assert_enforced("p", "True", "InForce", "in force on every node");
    world.assert_enforced("q", "False", "NotEnforced", "not in force on 1 of 2 nodes: n2 (too many rows)");
    world.assert_enforced(
        "r",
        "Unknown",
        "NotListed",
        "perhaps not in force on 1 of 2 nodes: n2 (it names 1 of 3 policies that are not enforced there; `bristle policy list` has all)",
    );
    world.says(with_exception("n2", newest, "q"));
    world.settle();
    world.assert_enforced("r", "True", "InForce", "in force on every node");
}
