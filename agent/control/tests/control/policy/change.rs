//! A pod whose labels change goes on with the identity that it has until others know the new one.

use std::time::Duration;

use agent_control::{Agent, Event, Object, ObjectKind, ObjectName};
use agent_crd::CiliumIdentity;

use super::{Objects, identity_labels, pod};
use crate::world::World;

const GRACE: Duration = CiliumIdentity::CHANGE_GRACE;
/// A moment before that.
const NEARLY: Duration = Duration::from_millis(4_999);

fn new_identity() -> Object {
    Object::Identity(CiliumIdentity::new(310, &identity_labels("new")))
}

/// The pod "b" has other labels, and the number of these has just come.
fn relabelled() -> World {
    let mut world = World::up(&Objects::new());
    world.pass(GRACE * 2);
    world.upsert(pod("b", "new"), 8);
    world.upsert(new_identity(), 9);
    world.settle();
    world
}

fn published(world: &World) -> i64 {
    let objects = world.agent.published();
    objects[&ObjectName::new("default", "b")].status.identity.as_ref().unwrap().id.unwrap()
}

fn changing(world: &World) -> usize {
    world.reports.last().unwrap().changing
}

#[test]
fn a_new_identity_is_taken_when_others_know_it() {
    let mut world = relabelled();
    let address = world.address("b");
    assert_eq!((world.identity("b"), published(&world), changing(&world)), (301, 301, 1));
    world.pass(NEARLY);
    assert_eq!((world.identity("b"), world.identity_of(address), published(&world)), (301, 301, 301));
    world.pass(Duration::from_millis(1));
    assert_eq!((world.identity("b"), world.identity_of(address), published(&world)), (310, 310, 310));
    assert_eq!(changing(&world), 0);
}

#[test]
fn an_identity_that_is_known_is_taken_at_once() {
    let mut world = World::up(&Objects::new());
    world.upsert(new_identity(), 8);
    world.pass(GRACE);
    world.upsert(pod("b", "new"), 9);
    world.settle();
    assert_eq!(world.identity("b"), 310);
}

#[test]
fn who_changes_back_has_not_changed() {
    let mut world = relabelled();
    world.pass(GRACE / 2);
    world.reports.clear();
    world.upsert(pod("b", "b"), 10);
    world.settle();
    assert_eq!(changing(&world), 0);
    world.pass(GRACE);
    assert_eq!((world.identity("b"), world.rows_changed()), (301, 0));
}

#[test]
fn who_changes_again_waits_for_the_last_one_alone() {
    let mut world = relabelled();
    world.pass(GRACE / 2);
    // This one has been there for long.
    world.upsert(pod("b", "c"), 10);
    world.settle();
    assert_eq!(world.identity("b"), 302);
    world.pass(GRACE);
    assert_eq!(world.identity("b"), 302);
}

#[test]
fn a_pod_that_goes_leaves_nothing_behind() {
    let mut world = relabelled();
    world.del("b").unwrap();
    world.event(Event::Delete { kind: ObjectKind::Pod, name: ObjectName::new("default", "b"), version: 10 });
    world.settle();
    assert_eq!(changing(&world), 0);
}

#[test]
fn an_agent_that_starts_again_waits_again_and_changes_nothing() {
    let mut world = relabelled();
    world.pass(GRACE / 2);
    world.restart();
    world.settle();
    world.nodes();
    let mut objects = Objects::new();
    objects.set(pod("b", "new")).set(new_identity());
    // The new identity is heard of before the old one.
    world.upsert(new_identity(), 9);
    world.lists(&objects);
    world.settle();
    assert_eq!((world.identity("b"), world.rows_changed()), (301, 0));
    world.pass(GRACE);
    assert_eq!(world.identity("b"), 310);
}

/// Nobody could say what it may do.
#[test]
fn an_identity_that_has_no_labels_any_more_is_not_kept() {
    let mut world = World::up(&Objects::new());
    world.agent = Agent::new(world.config.clone(), world.node.documents());
    world.settle();
    world.nodes();
    let mut objects = Objects::new();
    objects.remove(ObjectKind::Identity, "", "301");
    objects.set(pod("b", "new")).set(new_identity());
    world.lists(&objects);
    world.settle();
    assert_eq!(world.identity("b"), 310);
}
