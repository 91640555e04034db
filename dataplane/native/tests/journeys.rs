//! Packet journeys: frames in, verdicts, bytes, rows and all counters out.

mod world;

use dataplane_abi::config::Routing;
use dataplane_abi::conntrack::{CtState, WayKind};
use dataplane_abi::endpoints::Endpoints;
use dataplane_abi::ipcache::{IpCache, IpCacheEntry};
use dataplane_abi::metrics::Direction::{Egress, Ingress};
use dataplane_abi::program::Program;
use dataplane_abi::{Addr, DropReason, Identity, Table};
use dataplane_core::Verdict;
use dataplane_native::craft::{Craft, checksums_are_right};
use dataplane_native::tables::{HashTable, LpmTable};
use dataplane_native::{Frame, Tunnel};
use world::{
    A1, A2, ACK, B1, FAMILIES, HOST, OVERLAY, Pod, SYN, SYN_ACK, UNDERLAY, World, craft, node_ip, outside,
    router,
};

fn hops(frame: &[u8]) -> u8 {
    if frame[12] == 0x08 { frame[22] } else { frame[21] }
}

fn assert_delivered(verdict: Verdict, frame: &Frame, to: &Pod) {
    assert_eq!(verdict, Verdict::Peer { ifindex: to.ifindex });
    assert_eq!(frame.bytes[..6], to.mac);
    assert_eq!(frame.bytes[6..12], to.gateway);
    assert!(checksums_are_right(&frame.bytes));
}

#[test]
fn pods_of_one_node_talk_and_share_one_row() {
    for family in FAMILIES {
        let world = World::vxlan();
        let (a, b) = (A1.ip(family), A2.ip(family));
        let (verdict, frame) = world.pod_sends(&A1, &craft(&A1, b).tcp(4000, 80, SYN, b""));
        assert_delivered(verdict, &frame, &A2);
        assert_eq!(hops(&frame.bytes), 63);
        let entry = world.ct(a, b, 4000, 80, 6).expect("a row");
        assert_eq!(entry.state, CtState::Syn as u8);
        assert_eq!(entry.dirs.map(|d| d.identity.0), [A1.identity, A2.identity]);
        assert_eq!(entry.dirs.map(|d| d.way.kind), [WayKind::Local as u8; 2]);

        let (verdict, frame) = world.pod_sends(&A2, &craft(&A2, a).tcp(80, 4000, SYN_ACK, b""));
        assert_delivered(verdict, &frame, &A1);
        let (verdict, _) = world.pod_sends(&A1, &craft(&A1, b).tcp(4000, 80, ACK, b"hello"));
        assert_eq!(verdict, Verdict::Peer { ifindex: A2.ifindex });
        let entry = world.ct(a, b, 4000, 80, 6).expect("a row");
        assert_eq!(entry.state, CtState::Established as u8);
        assert_eq!(entry.dirs.map(|d| d.packets), [2, 1]);
        assert_eq!(entry.dirs.map(|d| d.tcp_flags), [SYN | ACK, SYN_ACK]);
        assert_eq!(world.counters(), [(0, Egress, 3)]);
        let rows = world.native.tables().ct4.borrow().len() + world.native.tables().ct6.borrow().len();
        assert_eq!(rows, 1);
    }
}

#[test]
fn another_node_is_reached_through_the_tunnel_with_the_senders_identity() {
    for family in FAMILIES {
        let (here, there) = (World::vxlan(), World::node(2, Routing::Vxlan));
        let (a, b) = (A1.ip(family), B1.ip(family));
        let (verdict, frame) = here.pod_sends(&A1, &craft(&A1, b).udp(5353, 53, b"ask"));
        assert_eq!(verdict, Verdict::Tunnel { ifindex: OVERLAY });
        let node = Addr::from_ip(node_ip(2, 4)).0.0;
        assert_eq!(frame.to_tunnel, Some(Tunnel { node, family: 1, key: A1.identity }));
        assert_eq!(hops(&frame.bytes), 63);

        let (verdict, frame) = there.tunnel_brings(&frame.bytes, A1.identity);
        assert_delivered(verdict, &frame, &B1);
        assert!(frame.accepted);
        assert_eq!(hops(&frame.bytes), 62);
        let entry = there.ct(a, b, 5353, 53, 17).expect("a row");
        assert_eq!(entry.dirs.map(|d| d.identity.0), [A1.identity, B1.identity]);

        let (verdict, frame) = there.pod_sends(&B1, &craft(&B1, a).udp(53, 5353, b"answer"));
        assert_eq!(verdict, Verdict::Tunnel { ifindex: OVERLAY });
        assert_eq!(frame.to_tunnel.map(|t| t.key), Some(B1.identity));
        let (verdict, frame) = here.tunnel_brings(&frame.bytes, B1.identity);
        assert_delivered(verdict, &frame, &A1);
        assert_eq!(here.counters(), [(0, Ingress, 1), (0, Egress, 1)]);
        assert_eq!(there.counters(), [(0, Ingress, 1), (0, Egress, 1)]);
    }
}

#[test]
fn no_pod_writes_an_identity_on_its_own_packets() {
    const PROHIBITED: Verdict = Verdict::Drop(DropReason::EncapProhibited);
    for family in FAMILIES {
        let world = World::vxlan();
        let to = |dst| craft(&A1, dst).udp(50_000, 8472, &[8, 0, 0, 0, 0, 0, 7, 0]);
        // A node unpacks what comes to this port, on whichever of its addresses.
        let nodes = [node_ip(1, family), router(1, family), node_ip(2, family), outside(family)];
        for dst in nodes {
            assert_eq!(world.pod_sends(&A1, &to(dst)).0, PROHIBITED);
            world.forwards(&A1, &craft(&A1, dst).udp(8472, 53, b""));
            world.forwards(&A1, &craft(&A1, dst).tcp(4000, 8472, SYN, b""));
        }
        assert_eq!(world.connections(), 2 * nodes.len());
        // Among pods it is a port like any other, whichever end has it.
        world.forwards(&A1, &to(A2.ip(family)));
        world.forwards(&A1, &to(B1.ip(family)));
        world.forwards(&A2, &craft(&A2, A1.ip(family)).udp(8472, 50_000, b""));

        // A node that let it pass does not make it right.
        let inner = Craft::new(B1.ip(family), node_ip(1, family)).udp(50_000, 8472, b"");
        assert_eq!(world.tunnel_brings(&inner, B1.identity).0, PROHIBITED);
        let inner = Craft::new(B1.ip(family), router(1, family)).udp(50_000, 8472, b"");
        assert_eq!(world.tunnel_brings(&inner, B1.identity).0, PROHIBITED);
        let inner = Craft::new(B1.ip(family), node_ip(1, family)).udp(8472, 53, b"");
        assert_eq!(world.tunnel_brings(&inner, B1.identity).0, Verdict::Pass);
        let inner = Craft::new(B1.ip(family), A1.ip(family)).udp(50_000, 8472, b"");
        assert_eq!(world.tunnel_brings(&inner, B1.identity).0, Verdict::Peer { ifindex: A1.ifindex });

        // Where no device unpacks there is nothing to forge.
        let world = World::node(1, Routing::Native);
        world.forwards(&A1, &craft(&A1, node_ip(2, family)).udp(50_000, 8472, b""));
    }
}

#[test]
fn another_node_is_a_neighbour_in_native_mode() {
    for family in FAMILIES {
        let (here, there) = (World::node(1, Routing::Native), World::node(2, Routing::Native));
        let (verdict, frame) = here.pod_sends(&A1, &craft(&A1, B1.ip(family)).tcp(4000, 80, SYN, b""));
        let address = Addr::from_ip(node_ip(2, family)).0.0;
        let number = if family == 4 { 1 } else { 2 };
        assert_eq!(verdict, Verdict::Neighbour { ifindex: UNDERLAY, family: number, address });
        let (verdict, frame) = there.run(Program::FromNetdev, &frame.bytes, UNDERLAY);
        assert_delivered(verdict, &frame, &B1);
        assert_eq!(hops(&frame.bytes), 62);
        assert_eq!(there.counters(), [(0, Ingress, 1)]);
    }
}

#[test]
fn an_established_packet_needs_nothing_but_its_row() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let here = craft(&A1, A2.ip(family)).tcp(4000, 80, ACK, b"");
        let there = craft(&A1, B1.ip(family)).tcp(4000, 80, ACK, b"");
        world.forwards(&A1, &here);
        world.forwards(&A1, &there);
        // Without a word (no new revision) every other table loses its rows.
        world.native.tables_mut().endpoints = HashTable::new(Endpoints::SPEC.max_entries);
        world.native.tables_mut().ipcache = LpmTable::new(IpCache::SPEC.max_entries);
        assert_eq!(world.pod_sends(&A1, &here).0, Verdict::Peer { ifindex: A2.ifindex });
        assert_eq!(world.pod_sends(&A1, &there).0, Verdict::Tunnel { ifindex: OVERLAY });
        assert_eq!(world.counters(), [(0, Egress, 4)]);
    }
}

#[test]
fn a_host_behind_the_tunnel_is_a_remote_node_here() {
    for family in FAMILIES {
        let world = World::vxlan();
        let bytes = Craft::new(node_ip(2, family), A1.ip(family)).udp(1, 2, b"");
        let (verdict, _) = world.tunnel_brings(&bytes, 1);
        assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
        let entry = world.ct(node_ip(2, family), A1.ip(family), 1, 2, 17).expect("a row");
        assert_eq!(entry.dirs[0].identity, Identity::REMOTE_NODE);
        assert_eq!(entry.dirs[1].way.kind, WayKind::Tunnel as u8);
    }
}

#[test]
fn the_tables_know_which_node_is_behind_the_tunnel() {
    for family in FAMILIES {
        for (row, key, expected) in [
            (Identity::KUBE_APISERVER, 1, Identity::KUBE_APISERVER),
            (Identity::LOCAL_NODE_MIN, 1, Identity::LOCAL_NODE_MIN),
            (Identity::LOCAL_NODE_MIN, 6, Identity::LOCAL_NODE_MIN),
            (Identity::LOCAL_NODE_MIN, 300, Identity(300)),
            (Identity::UNMANAGED, 1, Identity::REMOTE_NODE),
        ] {
            let mut world = World::vxlan();
            let node = node_ip(2, family);
            world.ipcache(node, 128, IpCacheEntry::behind(row, node_ip(2, 4)));
            let bytes = Craft::new(node, A1.ip(family)).udp(1, 2, b"");
            assert_eq!(world.tunnel_brings(&bytes, key).0, Verdict::Peer { ifindex: A1.ifindex });
            let entry = world.ct(node, A1.ip(family), 1, 2, 17).expect("a row");
            assert_eq!(entry.dirs[0].identity, expected, "row {row}, key {key}");
        }
    }
}

#[test]
fn the_node_itself_and_the_outside_are_left_to_the_stack() {
    for family in FAMILIES {
        let world = World::vxlan();
        for (dst, identity) in [
            (router(1, family), Identity::HOST),
            (node_ip(1, family), Identity::HOST),
            (outside(family), if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 }),
        ] {
            let sent = craft(&A1, dst).echo(true, 9, 1, b"ping");
            let (verdict, frame) = world.pod_sends(&A1, &sent);
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(frame.bytes, sent, "the stack does the rest");
            let proto = if family == 4 { 1 } else { 58 };
            let entry = world.ct(A1.ip(family), dst, 9, 0, proto).expect("a row");
            assert_eq!(entry.dirs[1].identity, identity);

            let answer = Craft::new(dst, A1.ip(family)).macs(A1.gateway, A1.mac).echo(false, 9, 1, b"ping");
            let (verdict, frame) = world.run(Program::ToContainer, &answer, A1.ifindex);
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(frame.bytes, answer);
            let entry = world.ct(A1.ip(family), dst, 9, 0, proto).expect("a row");
            assert_eq!(entry.dirs.map(|d| d.packets), [1, 1]);
        }
        assert_eq!(world.counters(), [(0, Ingress, 3), (0, Egress, 3)]);
    }
}

#[test]
fn the_stack_reaches_pods_by_bristle_host() {
    for family in FAMILIES {
        let world = World::vxlan();
        let to_pod = Craft::new(router(1, family), A1.ip(family)).tcp(5000, 80, SYN, b"");
        let (verdict, frame) = world.run(Program::FromHost, &to_pod, HOST);
        assert_eq!(verdict, Verdict::Egress { ifindex: A1.ifindex });
        assert_eq!(frame.bytes[..6], A1.mac);
        assert_eq!(frame.bytes[6..12], A1.gateway);
        assert_eq!(frame.bytes[12..], to_pod[12..], "no hop: the stack was the router");
        let (verdict, _) = world.run(Program::ToContainer, &frame.bytes, A1.ifindex);
        assert_eq!(verdict, Verdict::Pass);

        let remote = Craft::new(router(1, family), B1.ip(family)).tcp(5000, 80, SYN, b"");
        let (verdict, frame) = world.run(Program::FromHost, &remote, HOST);
        assert_eq!(verdict, Verdict::Tunnel { ifindex: OVERLAY });
        assert_eq!(frame.to_tunnel.map(|t| t.key), Some(1));

        let nowhere = Craft::new(router(1, family), outside(family)).udp(1, 2, b"");
        let (verdict, _) = world.run(Program::FromHost, &nowhere, HOST);
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownTarget));
        assert_eq!(world.counters(), [(0, Ingress, 1), (0, Egress, 2), (150, Egress, 1)]);
    }
}

#[test]
fn the_underlay_is_left_alone_but_for_pods() {
    for family in FAMILIES {
        let world = World::vxlan();
        for (src, dst) in [
            (node_ip(2, family), node_ip(1, family)),
            (outside(family), node_ip(2, family)),
            (A1.ip(family), outside(family)),
        ] {
            let sent = Craft::new(src, dst).udp(40000, 8472, &[0; 60]);
            let (verdict, frame) = world.run(Program::FromNetdev, &sent, UNDERLAY);
            assert_eq!(verdict, Verdict::Skip);
            assert_eq!(frame.bytes, sent);
            let (verdict, frame) = world.run(Program::ToNetdev, &sent, UNDERLAY);
            assert_eq!(verdict, Verdict::Skip);
            assert_eq!(frame.bytes, sent);
        }
        // What cannot be parsed is dropped only if it is for a pod.
        let gre = |dst| Craft::new(outside(family), dst).upper(47, vec![0; 20], None);
        let (verdict, _) = world.run(Program::FromNetdev, &gre(node_ip(2, family)), UNDERLAY);
        assert_eq!(verdict, Verdict::Skip);
        let (verdict, _) = world.run(Program::FromNetdev, &gre(A1.ip(family)), UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::CtUnknownProtocol));
        // Nobody outside is a pod of this node.
        let spoofed = Craft::new(A2.ip(family), A1.ip(family)).udp(1, 2, b"");
        let (verdict, _) = world.run(Program::FromNetdev, &spoofed, UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::InvalidSourceIp));
        let from_world = Craft::new(outside(family), A1.ip(family)).udp(1, 2, b"");
        let (verdict, frame) = world.run(Program::FromNetdev, &from_world, UNDERLAY);
        assert_delivered(verdict, &frame, &A1);
        assert_eq!(
            world.counters(),
            [(0, Ingress, 1), (3, Ingress, 4), (132, Ingress, 1), (137, Ingress, 1), (3, Egress, 3)]
        );
    }
}

#[test]
fn a_device_sum_stays_right_when_the_hop_limit_changes() {
    let world = World::vxlan();
    for family in FAMILIES {
        let bytes = Craft::new(outside(family), A1.ip(family)).udp(1, 2, b"summed");
        let sum = |bytes: &[u8]| {
            let sum: u64 = bytes[14..]
                .chunks(2)
                .map(|p| u64::from(u16::from_le_bytes([p[0], *p.get(1).unwrap_or(&0)])))
                .sum();
            (0..4).fold(sum, |s, _| (s & 0xFFFF) + (s >> 16)) % 0xFFFF
        };
        let mut frame = Frame::new(bytes.clone(), UNDERLAY);
        frame.device_sum = Some(u32::try_from(sum(&bytes)).expect("sixteen bits"));
        assert_eq!(world.native.run(Program::FromNetdev, &mut frame), Verdict::Peer { ifindex: A1.ifindex });
        let kept = u64::from(frame.device_sum.expect("a sum"));
        assert_eq!(((kept & 0xFFFF) + (kept >> 16)) % 0xFFFF, sum(&frame.bytes), "family {family}");
    }
}

#[test]
fn what_a_router_would_refuse_goes_to_the_stack_untouched() {
    for family in FAMILIES {
        let world = World::vxlan();
        let large = craft(&A1, B1.ip(family)).dont_fragment().udp(1, 2, &[0; 1450]);
        let (verdict, frame) = world.pod_sends(&A1, &large);
        assert_eq!((verdict, frame.bytes), (Verdict::Pass, large.clone()));
        // It will be cut before it leaves, so its own length does not matter.
        let mut cut_later = Frame::new(large, A1.ifindex);
        cut_later.segment_len = 1400;
        assert_eq!(
            world.native.run(Program::FromContainer, &mut cut_later),
            Verdict::Tunnel { ifindex: OVERLAY }
        );
        for dst in [A2.ip(family), B1.ip(family)] {
            let last_hop = craft(&A1, dst).hops(1).udp(3, 4, b"");
            let (verdict, frame) = world.pod_sends(&A1, &last_hop);
            assert_eq!((verdict, frame.bytes), (Verdict::Pass, last_hop));
        }
    }
}

#[test]
fn a_node_without_configuration_does_nothing() {
    let empty = dataplane_native::Native::new();
    for program in Program::ALL {
        let sent = craft(&A1, A2.v4).udp(1, 2, b"");
        let mut frame = Frame::new(sent.clone(), A1.ifindex);
        assert_eq!(empty.run(program, &mut frame), Verdict::Skip);
        assert_eq!(frame.bytes, sent);
    }
    assert!(empty.counters().is_empty());
}
