//! What clients get of servers when nothing is wrong.

use std::time::Duration;

use rstest::rstest;
use sim_net::{ClientKind, ClientSpec, Server, ServerKind};

use crate::world::{A, B, Family, World, client, gateway, pod, underlay};

#[rstest]
fn everybody_is_answered(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho)] kind: ClientKind,
    #[values(0, 100, 1400, 9000, 60_000)] size: u16,
) {
    let mut world = World::new();
    let report = world.outcome(ClientSpec { size, ..client(kind, pod(B, family)) });
    assert_eq!((report.sent, report.answered, report.finished), (3, 3, true), "{:#?}", world.lines());
    assert_eq!((report.resets, report.refused, report.too_big), (0, 0, 0));
    assert!(report.round_trips >= Duration::from_micros(300), "{report:?}");
    assert!(world.drops.is_empty(), "{:?}", world.drops);
}

#[rstest]
fn what_is_too_long_goes_in_fragments(#[values(Family::V4, Family::V6)] family: Family) {
    let mut world = World::new();
    world.outcome(ClientSpec { size: 4000, count: 1, ..client(ClientKind::UdpEcho, pod(B, family)) });
    let fragments = world.lines().iter().filter(|line| line.contains("fragment at")).count();
    // Three pieces, over three links, there and back.
    assert_eq!(fragments, 18, "{:#?}", world.lines());
    assert!(world.trace.iter().all(|(_, frame)| frame.bytes.len() <= 1514));
}

#[rstest]
#[case::own_pod(|family| pod(A, family))]
#[case::other_pod(|family| pod(B, family))]
#[case::other_node(|family| underlay(B, family))]
#[case::other_router(|family| gateway(B, family))]
#[case::itself(|family| underlay(A, family))]
fn a_node_is_answered_too(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho)] kind: ClientKind,
    #[case] to: fn(Family) -> std::net::IpAddr,
) {
    let mut world = World::new();
    for node in &mut world.nodes {
        node.serve(Server { kind: ServerKind::Http, port: 80 });
        node.serve(Server { kind: ServerKind::TcpEcho, port: 7 });
        node.serve(Server { kind: ServerKind::UdpEcho, port: 7 });
    }
    let id = world.nodes[A].start(world.now, ClientSpec { size: 3000, ..client(kind, to(family)) });
    world.pass(Duration::from_secs(10));
    let report = world.nodes[A].client(id).unwrap();
    assert_eq!((report.sent, report.answered), (3, 3), "{:#?}", world.lines());
}

#[rstest]
fn answers_over_http_say_who_gave_them_and_to_whom(#[values(Family::V4, Family::V6)] family: Family) {
    let mut world = World::new();
    let report = world.outcome(client(ClientKind::Http, pod(B, family)));
    assert_eq!(report.answers, [((pod(B, family), pod(A, family)), 3)].into());
}

#[test]
fn a_server_that_fails_answers_nobody_and_a_closed_one_refuses() {
    let mut world = World::new();
    let ask = |world: &mut World| {
        let id = world.nodes[A].start(world.now, client(ClientKind::Http, underlay(B, Family::V4)));
        world.pass(Duration::from_secs(10));
        let report = world.nodes[A].client(id).unwrap();
        (report.answered, report.resets)
    };
    world.nodes[B].serve(Server { kind: ServerKind::HttpFails, port: 80 });
    assert_eq!(ask(&mut world), (0, 0));
    world.nodes[B].serve(Server { kind: ServerKind::Http, port: 80 });
    assert_eq!(ask(&mut world), (3, 0));
    world.nodes[B].close(80);
    assert_eq!(ask(&mut world), (0, 3));
}

#[test]
fn a_handshake_as_a_trace_shows_it() {
    let mut world = World::new();
    let report =
        world.outcome(ClientSpec { count: 1, size: 0, ..client(ClientKind::Http, pod(B, Family::V4)) });
    let port = report.local_port.unwrap();
    let on_the_wire: Vec<String> =
        world.lines().into_iter().skip_while(|line| !line.contains("SYN")).collect();
    assert_eq!(on_the_wire[0], format!("10.11.0.5:{port} → 10.11.1.5:80 TCP SYN"));
    let resets = on_the_wire.iter().filter(|line| line.contains("RST")).count();
    let fins = on_the_wire.iter().filter(|line| line.contains("FIN")).count();
    // Each side's end is on three links.
    assert_eq!((resets, fins), (0, 6), "{on_the_wire:#?}");
}

#[test]
fn many_connections_at_once() {
    let mut world = World::new();
    let spec = ClientSpec { count: 20, size: 5000, ..client(ClientKind::Http, pod(B, Family::V4)) };
    let clients: Vec<_> = (0..50).map(|_| world.start(spec)).collect();
    world.pass(Duration::from_millis(50));
    let mut ports: Vec<_> = clients.iter().map(|id| world.report(*id).local_port.unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
    assert!(ports.iter().all(|port| (32_768..=60_999).contains(port)));
    world.pass(Duration::from_secs(30));
    for id in clients {
        let report = world.report(id);
        assert_eq!((report.sent, report.answered, report.finished), (20, 20, true));
    }
}

#[rstest]
fn who_is_stopped_says_no_more(
    #[values(ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho)] kind: ClientKind,
) {
    let mut world = World::new();
    let id = world.start(ClientSpec { count: 0, ..client(kind, pod(B, Family::V4)) });
    world.pass(Duration::from_secs(5));
    let before = world.report(id);
    assert!(before.answered >= 49 && !before.finished, "{before:?}");
    world.hosts[A].stop(id);
    world.pass(Duration::from_secs(30));
    let after = world.report(id);
    assert_eq!((after.sent, after.finished), (before.sent, true));
    let frames = world.trace.len();
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.trace.len(), frames);
}

#[test]
fn who_is_idle_is_never_due() {
    let mut world = World::new();
    for kind in [ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho] {
        assert!(world.outcome(client(kind, pod(B, Family::V6))).finished);
    }
    world.pass(Duration::from_secs(100));
    let (now, polls) = (world.now, world.polls);
    assert!(world.hosts.iter_mut().all(|host| host.next_poll(now).is_none()));
    assert!(world.nodes.iter_mut().all(|node| node.next_poll(now).is_none()));
    world.pass(Duration::from_secs(100));
    assert_eq!(world.polls, polls);
    assert!(size_of::<sim_net::Host>() < 1024, "{}", size_of::<sim_net::Host>());
}

#[test]
fn polls_are_few() {
    let mut world = World::new();
    world.outcome(ClientSpec { count: 10, ..client(ClientKind::Ping, pod(B, Family::V4)) });
    // Ten requests, ten answers, each seen once on either side, and the neighbours before.
    assert!(world.polls <= 36, "{}", world.polls);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut world = World::with_seed(seed);
        for kind in [ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho] {
            world.start(ClientSpec { size: 2000, ..client(kind, pod(B, Family::V4)) });
            world.start(ClientSpec { size: 2000, ..client(kind, pod(B, Family::V6)) });
        }
        world.pass(Duration::from_secs(20));
        world.trace
    };
    let first = run(1);
    assert!(first.len() > 100);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
}

#[test]
fn a_packet_keeps_its_id_from_end_to_end() {
    let mut world = World::new();
    world.outcome(ClientSpec { count: 1, ..client(ClientKind::Ping, pod(B, Family::V4)) });
    let ids: Vec<_> = world
        .trace
        .iter()
        .zip(world.lines())
        .filter(|(_, line)| line.contains("echo request"))
        .map(|((_, frame), _)| frame.id)
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]));
}
