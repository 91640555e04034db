//! Neighbours: who answers, who asks, and what waits meanwhile.

use std::time::Duration;

use rstest::rstest;
use sim_net::{Action, Frame, Node, PacketId, StackDrop, Summary, checksum};

use crate::craft::{Craft, judge, sent};
use crate::world::{
    A, B, Family, HOST, POD, UNDERLAY, gateway, ids, ip, node, node_mac, pod, pod_mac, underlay,
};

const NOW: Duration = Duration::ZERO;
const ASKER: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn arp(operation: u8, sender: std::net::IpAddr, target: std::net::IpAddr, to: [u8; 6]) -> Frame {
    let octets = |address| match address {
        std::net::IpAddr::V4(address) => std::net::Ipv4Addr::octets(&address),
        std::net::IpAddr::V6(_) => panic!("ARP is for IPv4"),
    };
    let mut bytes = [to, ASKER].concat();
    bytes.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    bytes.extend_from_slice(&ASKER);
    bytes.extend_from_slice(&octets(sender));
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&octets(target));
    Frame { id: PacketId(1), bytes }
}

/// A solicitation for an address; with a source link layer address unless it comes from nobody.
fn solicitation(source: std::net::IpAddr, target: std::net::IpAddr) -> Frame {
    let std::net::IpAddr::V6(wanted) = target else { panic!("IPv6") };
    let [.., a, b, c] = wanted.octets();
    let group = std::net::Ipv6Addr::from([0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, a, b, c]);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&wanted.octets());
    if !source.is_unspecified() {
        message.extend_from_slice(&[1, 1]);
        message.extend_from_slice(&ASKER);
    }
    let sum = checksum::transport(source, group.into(), 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let craft = Craft { hop_limit: 255, ..Craft::new([0x33, 0x33, 0xFF, a, b, c], source, group.into()) };
    craft.packet(58, &message)
}

fn receive(node: &mut Node, ifindex: u32, frame: Frame) -> Vec<Action> {
    node.receive(NOW, ifindex, frame, false, &mut ids(&mut 100))
}

#[rstest]
#[case::its_own(UNDERLAY, underlay(A, Family::V4), true)]
#[case::of_another_link(UNDERLAY, gateway(A, Family::V4), true)]
#[case::for_a_pod(POD, gateway(A, Family::V4), true)]
#[case::somebody_elses(UNDERLAY, underlay(B, Family::V4), false)]
#[case::a_pods(UNDERLAY, pod(A, Family::V4), false)]
#[case::without_arp(HOST, gateway(A, Family::V4), false)]
fn a_node_answers_for_its_addresses(
    #[case] ifindex: u32,
    #[case] target: std::net::IpAddr,
    #[case] answers: bool,
) {
    let mut node = node(A, 1);
    let actions = receive(&mut node, ifindex, arp(1, ip("192.168.0.9"), target, [0xFF; 6]));
    let answer: Vec<String> =
        sent(&actions).iter().map(|(_, frame)| Summary::of(&frame.bytes).to_string()).collect();
    if answers {
        let [_, _, _, d, e, f] = node_mac(A, ifindex);
        assert_eq!(answer, [format!("{target} is at 02:00:00:{d:02x}:{e:02x}:{f:02x}")]);
        assert_eq!(sent(&actions)[0].1.bytes[..6], ASKER);
    } else {
        assert!(answer.is_empty(), "{answer:?}");
    }
}

#[rstest]
#[case::asked_by_a_neighbour(ip("fd00::9"), ip("fd00::9"), 0xE0)]
#[case::asked_by_who_wants_the_address(ip("::"), ip("ff02::1"), 0xA0)]
fn a_node_advertises_its_addresses(
    #[case] asker: std::net::IpAddr,
    #[case] to: std::net::IpAddr,
    #[case] flags: u8,
) {
    let mut node = node(A, 1);
    let target = underlay(A, Family::V6);
    let actions = receive(&mut node, UNDERLAY, solicitation(asker, target));
    let [(UNDERLAY, frame)] = sent(&actions)[..] else { panic!("{actions:?}") };
    judge(frame).unwrap();
    let line = Summary::of(&frame.bytes).to_string();
    assert_eq!(line, format!("{target} → {to} ICMPv6 neighbour advertisement"));
    // Router, override, and solicited if somebody asked; then the target and its address as an option.
    assert_eq!(frame.bytes[14 + 40 + 4], flags);
    assert_eq!(frame.bytes[14 + 40 + 24..], [&[2, 1][..], &node_mac(A, UNDERLAY)].concat());
    assert_eq!(frame.bytes[14 + 7], 255);
    let foreign = receive(&mut node, UNDERLAY, solicitation(asker, underlay(B, Family::V6)));
    assert!(sent(&foreign).is_empty());
}

#[test]
fn a_solicitation_from_afar_is_forged() {
    let mut frame = solicitation(ip("fd00::9"), underlay(A, Family::V6));
    frame.bytes[14 + 7] = 254;
    let actions = receive(&mut node(A, 1), UNDERLAY, frame);
    assert!(matches!(actions[..], [Action::Dropped { why: StackDrop::Malformed, .. }]), "{actions:?}");
}

fn datagram(number: u8) -> Frame {
    let craft = Craft::new(node_mac(A, POD), pod(A, Family::V4), pod(B, Family::V4));
    let mut frame = craft.udp((5, 7), &[number]);
    frame.id = PacketId(u64::from(number));
    frame
}

#[test]
fn what_waits_goes_out_in_order() {
    let mut node = node(A, 1);
    let first = receive(&mut node, POD, datagram(1));
    let question = sent(&first);
    assert_eq!(question.len(), 1);
    assert_eq!(Summary::of(&question[0].1.bytes).to_string(), "192.168.0.1 asks who has 192.168.0.2");
    assert!(receive(&mut node, POD, datagram(2)).is_empty());
    assert!(receive(&mut node, POD, datagram(3)).is_empty());
    let answer = arp(2, underlay(B, Family::V4), underlay(A, Family::V4), node_mac(A, UNDERLAY));
    let actions = receive(&mut node, UNDERLAY, answer);
    let out: Vec<_> = sent(&actions).iter().map(|(ifindex, frame)| (*ifindex, frame.id.0)).collect();
    assert_eq!(out, [(UNDERLAY, 1), (UNDERLAY, 2), (UNDERLAY, 3)]);
    for (_, frame) in sent(&actions) {
        assert_eq!(frame.bytes[..12], [ASKER, node_mac(A, UNDERLAY)].concat());
        assert_eq!(frame.bytes[14 + 8], 63, "one hop less");
        judge(frame).unwrap();
    }
    assert_eq!(node.next_poll(NOW), None);
}

#[test]
fn too_much_that_waits_pushes_out_the_oldest() {
    let mut node = node(A, 1);
    let craft = Craft::new(node_mac(A, POD), pod(A, Family::V4), pod(B, Family::V4));
    let mut dropped = Vec::new();
    for number in 0..150 {
        let mut frame = craft.udp((5, 7), &[0; 1472]);
        frame.id = PacketId(number);
        for action in receive(&mut node, POD, frame) {
            if let Action::Dropped { frame, why } = action {
                assert_eq!(why, StackDrop::NeighbourQueue);
                dropped.push(frame.id.0);
            }
        }
    }
    assert!(!dropped.is_empty() && dropped.len() < 20);
    assert_eq!(dropped, (0..dropped.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_link_that_goes_takes_what_waits_along() {
    let mut node = node(A, 1);
    receive(&mut node, POD, datagram(1));
    node.remove_link(UNDERLAY);
    assert_eq!(node.next_poll(NOW), Some(NOW));
    let actions = node.poll(NOW, &mut ids(&mut 0));
    assert!(
        matches!(&actions[..], [Action::Dropped { why: StackDrop::NoLink, frame }] if frame.id == PacketId(1))
    );
    assert_eq!(node.next_poll(NOW), None);
}

/// The neighbour has a new device; its announcement counts, and that of a stranger leaves no trace.
#[test]
fn an_announcement_renews_what_is_known() {
    let mut node = node(A, 1);
    let to = underlay(B, Family::V4);
    receive(&mut node, UNDERLAY, arp(1, to, underlay(A, Family::V4), [0xFF; 6]));
    let mut announcement = arp(1, to, to, [0xFF; 6]);
    announcement.bytes[14 + 8..14 + 14].copy_from_slice(&[2, 5, 5, 5, 5, 5]);
    receive(&mut node, UNDERLAY, announcement);
    let actions = receive(&mut node, POD, datagram(1));
    assert_eq!(sent(&actions)[0].1.bytes[..6], [2, 5, 5, 5, 5, 5]);
    let stranger = ip("192.168.0.9");
    receive(&mut node, UNDERLAY, arp(1, stranger, stranger, [0xFF; 6]));
    let frame = Craft::new([0; 6], pod(A, Family::V4), ip("8.8.8.8")).udp((1, 2), b"");
    let actions = node.send_to_neighbour(NOW, UNDERLAY, stranger, frame, &mut ids(&mut 0));
    assert_eq!(Summary::of(&sent(&actions)[0].1.bytes).to_string(), "192.168.0.1 asks who has 192.168.0.9");
}

#[test]
fn a_redirected_frame_gets_addresses_and_nothing_else() {
    let mut node = node(A, 1);
    let mut frame = Craft::new([1; 6], pod(A, Family::V6), ip("2001:db8::1")).udp((1, 2), b"abc");
    frame.bytes[14 + 7] = 1;
    // To a pod, whose neighbour is known.
    let actions = node.send_to_neighbour(NOW, POD, pod(A, Family::V6), frame.clone(), &mut ids(&mut 0));
    let [(POD, out)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(out.bytes[..12], [pod_mac(A), node_mac(A, POD)].concat());
    assert_eq!((out.id, &out.bytes[14..]), (frame.id, &frame.bytes[14..]));
    // An IPv6 packet by way of an IPv4 neighbour, as on a link without IPv6 routers.
    let next = underlay(B, Family::V4);
    let asked = node.send_to_neighbour(NOW, UNDERLAY, next, frame.clone(), &mut ids(&mut 0));
    assert_eq!(sent(&asked).len(), 1);
    let answer = arp(2, next, underlay(A, Family::V4), node_mac(A, UNDERLAY));
    let actions = receive(&mut node, UNDERLAY, answer);
    assert_eq!(sent(&actions)[0].1.bytes[12..], frame.bytes[12..]);
}

#[test]
fn nobody_is_asked_on_a_link_without_arp() {
    let mut node = node(A, 1);
    let frame = Craft::new([1; 6], ip("192.168.0.9"), ip("10.11.5.5")).udp((1, 2), b"abc");
    let actions = node.send_to_neighbour(NOW, HOST, ip("10.11.5.5"), frame, &mut ids(&mut 0));
    let [(HOST, out)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(out.bytes[..12], [node_mac(A, HOST), node_mac(A, HOST)].concat());
}
