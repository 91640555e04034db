//! Properties that hold for any packet.

mod world;

use std::net::IpAddr;

use dataplane_abi::Be16;
use dataplane_abi::conntrack::{CtKey4, CtKey6, CtState};
use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use dataplane_core::conntrack::{begins, next_state};
use dataplane_native::craft::{Craft, checksums_are_right};
use dataplane_native::{Frame, Tunnel};
use proptest::prelude::*;
use world::{A1, A2, B1, HOST, OVERLAY, UNDERLAY, World, outside, router};

/// Any address that means something in the world of the tests, of one family.
fn address(family: u8) -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => Just(A1.ip(family)),
        4 => Just(A2.ip(family)),
        3 => Just(B1.ip(family)),
        1 => Just(router(1, family)),
        1 => Just(world::node_ip(1, family)),
        1 => Just(world::node_ip(2, family)),
        1 => Just(outside(family)),
        1 => Just(if family == 4 { IpAddr::from([224, 0, 0, 1]) } else { IpAddr::from([0xff02_u16, 0, 0, 0, 0, 0, 0, 1]) }),
    ]
}

/// A frame that is mostly well formed.
fn crafted() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(4_u8), Just(6_u8)])
        .prop_flat_map(|family| (address(family), address(family)))
        .prop_flat_map(|(src, dst)| {
            let mac = prop_oneof![Just(A1.mac), Just(A2.mac), Just([9; 6])];
            let shape = (
                mac,
                any::<u8>(),
                prop::option::weighted(0.2, (0_u16..40, any::<bool>())),
                prop::collection::vec(any::<u8>(), 0..12),
                prop::collection::vec(prop_oneof![Just(0_u8), Just(43), Just(60), Just(51)], 0..3),
            );
            (
                Just(src),
                Just(dst),
                shape,
                0_u8..7,
                any::<(u16, u16, u8)>(),
                prop::collection::vec(any::<u8>(), 0..64),
            )
        })
        .prop_map(
            |(src, dst, (mac, hops, fragment, options, extensions), kind, (sport, dport, byte), payload)| {
                let mut craft = Craft::new(src, dst).macs(mac, A1.gateway).hops(hops).id(u32::from(sport));
                if let Some((offset, more)) = fragment {
                    craft = craft.fragment(offset, more);
                }
                craft = if src.is_ipv4() {
                    craft.options(&options)
                } else {
                    extensions.iter().fold(craft, |craft, number| craft.extension(*number, &options))
                };
                // Few ports, so that connections meet again.
                let (sport, dport) = (sport % 4, dport % 4);
                match kind {
                    0 | 1 => craft.tcp(sport, dport, byte, &payload),
                    2 => craft.udp(sport, dport, &payload),
                    3 => craft.echo(byte & 1 == 0, sport, dport, &payload),
                    4 => craft.icmp(byte, 0, [0; 4], &payload),
                    5 => {
                        let about = Craft::new(dst, src).udp(sport, dport, &payload);
                        craft.error_about(if src.is_ipv4() { 3 } else { 1 }, 0, &about)
                    }
                    _ => craft.upper(byte, payload, None),
                }
            },
        )
}

/// Any frame: crafted, crafted and then spoilt, or noise.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => crafted(),
        3 => (crafted(), any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>()).prop_map(
            |(mut bytes, at, value, len)| {
                let at = at.index(bytes.len());
                bytes[at] = value;
                bytes.truncate(14 + len.index(bytes.len()));
                bytes
            }
        ),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn device() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(A1.ifindex),
        2 => Just(A2.ifindex),
        1 => Just(UNDERLAY),
        1 => Just(OVERLAY),
        1 => Just(HOST)
    ]
}

fn packets_counted(world: &World) -> u64 {
    world.counters().iter().map(|(_, _, packets)| packets).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_packet_is_counted_once_and_never_changes_its_length(
        frames in prop::collection::vec((0_usize..7, frame(), device(), any::<u8>()), 1..12)
    ) {
        let world = World::vxlan();
        for (at, (program, bytes, ifindex, at_hand)) in frames.into_iter().enumerate() {
            let mut frame = Frame::new(bytes.clone(), ifindex);
            frame.at_hand = usize::from(at_hand);
            frame.from_tunnel = Some(Tunnel { node: [0; 16], family: 1, key: 300 });
            let verdict = world.native.run(Program::ALL[program], &mut frame);
            prop_assert_eq!(packets_counted(&world), at as u64 + 1);
            prop_assert_eq!(frame.bytes.len(), bytes.len());
            if matches!(verdict, Verdict::Drop(_) | Verdict::Skip | Verdict::Pass) {
                prop_assert_eq!(frame.bytes, bytes, "what is not forwarded is not touched");
            }
        }
    }

    #[test]
    fn forwarding_keeps_checksums_right(bytes in crafted()) {
        let right = checksums_are_right(&bytes);
        let (verdict, frame) = World::vxlan().pod_sends(&A1, &bytes);
        if matches!(verdict, Verdict::Peer { .. } | Verdict::Tunnel { .. }) {
            prop_assert_eq!(checksums_are_right(&frame.bytes), right);
        }
    }

    #[test]
    fn what_is_at_hand_changes_nothing(bytes in frame(), at_hand in 0_usize..100, program in 0_usize..7, ifindex in device()) {
        let run = |at_hand| {
            let world = World::vxlan();
            let mut frame = Frame::new(bytes.clone(), ifindex);
            frame.at_hand = at_hand;
            let verdict = world.native.run(Program::ALL[program], &mut frame);
            (verdict, frame.bytes, world.counters())
        };
        prop_assert_eq!(run(at_hand), run(usize::MAX));
    }

    #[test]
    fn keys_are_the_same_both_ways(a: [u8; 4], b: [u8; 4], c: [u8; 16], d: [u8; 16], sport: u16, dport: u16, proto: u8) {
        let (sport, dport) = (Be16::new(sport), Be16::new(dport));
        let (there, from_high) = CtKey4::of_packet(a, b, sport, dport, proto);
        let (back, to_high) = CtKey4::of_packet(b, a, dport, sport, proto);
        prop_assert_eq!(there, back);
        prop_assert!(from_high != to_high || (a == b && sport == dport));
        let (there, from_high) = CtKey6::of_packet(c, d, sport, dport, proto);
        let (back, to_high) = CtKey6::of_packet(d, c, dport, sport, proto);
        prop_assert_eq!(there, back);
        prop_assert!(from_high != to_high || (c == d && sport == dport));
    }

    #[test]
    fn tcp_never_goes_back(packets in prop::collection::vec((any::<bool>(), any::<u8>()), 1..40)) {
        let mut seen = [0_u8; 2];
        let mut state = CtState::Syn as u8;
        for (reply, flags) in packets {
            if begins(flags) && state == CtState::Closing as u8 {
                break;
            }
            let (own, other) = if reply { (1, 0) } else { (0, 1) };
            seen[own] |= flags;
            let next = next_state(state, flags, seen[own], seen[other]);
            prop_assert!(next >= state && CtState::from_number(next).is_some());
            state = next;
        }
    }

    #[test]
    fn answers_meet_the_row_of_what_they_answer(family in prop_oneof![Just(4_u8), Just(6)], sport: u16, dport: u16, remote: bool, tcp: bool) {
        let world = World::vxlan();
        let peer = if remote { B1 } else { A2 };
        let (a, b) = (A1.ip(family), peer.ip(family));
        let make = |craft: Craft, sport, dport| if tcp { craft.tcp(sport, dport, 16, b"") } else { craft.udp(sport, dport, b"") };
        world.forwards(&A1, &make(world::craft(&A1, b), sport, dport));
        let back = make(world::craft(&peer, a), dport, sport);
        let (verdict, _) = if remote { world.tunnel_brings(&back, peer.identity) } else { world.pod_sends(&peer, &back) };
        prop_assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
        let rows = world.native.tables().ct4.borrow().len() + world.native.tables().ct6.borrow().len();
        prop_assert_eq!(rows, 1);
        let entry = world.ct(a, b, sport, dport, if tcp { 6 } else { 17 }).expect("a row");
        prop_assert_eq!(entry.dirs.map(|d| d.packets), [1, 1]);
    }
}
