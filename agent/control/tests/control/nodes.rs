//! Other nodes come, change and go; so may the own one.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::AgentState;
use agent_control::ports::{HOST_LINK, Program, Table};
use agent_control::{Config, DeviceFacts, Event, NodeObject, PortError, Routing, Severity};

use crate::world::{OWN, World, node, underlay};

#[test]
fn rows_and_routes_of_a_cluster() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let mut world = World::ready(routing, 3);
        let nodes = [node(1), node(2), node(3)];
        world.assert_outside(&nodes, &BTreeMap::new());
        assert_eq!(world.agent.state(), (AgentState::Ready, None));
        assert_eq!(world.agent.findings(), []);
        let pod = world.add("c1").unwrap();
        assert_eq!(pod.interfaces[1].mtu, Some(if routing == Routing::Vxlan { 1450 } else { 1500 }));
        world.event(Event::NodeDelete { name: "node-3".into() });
        world.settle();
        world.assert_outside(&nodes[..2], &BTreeMap::from([("c1".to_owned(), pod)]));
        world.assert_restart_writes_nothing(&nodes[..2]);
    }
}

#[test]
fn config_says_what_the_programs_need() {
    let world = World::ready(Routing::Vxlan, 2);
    let config = world.node_config();
    assert_eq!((config.abi_version, config.revision, config.routing), (1, 1, 1));
    assert_eq!((config.underlay_ifindex, config.underlay_mtu, config.overlay_mtu), (2, 1500, 1450));
    assert_eq!(config.host_ifindex, world.node.links()[HOST_LINK].ifindex);
    assert_eq!(config.overlay_ifindex, world.node.links()["bristle_vxlan"].ifindex);
    assert_eq!((config.router_v4, config.node_v4), ([10, 10, 1, 1], [172, 30, 0, 1]));
    assert_eq!((config.world_v4.0, config.world_v6.0), (9, 10));
    assert_eq!((config.ticks_per_s, config.monitor_interval_ticks, config.aggregation), (250, 1250, 3));
    assert_eq!(config.host_identity.0, 1);
    let native = World::ready(Routing::Native, 2).node_config();
    assert_eq!((native.routing, native.overlay_ifindex, native.overlay_mtu), (2, 0, 1500));
}

#[test]
fn tunnels_run_over_ipv6_where_the_node_has_nothing_else() {
    let mut world = World::new(Routing::Vxlan);
    let v6_only = |n: u16| NodeObject { internal_ips: vec![format!("fd00:30::{n:x}")], ..node(n) };
    world
        .event(Event::Underlay(DeviceFacts { addresses: vec!["fd00:30::1".parse().unwrap()], ..underlay() }));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(v6_only(1)));
    world.event(Event::NodeUpsert(v6_only(2)));
    world.event(Event::NodeUpsert(NodeObject { internal_ips: vec!["172.30.0.3".into()], ..node(3) }));
    world.event(Event::NodeListSynced);
    world.settle();
    assert_eq!(world.agent.network().pod_mtu_bytes, 1430);
    let tunnel = world.ipcache()[&"10.10.2.0/24".parse().unwrap()].1;
    assert_eq!(tunnel, Some("fd00:30::2".parse().unwrap()));
    let findings = world.agent.findings();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().all(|f| f.subject == "node/node-3" && f.message.contains("no IPv6 InternalIP")));
}

#[test]
fn one_bad_object_does_not_stop_the_others() {
    let mut world = World::new(Routing::Vxlan);
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(node(1)));
    world.event(Event::NodeUpsert(NodeObject {
        pod_cidrs: vec!["10.10.2.0/33".into(), String::new(), "0.0.0.0/0".into(), "fd00:10:2::/112".into()],
        internal_ips: vec!["172.30.0.2.1".into(), "::".into(), "172.30.0.2".into()],
        ..node(2)
    }));
    world.event(Event::NodeUpsert(NodeObject::default()));
    world.event(Event::NodeUpsert(node(3)));
    world.event(Event::NodeListSynced);
    world.settle();
    let routes = world.routes();
    assert!(routes.contains_key("fd00:10:2::/112") && routes.contains_key("10.10.3.0/24"));
    assert_eq!(routes.len(), 5);
    let findings = world.agent.findings();
    assert_eq!(findings.len(), 5, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.subject == "node/node-2"));
    world.event(Event::NodeUpsert(node(2)));
    world.settle();
    assert_eq!(world.agent.findings(), [], "what is mended is no longer reported");
}

#[test]
fn of_two_claims_the_older_one_holds_whatever_comes_first() {
    let thief = NodeObject { pod_cidrs: node(2).pod_cidrs, created_s: 9999, ..node(3) };
    let orders = [[node(2), thief.clone()], [thief.clone(), node(2)]];
    for order in orders {
        let mut world = World::new(Routing::Vxlan);
        world.event(Event::Underlay(underlay()));
        world.event(Event::NodeListStarted);
        world.event(Event::NodeUpsert(node(1)));
        for object in order {
            world.event(Event::NodeUpsert(object));
        }
        world.event(Event::NodeListSynced);
        world.settle();
        let of = |world: &World| world.ipcache()[&"10.10.2.0/24".parse().unwrap()].1.unwrap().to_string();
        assert_eq!(of(&world), "172.30.0.2");
        let refused: Vec<_> =
            world.agent.findings().into_iter().filter(|f| f.severity == Severity::Error).collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused.iter().all(|finding| finding.subject == "node/node-3"));
        world.event(Event::NodeDelete { name: "node-2".into() });
        world.settle();
        assert_eq!(of(&world), "172.30.0.3");
        assert_eq!(world.agent.findings(), []);
    }
}

#[test]
fn a_claim_on_the_own_pod_cidr_is_refused() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let pod = world.add("c1").unwrap();
    let before = (world.endpoints(), world.ipcache(), world.routes());
    world.event(Event::NodeUpsert(NodeObject {
        pod_cidrs: vec!["10.10.0.0/16".into(), "fd00:10:1::/112".into()],
        internal_ips: vec!["172.30.0.1".into()],
        created_s: 1,
        ..node(7)
    }));
    world.settle();
    assert_eq!((world.endpoints(), world.ipcache(), world.routes()), before);
    assert_eq!(world.agent.findings().len(), 3);
    world.check("c1", &pod).unwrap();
}

#[test]
fn the_own_object_may_vanish_and_pods_stay() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let pod = world.add("c1").unwrap();
    world.event(Event::NodeDelete { name: OWN.into() });
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(node(2)));
    world.event(Event::NodeListSynced);
    world.settle();
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("c1".to_owned(), pod)]));
    assert!(world.agent.findings().iter().any(|finding| finding.message.contains("does not exist")));
    world.add("c2").expect("the last known pod CIDRs stay in force");
}

#[test]
fn other_pod_cidrs_for_the_own_node_leave_its_pods_alone() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let old = world.add("old").unwrap();
    let moved = NodeObject { pod_cidrs: vec!["10.99.0.0/24".into(), "fd00:99::/112".into()], ..node(1) };
    world.event(Event::NodeUpsert(moved));
    world.settle();
    // The old CIDR now belongs to another node; the pod's own rows are more specific.
    world.event(Event::NodeUpsert(NodeObject { pod_cidrs: node(1).pod_cidrs, ..node(3) }));
    world.settle();
    assert!(world.agent.findings().iter().any(|finding| finding.message.contains("10.10.1.2")));
    let rows = world.endpoints();
    assert_ne!(rows[&"10.10.1.2".parse().unwrap()].ifindex, 0);
    assert_eq!(world.ipcache()[&"10.10.1.2/32".parse().unwrap()].0, 5);
    assert_eq!(world.routes()["10.10.1.2/32"], "dev bristle_host src 10.10.1.1");
    assert_eq!(world.routes()["10.10.1.0/24"], "via 10.10.1.1 dev bristle_host src 10.10.1.1 mtu 1450");
    world.check("old", &old).unwrap();
    // New pods get new addresses, and the router of the old ones for as long as those live.
    let new = world.add("new").unwrap();
    assert_eq!(new.ips[0].address.to_string(), "10.99.0.2/32");
    assert_eq!(new.ips[0].gateway.unwrap().to_string(), "10.10.1.1");
    world.del("old").unwrap();
    assert!(!world.endpoints().contains_key(&"10.10.1.2".parse().unwrap()));
    world.del("new").unwrap();
    assert_eq!(world.node.base().unwrap().router_v4.unwrap().to_string(), "10.99.0.1");
    assert_eq!(world.agent.findings(), []);
    assert_eq!(world.add("newer").unwrap().ips[0].gateway.unwrap().to_string(), "10.99.0.1");
}

#[test]
fn a_change_of_the_underlay_moves_everything() {
    let mut world = World::ready(Routing::Native, 2);
    let revision = world.node_config().revision;
    world.event(Event::Underlay(DeviceFacts { mtu: 9000, mac: [6; 6], ..underlay() }));
    world.settle();
    let config = world.node_config();
    assert_eq!((config.underlay_mtu, config.underlay_mac), (9000, [6; 6]));
    assert_eq!(config.revision, revision + 1);
    assert_eq!(world.add("c1").unwrap().interfaces[1].mtu, Some(9000));
    assert!(world.node.links()["eth0"].programs.contains(&Program::FromNetdev));
}

#[test]
fn an_mtu_by_hand_counts_instead_of_the_devices() {
    let mut world = World::with(Config { mtu: Some(1300), ..Config::new(OWN, Routing::Vxlan) });
    world.sync(1);
    assert_eq!(world.agent.network().pod_mtu_bytes, 1250);
    assert!(world.agent.findings().iter().any(|finding| finding.message.contains("1280")));
}

#[test]
fn what_others_wrote_into_our_tables_goes_when_all_is_known() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.maps.put(Table::Ipcache, &[0xff; 24], &[1; 24]);
    world.maps.put(Table::Endpoints, &[0xff; 20], &[1; 32]);
    world.restart();
    world.event(Event::Underlay(underlay()));
    world.settle();
    assert_eq!(world.maps.rows(Table::Ipcache).len(), 9, "not before the list is complete");
    world.sync(1);
    world.assert_outside(&[node(1)], &BTreeMap::new());
}

#[test]
fn what_others_broke_is_mended_within_a_minute() {
    for routing in [Routing::Vxlan, Routing::Native] {
        let mut world = World::ready(routing, 3);
        let pod = world.add("c1").unwrap();
        let revision = world.node_config().revision;
        let stray = agent_control::ports::Route {
            dst: "10.77.0.0/24".parse().unwrap(),
            gateway: None,
            device: HOST_LINK.to_owned(),
            source: None,
            mtu: None,
        };
        world.node.add_route(stray);
        world.node.remove_route(&"10.10.2.0/24".parse().unwrap());
        world.node.remove_link(HOST_LINK);
        world.pass(Duration::from_secs(61));
        world.assert_outside(&[node(1), node(2), node(3)], &BTreeMap::from([("c1".to_owned(), pod)]));
        assert_eq!(world.node_config().host_ifindex, world.node.links()[HOST_LINK].ifindex);
        assert!(world.node_config().revision > revision);
        world.reports.clear();
        world.pass(Duration::from_mins(10));
        assert_eq!(world.rows_changed(), 0, "looking alone changes nothing");
        assert_eq!(world.reports.iter().map(|report| report.node_changes).sum::<usize>(), 0);
    }
}

#[test]
fn a_program_that_could_not_be_attached_is_tried_again() {
    for (routing, program) in [(Routing::Vxlan, "from_overlay"), (Routing::Native, "from_netdev")] {
        let mut world = World::new(routing);
        world.faults.refuse(format!("attach {program}"), PortError::retryable("", "busy"));
        world.sync(1);
        let attached = |world: &World| {
            world.node.links().values().flat_map(|link| &link.programs).any(|found| found.name() == program)
        };
        assert!(!attached(&world));
        world.faults.accept();
        world.pass(Duration::from_mins(1));
        assert!(attached(&world), "{program}");
        world.assert_outside(&[node(1)], &BTreeMap::new());
    }
}

#[test]
fn addresses_of_the_node_are_never_a_pods() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.add("old").unwrap();
    // The new pod CIDR has the old router, which the old pod still uses, and an address of the node within it.
    let wider = NodeObject { pod_cidrs: vec!["10.10.1.0/29".into(), "fd00:10:1::/112".into()], ..node(1) };
    world.event(Event::NodeUpsert(NodeObject {
        pod_cidrs: vec!["10.10.0.248/29".into(), "fd00:10:1::/112".into()],
        ..node(1)
    }));
    world.settle();
    world.event(Event::NodeUpsert(wider));
    world.event(Event::Underlay(DeviceFacts { addresses: vec!["10.10.1.4".parse().unwrap()], ..underlay() }));
    let given: Vec<String> =
        (0..3).map(|n| world.add(&format!("c{n}")).unwrap().ips[0].address.addr().to_string()).collect();
    assert_eq!(given, ["10.10.1.3", "10.10.1.5", "10.10.1.6"]);
    world.add("c4").unwrap_err();
}

#[test]
fn connections_are_told_of_only_while_somebody_listens() {
    let mut world = World::ready(Routing::Vxlan, 2);
    let told =
        |world: &World| world.node_config().flags.contains(dataplane_abi::config::ConfigFlags::TRACE_EVENTS);
    assert!(!told(&world));
    world.event(Event::Listeners(true));
    world.settle();
    assert!(told(&world));
    world.event(Event::Listeners(false));
    world.settle();
    assert!(!told(&world));
}

#[test]
fn the_underlay_carries_only_programs_that_have_work() {
    let mut world = World::ready(Routing::Native, 2);
    assert!(world.node.links()["eth0"].programs.contains(&Program::FromNetdev));
    // The node comes back in the other mode: what the earlier agent attached is taken off.
    world.config.routing = Routing::Vxlan;
    world.restart();
    world.sync(2);
    world.settle();
    assert_eq!(world.node.links()["eth0"].programs.len(), 0);
}
