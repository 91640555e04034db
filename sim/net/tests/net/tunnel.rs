//! The tunnel device: outer headers there, inner frames here.

use std::time::Duration;

use rstest::rstest;
use sim_net::{Action, Frame, Link, LinkKind, Node, StackDrop, Summary};

use crate::craft::{Craft, sent};
use crate::world::{A, B, Family, UNDERLAY, ids, links, node_mac, pod, underlay};

const NOW: Duration = Duration::ZERO;
const OVERLAY: u32 = 4;

fn node(number: usize) -> Node {
    let mut node = Node::new(7);
    links(number, 1500).into_iter().for_each(|link| node.set_link(link));
    node.set_link(overlay(number));
    node
}

fn overlay(number: usize) -> Link {
    Link {
        ifindex: OVERLAY,
        mac: node_mac(number, OVERLAY),
        mtu: 1450,
        kind: LinkKind::Overlay,
        addresses: vec![],
    }
}

/// Two nodes that know each other: one has asked, the other has answered.
fn pair() -> (Node, Node) {
    let (mut a, mut b) = (node(A), node(B));
    for family in [Family::V4, Family::V6] {
        let frame = Craft::new([0; 6], underlay(A, family), underlay(B, family)).udp((1, 9), b"");
        let asked = a.send_to_neighbour(NOW, UNDERLAY, underlay(B, family), frame, &mut ids(&mut 0));
        let answered = b.receive(NOW, UNDERLAY, sent(&asked)[0].1.clone(), false, &mut ids(&mut 0));
        let known = a.receive(NOW, UNDERLAY, sent(&answered)[0].1.clone(), false, &mut ids(&mut 0));
        assert_eq!(sent(&known).len(), 1, "what waited goes out");
    }
    (a, b)
}

fn inner(family: Family, ports: (u16, u16), data: &[u8]) -> Frame {
    Craft::new(node_mac(B, OVERLAY), pod(A, family), pod(B, family)).udp(ports, data)
}

fn outer_v4(frame: &Frame) -> (u16, u16) {
    let at = |at: usize| u16::from_be_bytes([frame.bytes[at], frame.bytes[at + 1]]);
    (at(14 + 20), at(14 + 20 + 2))
}

#[rstest]
fn a_frame_comes_out_as_it_went_in(
    #[values(Family::V4, Family::V6)] within: Family,
    #[values(Family::V4, Family::V6)] over: Family,
) {
    let (mut a, mut b) = pair();
    let frame = inner(within, (5, 7), b"abc");
    let actions = a.encapsulate(NOW, underlay(B, over), 0x00AB_CDEF, frame.clone(), &mut ids(&mut 0));
    let [(UNDERLAY, outer)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(outer.id, frame.id);
    let packet = &outer.bytes[14..];
    let datagram = match over {
        Family::V4 => {
            assert_eq!((packet[8], packet[6] & 0x40), (64, 0), "hop limit, and DF is clear");
            &packet[20..]
        }
        Family::V6 => {
            assert_eq!(packet[7], 64);
            &packet[40..]
        }
    };
    assert_eq!(datagram[2..4], 8472_u16.to_be_bytes());
    assert_eq!(datagram[6..8], [0, 0], "no checksum");
    assert_eq!(datagram[8..16], [8, 0, 0, 0, 0xAB, 0xCD, 0xEF, 0]);
    let actions = b.receive(NOW, UNDERLAY, outer.clone(), false, &mut ids(&mut 0));
    let remote = underlay(A, over);
    assert_eq!(actions, [Action::Tunnelled { ifindex: OVERLAY, remote, vni: 0x00AB_CDEF, frame }]);
}

#[test]
fn source_ports_follow_flows() {
    let (mut a, _) = pair();
    let mut port = |frame: Frame| {
        let actions = a.encapsulate(NOW, underlay(B, Family::V4), 1, frame, &mut ids(&mut 0));
        outer_v4(sent(&actions)[0].1).0
    };
    let first = port(inner(Family::V4, (5, 7), b"abc"));
    assert_eq!(port(inner(Family::V4, (5, 7), b"other data")), first);
    let others: std::collections::BTreeSet<u16> =
        (0..100).map(|from| port(inner(Family::V4, (from, 7), b""))).collect();
    assert!(others.len() > 90, "{others:?}");
    assert!(others.iter().all(|port| (32_768..=60_999).contains(port)));
}

#[test]
fn what_is_too_long_goes_in_fragments_over_ipv4() {
    let (mut a, mut b) = pair();
    let frame = inner(Family::V4, (5, 7), &[7; 1472]);
    let actions = a.encapsulate(NOW, underlay(B, Family::V4), 1, frame.clone(), &mut ids(&mut 0));
    assert_eq!(sent(&actions).len(), 2);
    let mut came = Vec::new();
    // In the other order, too.
    for (_, piece) in sent(&actions).into_iter().rev() {
        came.extend(b.receive(NOW, UNDERLAY, piece.clone(), false, &mut ids(&mut 0)));
    }
    assert!(matches!(came[0], Action::Local { .. }));
    let Action::Tunnelled { frame: out, .. } = &came[1] else { panic!("{came:?}") };
    assert_eq!(out.bytes, frame.bytes);
}

#[test]
fn what_is_too_long_is_dropped_over_ipv6() {
    let (mut a, _) = pair();
    let frame = inner(Family::V4, (5, 7), &[7; 1472]);
    let actions = a.encapsulate(NOW, underlay(B, Family::V6), 1, frame, &mut ids(&mut 0));
    assert!(matches!(actions[..], [Action::Dropped { why: StackDrop::TooBig, .. }]), "{actions:?}");
}

#[test]
fn without_a_tunnel_device_the_port_is_closed() {
    let (mut a, mut b) = pair();
    let frame = inner(Family::V4, (5, 7), b"abc");
    let actions = a.encapsulate(NOW, underlay(B, Family::V4), 1, frame, &mut ids(&mut 0));
    b.remove_link(OVERLAY);
    let ended = b.receive(NOW, UNDERLAY, sent(&actions)[0].1.clone(), false, &mut ids(&mut 0));
    assert!(matches!(ended[0], Action::Dropped { why: StackDrop::NoSocket, .. }));
    let told = sent(&ended);
    assert_eq!(told.len(), 1);
    let line = Summary::of(&told[0].1.bytes).to_string();
    // The other node is known from its question.
    assert_eq!(line, "192.168.0.2 → 192.168.0.1 ICMP port unreachable");
}

#[rstest]
#[case::no_identifier(0)]
#[case::no_frame(8)]
fn what_is_no_vxlan_is_malformed(#[case] flags: u8) {
    let (_, mut b) = pair();
    let craft = Craft::new(node_mac(B, UNDERLAY), underlay(A, Family::V4), underlay(B, Family::V4));
    let mut data = vec![flags, 0, 0, 0, 0, 0, 1, 0];
    data.resize(if flags == 0 { 60 } else { 20 }, 0);
    let actions = b.receive(NOW, UNDERLAY, craft.udp((1, 8472), &data), false, &mut ids(&mut 0));
    assert!(matches!(actions[..], [Action::Dropped { why: StackDrop::Malformed, .. }]), "{actions:?}");
}

#[test]
fn without_a_way_to_the_remote_nothing_goes() {
    let (mut a, _) = pair();
    let frame = inner(Family::V4, (5, 7), b"abc");
    let actions = a.encapsulate(NOW, "8.8.8.8".parse().unwrap(), 1, frame.clone(), &mut ids(&mut 0));
    assert_eq!(actions, [Action::Dropped { frame, why: StackDrop::NoRoute }]);
}
