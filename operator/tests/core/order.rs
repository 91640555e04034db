//! Order, repetition, failures and restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use bristle_operator::core::{Event, Key, Kind, Seen};
use proptest::prelude::*;

use crate::world::{World, namespace, pod};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    AddPod(u8, u8, u8),
    DeletePod(u8, u8),
    Relabel(u8, u8),
    /// An old state of a pod comes again.
    Repeat(u8, u8),
    List(usize),
    /// A list begins and is cut short.
    Cut(usize),
    FailBefore(usize),
    FailAfter(usize),
    Act,
    Restart,
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..3, 0_u8..5, 0_u8..4).prop_map(|(n, p, app)| Step::AddPod(n, p, app)),
        3 => (0_u8..3, 0_u8..5).prop_map(|(n, p)| Step::DeletePod(n, p)),
        1 => (0_u8..3, 0_u8..2).prop_map(|(n, team)| Step::Relabel(n, team)),
        2 => (0_u8..3, 0_u8..5).prop_map(|(n, p)| Step::Repeat(n, p)),
        2 => (0_usize..6).prop_map(Step::List),
        1 => (0_usize..6).prop_map(Step::Cut),
        1 => (1_usize..4).prop_map(Step::FailBefore),
        1 => (1_usize..4).prop_map(Step::FailAfter),
        8 => Just(Step::Act),
        1 => Just(Step::Restart),
        1 => Just(Step::Pass),
    ]
}

fn names(n: u8, p: u8) -> (String, String) {
    (NAMESPACES[usize::from(n)].to_owned(), format!("p{p}"))
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::AddPod(n, p, app) => {
            let (namespace, name) = names(*n, *p);
            world.add_pod(pod(&namespace, &name, &format!("app{app}")));
        }
        Step::DeletePod(n, p) => {
            let (namespace, name) = names(*n, *p);
            world.delete_pod(&namespace, &name);
        }
        Step::Relabel(n, team) => {
            world.add_namespace(namespace(NAMESPACES[usize::from(*n)], &format!("team{team}")));
        }
        Step::Repeat(n, p) => {
            if let Some(pod) = world.pods.get(&names(*n, *p)).cloned() {
                world.event(Event::Upsert(Seen::Pod(pod)));
            }
        }
        Step::List(kind) => world.list(Kind::ALL[*kind]),
        Step::Cut(kind) => {
            world.event(Event::ListStarted(Kind::ALL[*kind]));
        }
        Step::FailBefore(count) => world.fail_before += count,
        Step::FailAfter(count) => world.fail_after += count,
        Step::Act => drop(world.act()),
        Step::Restart => world.restart(),
        Step::Pass => world.pass(Duration::from_mins(6)),
    }
}

proptest! {
    /// After any history every set of labels in use has one number, which has been its number since it was given,
    /// and after a while nothing else is left.
    #[test]
    fn any_history_ends_with_one_number_for_each_set(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        world.restart();
        for name in NAMESPACES {
            world.add_namespace(namespace(name, "team0"));
        }
        for step in &steps {
            take(&mut world, step);
        }
        world.fail_before = 0;
        world.fail_after = 0;
        world.list_all();
        world.settle();
        let numbers = world.by_labels();
        world.restart();
        world.list_all();
        world.settle();
        prop_assert_eq!(&world.by_labels(), &numbers, "a restart changes nothing");
        world.pass(Duration::from_mins(16));
        world.settle();
        let teams: BTreeSet<Vec<String>> = world
            .pods
            .values()
            .map(|pod| {
                let labels = agent_crd::IdentityLabels::of_pod(&agent_crd::identity_labels::PodFacts {
                    labels: &pod.labels,
                    namespace: &pod.namespace,
                    namespace_labels: &world.namespaces[&pod.namespace].labels,
                    service_account: &pod.service_account,
                    cluster: "default",
                    filter: agent_crd::LabelFilter::DEFAULT,
                });
                labels.to_list()
            })
            .collect();
        let left = world.by_labels();
        prop_assert_eq!(left.keys().cloned().collect::<BTreeSet<_>>(), teams);
        prop_assert!(left.iter().all(|(labels, number)| numbers.get(labels) == Some(number)));
        prop_assert!(left.values().all(|number| (256..=65535).contains(number)));
    }

    /// The same objects in another order, some of them twice, give the same identities.
    #[test]
    fn shuffled_and_repeated_events_are_one(order in Just((0_u8..10).chain(0..10).collect::<Vec<_>>()).prop_shuffle()) {
        let run = |order: &[u8]| {
            let mut world = World::new();
            world.restart();
            Kind::ALL.into_iter().for_each(|kind| world.event(Event::ListStarted(kind)));
            for &n in order {
                if n < 3 {
                    world.add_namespace(namespace(NAMESPACES[usize::from(n)], "team"));
                } else {
                    let (namespace, name) = names(n % 3, n);
                    world.add_pod(pod(&namespace, &name, &format!("app{}", n % 4)));
                }
                world.act();
            }
            Kind::ALL.into_iter().for_each(|kind| world.event(Event::ListSynced(kind)));
            world.settle();
            world.by_labels()
        };
        prop_assert_eq!(run(&order), run(&(0..10).collect::<Vec<_>>()));
    }
}

#[test]
fn nothing_is_given_out_before_all_identities_are_known() {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.add_pod(pod("a", "p", "web"));
    world.list(Kind::Pod);
    world.list(Kind::Namespace);
    assert_eq!(world.act(), 0);
    world.event(Event::ListStarted(Kind::Identity));
    assert_eq!(world.act(), 0);
    world.event(Event::ListSynced(Kind::Identity));
    assert_eq!(world.act(), 1);
    assert_eq!(world.number_of("k8s:app=web"), Some(256));
}

#[test]
fn who_does_not_lead_does_nothing() {
    let mut world = World::new();
    world.add_namespace(namespace("a", "x"));
    world.add_pod(pod("a", "p", "web"));
    world.list_all();
    assert_eq!(world.act(), 0);
    // What was listed before it led may be out of date.
    world.event(Event::Leading(true));
    assert_eq!(world.act(), 0);
    world.list_all();
    assert_eq!(world.act(), 1);
    world.event(Event::Leading(false));
    world.add_pod(pod("a", "q", "db"));
    assert_eq!(world.act(), 0);
}

#[test]
fn a_number_that_somebody_else_has_taken_is_left_to_him() {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.list_all();
    let other = agent_crd::IdentityLabels::from_map(&[("k8s:other".to_owned(), String::new())].into());
    // The watch has not told of it yet.
    world.foreign_identity(256, &other);
    world.add_pod(pod("a", "p", "web"));
    world.settle();
    assert_eq!(world.number_of("k8s:app=web"), Some(257));
    assert_eq!(world.number_of("k8s:other="), Some(256));
}

#[test]
fn an_identity_that_is_deleted_by_hand_comes_back_with_its_number() {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.list_all();
    for (name, app) in [("p", "web"), ("q", "db"), ("r", "api")] {
        world.add_pod(pod("a", name, app));
        world.settle();
    }
    assert_eq!(world.number_of("k8s:app=db"), Some(257));
    for name in ["256", "257"] {
        world.identities.remove(name);
    }
    for name in ["257", "256"] {
        world.event(Event::Deleted(Key {
            kind: Kind::Identity,
            namespace: String::new(),
            name: name.into(),
        }));
    }
    world.settle();
    assert_eq!(world.number_of("k8s:app=web"), Some(256));
    assert_eq!(world.number_of("k8s:app=db"), Some(257));
}

#[test]
fn pods_of_the_nodes_network_and_finished_ones_need_none() {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.list_all();
    world.add_pod(bristle_operator::core::Pod { host_network: true, ..pod("a", "h", "proxy") });
    world.add_pod(bristle_operator::core::Pod { finished: true, ..pod("a", "f", "job") });
    world.settle();
    assert!(world.identities.is_empty());
}

#[test]
fn a_thousand_sets_are_given_numbers_a_few_at_a_time() {
    let mut world = World::new();
    world.restart();
    world.add_namespace(namespace("a", "x"));
    world.list_all();
    for n in 0..1000 {
        world.add_pod(pod("a", &format!("p{n}"), &format!("app{n:04}")));
    }
    assert_eq!(world.operator.commands(world.now).len(), 32);
    world.restart();
    world.list_all();
    world.settle();
    assert_eq!(world.by_labels().values().copied().collect::<BTreeSet<_>>(), (256..1256).collect());
}
