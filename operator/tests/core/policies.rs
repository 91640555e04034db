//! The condition `Valid`.

use agent_crd::ObjectMeta;
use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::meta::Condition;
use bristle_operator::core::validity::Validity;
use bristle_operator::core::{Kind, Policy};

use crate::world::World;

fn wrong<'a>(mistakes: impl IntoIterator<Item = &'a str>) -> Validity {
    Validity { mistakes: mistakes.into_iter().map(str::to_owned).collect(), ..Validity::default() }
}

/// A policy with at most one mistake.
fn policy(name: &str, mistake: Option<&str>) -> Policy {
    Policy {
        kind: Kind::NamespacedPolicy,
        metadata: ObjectMeta { namespace: "a".into(), ..ObjectMeta::named(name) },
        validity: wrong(mistake),
        status: PolicyStatus::default(),
    }
}

fn valid(world: &World, name: &str) -> Condition {
    let policy = &world.policies[&(Kind::NamespacedPolicy, "a".to_owned(), name.to_owned())];
    policy.status.condition("Valid").expect("it is written").clone()
}

#[test]
fn says_whether_a_policy_could_be_understood() {
    let mut world = World::new();
    world.restart();
    world.add_policy(policy("good", None));
    world.add_policy(Policy { validity: wrong(["a: x", "b: y"]), ..policy("bad", None) });
    world.list_all();
    world.settle();
    let condition = valid(&world, "good");
    assert_eq!(
        (condition.status.as_str(), condition.message.as_str()),
        ("True", "Policy validation succeeded")
    );
    let condition = valid(&world, "bad");
    assert_eq!((condition.status.as_str(), condition.message.as_str()), ("False", "a: x; b: y"));
    let figures = world.operator.figures();
    assert_eq!((figures.valid_policies, figures.invalid_policies), (1, 1));
}

#[test]
fn other_conditions_and_the_time_of_the_last_change_stay() {
    let mut world = World::new();
    world.restart();
    let time = Some("2026-01-01T00:00:00Z".to_owned());
    let condition = |kind: &str, status: &str, message: &str| Condition {
        kind: kind.into(),
        status: status.into(),
        message: message.into(),
        last_transition_time: time.clone(),
        ..Condition::default()
    };
    let other = condition("Other", "True", "");
    let mut bad = policy("bad", Some("y"));
    bad.status.conditions = vec![condition("Valid", "False", "x"), other.clone()];
    world.add_policy(bad);
    world.list_all();
    world.settle();
    assert_eq!(valid(&world, "bad").last_transition_time, time);
    let conditions =
        &world.policies[&(Kind::NamespacedPolicy, "a".to_owned(), "bad".to_owned())].status.conditions;
    assert!(conditions.contains(&other));
    // Once it is mended the time is that of the change.
    let mut mended = policy("bad", None);
    mended.status.conditions = vec![condition("Valid", "False", "y")];
    world.add_policy(mended);
    world.settle();
    assert_eq!(valid(&world, "bad").last_transition_time, None);
}

#[test]
fn what_is_right_is_not_written_again() {
    let mut world = World::new();
    world.restart();
    world.add_policy(policy("good", None));
    world.list_all();
    world.settle();
    world.restart();
    world.list_all();
    assert_eq!(world.act(), 0);
    // A failure is made up for.
    world.fail_before = 2;
    world.add_policy(policy("good", Some("there is no rule")));
    world.settle();
    assert_eq!(valid(&world, "good").message, "there is no rule");
}
