//! The CNI verbs, as a runtime sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::cni::{ErrorCode, Operation};
use agent_control::ports::{PortError, PortErrorKind, Table};
use agent_control::{Config, Event, FamilyMode, NodeObject, Routing};

use crate::world::{DEVICE, OWN, World, add, attachment, del, netns, node, underlay};

fn addresses(result: &agent_api::cni::CniResult) -> Vec<String> {
    result.ips.iter().map(|ip| ip.address.to_string()).collect()
}

#[test]
fn add_makes_interface_rows_programs_and_answers_last() {
    let mut world = World::ready(Routing::Vxlan, 2);
    world.faults.record();
    let result = world.add("c1").unwrap();
    assert_eq!(addresses(&result), ["10.10.1.2/32", "fd00:10:1::2/128"]);
    assert_eq!(result.ips[0].gateway.unwrap().to_string(), "10.10.1.1");
    assert_eq!(result.ips[1].gateway.unwrap().to_string(), "fd00:10:1::1");
    assert!(result.ips.iter().all(|ip| ip.interface == Some(1)));
    assert_eq!(result.interfaces[0].sandbox, "");
    assert_eq!(
        (result.interfaces[1].name.as_str(), result.interfaces[1].sandbox.as_str()),
        ("eth0", "/run/netns/c1")
    );
    assert_eq!(result.interfaces[1].mtu, Some(1450));
    let routes: Vec<String> = result.routes.iter().map(|r| format!("{} {:?}", r.dst, r.gw)).collect();
    assert_eq!(
        routes,
        [
            "10.10.1.1/32 None",
            "0.0.0.0/0 Some(10.10.1.1)",
            "fd00:10:1::1/128 None",
            "::/0 Some(fd00:10:1::1)"
        ]
    );
    // The order of what the agent did: announced, made, rows, revision, programs, noted as ready.
    let verbs: Vec<String> = world
        .faults
        .recorded()
        .iter()
        .map(|op| op.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        verbs,
        [
            "save endpoint-1",
            "create interface",
            "upsert ENDPOINTS",
            "upsert ENDPOINTS",
            "upsert IPCACHE",
            "upsert IPCACHE",
            "upsert CONFIG",
            "attach from_container",
            "attach to_container",
            "save endpoint-1",
            "save ipam"
        ]
    );
    world.assert_outside(&[node(1), node(2)], &BTreeMap::from([("c1".to_owned(), result)]));
    let view = &world.agent.endpoints()[0];
    assert_eq!((view.container_id.as_str(), view.pod.as_str(), view.id), ("c1", "c1", 1));
}

#[test]
fn del_removes_traffic_first_and_is_idempotent() {
    let mut world = World::ready(Routing::Vxlan, 2);
    world.add("c1").unwrap();
    world.faults.record();
    world.del("c1").unwrap();
    let verbs: Vec<String> = world
        .faults
        .recorded()
        .iter()
        .map(|op| op.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        verbs,
        [
            "delete interface",
            "delete IPCACHE",
            "delete IPCACHE",
            "delete ENDPOINTS",
            "delete ENDPOINTS",
            "upsert CONFIG",
            "save ipam",
            "remove endpoint-1"
        ]
    );
    world.del("c1").unwrap();
    world.del("never-was").unwrap();
    world.assert_outside(&[node(1), node(2)], &BTreeMap::new());
    assert_eq!(world.agent.ipam(world.now).iter().map(|pool| pool.used).sum::<u64>(), 0);
}

#[test]
fn a_second_add_is_refused_and_changes_nothing() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let first = world.add("c1").unwrap();
    let error = world.add("c1").unwrap_err();
    assert_eq!(error.code, ErrorCode::ATTACHMENT_EXISTS);
    assert!(error.msg.contains("CNI_CONTAINERID=c1") && error.msg.contains("DEL"), "{}", error.msg);
    world.assert_outside(&[node(1)], &BTreeMap::from([("c1".to_owned(), first)]));
    world.del("c1").unwrap();
    world.add("c1").unwrap();
}

#[test]
fn a_late_del_cannot_take_the_address_of_a_new_owner() {
    // One address in the pool: the second pod has the address of the first.
    let mut config = Config::new(OWN, Routing::Vxlan);
    config.quarantine = Duration::from_secs(30);
    let mut world = World::with(config);
    let small = NodeObject { pod_cidrs: vec!["10.10.1.0/30".into()], ..node(1) };
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(small));
    world.event(Event::NodeListSynced);
    let first = world.add("old").unwrap();
    world.del("old").unwrap();
    let refused = world.add("new").unwrap_err();
    assert_eq!(refused.code, ErrorCode::TRY_AGAIN);
    assert!(refused.msg.contains("try again"), "{}", refused.msg);
    world.pass(Duration::from_secs(30));
    let second = world.add("new").unwrap();
    assert_eq!(addresses(&first), addresses(&second));
    let rows = world.endpoints();
    for _ in 0..3 {
        world.del("old").unwrap();
    }
    assert_eq!(world.endpoints(), rows);
    assert_eq!(world.agent.ipam(world.now)[0].used, 1);
    world.check("new", &second).unwrap();
}

#[test]
fn an_exhausted_pool_says_what_to_do_and_leaks_nothing() {
    let mut world = World::new(Routing::Vxlan);
    // More IPv6 than IPv4 addresses: the IPv6 address of a refused ADD must go back.
    let small = NodeObject { pod_cidrs: vec!["fd00:10:1::/112".into(), "10.10.1.0/29".into()], ..node(1) };
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeListStarted);
    world.event(Event::NodeUpsert(small));
    world.event(Event::NodeListSynced);
    for n in 0..5 {
        world.add(&format!("c{n}")).unwrap();
    }
    for n in 5..9 {
        let error = world.add(&format!("c{n}")).unwrap_err();
        assert_eq!(error.code, ErrorCode::TRY_AGAIN);
        assert!(
            error.msg.contains("no IPv4 address is free") && error.msg.contains("larger pod CIDR"),
            "{}",
            error.msg
        );
        world.del(&format!("c{n}")).unwrap();
    }
    let used: Vec<u64> = world.agent.ipam(world.now).iter().map(|pool| pool.used).collect();
    assert_eq!(used, [5, 5]);
    world.status().expect("a full node still serves its pods");
}

#[test]
fn add_before_anything_is_known_is_told_to_come_again() {
    let mut world = World::new(Routing::Vxlan);
    for expected in ["Node object", "pod CIDR", "device"] {
        let error = world.add("c1").unwrap_err();
        assert_eq!(error.code, ErrorCode::TRY_AGAIN);
        assert!(error.msg.contains(expected), "{}", error.msg);
        let error = world.status().unwrap_err();
        assert_eq!(error.code, ErrorCode::UNAVAILABLE);
        assert!(error.msg.contains(expected), "{}", error.msg);
        match expected {
            "Node object" => world.event(Event::NodeUpsert(NodeObject { pod_cidrs: Vec::new(), ..node(1) })),
            "pod CIDR" => world.event(Event::NodeUpsert(node(1))),
            _ => world.event(Event::Underlay(underlay())),
        }
    }
    world.add("c1").unwrap();
    world.status().unwrap();
}

#[test]
fn a_wanted_family_without_pod_cidr_is_waited_for() {
    let mut world = World::with(Config { ipv6: FamilyMode::On, ..Config::new(OWN, Routing::Vxlan) });
    world.event(Event::Underlay(underlay()));
    world.event(Event::NodeUpsert(NodeObject { pod_cidrs: vec!["10.10.1.0/24".into()], ..node(1) }));
    let error = world.add("c1").unwrap_err();
    assert!(error.msg.contains("IPv6 pod CIDR"), "{}", error.msg);
    world.event(Event::NodeUpsert(node(1)));
    assert_eq!(world.add("c1").unwrap().ips.len(), 2);
}

#[test]
fn one_family_only() {
    let mut world = World::with(Config { ipv6: FamilyMode::Off, ..Config::new(OWN, Routing::Vxlan) });
    world.sync(2);
    let result = world.add("c1").unwrap();
    assert_eq!(addresses(&result), ["10.10.1.2/32"]);
    assert!(world.ipcache().keys().all(|prefix| prefix.addr().is_ipv4()));
    assert_eq!(world.ipcache()[&"0.0.0.0/0".parse().unwrap()].0, 2, "world is not split by family");
    assert!(world.routes().keys().all(|dst| dst.contains('.')));
}

#[test]
fn failures_of_the_node_reach_the_runtime_and_leave_nothing() {
    type Case = (&'static str, PortErrorKind, ErrorCode, &'static str);
    let cases: [Case; 5] = [
        ("create interface", PortErrorKind::NetnsGone, ErrorCode::INVALID_NETNS, "CNI_NETNS"),
        (
            "create interface",
            PortErrorKind::InterfaceExists,
            ErrorCode::INVALID_ENVIRONMENT,
            "CNI_IFNAME=eth0",
        ),
        ("create interface", PortErrorKind::Other, ErrorCode::IO_FAILURE, "agent's log"),
        ("attach from_container", PortErrorKind::Other, ErrorCode::TRY_AGAIN, "try again"),
        ("save endpoint", PortErrorKind::Other, ErrorCode::IO_FAILURE, "agent's log"),
    ];
    for (operation, kind, code, word) in cases {
        let mut world = World::ready(Routing::Vxlan, 1);
        world.faults.refuse(operation, PortError::terminal("", "injected").with_kind(kind));
        let error = world.add("c1").unwrap_err();
        assert_eq!(error.code, code, "{operation}: {}", error.msg);
        assert!(error.msg.contains(word), "{operation}: {}", error.msg);
        world.faults.accept();
        world.del("c1").unwrap();
        world.assert_outside(&[node(1)], &BTreeMap::new());
        assert_eq!(world.agent.ipam(world.now).iter().map(|pool| pool.used).sum::<u64>(), 0);
        world.add("c1").unwrap();
    }
}

#[test]
fn a_full_table_refuses_the_pod_and_is_reported() {
    let mut world = World::ready(Routing::Vxlan, 1);
    // Four rows are the node's own.
    world.maps.set_capacity(Table::Endpoints, 6);
    let first = world.add("c1").unwrap();
    let error = world.add("c2").unwrap_err();
    assert_eq!(error.code, ErrorCode::TRY_AGAIN);
    assert!(error.msg.contains("ENDPOINTS") && error.msg.contains("remove pods"), "{}", error.msg);
    world.assert_outside(&[node(1)], &BTreeMap::from([("c1".to_owned(), first)]));
    world.del("c1").unwrap();
    world.add("c2").unwrap();
}

#[test]
fn a_del_that_cannot_be_done_is_tried_on_without_the_runtime() {
    let mut world = World::ready(Routing::Vxlan, 1);
    world.add("c1").unwrap();
    world.faults.refuse("delete interface", PortError::retryable("", "busy"));
    let error = world.del("c1").unwrap_err();
    assert_eq!(error.code, ErrorCode::TRY_AGAIN);
    assert_eq!(world.endpoints().len(), 6, "as long as the link is there its rows are");
    assert_eq!(world.agent.failures().len(), 1);
    world.faults.accept();
    world.pass(Duration::from_secs(1));
    world.assert_outside(&[node(1)], &BTreeMap::new());
    world.del("c1").unwrap();
}

#[test]
fn del_overtakes_an_add_of_the_same_batch() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let added = world.request(add("c1"));
    let deleted = world.request(del("c1"));
    world.settle();
    assert_eq!(world.answer(added).unwrap().unwrap_err().code, ErrorCode::TRY_AGAIN);
    world.answer(deleted).unwrap().unwrap();
    world.assert_outside(&[node(1)], &BTreeMap::new());
}

#[test]
fn requests_of_a_batch_do_not_hide_each_other() {
    let mut world = World::ready(Routing::Vxlan, 1);
    // The list of a GC may be older than an ADD that is under way.
    let added = world.request(add("c1"));
    let collected = world.request(Operation::Gc { valid_attachments: Vec::new() });
    world.settle();
    let c1 = world.answer(added).expect("ADD is answered").unwrap().unwrap();
    world.answer(collected).expect("GC is answered").unwrap();
    world.assert_outside(&[node(1)], &BTreeMap::from([("c1".to_owned(), c1)]));
    let twice = [world.request(del("c1")), world.request(del("c1"))];
    world.settle();
    for (n, request) in twice.into_iter().enumerate() {
        world.answer(request).unwrap_or_else(|| panic!("DEL {n} is not answered")).unwrap();
    }
    world.assert_outside(&[node(1)], &BTreeMap::new());
}

#[test]
fn requests_of_a_batch_are_served_together() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let revision = world.node_config().revision;
    let requests: Vec<_> = (0..50).map(|n| world.request(add(&format!("c{n}")))).collect();
    world.reconcile();
    for request in requests {
        world.answer(request).unwrap().unwrap();
    }
    assert_eq!(world.node_config().revision, revision + 1, "one new revision for all of them");
}

#[test]
fn check_compares_with_the_result_of_add() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let result = world.add("c1").unwrap();
    world.check("c1", &result).unwrap();
    // What plugins later in the chain added does not matter.
    let mut amended = result.clone();
    amended.interfaces.push(agent_api::cni::Interface { name: "ifb0".into(), ..Default::default() });
    amended.ips.push(agent_api::cni::Ip {
        address: "192.0.2.7/24".parse().unwrap(),
        gateway: None,
        interface: Some(2),
    });
    world.check("c1", &amended).unwrap();

    let mut other_mac = result.clone();
    other_mac.interfaces[1].mac = "02:00:00:00:00:01".into();
    let mut other_address = result.clone();
    other_address.ips[0].address = "10.10.1.99/32".parse().unwrap();
    let mut no_interface = result.clone();
    no_interface.interfaces.clear();
    for wrong in [other_mac, other_address, no_interface] {
        assert_eq!(world.check("c1", &wrong).unwrap_err().code, ErrorCode::CHECK_FAILED);
    }
    assert_eq!(world.check("c2", &result).unwrap_err().code, ErrorCode::UNKNOWN_CONTAINER);

    let name = &result.interfaces[0].name;
    world.node.link_mut(name).unwrap().pod.as_mut().unwrap().addresses.remove(0);
    let error = world.check("c1", &result).unwrap_err();
    assert_eq!(error.code, ErrorCode::CHECK_FAILED);
    assert!(error.msg.contains("10.10.1.2"), "{}", error.msg);
    world.node.remove_link(name);
    assert_eq!(world.check("c1", &result).unwrap_err().code, ErrorCode::CHECK_FAILED);
}

#[test]
fn gc_frees_what_is_not_listed() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let kept = world.add("kept").unwrap();
    world.add("stale-1").unwrap();
    world.add("stale-2").unwrap();
    world.faults.refuse("delete interface lxc", PortError::retryable("", "busy"));
    let error = world.gc(&["kept"]).unwrap_err();
    assert!(error.msg.contains("busy"), "{}", error.msg);
    world.faults.accept();
    world.gc(&["kept", "never-was"]).unwrap();
    world.assert_outside(&[node(1)], &BTreeMap::from([("kept".to_owned(), kept)]));
}

#[test]
fn an_add_without_its_namespace_names_the_variable() {
    let mut world = World::ready(Routing::Vxlan, 1);
    let id = agent_control::RequestId(u64::MAX);
    world.event(Event::Cni(agent_control::CniRequest {
        id,
        received: agent_api::Timestamp::from_unix_nanos(0),
        netns: None,
        pod: None,
        operation: Operation::Add { attachment: attachment("c1"), netns: netns("c1") },
    }));
    let error = world.answer(id).unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
    assert!(error.msg.contains("CNI_NETNS"), "{}", error.msg);
}

#[test]
fn base_links_that_cannot_be_made_are_reported_and_retried() {
    let mut world = World::new(Routing::Vxlan);
    world.faults.refuse("ensure the base links", PortError::retryable("", "no such device"));
    world.sync(1);
    let error = world.add("c1").unwrap_err();
    assert_eq!(error.code, ErrorCode::TRY_AGAIN);
    assert!(error.msg.contains("no such device"), "{}", error.msg);
    let error = world.status().unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAVAILABLE);
    assert_eq!(world.agent.state().0, agent_api::AgentState::Degraded);
    world.faults.accept();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.agent.state(), (agent_api::AgentState::Ready, None));
    world.add("c1").unwrap();
    assert!(world.node.links().contains_key(DEVICE));
}
