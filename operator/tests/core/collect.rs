//! What is collected, and what never is.

use std::time::Duration;

use bristle_operator::core::{Event, Key, Kind};

use crate::world::{World, namespace, pod};

const LONG: Duration = Duration::from_mins(16);

/// A world with one pod that has an identity.
fn world() -> World {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.add_pod(pod("a", "p", "web"));
    world.list_all();
    world.settle();
    assert_eq!(world.number_of("k8s:app=web"), Some(256));
    world
}

#[test]
fn what_nobody_uses_for_a_while_is_collected() {
    let mut world = world();
    world.delete_pod("a", "p");
    world.pass(Duration::from_mins(14));
    assert_eq!(world.identities.len(), 1, "a pod may come back");
    assert_eq!(world.operator.figures().unused, 1);
    assert_eq!(world.operator.deadline(), Some(world.now + Duration::from_mins(1)));
    world.pass(Duration::from_mins(2));
    assert!(world.identities.is_empty());
}

#[test]
fn who_comes_back_in_time_starts_the_time_anew() {
    let mut world = world();
    world.delete_pod("a", "p");
    world.pass(Duration::from_mins(14));
    world.add_pod(pod("a", "q", "web"));
    world.pass(LONG);
    world.delete_pod("a", "q");
    world.pass(Duration::from_mins(14));
    assert_eq!(world.number_of("k8s:app=web"), Some(256));
}

#[test]
fn an_endpoint_keeps_its_identity() {
    let mut world = world();
    world.add_endpoint("a", "p", Some(256));
    world.delete_pod("a", "p");
    world.pass(LONG);
    assert_eq!(world.identities.len(), 1);
    world.endpoints.clear();
    world.event(Event::Deleted(Key { kind: Kind::Endpoint, namespace: "a".into(), name: "p".into() }));
    world.pass(Duration::ZERO);
    world.pass(LONG);
    assert!(world.identities.is_empty());
}

#[test]
fn nothing_is_collected_on_the_strength_of_an_incomplete_list() {
    for kind in [Kind::Pod, Kind::Namespace, Kind::Identity, Kind::Endpoint] {
        let mut world = world();
        world.event(Event::ListStarted(kind));
        world.delete_pod("a", "p");
        world.pass(LONG);
        world.pass(LONG);
        assert_eq!(world.identities.len(), 1, "{kind:?}");
        world.event(Event::ListStarted(kind));
        world.list_content(kind);
        world.event(Event::ListSynced(kind));
        world.pass(Duration::ZERO);
        world.pass(LONG);
        assert!(world.identities.is_empty(), "{kind:?}");
    }
}

#[test]
fn a_new_leader_starts_counting_anew() {
    let mut world = world();
    world.delete_pod("a", "p");
    world.pass(Duration::from_mins(14));
    world.restart();
    world.list_all();
    world.pass(Duration::from_mins(14));
    assert_eq!(world.identities.len(), 1);
}

#[test]
fn a_pod_whose_namespace_is_not_known_keeps_the_identities_of_that_namespace() {
    let mut world = world();
    world.delete_pod("a", "p");
    world.namespaces.remove("a");
    world.event(Event::Deleted(Key { kind: Kind::Namespace, namespace: String::new(), name: "a".into() }));
    world.add_pod(pod("a", "q", "web"));
    world.pass(LONG);
    world.pass(LONG);
    assert_eq!(world.identities.len(), 1);
    world.add_namespace(namespace("a", "x"));
    world.settle();
    assert_eq!(world.number_of("k8s:app=web"), Some(256));
}

#[test]
fn of_two_numbers_for_one_set_the_higher_goes() {
    let mut world = world();
    let labels = world.identities["256"].labels();
    let twin = world.foreign_identity(300, &labels);
    world.event(Event::Upsert(bristle_operator::core::Seen::Identity(twin)));
    // The model says "one number each" after each round; this is the one exception.
    let deadline = world.operator.commands(world.now);
    assert!(deadline.is_empty());
    world.now += LONG;
    let commands = world.operator.commands(world.now);
    assert_eq!(commands.len(), 1);
    assert!(matches!(
        &commands[0].action,
        bristle_operator::core::Action::DeleteIdentity { name, .. } if name == "300"
    ));
}

#[test]
fn an_identity_that_has_changed_is_not_deleted() {
    let mut world = world();
    world.delete_pod("a", "p");
    world.pass(Duration::from_mins(14));
    // Somebody has written to it, and the watch has not told yet.
    world.identities.get_mut("256").unwrap().metadata.resource_version = "999".into();
    world.pass(Duration::from_mins(2));
    assert_eq!(world.identities.len(), 1);
    world.list(Kind::Identity);
    world.pass(Duration::from_mins(2));
    assert!(world.identities.is_empty());
}
