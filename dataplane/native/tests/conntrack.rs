//! Connections: states, closing, reopening, expiry, revisions, spoofing, capacity.

mod world;

use dataplane_abi::conntrack::{Ct4, CtKey4, CtState, WayKind};
use dataplane_abi::metrics::Direction::Egress;
use dataplane_abi::{Be16, DropReason, Table};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::tables::LruTable;
use world::{A1, A2, ACK, B1, FAMILIES, FIN, Pod, RST, SYN, World, craft, outside};

/// A step of a TCP conversation between A1 (port 4000) and A2 (port 80): who sends, flags, state after it.
type Step<'a> = (&'a Pod, u8, CtState);

fn converse(world: &World, family: u8, steps: &[Step<'_>]) {
    for (at, (sender, flags, state)) in steps.iter().enumerate() {
        let from_a1 = sender.id == A1.id;
        let (to, sport, dport) = if from_a1 { (&A2, 4000, 80) } else { (&A1, 80, 4000) };
        let bytes = craft(sender, to.ip(family)).tcp(sport, dport, *flags, b"");
        let (verdict, _) = world.pod_sends(sender, &bytes);
        assert_eq!(verdict, Verdict::Peer { ifindex: to.ifindex }, "step {at}");
        let entry = world.ct(A1.ip(family), A2.ip(family), 4000, 80, 6).expect("a row");
        assert_eq!(CtState::from_number(entry.state), Some(*state), "step {at}");
    }
}

#[test]
fn tcp_lives_through_its_states() {
    use CtState::{Closing, Established, Syn};
    let conversations: [&[Step<'_>]; 5] = [
        // Handshake, data, orderly close by both; late packets change nothing; then it is begun again.
        &[
            (&A1, SYN, Syn),
            (&A2, SYN | ACK, Syn),
            (&A1, ACK, Established),
            (&A1, FIN | ACK, Established),
            (&A2, ACK, Established),
            (&A2, FIN | ACK, Closing),
            (&A1, ACK, Closing),
            (&A1, SYN, Syn),
        ],
        // Refused.
        &[(&A1, SYN, Syn), (&A2, RST | ACK, Closing), (&A1, SYN, Syn)],
        // Aborted by the one who began.
        &[(&A1, SYN, Syn), (&A2, SYN | ACK, Syn), (&A1, ACK, Established), (&A1, RST, Closing)],
        // Known from its middle on, as after a restart with an empty table.
        &[(&A1, ACK, Established), (&A2, ACK, Established)],
        // A second SYN while it lives is no new connection.
        &[
            (&A1, SYN, Syn),
            (&A1, SYN, Syn),
            (&A2, SYN | ACK, Syn),
            (&A1, ACK, Established),
            (&A1, SYN, Established),
        ],
    ];
    for family in FAMILIES {
        for steps in conversations {
            converse(&World::vxlan(), family, steps);
        }
    }
}

#[test]
fn the_other_end_may_begin_again_with_the_same_ports() {
    for family in FAMILIES {
        let world = World::vxlan();
        converse(
            &world,
            family,
            &[(&A1, SYN, CtState::Syn), (&A2, RST, CtState::Closing), (&A2, SYN, CtState::Syn)],
        );
        let entry = world.ct(A1.ip(family), A2.ip(family), 4000, 80, 6).expect("a row");
        assert_eq!(entry.dirs[0].identity.0, A2.identity, "now A2 is the one who began");
        assert_eq!(entry.dirs.map(|d| d.packets), [1, 0]);
    }
}

#[test]
fn silence_ends_connections_by_their_state() {
    // Flags of the only packet (none: UDP), seconds of silence, whether the connection goes on.
    for (flags, seconds, goes_on) in [
        (Some(SYN), 59, true),
        (Some(SYN), 62, false),
        (Some(ACK), 7990, true),
        (Some(ACK), 8002, false),
        (Some(RST), 9, true),
        (Some(RST), 12, false),
        (None, 59, true),
        (None, 62, false),
    ] {
        let world = World::vxlan();
        let proto = if flags.is_some() { 6 } else { 17 };
        let send = |pod: &Pod| {
            let (to, sport, dport) = if pod.id == A1.id { (&A2, 7, 8) } else { (&A1, 8, 7) };
            let craft = craft(pod, to.v4);
            let bytes = flags
                .map_or_else(|| craft.udp(sport, dport, b""), |flags| craft.tcp(sport, dport, flags, b""));
            assert_eq!(world.pod_sends(pod, &bytes).0, Verdict::Peer { ifindex: to.ifindex });
        };
        send(&A1);
        world.seconds(seconds);
        // If the connection is over, the other end's packet begins a new one.
        send(&A2);
        let entry = world.ct(A1.v4, A2.v4, 7, 8, proto).expect("a row");
        let began = if goes_on { A1 } else { A2 };
        assert_eq!(entry.dirs[0].identity.0, began.identity, "{flags:?} after {seconds} s");
        assert_eq!(entry.dirs.map(|d| d.packets), if goes_on { [1, 1] } else { [1, 0] });
    }
}

#[test]
fn a_slow_connection_lives_as_long_as_its_packets_come() {
    // Longer than the time without a closer look at the row, shorter than the timeout of UDP.
    for seconds in [5, 11, 30, 55] {
        let world = World::vxlan();
        for packet in 0..12 {
            let (pod, to, sport, dport) = if packet % 3 == 0 { (A1, A2, 7, 8) } else { (A2, A1, 8, 7) };
            let sent = craft(&pod, to.v4).udp(sport, dport, b"");
            assert_eq!(world.pod_sends(&pod, &sent).0, Verdict::Peer { ifindex: to.ifindex });
            world.seconds(seconds);
        }
        let entry = world.ct(A1.v4, A2.v4, 7, 8, 17).expect("a row");
        assert_eq!(entry.dirs.map(|d| d.packets), [4, 8], "one connection with {seconds} s between packets");
        let now = u32::try_from(world.native.clock().ticks & u64::from(u32::MAX)).expect("32 bits");
        assert!(!entry.is_expired(now, world::HZ), "the agent keeps it with {seconds} s between packets");
    }
}

#[test]
fn a_new_revision_is_judged_again_and_keeps_the_counters() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let bytes = craft(&A1, A2.ip(family)).udp(7, 8, b"");
        assert_eq!(world.pod_sends(&A1, &bytes).0, Verdict::Peer { ifindex: A2.ifindex });
        // A2 is gone and its address belongs to another pod with another device.
        let next = Pod { ifindex: 77, id: 177, identity: 4242, mac: [6; 6], ..A2 };
        world.endpoint(A2.ip(family), Some(&next));
        assert_eq!(world.pod_sends(&A1, &bytes).0, Verdict::Peer { ifindex: A2.ifindex }, "not told yet");
        world.revise();
        let (verdict, frame) = world.pod_sends(&A1, &bytes);
        assert_eq!(verdict, Verdict::Peer { ifindex: 77 });
        assert_eq!(frame.bytes[..6], [6; 6]);
        let entry = world.ct(A1.ip(family), A2.ip(family), 7, 8, 17).expect("a row");
        assert_eq!(entry.dirs[0].packets, 3);
        assert_eq!(entry.dirs[1].identity.0, 4242);
        assert_eq!(entry.dirs.map(|d| d.revision), [2, 2]);
    }
}

#[test]
fn pods_may_not_pretend() {
    for family in FAMILIES {
        let world = World::vxlan();
        let genuine = craft(&A1, B1.ip(family)).udp(7, 8, b"");
        assert!(matches!(world.pod_sends(&A1, &genuine).0, Verdict::Tunnel { .. }));
        let not_mine = Verdict::Drop(DropReason::InvalidSourceIp);
        // Another pod injects into A1's connection, with and without A1's MAC.
        assert_eq!(world.pod_sends(&A2, &genuine).0, not_mine);
        let injected = Craft::new(A1.ip(family), B1.ip(family)).macs(A2.mac, A2.gateway).udp(7, 8, b"");
        assert_eq!(world.pod_sends(&A2, &injected).0, not_mine);
        // Addresses that are nobody's, the node's, and a MAC that is not the pod's.
        for src in [outside(family), world::node_ip(1, family), B1.ip(family)] {
            let bytes = Craft::new(src, A2.ip(family)).macs(A1.mac, A1.gateway).udp(7, 8, b"");
            assert_eq!(world.pod_sends(&A1, &bytes).0, not_mine);
        }
        let bytes = Craft::new(A1.ip(family), A2.ip(family)).macs([9; 6], A1.gateway).udp(7, 9, b"");
        assert_eq!(world.pod_sends(&A1, &bytes).0, not_mine);
        assert_eq!(world.counters(), [(0, Egress, 1), (132, Egress, 6)]);
        let entry = world.ct(A1.ip(family), B1.ip(family), 7, 8, 17).expect("a row");
        assert_eq!(entry.dirs[0].packets, 1, "what was dropped is not of the connection");
    }
}

#[test]
fn echo_in_both_directions_with_one_identifier_is_two_connections() {
    for family in FAMILIES {
        let world = World::vxlan();
        let proto = if family == 4 { 1 } else { 58 };
        let (a, b) = (A1.ip(family), A2.ip(family));
        for (pod, dst) in [(&A1, b), (&A2, a)] {
            let (verdict, _) = world.pod_sends(pod, &craft(pod, dst).echo(true, 5, 1, b""));
            assert!(matches!(verdict, Verdict::Peer { .. }));
        }
        let (verdict, _) = world.pod_sends(&A2, &craft(&A2, a).echo(false, 5, 1, b""));
        assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
        let there = world.ct(a, b, 5, 0, proto).expect("a row");
        let back = world.ct(a, b, 0, 5, proto).expect("another row");
        assert_eq!(there.dirs.map(|d| d.packets), [1, 1]);
        assert_eq!(back.dirs.map(|d| d.packets), [1, 0]);
    }
}

#[test]
fn a_full_table_forgets_the_idle_and_keeps_the_busy() {
    let mut world = World::vxlan();
    *world.native.tables_mut().ct4.get_mut() = LruTable::<Ct4>::new(64);
    let send = |world: &World, port| world.pod_sends(&A1, &craft(&A1, A2.v4).udp(port, 53, b"")).0;
    for port in 1..=500 {
        assert_eq!(send(&world, port), Verdict::Peer { ifindex: A2.ifindex });
        assert_eq!(send(&world, 1), Verdict::Peer { ifindex: A2.ifindex });
    }
    let rows = world.native.tables().ct4.borrow();
    // Rows go in batches, so a table is seldom quite full.
    assert!((48..=64).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(rows.evicted(), 500 - rows.len() as u64);
    let (busy, _) = CtKey4::of_packet([10, 1, 1, 11], [10, 1, 1, 12], Be16::new(1), Be16::new(53), 17);
    assert_eq!(rows.peek(&busy).map(|row| row.dirs[0].packets), Some(501));
    assert_eq!(Ct4::SPEC.name, "CT4");
}

#[test]
fn without_any_room_a_new_connection_is_dropped() {
    let mut world = World::vxlan();
    *world.native.tables_mut().ct4.get_mut() = LruTable::<Ct4>::new(0);
    let (verdict, _) = world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b""));
    assert_eq!(verdict, Verdict::Drop(DropReason::CtCreateFailed));
    assert_eq!(world.counters(), [(155, Egress, 1)]);
}

#[test]
fn connections_that_find_no_place_are_dropped_and_known_ones_go_on() {
    for (family, table) in [(4, "CT4"), (6, "CT6")] {
        let mut world = World::vxlan();
        let send =
            |world: &World, port| world.pod_sends(&A1, &craft(&A1, A2.ip(family)).udp(port, 53, b"")).0;
        let forwarded = Verdict::Peer { ifindex: A2.ifindex };
        assert_eq!(send(&world, 1), forwarded);
        assert!(world.native.tables_mut().refuse_creates(table, 2));
        assert_eq!(send(&world, 1), forwarded);
        assert_eq!(send(&world, 2), Verdict::Drop(DropReason::CtCreateFailed));
        assert_eq!(send(&world, 3), Verdict::Drop(DropReason::CtCreateFailed));
        assert_eq!(send(&world, 2), forwarded);
        assert_eq!(world.counters(), [(0, Egress, 3), (155, Egress, 2)]);
        assert!(!world.native.tables_mut().refuse_creates("ENDPOINTS", 1), "it does not forget");
    }
}

#[test]
fn the_way_back_is_known_from_the_first_packet_on() {
    for family in FAMILIES {
        let world = World::vxlan();
        world.forwards(&A1, &craft(&A1, B1.ip(family)).udp(7, 8, b""));
        let entry = world.ct(A1.ip(family), B1.ip(family), 7, 8, 17).expect("a row");
        assert_eq!(entry.dirs[1].way.kind, WayKind::Local as u8);
        assert_eq!(entry.dirs[1].way.ifindex, A1.ifindex);
        assert_eq!(entry.dirs.map(|d| d.revision), [1, 1]);
    }
}
