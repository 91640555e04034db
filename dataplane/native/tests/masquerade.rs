//! Masquerade: frames of pods to the world and their answers, through the programs that they meet, with rows and bytes.

mod world;

use std::net::IpAddr;

use dataplane_abi::config::Routing;
use dataplane_abi::conntrack::{
    CtKey4, CtKey6, CtScope, CtState, Leaves, TIMEOUT_ANY_S, TIMEOUT_TCP_CLOSE_S,
};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::nat::{NatEntry, NatFlags};
use dataplane_abi::no_masquerade::NoMasqueradeEntry;
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, Be16, DropReason, Identity};
use dataplane_core::Verdict;
use dataplane_native::craft::{Craft, checksums_are_right};
use world::{
    A1, A2, ACK, B1, FAMILIES, MASQUERADE, Pod, RST, SYN, SYN_ACK, TCP, UDP, UNDERLAY, World, craft, node_ip,
    outside,
};

const MODES: [Routing; 2] = [Routing::Vxlan, Routing::Native];
/// A port that masqueraded connections may leave by.
const PORT: u16 = 40_000;

fn world(routing: Routing) -> World {
    let mut world = World::node(1, routing);
    world.config.flags |= MASQUERADE;
    world.config.snat_port_min = 32_768;
    world.config.snat_port_max = 65_535;
    world.write_config();
    world
}

/// What a pod sends, on the wire: the pod's program, the stack's routes, the device's.
fn leaves(world: &World, pod: &Pod, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    match world.pod_sends(pod, bytes) {
        (Verdict::Pass | Verdict::Neighbour { .. }, frame) => to_wire(world, &frame.bytes),
        (Verdict::Drop(reason), _) => Err(reason),
        (verdict, _) => panic!("{verdict:?}"),
    }
}

/// What the node's stack sends out of the device.
fn to_wire(world: &World, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    match world.run(Program::ToNetdev, bytes, UNDERLAY) {
        (Verdict::Pass | Verdict::Skip, frame) => Ok(frame.bytes),
        (Verdict::Drop(reason), _) => Err(reason),
        (verdict, _) => panic!("{verdict:?}"),
    }
}

/// What comes from the wire: the pod that gets it, or none if the node's stack does.
fn comes(world: &World, bytes: &[u8]) -> (Option<u32>, Vec<u8>) {
    match world.run(Program::FromNetdev, bytes, UNDERLAY) {
        (Verdict::Peer { ifindex }, frame) => (Some(ifindex), frame.bytes),
        (Verdict::Skip | Verdict::Pass, frame) => (None, frame.bytes),
        (verdict, _) => panic!("{verdict:?}"),
    }
}

/// Offset of the upper layer of a frame with plain headers, or with a fragment header.
fn upper(frame: &[u8]) -> usize {
    match (frame[12], frame[20]) {
        (0x08, _) => 14 + usize::from(frame[14] & 15) * 4,
        (_, 44) => 62,
        _ => 54,
    }
}

fn ips(frame: &[u8]) -> (IpAddr, IpAddr) {
    ips_at(frame, 14)
}

fn ips_at(frame: &[u8], at: usize) -> (IpAddr, IpAddr) {
    if frame[at] >> 4 == 4 {
        let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four"));
        (ip(at + 12), ip(at + 16))
    } else {
        let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("sixteen"));
        (ip(at + 8), ip(at + 24))
    }
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn sport(frame: &[u8]) -> u16 {
    word(frame, upper(frame))
}

/// Offset of the upper layer of what an error quotes.
fn quoted(error: &[u8]) -> usize {
    upper(error) + 8 + if error[12] == 0x08 { 20 } else { 40 }
}

fn dport(frame: &[u8]) -> u16 {
    word(frame, upper(frame) + 2)
}

/// The row of a port.
fn row(world: &World, family: u8, port: u16, remote: u16, proto: u8) -> Option<NatEntry> {
    row_of(world, node_ip(1, family), port, remote, proto, CtScope::Connection)
}

fn row_of(world: &World, ip: IpAddr, port: u16, remote: u16, proto: u8, scope: CtScope) -> Option<NatEntry> {
    let (port, remote) = (Be16::new(port), Be16::new(remote));
    let scope = scope as u8;
    match (ip, outside(if ip.is_ipv4() { 4 } else { 6 })) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            let (low, high) = (low.octets(), high.octets());
            let key = CtKey4 { low, high, low_port: port, high_port: remote, proto, scope, pad: [0; 2] };
            world.native.tables().nat4.borrow().peek(&key).copied()
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            let (low, high) = (low.octets(), high.octets());
            let key = CtKey6 { low, high, low_port: port, high_port: remote, proto, scope, pad: [0; 2] };
            world.native.tables().nat6.borrow().peek(&key).copied()
        }
        _ => None,
    }
}

fn rows(world: &World) -> usize {
    world.native.tables().nat4.borrow().len() + world.native.tables().nat6.borrow().len()
}

fn answer(family: u8) -> Craft {
    Craft::new(outside(family), node_ip(1, family))
}

#[test]
fn a_connection_to_the_world_and_back() {
    for (family, routing) in FAMILIES.into_iter().flat_map(|family| MODES.map(|routing| (family, routing))) {
        let world = world(routing);
        for (n, flags) in [SYN, ACK, ACK].into_iter().enumerate() {
            let sent = craft(&A1, outside(family)).tcp(PORT, 80, flags, b"odd");
            let wire = leaves(&world, &A1, &sent).expect("it leaves");
            assert_eq!(ips(&wire), (node_ip(1, family), outside(family)));
            assert_eq!((sport(&wire), dport(&wire)), (PORT, 80), "its own port is free");
            assert!(checksums_are_right(&wire));
            assert_eq!(wire[upper(&wire) + 4..upper(&wire) + 16], sent[upper(&sent) + 4..upper(&sent) + 16]);
            let back = if n == 0 { SYN_ACK } else { ACK };
            let (pod, frame) = comes(&world, &answer(family).tcp(80, PORT, back, b"answer"));
            assert_eq!(pod, Some(A1.ifindex));
            assert_eq!(ips(&frame), (outside(family), A1.ip(family)));
            assert_eq!((sport(&frame), dport(&frame)), (80, PORT));
            assert!(checksums_are_right(&frame));
        }
        let row = row(&world, family, PORT, 80, TCP).expect("a row");
        assert_eq!(row.addr, Addr::from_ip(A1.ip(family)).0);
        assert_eq!(
            (row.port, row.state, row.flags),
            (Be16::new(PORT), CtState::Established as u8, NatFlags(0))
        );
        let ct = world.ct(A1.ip(family), outside(family), PORT, 80, TCP).expect("a connection");
        let [there, back] = ct.dirs;
        assert_eq!((there.leaves, there.leaves_by), (Leaves::Masqueraded as u8, Be16::new(PORT)));
        assert_eq!((there.packets, back.packets, back.leaves), (3, 3, 0));
        assert_eq!((world.connections(), rows(&world)), (1, 1));
    }
}

#[test]
fn two_pods_with_one_port() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        let mut ports = Vec::new();
        for pod in [&A1, &A2] {
            let wire =
                leaves(&world, pod, &craft(pod, outside(family)).udp(PORT, 53, b"?")).expect("it leaves");
            assert!(checksums_are_right(&wire));
            ports.push(sport(&wire));
        }
        assert_eq!(ports[0], PORT);
        assert!(ports[1] != PORT && ports[1] >= 32_768);
        for (pod, port) in [&A1, &A2].into_iter().zip(ports) {
            let (to, frame) = comes(&world, &answer(family).udp(53, port, b"!"));
            assert_eq!((to, ips(&frame).1, dport(&frame)), (Some(pod.ifindex), pod.ip(family), PORT));
            assert!(checksums_are_right(&frame));
            let again =
                leaves(&world, pod, &craft(pod, outside(family)).udp(PORT, 53, b"?")).expect("it leaves");
            assert_eq!(sport(&again), port, "it keeps its port");
        }
        // For another destination the port is free.
        let other = if family == 4 { "192.0.2.8" } else { "2001:db8::8" }.parse().expect("an address");
        let wire = leaves(&world, &A2, &craft(&A2, other).udp(PORT, 53, b"?")).expect("it leaves");
        assert_eq!(sport(&wire), PORT);
    }
}

#[test]
fn ports_outside_the_range_are_not_kept_and_none_are_left() {
    for family in FAMILIES {
        let mut world = world(Routing::Vxlan);
        let wire = leaves(&world, &A1, &craft(&A1, outside(family)).udp(1000, 53, b"?")).expect("it leaves");
        assert!(sport(&wire) >= 32_768);
        world.config.snat_port_min = 50_000;
        world.config.snat_port_max = 50_001;
        world.write_config();
        for (n, pod) in [&A1, &A2].into_iter().enumerate() {
            let wire = leaves(&world, pod, &craft(pod, outside(family)).udp(2000, 99, b"?"));
            assert!(matches!(sport(&wire.expect("it leaves")), 50_000..=50_001), "{n}");
        }
        let third = craft(&A1, outside(family)).udp(2001, 99, b"?");
        assert_eq!(leaves(&world, &A1, &third), Err(DropReason::NatNoMapping));
        world.seconds(u64::from(TIMEOUT_ANY_S) + 2);
        leaves(&world, &A1, &third).expect("ports are free again");
    }
}

#[test]
fn echoes_have_identifiers_for_ports() {
    for family in FAMILIES {
        let world = world(Routing::Native);
        let mut ids = Vec::new();
        for pod in [&A1, &A2] {
            let wire = leaves(&world, pod, &craft(pod, outside(family)).echo(true, PORT, 7, b"ping"))
                .expect("it leaves");
            assert!(checksums_are_right(&wire));
            assert_eq!(ips(&wire).0, node_ip(1, family));
            ids.push(word(&wire, upper(&wire) + 4));
        }
        assert_eq!(ids[0], PORT);
        assert_ne!(ids[1], PORT);
        for (pod, id) in [&A1, &A2].into_iter().zip(ids) {
            let (to, frame) = comes(&world, &answer(family).echo(false, id, 7, b"ping"));
            assert_eq!((to, ips(&frame).1), (Some(pod.ifindex), pod.ip(family)));
            assert_eq!(word(&frame, upper(&frame) + 4), PORT);
            assert!(checksums_are_right(&frame));
        }
        // The node itself is asked.
        let asked = answer(family).echo(true, PORT, 1, b"who");
        assert_eq!(comes(&world, &asked), (None, asked));
    }
}

#[test]
fn errors_are_turned_both_ways() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        let (unreachable, code) = if family == 4 { (3, 1) } else { (1, 0) };
        for (proto, pod) in [(TCP, &A1), (UDP, &A2), (1, &A1)] {
            let sent = match proto {
                TCP => craft(pod, outside(family)).tcp(1000, 80, SYN, b""),
                UDP => craft(pod, outside(family)).udp(1000, 80, b"question"),
                _ => craft(pod, outside(family)).echo(true, 1000, 1, b"ping"),
            };
            let wire = leaves(&world, pod, &sent).expect("it leaves");
            // A router on the way, and the receiver itself.
            let router: IpAddr =
                if family == 4 { "198.51.100.1" } else { "2001:db8:1::1" }.parse().expect("an address");
            for from in [router, outside(family)] {
                let error = Craft::new(from, node_ip(1, family)).error_about(unreachable, code, &wire);
                let (to, frame) = comes(&world, &error);
                assert_eq!((to, ips(&frame)), (Some(pod.ifindex), (from, pod.ip(family))));
                assert!(checksums_are_right(&frame));
                let quote = upper(&frame) + 8;
                assert_eq!(ips_at(&frame, quote), ips(&sent));
                let quoted = quoted(&frame);
                assert_eq!(frame[quoted..quoted + 2], sent[upper(&sent)..upper(&sent) + 2]);
                if proto != TCP && proto != UDP {
                    assert_eq!(word(&frame, quoted + 4), 1000);
                }
            }
            if proto == UDP {
                // The pod complains of an answer; and the node's stack does so for it.
                let back = answer(family).udp(80, sport(&wire), b"answer");
                let (_, inner) = comes(&world, &back);
                let error = craft(pod, outside(family)).error_about(unreachable, code, &inner);
                let error = leaves(&world, pod, &error).expect("it leaves");
                let stack =
                    Craft::new(node_ip(1, family), outside(family)).error_about(unreachable, code, &inner);
                let stack = to_wire(&world, &stack).expect("it leaves");
                for error in [error, stack] {
                    assert_eq!(ips(&error), (node_ip(1, family), outside(family)));
                    assert!(checksums_are_right(&error));
                    let quote = upper(&error) + 8;
                    assert_eq!(ips_at(&error, quote), ips(&back));
                    assert_eq!(word(&error, quoted(&error) + 2), sport(&wire));
                }
            }
        }
        // Errors about nothing that left reach nobody.
        let fake = Craft::new(node_ip(1, family), outside(family)).udp(PORT, 1, b"never sent");
        let error = answer(family).error_about(unreachable, code, &fake);
        assert_eq!(comes(&world, &error), (None, error));
    }
}

#[test]
fn later_fragments_follow_the_first() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        let piece = |first: bool| {
            let datagram = craft(&A1, outside(family)).udp(1000, 53, &[7; 64]);
            let body = &datagram[upper(&datagram)..];
            let craft = craft(&A1, outside(family)).id(77);
            if first {
                craft.fragment(0, true).upper(UDP, body[..40].to_vec(), None)
            } else {
                craft.fragment(5, false).upper(UDP, body[40..].to_vec(), None)
            }
        };
        let first = leaves(&world, &A1, &piece(true)).expect("it leaves");
        let second = leaves(&world, &A1, &piece(false)).expect("it leaves");
        assert_eq!((ips(&first), ips(&second)), ((node_ip(1, family), outside(family)), ips(&first)));
        assert_eq!(second[upper(&second)..], piece(false)[upper(&second)..], "what it carries is as it was");
        let port = sport(&first);
        let back = |first: bool| {
            let datagram = answer(family).udp(53, port, &[9; 64]);
            let body = &datagram[upper(&datagram)..];
            let craft = answer(family).id(78);
            if first {
                craft.fragment(0, true).upper(UDP, body[..40].to_vec(), None)
            } else {
                craft.fragment(5, false).upper(UDP, body[40..].to_vec(), None)
            }
        };
        let (to, _) = comes(&world, &back(false));
        assert_eq!(to, None, "nobody knows whose it is before the first");
        for n in [true, false] {
            let (to, frame) = comes(&world, &back(n));
            assert_eq!((to, ips(&frame)), (Some(A1.ifindex), (outside(family), A1.ip(family))));
        }
    }
}

#[test]
fn what_stays_in_the_cluster_or_answers_keeps_its_address() {
    for (family, routing) in FAMILIES.into_iter().flat_map(|family| MODES.map(|routing| (family, routing))) {
        let mut world = world(routing);
        // An answer to somebody outside.
        let called = Craft::new(outside(family), A1.ip(family)).tcp(PORT, 80, SYN, b"");
        if routing == Routing::Native {
            assert_eq!(comes(&world, &called).0, Some(A1.ifindex));
            let back = craft(&A1, outside(family)).tcp(80, PORT, SYN_ACK, b"");
            assert_eq!(ips(&leaves(&world, &A1, &back).expect("it leaves")).0, A1.ip(family));
            // A pod behind another node.
            let there = craft(&A1, B1.ip(family)).tcp(PORT, 80, SYN, b"");
            assert_eq!(ips(&leaves(&world, &A1, &there).expect("it leaves")).0, A1.ip(family));
            let ct = world.ct(A1.ip(family), B1.ip(family), PORT, 80, TCP).expect("a connection");
            assert_eq!(ct.dirs[0].leaves, Leaves::Plain as u8);
        }
        // Another node: behind the tunnel it does not know the way to pods.
        let node = node_ip(2, family);
        world.ipcache(node, 128, IpCacheEntry::new(Identity::REMOTE_NODE));
        let wire = leaves(&world, &A1, &craft(&A1, node).udp(PORT, 99, b"")).expect("it leaves");
        let plain = routing == Routing::Native;
        assert_eq!(ips(&wire).0, if plain { A1.ip(family) } else { node_ip(1, family) });
        // What the cluster's operator left out, from the next connection on.
        let sent = craft(&A1, outside(family)).udp(PORT, 53, b"");
        leaves(&world, &A1, &sent).expect("it leaves");
        let key = IpCacheKey::prefix(outside(family), if family == 4 { 24 } else { 64 });
        let entry = NoMasqueradeEntry { why: 2, pad: [0; 3] };
        world.native.tables_mut().no_masquerade.insert(key, entry).expect("room");
        assert_eq!(ips(&leaves(&world, &A1, &sent).expect("it leaves")).0, node_ip(1, family));
        let other = craft(&A1, outside(family)).udp(PORT + 1, 53, b"");
        assert_eq!(ips(&leaves(&world, &A1, &other).expect("it leaves")).0, A1.ip(family));
    }
}

#[test]
fn other_protocols_do_not_leave() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        let sctp = craft(&A1, outside(family)).upper(132, vec![0; 16], None);
        assert_eq!(leaves(&world, &A1, &sctp), Err(DropReason::NatUnsupportedProtocol));
        let gre = craft(&A1, outside(family)).upper(47, vec![0; 16], None);
        assert_eq!(to_wire(&world, &gre), Err(DropReason::NatUnsupportedProtocol));
        assert_eq!(rows(&world), 0);
    }
}

#[test]
fn the_nodes_own_connections_and_pods_do_not_collide() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        // The node was first.
        let own = Craft::new(node_ip(1, family), outside(family)).tcp(PORT, 80, SYN, b"");
        assert_eq!(to_wire(&world, &own), Ok(own.clone()));
        let wire =
            leaves(&world, &A1, &craft(&A1, outside(family)).tcp(PORT, 80, SYN, b"")).expect("it leaves");
        assert_ne!(sport(&wire), PORT);
        let back = answer(family).tcp(80, PORT, SYN_ACK, b"");
        assert_eq!(comes(&world, &back), (None, back));
        // The pod was first: the node's connection is moved.
        let wire =
            leaves(&world, &A1, &craft(&A1, outside(family)).tcp(PORT, 81, SYN, b"")).expect("it leaves");
        assert_eq!(sport(&wire), PORT);
        let own = Craft::new(node_ip(1, family), outside(family)).tcp(PORT, 81, SYN, b"");
        let moved = to_wire(&world, &own).expect("it leaves");
        assert_ne!(sport(&moved), PORT);
        assert!(checksums_are_right(&moved));
        let (to, frame) = comes(&world, &answer(family).tcp(81, sport(&moved), SYN_ACK, b""));
        assert_eq!((to, dport(&frame), ips(&frame).1), (None, PORT, node_ip(1, family)));
        assert!(checksums_are_right(&frame));
        let (to, _) = comes(&world, &answer(family).tcp(81, PORT, SYN_ACK, b""));
        assert_eq!(to, Some(A1.ifindex));
        let again = to_wire(&world, &Craft::new(node_ip(1, family), outside(family)).tcp(PORT, 81, ACK, b""));
        assert_eq!(sport(&again.expect("it leaves")), sport(&moved));
        let row = row_of(&world, node_ip(1, family), PORT, 81, TCP, CtScope::Moved)
            .expect("a row of what was moved");
        assert_eq!(row.port, Be16::new(sport(&moved)));
        // An error about it reaches the node as one about what it knows.
        let (unreachable, code) = if family == 4 { (3, 1) } else { (1, 0) };
        let (to, error) = comes(&world, &answer(family).error_about(unreachable, code, &moved));
        assert_eq!((to, word(&error, quoted(&error))), (None, PORT));
        assert!(checksums_are_right(&error));
    }
}

#[test]
fn what_the_node_sends_otherwise_leaves_no_row() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        let craft = Craft::new(node_ip(1, family), node_ip(2, family));
        for frame in
            [craft.udp(PORT, 8472, b"outer"), craft.tcp(22, PORT, ACK, b""), craft.echo(false, PORT, 1, b"")]
        {
            assert_eq!(to_wire(&world, &frame), Ok(frame.clone()));
        }
        let outer = Craft::new(node_ip(2, family), node_ip(1, family)).udp(PORT, 8472, b"outer");
        assert_eq!(comes(&world, &outer), (None, outer));
        assert_eq!(rows(&world), 0);
    }
}

#[test]
fn a_row_that_is_left_alone_translates_nothing() {
    for family in FAMILIES {
        let mut world = world(Routing::Vxlan);
        let sent = craft(&A1, outside(family)).tcp(PORT, 80, SYN, b"");
        leaves(&world, &A1, &sent).expect("it leaves");
        let back = answer(family).tcp(80, PORT, SYN_ACK, b"");
        // Conntrack has forgotten the connection.
        world.forget();
        assert_eq!(comes(&world, &back), (None, back.clone()));
        assert_eq!(world.connections(), 0, "nothing is made of it");
        // The pod goes on, and gets its port again.
        let wire =
            leaves(&world, &A1, &craft(&A1, outside(family)).tcp(PORT, 80, ACK, b"")).expect("it leaves");
        assert_eq!(sport(&wire), PORT);
        assert_eq!(comes(&world, &back).0, Some(A1.ifindex));
        // The row of the port is forgotten, and another pod takes it.
        world.forget_ports();
        assert_eq!(comes(&world, &back), (None, back.clone()));
        leaves(&world, &A2, &craft(&A2, outside(family)).tcp(PORT, 80, SYN, b"")).expect("it leaves");
        let wire =
            leaves(&world, &A1, &craft(&A1, outside(family)).tcp(PORT, 80, ACK, b"")).expect("it leaves");
        assert_ne!(sport(&wire), PORT, "it gets another");
        assert_eq!(comes(&world, &back).0, Some(A2.ifindex));
        let (to, _) = comes(&world, &answer(family).tcp(80, sport(&wire), ACK, b""));
        assert_eq!(to, Some(A1.ifindex));
    }
}

#[test]
fn ports_of_connections_that_are_over_are_free() {
    for family in FAMILIES {
        let world = world(Routing::Vxlan);
        leaves(&world, &A1, &craft(&A1, outside(family)).tcp(PORT, 80, SYN, b"")).expect("it leaves");
        comes(&world, &answer(family).tcp(80, PORT, RST | ACK, b""));
        assert_eq!(row(&world, family, PORT, 80, TCP).expect("a row").state, CtState::Closing as u8);
        world.seconds(u64::from(TIMEOUT_TCP_CLOSE_S) + 2);
        let wire =
            leaves(&world, &A2, &craft(&A2, outside(family)).tcp(PORT, 80, SYN, b"")).expect("it leaves");
        assert_eq!(sport(&wire), PORT);
        let (to, _) = comes(&world, &answer(family).tcp(80, PORT, SYN_ACK, b""));
        assert_eq!(to, Some(A2.ifindex));
        assert_eq!(rows(&world), 1);
        // One that begins again has its port.
        comes(&world, &answer(family).tcp(80, PORT, RST | ACK, b""));
        let wire =
            leaves(&world, &A2, &craft(&A2, outside(family)).tcp(PORT, 80, SYN, b"")).expect("it leaves");
        assert_eq!(sport(&wire), PORT);
        assert_eq!(row(&world, family, PORT, 80, TCP).expect("a row").state, CtState::Syn as u8);
    }
}

#[test]
fn a_table_that_refuses_rows() {
    for family in FAMILIES {
        let mut world = world(Routing::Vxlan);
        let table = if family == 4 { "NAT4" } else { "NAT6" };
        assert!(world.native.tables_mut().refuse_creates(table, 100));
        let sent = craft(&A1, outside(family)).udp(PORT, 53, b"");
        assert_eq!(leaves(&world, &A1, &sent), Err(DropReason::NatNoMapping));
        let own = Craft::new(node_ip(1, family), outside(family)).udp(PORT, 53, b"");
        assert_eq!(to_wire(&world, &own), Ok(own.clone()), "the node goes on");
        assert!(world.native.tables_mut().refuse_creates(table, 0));
        leaves(&world, &A1, &sent).expect("it leaves");
    }
}
