//! What clients are told when something is wrong.

use std::time::Duration;

use rstest::rstest;
use sim_net::{ClientKind, ClientSpec, StackDrop};

use crate::craft::{Craft, judge, sent};
use crate::world::{
    A, B, Family, POD, UNDERLAY, World, client, host, ids, ip, links, node_mac, pod, pod_mac, route, routes,
    underlay,
};

/// Nobody's address, in the way of a test.
fn elsewhere(family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => ip("203.0.113.9"),
        Family::V6 => ip("2001:db8::9"),
    }
}

#[rstest]
#[case::a_loop(&["203.0.113.0/24", "2001:db8::/32"], StackDrop::HopLimit, "time exceeded")]
#[case::no_route(&[], StackDrop::NoRoute, "no route")]
fn who_asks_nobody_is_refused(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(ClientKind::Ping, ClientKind::Http, ClientKind::TcpEcho, ClientKind::UdpEcho)] kind: ClientKind,
    #[case] looped: &[&str],
    #[case] why: StackDrop,
    #[case] says: &str,
) {
    let mut world = World::new();
    for number in [A, B] {
        let other = |net: &str| {
            let family = if net.contains(':') { Family::V6 } else { Family::V4 };
            route(net, Some(underlay(1 - number, family)), UNDERLAY)
        };
        let mut all = routes(number);
        all.extend(looped.iter().copied().map(other));
        world.nodes[number].set_routes(all);
    }
    let report = world.outcome(client(kind, elsewhere(family)));
    // The echo over TCP ends with its connection.
    let tries = if kind == ClientKind::TcpEcho { 1 } else { 3 };
    assert_eq!((report.sent, report.refused, report.answered), (tries, tries, 0), "{report:?}");
    assert!(report.finished);
    assert_eq!(world.drops, vec![why; tries as usize]);
    assert!(world.lines().iter().any(|line| line.ends_with(says)), "{:#?}", world.lines());
}

#[rstest]
fn a_closed_port_is_told(#[values(Family::V4, Family::V6)] family: Family) {
    let mut world = World::new();
    let mut outcome = |kind| world.outcome(ClientSpec { port: 9, ..client(kind, pod(B, family)) });
    let report = outcome(ClientKind::UdpEcho);
    assert_eq!((report.sent, report.refused, report.resets), (3, 3, 0));
    let report = outcome(ClientKind::Http);
    assert_eq!((report.sent, report.refused, report.resets), (3, 0, 3));
    let report = outcome(ClientKind::TcpEcho);
    assert_eq!((report.sent, report.refused, report.resets, report.finished), (1, 0, 1, true));
}

#[rstest]
fn a_silent_neighbour_is_told_after_three_questions(#[values(Family::V4, Family::V6)] family: Family) {
    let mut world = World::new();
    let to = match family {
        Family::V4 => ip("192.168.0.77"),
        Family::V6 => ip("fd00::77"),
    };
    let report =
        world.outcome(ClientSpec { timeout: Duration::from_secs(5), ..client(ClientKind::Ping, to) });
    assert_eq!((report.sent, report.refused), (3, 3));
    let given_up: Vec<_> = world.drops.iter().filter(|why| **why != StackDrop::NotForUs).collect();
    assert_eq!(given_up, [&StackDrop::NoNeighbour; 3]);
    let questions: Vec<_> = world
        .trace
        .iter()
        .zip(world.lines())
        .filter(|(_, line)| line.contains("has 192.168.0.77") || line.contains("→ ff02::1:ff00:77 "))
        .map(|((at, _), _)| *at)
        .collect();
    assert_eq!(questions.len(), 3, "{:#?}", world.lines());
    assert_eq!(questions[1], questions[0] + Duration::from_secs(1));
    assert_eq!(questions[2], questions[1] + Duration::from_secs(1));
}

/// A world in which the underlay takes less than the pods send.
fn narrow() -> World {
    let mut world = World::new();
    for number in [A, B] {
        let mut underlay = links(number, 1400).swap_remove(0);
        assert_eq!(underlay.ifindex, UNDERLAY);
        underlay.mtu = 1400;
        world.nodes[number].set_link(underlay);
    }
    world
}

#[rstest]
fn what_is_too_big_is_told_once_and_then_smaller(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(ClientKind::Ping, ClientKind::UdpEcho)] kind: ClientKind,
) {
    let mut world = narrow();
    let report = world.outcome(ClientSpec { size: 1420, ..client(kind, pod(B, family)) });
    // One is lost on the way there, one answer on the way back; the third goes in fragments.
    assert_eq!(
        (report.sent, report.answered, report.too_big, report.refused),
        (3, 1, 1, 0),
        "{:#?}",
        world.lines()
    );
    assert_eq!(world.drops, [StackDrop::TooBig; 2]);
}

#[rstest]
fn tcp_finds_its_size(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(ClientKind::Http, ClientKind::TcpEcho)] kind: ClientKind,
) {
    let mut world = narrow();
    let report = world.outcome(ClientSpec {
        size: 9000,
        timeout: Duration::from_secs(9),
        ..client(kind, pod(B, family))
    });
    assert_eq!((report.sent, report.answered, report.resets), (3, 3, 0), "{report:?}");
    assert!(world.drops.contains(&StackDrop::TooBig));
    for (_, frame) in &world.trace {
        judge(frame).unwrap();
    }
}

/// Fragments of IPv4 may be cut again by a router; those of IPv6 may not.
#[rstest]
#[case(Family::V4, 3, 0)]
#[case(Family::V6, 1, 3)]
fn routers_cut_what_they_may(#[case] family: Family, #[case] answered: u32, #[case] too_big: u32) {
    let mut world = narrow();
    let report = world.outcome(ClientSpec { size: 4000, ..client(ClientKind::UdpEcho, pod(B, family)) });
    assert_eq!((report.sent, report.answered), (3, answered), "{:#?}", world.lines());
    // Only first fragments are told of.
    assert!(report.too_big <= too_big);
}

#[rstest]
fn tcp_survives_loss(
    #[values(ClientKind::Http, ClientKind::TcpEcho)] kind: ClientKind,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut world = World::new();
    let mut count = 0;
    world.passes = Box::new(move |_, _| {
        count += 1;
        count % 23 != 0
    });
    let spec =
        ClientSpec { count: 5, size: 6000, timeout: Duration::from_secs(60), ..client(kind, pod(B, family)) };
    let id = world.start(spec);
    world.pass(Duration::from_secs(600));
    let report = world.report(id);
    assert_eq!((report.sent, report.answered, report.resets), (5, 5, 0), "{report:?}");
}

#[test]
fn lost_datagrams_are_counted_by_what_is_missing() {
    let mut world = World::new();
    world.outcome(client(ClientKind::UdpEcho, pod(B, Family::V4)));
    let mut count = 0;
    world.passes = Box::new(move |_, _| {
        count += 1;
        count % 12 != 0
    });
    // A datagram and its echo take six links: every second one is lost.
    let report = world.outcome(ClientSpec { count: 10, ..client(ClientKind::UdpEcho, pod(B, Family::V4)) });
    assert_eq!(
        (report.sent, report.answered, report.refused, report.finished),
        (10, 5, 0, true),
        "{report:?}"
    );
}

#[test]
fn a_segment_that_is_late_is_lost_but_the_connection_goes_on() {
    let mut world = World::new();
    let dark = Duration::from_secs(1)..Duration::from_secs(4);
    world.passes = Box::new(move |now, _| !dark.contains(&now));
    let spec = ClientSpec {
        count: 100,
        timeout: Duration::from_secs(1),
        ..client(ClientKind::TcpEcho, pod(B, Family::V4))
    };
    let report = world.outcome(spec);
    assert_eq!((report.sent, report.resets, report.finished), (100, 0, true));
    assert!((90..=98).contains(&report.answered), "{report:?}");
    let opened = world.lines().iter().filter(|line| line.ends_with("TCP SYN")).count();
    assert_eq!(opened, 3, "one connection, seen on three links");
}

#[test]
fn a_host_that_forgot_its_connections_resets_them() {
    let mut world = World::new();
    let id = world.start(ClientSpec { count: 0, ..client(ClientKind::TcpEcho, pod(B, Family::V4)) });
    world.pass(Duration::from_secs(2));
    assert!(!world.report(id).finished);
    world.hosts[B] = host(B, 9);
    world.pass(Duration::from_secs(2));
    let report = world.report(id);
    assert_eq!((report.resets, report.finished), (1, true));
}

#[test]
fn a_host_without_a_way_out_refuses_itself() {
    let mut world = World::new();
    world.nodes[A].set_routes(vec![route("10.11.0.5/32", None, POD)]);
    let id = world.nodes[A].start(world.now, client(ClientKind::Http, pod(B, Family::V4)));
    world.pass(Duration::from_secs(5));
    let report = world.nodes[A].client(id).unwrap();
    assert_eq!((report.sent, report.refused, report.finished), (3, 3, true));
}

#[rstest]
#[case::of_the_header(24, StackDrop::BadChecksum, Family::V4)]
#[case::of_the_datagram_v4(14 + 20 + 8, StackDrop::BadChecksum, Family::V4)]
#[case::of_the_datagram_v6(14 + 40 + 8, StackDrop::BadChecksum, Family::V6)]
#[case::a_length(17, StackDrop::Malformed, Family::V4)]
#[case::another_mac(5, StackDrop::NotForUs, Family::V4)]
#[case::our_own_source(14 + 15, StackDrop::Martian, Family::V4)]
fn a_spoilt_packet_ends(#[case] at: usize, #[case] why: StackDrop, #[case] family: Family) {
    let mut node = crate::world::node(A, 1);
    let craft = Craft::new(node_mac(A, UNDERLAY), underlay(B, family), underlay(A, family));
    let mut frame = craft.udp((5, 7), b"something");
    match why {
        StackDrop::Martian => {
            frame = Craft { source: underlay(A, family), ..craft }.udp((5, 7), b"something");
        }
        StackDrop::Malformed => frame.bytes[at] = 0xFF,
        _ => frame.bytes[at] ^= 0x01,
    }
    let actions = node.receive(Duration::ZERO, UNDERLAY, frame.clone(), false, &mut ids(&mut 0));
    assert_eq!(actions, [sim_net::Action::Dropped { frame, why }]);
    assert!(sent(&actions).is_empty());
}

#[test]
fn what_a_program_accepts_is_for_the_node() {
    let mut node = crate::world::node(A, 1);
    let frame =
        Craft::new([2, 7, 7, 7, 7, 7], underlay(B, Family::V4), underlay(A, Family::V4)).udp((5, 7), b"");
    let refused = node.receive(Duration::ZERO, UNDERLAY, frame.clone(), false, &mut ids(&mut 0));
    assert!(matches!(refused[..], [sim_net::Action::Dropped { why: StackDrop::NotForUs, .. }]));
    let accepted = node.receive(Duration::ZERO, UNDERLAY, frame, true, &mut ids(&mut 0));
    assert!(matches!(accepted[0], sim_net::Action::Dropped { why: StackDrop::NoSocket, .. }), "{accepted:?}");
}

#[rstest]
#[case::silent_for_hours(Duration::from_secs(3 * 3600), None)]
#[case::cut_off_for_minutes(Duration::from_millis(100), Some(Duration::from_secs(300)))]
fn an_open_connection_stays(#[case] interval: Duration, #[case] dark: Option<Duration>) {
    let mut world = World::new();
    let timeout = Duration::from_secs(1000);
    let spec = ClientSpec { count: 5, interval, timeout, ..client(ClientKind::TcpEcho, pod(B, Family::V4)) };
    let from = Duration::from_millis(150);
    world.passes = Box::new(move |now, _| dark.is_none_or(|dark| !(from..from + dark).contains(&now)));
    let id = world.start(spec);
    world.pass(Duration::from_secs(24 * 3600));
    let report = world.report(id);
    assert_eq!((report.sent, report.answered, report.resets), (5, 5, 0), "{report:?}");
    let opened = world.lines().iter().filter(|line| line.ends_with("TCP SYN")).count();
    assert_eq!(opened, 3, "one connection, seen on three links");
}

/// Neither a half open connection, nor one that waits for an end, nor one with data in flight keeps a server busy for ever.
#[rstest]
#[case::half_open("SYN+ACK", ClientKind::Http, 70)]
#[case::half_closed("FIN+ACK", ClientKind::Http, 130)]
#[case::in_the_middle("PSH+ACK", ClientKind::TcpEcho, 1000)]
fn who_went_away_is_forgotten(#[case] last: &'static str, #[case] kind: ClientKind, #[case] seconds: u64) {
    let mut world = World::new();
    // From the moment that the server says this, the client hears and says nothing more.
    let mut gone = false;
    world.passes = Box::new(move |_, summary| {
        let line = summary.to_string();
        gone |= line.starts_with("10.11.1.5:") && line.contains(last);
        !gone
    });
    let id = world.start(ClientSpec { count: 1, size: 300, ..client(kind, pod(B, Family::V4)) });
    world.pass(Duration::from_secs(2));
    assert!(world.lines().iter().any(|line| line.contains(last)), "{:#?}", world.lines());
    world.hosts[A].stop(id);
    world.pass(Duration::from_secs(seconds));
    let now = world.now;
    assert_eq!(world.hosts[B].next_poll(now), None);
}

/// The last segment, with the end of the stream, comes before the one that was lost, and again with it.
#[test]
fn an_end_that_comes_early_is_not_lost() {
    let mut world = World::new();
    let mut seen = 0;
    world.passes = Box::new(move |_, summary| {
        let first = summary.to_string().ends_with("ACK 1460 bytes");
        seen += u32::from(first);
        // On the last of three links, the first time.
        !(first && seen == 3)
    });
    let report =
        world.outcome(ClientSpec { count: 1, size: 2000, ..client(ClientKind::Http, pod(B, Family::V4)) });
    assert_eq!((report.answered, report.resets), (1, 0), "{:#?}", world.lines());
    assert!(report.round_trips < Duration::from_millis(1500), "one retransmission is enough: {report:?}");
}

#[rstest]
#[case::from_whom_it_was_asked(pod(B, Family::V4), 7, 1)]
#[case::from_another_address(pod(1 - B, Family::V4), 7, 0)]
#[case::from_another_port(pod(B, Family::V4), 8, 0)]
fn only_the_one_who_was_asked_can_answer(
    #[case] from: std::net::IpAddr,
    #[case] port: u16,
    #[case] answered: u32,
) {
    let mut asker = host(7, 1);
    let to = pod(7, Family::V4);
    let id = asker
        .start(Duration::ZERO, ClientSpec { size: 4, ..client(ClientKind::UdpEcho, pod(B, Family::V4)) });
    asker.poll(Duration::ZERO, &mut ids(&mut 0));
    let local = asker.client(id).unwrap().local_port.unwrap();
    asker.receive(Craft::new(pod_mac(7), from, to).udp((port, local), &1_u32.to_be_bytes()));
    asker.poll(Duration::from_millis(1), &mut ids(&mut 0));
    assert_eq!(asker.client(id).unwrap().answered, answered);
}

#[test]
fn an_answer_counts_once_and_only_whole() {
    let mut asker = host(7, 1);
    let spec = ClientSpec { size: 8, ..client(ClientKind::UdpEcho, pod(B, Family::V4)) };
    let id = asker.start(Duration::ZERO, spec);
    asker.poll(Duration::ZERO, &mut ids(&mut 0));
    let local = asker.client(id).unwrap().local_port.unwrap();
    let craft = Craft::new(pod_mac(7), pod(B, Family::V4), pod(7, Family::V4));
    let whole = [0, 0, 0, 1, 4, 5, 6, 7];
    let mut answered = |milliseconds, data: &[u8]| {
        asker.receive(craft.udp((7, local), data));
        asker.poll(Duration::from_millis(milliseconds), &mut ids(&mut 0));
        asker.client(id).unwrap().answered
    };
    assert_eq!(answered(1, &whole[..7]), 0, "cut short");
    assert_eq!(answered(1, &[0, 0, 0, 1, 4, 5, 6, 9]), 0, "changed");
    assert_eq!(answered(1, &[0, 0, 0, 2, 4, 5, 6, 7]), 0, "not asked yet");
    assert_eq!(answered(1, &whole), 1);
    assert_eq!(answered(1, &whole), 1, "repeated");
    assert_eq!(answered(150, &whole), 1, "repeated, when the second has been asked");
    assert_eq!(answered(2150, &[0, 0, 0, 2, 4, 5, 6, 7]), 1, "too late");
}
