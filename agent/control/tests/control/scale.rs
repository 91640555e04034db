//! Work is in proportion to what changed.

use agent_control::{Event, NodeObject, Routing};

use crate::world::{World, node};

#[test]
fn one_change_among_a_thousand_nodes_costs_one_nodes_rows() {
    let mut world = World::ready(Routing::Vxlan, 1000);
    assert_eq!(world.routes().len(), 2000);
    world.reports.clear();

    world.event(Event::NodeUpsert(node(500)));
    let report = world.reconcile();
    assert_eq!((report.recomputed, report.rows_changed()), (0, 0), "nothing changed");

    world.event(Event::NodeUpsert(NodeObject {
        internal_ips: vec!["172.31.0.9".into(), "fd00:30::1f4".into()],
        ..node(500)
    }));
    let report = world.reconcile();
    assert!(report.recomputed <= 8, "{} things were computed again", report.recomputed);
    // Old address, new address, the IPv6 address, two pod CIDRs and two router addresses behind the new one, and the revision.
    assert_eq!(report.rows_changed(), 8);

    world.event(Event::NodeDelete { name: "node-500".into() });
    let report = world.reconcile();
    assert!(report.recomputed <= 8, "{} things were computed again", report.recomputed);
    assert_eq!((report.rows_changed(), report.node_changes), (7, 2));

    let request = world.request(crate::world::add("c1"));
    let report = world.reconcile();
    world.answer(request).unwrap().unwrap();
    assert!(report.recomputed <= 6, "{} things were computed again", report.recomputed);
    assert_eq!(report.rows_changed(), 5);

    let report = world.reconcile();
    assert_eq!(
        (report.recomputed, report.rows_changed(), report.node_changes),
        (0, 0, 0),
        "at rest nothing is done"
    );
}

#[test]
fn a_list_that_comes_again_writes_nothing() {
    let mut world = World::ready(Routing::Native, 1000);
    world.reports.clear();
    world.sync(1000);
    assert_eq!(world.rows_changed(), 0);
    assert_eq!(world.reports.iter().map(|report| report.recomputed).sum::<usize>(), 0);
}
