//! What is told of policies: names of cookies, counts of staged ones, what is in force here.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_control::ports::Table;
use agent_control::{Event, Object, ObjectKind, ObjectName, PortError};
use agent_crd::node_policy_status::Lax;
use agent_crd::{CiliumNetworkPolicy, Object as _};
use agent_policy::Enforcement;
use dataplane_abi::policy::{PolicyEntry, PolicyVerdict, Staged, StagedCount, StagedKey};
use serde_json::json;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Objects, first, policy, second};
use crate::world::World;

#[test]
fn a_policy_that_a_list_misses_raises_the_revision() {
    let objects = Objects::new();
    let mut world = World::up(&objects);
    world.upsert(first(), 7);
    world.settle();
    assert_eq!(world.agent.policy_revision(), 7);
    // The watch was cut, and meanwhile the policy was deleted.
    world.list(ObjectKind::CiliumNetworkPolicy, &objects);
    world.settle();
    assert!(world.decisions().values().all(|allowed| *allowed));
    assert!(world.agent.policy_revision() > 7, "who waits for the deletion sees it");
    let revision = world.agent.policy_revision();
    world.list(ObjectKind::CiliumNetworkPolicy, &objects);
    world.settle();
    assert_eq!(world.agent.policy_revision(), revision, "a list that changes nothing says nothing");
    assert_eq!(world.agent.policy_revisions()[&ObjectKind::CiliumNetworkPolicy], 8);
}

#[test]
fn cookies_have_names_until_no_table_holds_them() {
    let mut world = World::up(&Objects::new());
    world.upsert(first(), 7);
    world.settle();
    assert!(world.agent.take_rule_names().is_empty(), "nobody listens");
    world.event(Event::Listeners(true));
    world.settle();
    let names = world.agent.take_rule_names();
    let said = |cookie: u32, names: &agent_control::RuleNames| names[&cookie].as_ref().unwrap().join(", ");
    let cookies = |world: &World| -> BTreeSet<u32> {
        let l4 = world.maps.rows(Table::PolicyL4).values();
        let all = world.maps.rows(Table::Policy).values();
        l4.map(|row| PolicyVerdict::read_from_bytes(row).unwrap().cookie)
            .chain(all.map(|row| PolicyEntry::read_from_bytes(row).unwrap().verdict.cookie))
            .filter(|cookie| *cookie != 0)
            .collect()
    };
    let all: BTreeSet<String> = cookies(&world).into_iter().map(|cookie| said(cookie, &names)).collect();
    let object = "CiliumNetworkPolicy/default/p";
    let expected = ["ingress[0]", "ingress[1]", "isolates"].map(|rule| format!("{object} {rule}"));
    assert_eq!(all, expected.into_iter().collect());
    let isolates = *names.iter().find(|(_, n)| n.as_ref().unwrap()[0].ends_with("isolates")).unwrap().0;
    // A change that is not in the tables yet takes no name away.
    world.faults.refuse("delete POLICY_L4", PortError::retryable("", "not now"));
    world.event(Event::Delete {
        kind: ObjectKind::CiliumNetworkPolicy,
        name: ObjectName::new("default", "p"),
        version: 8,
    });
    world.reconcile();
    assert!(world.agent.take_rule_names().is_empty());
    world.faults.accept();
    world.pass(Duration::from_secs(1));
    let gone = world.agent.take_rule_names();
    assert_eq!(gone.get(&isolates), Some(&None));
    world.event(Event::Listeners(false));
    world.upsert(second(), 9);
    world.settle();
    assert!(world.agent.take_rule_names().is_empty(), "nobody listens any more");
}

fn staged(name: &str, spec: &serde_json::Value) -> Object {
    let object = json!({
        "metadata": {"namespace": "default", "name": name, "annotations": {"bristle.io/staged": "true"}},
        "spec": spec,
    });
    Object::CiliumNetworkPolicy(CiliumNetworkPolicy::from_json(object).unwrap())
}

impl World {
    /// The dataplane counts decisions that staged policies would have made otherwise.
    fn count(&mut self, staged: Staged, count: u64) {
        let rows = self.maps.rows(Table::Policy).values();
        let verdict = rows
            .map(|row| PolicyEntry::read_from_bytes(row).unwrap().verdict)
            .find(|verdict| verdict.staged == staged as u8)
            .expect("a row with such a decision");
        let key = StagedKey::new(verdict.staged_cookie, staged as u8);
        self.maps.put(Table::Staged, key.as_bytes(), StagedCount { count }.as_bytes());
    }

    /// What each staged policy would have allowed and denied.
    fn would(&self) -> Vec<(String, u64, u64)> {
        let policies = self.agent.policies().into_iter();
        policies.filter_map(|p| p.staged.map(|s| (p.name, s.would_allow, s.would_deny))).collect()
    }

    fn later(&mut self) {
        self.pass(Duration::from_secs(6));
        self.settle();
    }
}

#[test]
fn what_staged_policies_would_decide_is_counted_for_each() {
    let mut objects = Objects::new();
    let a = json!({"matchLabels": {"app": "a"}});
    let from_b =
        json!({"endpointSelector": a, "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "b"}}]}]});
    let no_c =
        json!({"endpointSelector": a, "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "c"}}]}]});
    objects.set(staged("only-b", &from_b));
    let mut world = World::up(&objects);
    assert_eq!(world.would(), [("only-b".to_owned(), 0, 0)]);
    world.count(Staged::WouldDeny, 5);
    world.later();
    assert_eq!(world.would(), [("only-b".to_owned(), 0, 5)]);
    world.count(Staged::WouldDeny, 7);
    world.restart();
    world.nodes();
    world.lists(&objects);
    world.settle();
    assert_eq!(world.would(), [("only-b".to_owned(), 0, 7)], "counts outlive the agent");
    // Together with another one it has another cookie; what was counted stays.
    world.upsert(staged("no-c", &no_c), 8);
    world.later();
    assert_eq!(world.would(), [("no-c".to_owned(), 0, 0), ("only-b".to_owned(), 0, 7)]);
    // In force they are no longer counted, and their rows go.
    world.list(ObjectKind::CiliumNetworkPolicy, Objects::new().set(policy("only-b", &from_b)));
    world.later();
    world.later();
    assert!(world.would().is_empty());
    assert!(world.maps.rows(Table::Staged).is_empty());
    // Now another staged one would open what it closes.
    let from_all = json!({"endpointSelector": a, "ingress": [{"fromEntities": ["all"]}]});
    world.upsert(staged("all", &from_all), 9);
    world.settle();
    world.count(Staged::WouldAllow, 3);
    world.later();
    assert_eq!(world.would(), [("all".to_owned(), 3, 0)]);
}

#[test]
fn the_status_has_what_is_not_in_force_and_no_more() {
    let mut world = World::up(Objects::new().set(first()));
    let status = |world: &World| world.agent.policy_status().unwrap();
    let exceptions = |world: &World| -> Vec<(String, String)> {
        status(world).exceptions.into_iter().map(|one| (one.name, one.message)).collect()
    };
    assert_eq!(status(&world).metadata.name, crate::world::OWN);
    assert!(status(&world).exceptions.is_empty());
    // One that is refused, and one that cannot be read: what was in force stays.
    let port = json!({"ports": [{"port": "99999", "protocol": "TCP"}]});
    let all = json!({"matchLabels": {"app": "a"}});
    world.upsert(policy("bad", &json!({"endpointSelector": all, "ingress": [{"toPorts": [port]}]})), 11);
    world.event(Event::Unreadable {
        kind: ObjectKind::CiliumNetworkPolicy,
        name: ObjectName::new("default", "p"),
        error: "spec.ingress: not a list".to_owned(),
    });
    let before = world.agent.policy_news();
    world.settle();
    assert_ne!(world.agent.policy_news(), before);
    let said = exceptions(&world);
    assert_eq!(said.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(), ["bad", "p"]);
    assert!(said[0].1.contains("it is not in force"), "{said:?}");
    assert!(said[1].1.contains("what was in force of it stays"), "{said:?}");
    assert_eq!(status(&world).not_enforced, 2);
    assert_eq!(status(&world).revisions["CiliumNetworkPolicy"], 11);
    world.upsert(first(), 12);
    world.event(Event::Delete {
        kind: ObjectKind::CiliumNetworkPolicy,
        name: ObjectName::new("default", "bad"),
        version: 13,
    });
    let before = world.agent.policy_news();
    world.settle();
    assert_ne!(world.agent.policy_news(), before);
    assert!(exceptions(&world).is_empty());
    // What cannot be written keeps the version back, and says why.
    world.faults.refuse("upsert POLICY", PortError::retryable("", "no room"));
    world.upsert(second(), 14);
    world.reconcile();
    assert_eq!(status(&world).revisions["CiliumNetworkPolicy"], 13);
    assert!(status(&world).problem.contains("no room"), "{}", status(&world).problem);
    world.faults.accept();
    world.pass(Duration::from_secs(60));
    assert_eq!(status(&world).revisions["CiliumNetworkPolicy"], 14);
    assert_eq!(status(&world).problem, "");
}

#[test]
fn a_new_status_of_a_policy_is_no_news() {
    let mut world = World::up(Objects::new().set(first()));
    let version = |generation: i64| {
        let Object::CiliumNetworkPolicy(mut policy) = first() else { panic!("it is one") };
        policy.metadata.generation = generation;
        Object::CiliumNetworkPolicy(policy)
    };
    world.upsert(version(1), 20);
    world.settle();
    let news = world.agent.policy_news();
    world.upsert(version(1), 21);
    world.settle();
    assert_eq!((world.agent.policy_news(), world.agent.policy_revision()), (news, 21));
    world.upsert(version(2), 22);
    world.settle();
    assert_ne!(world.agent.policy_news(), news);
}

#[test]
fn without_staged_policies_nobody_looks_for_counts() {
    let mut world = World::up(Objects::new().set(first()));
    world.later();
    world.faults.record();
    world.later();
    let calls = world.faults.recorded();
    assert!(!calls.iter().any(|call| call.contains("STAGED")), "{calls:?}");
}

#[test]
fn a_node_that_enforces_nothing_says_so() {
    let told = |enforcement, audit| {
        let mut config = agent_control::Config::new(crate::world::OWN, agent_control::Routing::Vxlan);
        let mut policy = agent_control::PolicyConfig::default();
        (policy.engine.enforcement, policy.engine.audit) = (enforcement, audit);
        config.policy = Some(policy);
        let mut world = World::with(config);
        world.nodes();
        world.lists(&Objects::new());
        world.settle();
        let status = world.agent.policy_status().unwrap();
        (status.enforcement.clone(), status.lax())
    };
    assert_eq!(told(Enforcement::Default, false), (String::new(), None));
    assert_eq!(told(Enforcement::Always, false), ("always".to_owned(), None));
    assert_eq!(told(Enforcement::Always, true), ("always".to_owned(), Some(Lax::Audited)));
    assert_eq!(told(Enforcement::Never, true), ("never".to_owned(), Some(Lax::Never)));
}
