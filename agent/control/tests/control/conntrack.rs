//! Connections that are over are removed, live ones stay.

use std::time::Duration;

use agent_control::ports::{PortError, Table};
use agent_control::{Config, Event, Routing};
use dataplane_abi::conntrack::{CtEntry, CtEntry6, CtState};
use zerocopy::IntoBytes as _;

use crate::world::{OWN, World};

/// A connection in `state` that was last seen `idle_s` seconds ago.
fn entry(world: &World, state: CtState, idle_s: u64) -> CtEntry {
    let clock = world.maps.clock;
    let last_seen = u32::try_from(clock.ticks - idle_s * u64::from(clock.ticks_per_s)).unwrap();
    CtEntry { state: state as u8, last_seen, ..CtEntry::default() }
}

fn put(world: &mut World, n: u32, state: CtState, idle_s: u64) {
    let entry = entry(world, state, idle_s);
    let mut key = [0; 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    world.maps.put(Table::Ct4, &key, entry.as_bytes());
    let mut key = [0; 40];
    key[..4].copy_from_slice(&n.to_be_bytes());
    world.maps.put(Table::Ct6, &key, CtEntry6::from(entry).as_bytes());
}

fn left(world: &World, table: Table) -> Vec<u32> {
    let number = |key: &Vec<u8>| u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    world.maps.rows(table).keys().map(number).collect()
}

#[test]
fn timeouts_by_state() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.maps.clock.ticks = 250 * 20_000;
    for (n, state, idle_s) in [
        (1, CtState::Established, 7999),
        (2, CtState::Established, 8001),
        (3, CtState::Syn, 59),
        (4, CtState::Syn, 61),
        (5, CtState::Closing, 9),
        (6, CtState::Closing, 11),
        (7, CtState::Any, 59),
        (8, CtState::Any, 61),
    ] {
        put(&mut world, n, state, idle_s);
    }
    world.event(Event::CtGc);
    world.settle();
    assert_eq!(left(&world, Table::Ct4), [1, 3, 5, 7]);
    assert_eq!(left(&world, Table::Ct6), [1, 3, 5, 7]);
    assert_eq!(world.agent.conntrack_entries(), 8);
}

#[test]
fn a_large_table_is_searched_in_slices_and_completely() {
    let mut config = Config::new(OWN, Routing::Vxlan);
    config.ct_gc.slice_rows = 7;
    let mut world = World::with(config);
    world.sync(1);
    // Every mixture of dead and live at the edges of slices.
    for n in 0..1000_u32 {
        put(&mut world, n, CtState::Any, if n % 13 < 6 || n % 7 == 6 { 100 } else { 1 });
    }
    world.event(Event::CtGc);
    let slices = std::iter::from_fn(|| {
        world.reconcile();
        (world.agent.next_deadline().unwrap() <= world.now).then_some(())
    });
    assert!(slices.count() > 200, "one slice in each reconcile");
    let live: Vec<u32> = (0..1000).filter(|n| !(n % 13 < 6 || n % 7 == 6)).collect();
    assert_eq!(left(&world, Table::Ct4), live);
    assert_eq!(left(&world, Table::Ct6), live);
}

#[test]
fn the_first_pass_comes_after_five_minutes_and_later_ones_by_what_was_found() {
    let mut world = World::ready(Routing::Vxlan, 1);
    put(&mut world, 1, CtState::Any, 100);
    world.pass(Duration::from_secs(299));
    assert_eq!(left(&world, Table::Ct4), [1]);
    world.pass(Duration::from_secs(2));
    assert_eq!(left(&world, Table::Ct4), Vec::<u32>::new());
    // Little was found: the next one comes half as much later.
    put(&mut world, 2, CtState::Any, 100);
    world.pass(Duration::from_secs(440));
    assert_eq!(left(&world, Table::Ct4), [2]);
    world.pass(Duration::from_secs(20));
    assert_eq!(left(&world, Table::Ct4), Vec::<u32>::new());
}

#[test]
fn a_failed_pass_is_reported_and_begins_anew() {
    let mut world = World::ready(Routing::Vxlan, 1);
    put(&mut world, 1, CtState::Any, 100);
    world.faults.refuse("scan CT6", PortError::retryable("", "interrupted"));
    world.event(Event::CtGc);
    world.settle();
    assert_eq!(world.agent.failures().len(), 1);
    world.faults.accept();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.agent.failures(), []);
    assert_eq!(left(&world, Table::Ct6), Vec::<u32>::new());
}

#[test]
fn rows_of_an_unknown_state_go() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.maps.put(Table::Ct4, &[1; 16], &[0; 128]);
    world.maps.put(Table::Ct4, &[2; 16], &[]);
    world.event(Event::CtGc);
    world.settle();
    assert!(world.maps.rows(Table::Ct4).is_empty());
}
