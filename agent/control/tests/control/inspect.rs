//! The inspection: what other programs did to rows is put right within one, and nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_api::cni::CniResult;
use agent_control::ports::{Program, Table};
use agent_control::{Config, DeviceFacts, Event, PortError, Routing};

use crate::world::{DEVICE, OWN, World, add, node, underlay};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const NODES: u16 = 4;

/// A node with two pods, whose tables are read in slices of `slice` rows.
fn world(slice: usize) -> (World, BTreeMap<String, CniResult>) {
    let mut config = Config::new(OWN, Routing::Vxlan);
    config.ct_gc.slice_rows = slice;
    let mut world = World::with(config);
    world.sync(NODES);
    let pods = ["a", "b"].map(|name| (name.to_owned(), world.add(name).unwrap()));
    world.reports.clear();
    (world, BTreeMap::from(pods))
}

fn tables(world: &World) -> [Rows; 2] {
    [Table::Endpoints, Table::Ipcache].map(|table| world.maps.rows(table).clone())
}

fn one_inspection(world: &mut World) {
    world.pass(world.config.inspect_interval + Duration::from_secs(1));
}

#[test]
fn nothing_is_touched_when_all_is_right() {
    for slice in [2, 4096] {
        let (mut world, pods) = world(slice);
        let before = (tables(&world), world.node_config());
        world.pass(Duration::from_mins(20));
        assert_eq!(world.rows_changed(), 0);
        assert_eq!(world.reports.iter().map(|report| report.node_changes).sum::<usize>(), 0);
        assert_eq!((tables(&world), world.node_config()), before);
        world.assert_outside(&(1..=NODES).map(node).collect::<Vec<_>>(), &pods);
    }
}

#[test]
fn a_foreign_change_of_any_row_heals_within_one_inspection() {
    for slice in [2, 5, 4096] {
        let (mut world, _) = world(slice);
        let right = tables(&world);
        for (table, rows) in [Table::Endpoints, Table::Ipcache].into_iter().zip(&right) {
            for (key, value) in rows {
                let mut changed = value.clone();
                changed[4] ^= 0x10;
                for foreign in [Some(changed), None] {
                    match &foreign {
                        Some(changed) => world.maps.put(table, key, changed),
                        None => world.maps.take(table, key),
                    }
                    let revision = world.node_config().revision;
                    world.reports.clear();
                    one_inspection(&mut world);
                    assert_eq!(tables(&world), right, "{table:?} {key:?} {foreign:?}");
                    assert!(world.node_config().revision > revision, "what was judged by it is judged again");
                    assert_eq!(world.rows_changed(), 2, "the row and CONFIG");
                }
            }
        }
    }
}

#[test]
fn foreign_rows_are_removed() {
    for slice in [2, 4096] {
        let (mut world, _) = world(slice);
        let right = tables(&world);
        for (table, rows) in [Table::Endpoints, Table::Ipcache].into_iter().zip(&right) {
            let (key, value) = rows.iter().next_back().unwrap();
            // One of our form, and one of no form that we know.
            let mut ours = key.clone();
            *ours.get_mut(if table == Table::Endpoints { 1 } else { 9 }).unwrap() ^= 0x40;
            let mut odd = key.clone();
            odd[if table == Table::Endpoints { 17 } else { 5 }] = 0xEE;
            for key in [ours, odd] {
                world.maps.put(table, &key, value);
                one_inspection(&mut world);
                assert_eq!(tables(&world), right, "{table:?} {key:?}");
            }
        }
    }
}

#[test]
fn a_foreign_change_of_any_field_of_config_heals() {
    let (mut world, _) = world(4096);
    let key = world.maps.rows(Table::Config).keys().next().unwrap().clone();
    let width = world.maps.rows(Table::Config)[&key].len();
    for at in 0..width {
        let right = world.node_config();
        let mut changed = world.maps.rows(Table::Config)[&key].clone();
        changed[at] ^= 0x01;
        world.maps.put(Table::Config, &key, &changed);
        one_inspection(&mut world);
        let found = world.node_config();
        assert_eq!(found.revision, right.revision + 1, "byte {at}");
        assert_eq!(
            dataplane_abi::config::NodeConfig { revision: right.revision, ..found },
            right,
            "byte {at}"
        );
    }
}

#[test]
fn pods_come_and_go_while_the_tables_are_read() {
    let (mut world, mut pods) = world(5);
    let lost = world.maps.rows(Table::Endpoints).keys().next_back().unwrap().clone();
    for round in 0..12 {
        world.maps.take(Table::Endpoints, &lost);
        world.now = world.now.plus(world.config.inspect_interval);
        world.event(Event::Tick);
        for step in 0..8 {
            world.reconcile();
            if (round + step) % 3 == 0 {
                let name = format!("pod-{round}-{step}");
                let request = world.request(add(&name));
                world.reconcile();
                let result = world.answer(request).expect("a request waits for one reconcile only");
                pods.insert(name, result.unwrap().unwrap());
            }
        }
        world.settle();
        world.assert_outside(&(1..=NODES).map(node).collect::<Vec<_>>(), &pods);
    }
    for name in pods.keys() {
        world.del(name).unwrap();
    }
    world.assert_outside(&(1..=NODES).map(node).collect::<Vec<_>>(), &BTreeMap::new());
}

#[test]
fn a_table_that_cannot_be_read_is_read_at_the_next_inspection() {
    let (mut world, _) = world(4096);
    let right = tables(&world);
    let key = world.maps.rows(Table::Ipcache).keys().next().unwrap().clone();
    world.maps.take(Table::Ipcache, &key);
    world.faults.refuse("scan IPCACHE", PortError::retryable("scan IPCACHE", "busy"));
    one_inspection(&mut world);
    world.faults.accept();
    assert_ne!(tables(&world), right);
    one_inspection(&mut world);
    assert_eq!(tables(&world), right);
}

#[test]
fn another_device_after_a_restart_leaves_no_program_on_the_old_one() {
    for routing in [Routing::Native, Routing::Vxlan] {
        let mut world = World::ready(routing, NODES);
        world.add("a").unwrap();
        // What an agent of another mode left.
        world.node.link_mut(DEVICE).unwrap().programs.insert(Program::ToNetdev);
        world.node.add_device("eth1", 3, [2, 0, 0, 0, 0, 3]);
        let before = world.node.links().clone();
        world.restart();
        world.event(Event::Underlay(DeviceFacts {
            name: "eth1".to_owned(),
            ifindex: 3,
            mac: [2, 0, 0, 0, 0, 3],
            ..underlay()
        }));
        world.event(Event::NodeListStarted);
        for n in 1..=NODES {
            world.event(Event::NodeUpsert(node(n)));
        }
        world.event(Event::NodeListSynced);
        world.settle();
        let native = routing == Routing::Native;
        assert_eq!(world.node.links()[DEVICE].programs, BTreeSet::new());
        assert_eq!(
            world.node.links()["eth1"].programs,
            native.then_some(Program::FromNetdev).into_iter().collect()
        );
        for (name, link) in before.iter().filter(|(name, _)| *name != DEVICE && *name != "eth1") {
            assert_eq!(world.node.links()[name].programs, link.programs, "{name}");
        }
    }
}
