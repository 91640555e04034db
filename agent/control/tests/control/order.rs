//! Whatever the order, the repetitions and the cuts: the end state is the same, and nothing is removed on the way that is in use.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::cni::CniResult;
use agent_control::ports::{PortError, Table};
use agent_control::{Event, NodeObject, Routing};
use proptest::prelude::*;

use crate::world::{World, add, del, node, underlay};

/// One thing that happens to a node.
#[derive(Debug, Clone)]
enum Step {
    Underlay,
    Upsert(u16, u8),
    Delete(u16),
    ListStarted,
    ListSynced,
    Add(u8),
    Del(u8),
    Reconcile,
    Restart,
    /// The call after so many fails.
    Fail(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Underlay),
        6 => (1_u16..6, 0_u8..4).prop_map(|(n, version)| Step::Upsert(n, version)),
        2 => (2_u16..6).prop_map(Step::Delete),
        1 => Just(Step::ListStarted),
        1 => Just(Step::ListSynced),
        6 => (0_u8..6).prop_map(Step::Add),
        4 => (0_u8..6).prop_map(Step::Del),
        6 => Just(Step::Reconcile),
        1 => Just(Step::Restart),
        2 => (1_u64..12).prop_map(Step::Fail),
    ]
}

/// The node's object as it was at some time: wrong, partial, of others, or as it is in the end (0).
fn version(n: u16, version: u8) -> NodeObject {
    match version {
        1 => NodeObject { pod_cidrs: Vec::new(), ..node(n) },
        2 if n > 1 => NodeObject {
            pod_cidrs: vec!["x".into(), "fd00:10:2::/64".into()],
            internal_ips: Vec::new(),
            ..node(n)
        },
        3 if n > 1 => {
            NodeObject { internal_ips: node(n + 10).internal_ips, pod_cidrs: node(3).pod_cidrs, ..node(n) }
        }
        _ => node(n),
    }
}

struct Run {
    world: World,
    live: BTreeMap<String, CniResult>,
    /// Rows of live pods must be there from the answer of ADD on.
    started: bool,
}

impl Run {
    fn new(routing: Routing) -> Self {
        Self { world: World::new(routing), live: BTreeMap::new(), started: false }
    }

    fn take(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Underlay => world.event(Event::Underlay(underlay())),
            Step::Upsert(n, v) => world.event(Event::NodeUpsert(version(*n, *v))),
            Step::Delete(n) => world.event(Event::NodeDelete { name: node(*n).name }),
            Step::ListStarted => {
                self.started = true;
                world.event(Event::NodeListStarted);
            }
            Step::ListSynced => {
                // The own node exists, so a complete list has it.
                if self.started {
                    world.event(Event::NodeUpsert(node(1)));
                }
                world.event(Event::NodeListSynced);
                self.started = false;
            }
            Step::Add(n) => {
                let name = format!("c{n}");
                if self.live.contains_key(&name) {
                    return;
                }
                let request = world.request(add(&name));
                world.settle();
                match world.answer(request).expect("every request is answered") {
                    Ok(result) => drop(self.live.insert(name, result.expect("ADD has a result"))),
                    Err(_) => self.delete(&name),
                }
            }
            Step::Del(n) => self.delete(&format!("c{n}")),
            Step::Reconcile => world.settle(),
            Step::Restart => {
                world.restart();
                world.event(Event::Underlay(underlay()));
                world.settle();
                self.started = false;
            }
            Step::Fail(after) => {
                world.faults.fail_call(world.faults.calls() + after, PortError::retryable("", "injected"));
            }
        }
        self.live_pods_are_served();
    }

    /// As runtimes do: DEL until it succeeds.
    fn delete(&mut self, name: &str) {
        self.live.remove(name);
        for _ in 0..10 {
            let request = self.world.request(del(name));
            self.world.settle();
            if self.world.answer(request).expect("every request is answered").is_ok() {
                return;
            }
        }
        panic!("DEL of {name} never succeeds");
    }

    fn live_pods_are_served(&self) {
        let rows = self.world.endpoints();
        let prefixes = self.world.ipcache();
        let mut seen = BTreeSet::new();
        for (name, result) in &self.live {
            let link = self.world.node.links().get(&result.interfaces[0].name);
            let link = link.unwrap_or_else(|| panic!("{name} has lost its link"));
            for ip in &result.ips {
                let address = ip.address.addr();
                assert!(seen.insert(address), "{address} belongs to two pods");
                assert_eq!(rows.get(&address).map(|row| row.ifindex), Some(link.ifindex), "{name} {address}");
                assert_eq!(prefixes.get(&ip.address).map(|row| row.0), Some(5), "{name} {address}");
            }
        }
    }

    /// The cluster as it is in the end is heard of completely.
    fn finish(mut self, nodes: u16) {
        // Injected failures that were not met yet are called off.
        self.world.faults.revive();
        self.world.sync(nodes);
        self.world.pass(std::time::Duration::from_mins(6));
        let objects: Vec<NodeObject> = (1..=nodes).map(node).collect();
        self.world.assert_outside(&objects, &self.live);
        assert_eq!(self.world.agent.failures(), []);
        assert_eq!(self.world.agent.findings().iter().filter(|f| f.subject.starts_with("node/")).count(), 0);
        self.world.assert_restart_writes_nothing(&objects);
        self.world.assert_outside(&objects, &self.live);
        for name in self.live.clone().into_keys() {
            self.delete(&name);
        }
        self.world.assert_outside(&objects, &BTreeMap::new());
        assert_eq!(self.world.agent.ipam(self.world.now).iter().map(|pool| pool.used).sum::<u64>(), 0);
        assert_eq!(
            self.world.node_config().revision,
            u32::from_le_bytes(
                self.world.maps.rows(Table::Config).values().next().unwrap()[4..8].try_into().unwrap()
            )
        );
    }
}

/// Nodes from the second on: each claims one of a few pod CIDRs, of which some overlap, and one of a few addresses, and is of some age.
fn contested() -> impl Strategy<Value = Vec<NodeObject>> {
    let cidrs = prop::sample::select(vec![
        "10.10.1.0/24",
        "10.10.1.128/25",
        "10.20.0.0/16",
        "10.20.0.0/17",
        "10.20.2.0/24",
        "10.20.3.0/24",
        "fd00:20::/48",
        "fd00:20:0:1::/64",
    ]);
    let claim = (prop::collection::vec(cidrs, 0..3), 0_u16..5, 0_u64..3);
    prop::collection::vec(claim, 1..7).prop_map(|claims| {
        let object = |(place, (cidrs, address, age)): (usize, (Vec<&str>, u16, u64))| NodeObject {
            name: format!("other-{place}"),
            uid: format!("uid-other-{place}"),
            created_s: age,
            pod_cidrs: cidrs.iter().map(ToString::to_string).collect(),
            // 0: the own node's address, the last: none.
            internal_ips: if address == 4 { Vec::new() } else { node(address + 1).internal_ips },
            ..NodeObject::default()
        };
        claims.into_iter().enumerate().map(object).collect()
    })
}

proptest! {
    /// Whatever nodes claim of each other, whatever the list begins with and however often it is cut: an agent that starts over finds
    /// nothing to do at any moment, on rows or on routes.
    #[test]
    fn a_restart_among_contested_claims_touches_nothing(
        native in any::<bool>(),
        (nodes, order) in contested().prop_flat_map(|nodes| {
            let all: Vec<NodeObject> = nodes.into_iter().chain([node(1)]).collect();
            (Just(all.clone()), Just(all).prop_shuffle())
        }),
        cut in 0_usize..8,
    ) {
        let mut world = World::new(if native { Routing::Native } else { Routing::Vxlan });
        world.event(Event::Underlay(underlay()));
        world.event(Event::NodeListStarted);
        nodes.iter().for_each(|object| world.event(Event::NodeUpsert(object.clone())));
        world.event(Event::NodeListSynced);
        world.settle();
        world.add("c1").unwrap();

        world.restart();
        world.faults.record();
        world.settle();
        world.event(Event::Underlay(underlay()));
        world.settle();
        for list in [&order[..cut.min(order.len())], &order[..]] {
            world.event(Event::NodeListStarted);
            for object in list {
                world.event(Event::NodeUpsert(object.clone()));
                world.settle();
            }
        }
        world.event(Event::NodeListSynced);
        world.settle();
        let done = world.faults.recorded();
        let touching = ["upsert", "delete", "replace"];
        let touched: Vec<_> = done.iter().filter(|call| touching.iter().any(|verb| call.starts_with(verb))).collect();
        prop_assert!(touched.is_empty(), "{touched:?}");
    }

    /// Any history of events, failures and restarts ends in the same tables, links and routes for the same cluster and pods,
    /// and pods are served at every step of it.
    #[test]
    fn any_history_ends_the_same(native in any::<bool>(), steps in prop::collection::vec(step(), 0..60)) {
        let mut run = Run::new(if native { Routing::Native } else { Routing::Vxlan });
        for step in &steps {
            run.take(step);
        }
        run.finish(5);
    }

    /// The same events in another order, some of them repeated, give the same rows.
    #[test]
    fn shuffled_and_repeated_upserts_are_one(order in Just((1_u16..=8).chain(1..=8).collect::<Vec<_>>()).prop_shuffle()) {
        let mut world = World::new(Routing::Vxlan);
        world.event(Event::NodeListStarted);
        for (place, n) in order.into_iter().enumerate() {
            if place == 5 {
                world.event(Event::Underlay(underlay()));
            }
            world.event(Event::NodeUpsert(node(n)));
            if place % 3 == 0 {
                world.settle();
            }
        }
        world.event(Event::NodeListSynced);
        world.settle();
        world.assert_outside(&(1..=8).map(node).collect::<Vec<_>>(), &BTreeMap::new());
    }
}

#[test]
fn a_partial_list_prunes_nothing() {
    let mut world = World::ready(Routing::Vxlan, 5);
    world.add("c1").unwrap();
    let tables = [Table::Config, Table::Endpoints, Table::Ipcache];
    let before: Vec<_> = tables.map(|table| world.maps.rows(table).clone()).into();
    let routes = world.routes();
    world.restart();
    world.event(Event::Underlay(underlay()));
    world.settle();
    // Three times the list is cut short; a node's object is half filled in, another one claims its CIDR.
    for _ in 0..3 {
        world.event(Event::NodeListStarted);
        world.event(Event::NodeUpsert(node(1)));
        world.event(Event::NodeUpsert(NodeObject { pod_cidrs: Vec::new(), ..node(2) }));
        world.event(Event::NodeUpsert(NodeObject { pod_cidrs: node(5).pod_cidrs, ..node(3) }));
        world.settle();
    }
    assert_eq!(world.rows_changed(), 0);
    assert_eq!(tables.map(|table| world.maps.rows(table).clone()).to_vec(), before);
    assert_eq!(world.routes(), routes);
    // A new node is served when the list is whole: before that nobody knows whether its claims hold.
    world.event(Event::NodeListStarted);
    (1..=5).chain([9]).for_each(|n| world.event(Event::NodeUpsert(node(n))));
    world.settle();
    assert_eq!((world.rows_changed(), world.routes()), (0, routes));
    world.event(Event::NodeListSynced);
    world.settle();
    assert!(world.routes().contains_key("10.10.9.0/24"));
}

#[test]
fn a_node_without_rows_serves_whom_it_hears_of() {
    let mut world = World::new(Routing::Vxlan);
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(node(1)));
    world.event(Event::NodeUpsert(node(2)));
    world.settle();
    assert!(!world.agent.nodes_synced());
    world.assert_outside(&[node(1), node(2)], &BTreeMap::new());
}

#[test]
fn what_a_list_that_was_cut_short_held_is_gone_if_the_next_one_lacks_it() {
    let mut world = World::ready(Routing::Vxlan, 3);
    world.event(Event::NodeListStarted);
    (1..=3).for_each(|n| world.event(Event::NodeUpsert(node(n))));
    world.event(Event::NodeListStarted);
    (1..=2).for_each(|n| world.event(Event::NodeUpsert(node(n))));
    world.settle();
    assert!(world.routes().contains_key("10.10.3.0/24"), "nothing goes before the list is complete");
    world.event(Event::NodeListSynced);
    world.settle();
    world.assert_outside(&[node(1), node(2)], &BTreeMap::new());
}
