//! What holds for any bytes and any packets.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sim_net::{Action, Frame, Link, LinkKind, Node, PacketId, Summary};

use crate::craft::{Craft, judge, sent};
use crate::world::{
    A, B, Family, POD, UNDERLAY, host, ids, ip, links, node, node_mac, pod, pod_mac, underlay,
};

const NOW: Duration = Duration::ZERO;
const OVERLAY: u32 = 4;

/// A node with all kinds of links.
fn full() -> Node {
    let mut node = node(A, 1);
    let mac = node_mac(A, OVERLAY);
    node.set_link(Link { ifindex: OVERLAY, mac, mtu: 1450, kind: LinkKind::Overlay, addresses: vec![] });
    node
}

/// A frame of some meaning with some bytes changed: deeper than random ones get.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let addresses = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let protocol = prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(44), Just(0), any::<u8>()];
    let changes = vec((0_usize..120, any::<u8>()), 0..4);
    (addresses, any::<bool>(), protocol, vec(any::<u8>(), 0..200), changes).prop_map(
        |(family, to_pod, protocol, payload, changes)| {
            let to = if to_pod { pod(A, family) } else { underlay(A, family) };
            let mac = if to_pod { pod_mac(A) } else { node_mac(A, UNDERLAY) };
            let mut bytes = Craft::new(mac, underlay(B, family), to).packet(protocol, &payload).bytes;
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            // So that changes behind the header are not all lost to its checksum.
            if family == Family::V4 && bytes[14] == 0x45 {
                bytes[24..26].copy_from_slice(&[0, 0]);
                let sum = sim_net::checksum::of(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            bytes
        },
    )
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let typed = (vec(any::<u8>(), 0..120), prop_oneof![Just(0x0800_u16), Just(0x86DD), Just(0x0806)])
        .prop_map(|(body, ethertype)| {
            [&node_mac(A, UNDERLAY)[..], &[2; 6], &ethertype.to_be_bytes(), &body].concat()
        });
    prop_oneof![vec(any::<u8>(), 0..120), typed, nearly_right()]
}

/// How often each frame that was given came back.
fn endings(actions: &[Action], id: PacketId) -> usize {
    let of = |action: &&Action| match action {
        Action::Transmit { frame, .. } | Action::Tunnelled { frame, .. } | Action::Local { frame } => {
            frame.id == id
        }
        Action::Dropped { frame, .. } => frame.id == id,
    };
    actions.iter().filter(of).count()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_bytes_have_a_line(bytes in any_frame()) {
        prop_assert!(!Summary::of(&bytes).to_string().is_empty());
    }

    #[test]
    fn a_node_takes_any_bytes_and_ends_each_frame_once(
        frames in vec((any_frame(), prop_oneof![Just(UNDERLAY), Just(POD), Just(3), Just(OVERLAY), Just(9)], any::<bool>()), 1..8)
    ) {
        let mut node = full();
        let mut next = 1000;
        let mut ended: BTreeMap<u64, usize> = BTreeMap::new();
        let count = frames.len() as u64;
        let mut note = |actions: Vec<Action>| {
            for id in 0..count {
                *ended.entry(id).or_default() += endings(&actions, PacketId(id));
            }
            for (_, frame) in sent(&actions).into_iter().filter(|(_, frame)| frame.id.0 >= 1000) {
                judge(frame).unwrap();
            }
        };
        for (number, (bytes, ifindex, accepted)) in frames.into_iter().enumerate() {
            let frame = Frame { id: PacketId(number as u64), bytes };
            note(node.receive(NOW, ifindex, frame, accepted, &mut ids(&mut next)));
        }
        // Those that wait for a neighbour end when it is given up.
        for second in 1..10 {
            note(node.poll(Duration::from_secs(second), &mut ids(&mut next)));
        }
        prop_assert!(ended.values().all(|times| *times == 1), "{:?}", ended);
    }

    #[test]
    fn the_other_doors_take_any_bytes(bytes in any_frame(), overlay in any::<bool>()) {
        let mut node = full();
        let frame = Frame { id: PacketId(0), bytes };
        let actions = if overlay {
            node.encapsulate(NOW, ip("192.168.0.1"), 5, frame, &mut ids(&mut 1000))
        } else {
            node.send_to_neighbour(NOW, POD, pod(A, Family::V4), frame, &mut ids(&mut 1000))
        };
        prop_assert_eq!(endings(&actions, PacketId(0)), 1, "{:?}", actions);
    }

    #[test]
    fn a_host_takes_any_bytes(frames in vec(any_frame(), 1..8)) {
        let mut host = host(A, 1);
        let mut next = 1000;
        for bytes in frames {
            host.receive(Frame { id: PacketId(0), bytes });
        }
        for frame in host.poll(NOW, &mut ids(&mut next)) {
            judge(&frame).unwrap();
        }
        for second in 1..10 {
            host.poll(Duration::from_secs(second), &mut ids(&mut next));
        }
    }

    #[test]
    fn forwarding_keeps_checksums_right(
        family in prop_oneof![Just(Family::V4), Just(Family::V6)],
        hop_limit in prop_oneof![0_u8..4, any::<u8>()],
        dont_fragment in any::<bool>(),
        data in vec(any::<u8>(), 0..1500),
        mtu in 576_u32..1500,
        ports in any::<(u16, u16)>(),
    ) {
        let mut node = node(B, 1);
        let mut pod_link = links(B, mtu).pop().unwrap();
        pod_link.mtu = if family == Family::V6 { mtu.max(1280) } else { mtu };
        let mtu = usize::try_from(pod_link.mtu).unwrap();
        node.set_link(pod_link);
        let craft = Craft { hop_limit, dont_fragment, ..Craft::new(node_mac(B, UNDERLAY), underlay(A, family), pod(B, family)) };
        let frame = craft.udp(ports, &data);
        let size = frame.bytes.len() - 14;
        let actions = node.receive(NOW, UNDERLAY, frame.clone(), false, &mut ids(&mut 0));
        let forwarded: Vec<&Frame> =
            sent(&actions).into_iter().filter(|(ifindex, _)| *ifindex == POD).map(|(_, frame)| frame).collect();
        let may_be_cut = family == Family::V4 && !dont_fragment;
        prop_assert_eq!(!forwarded.is_empty(), hop_limit > 1 && (size <= mtu || may_be_cut));
        let header = if family == Family::V4 { 20 } else { 40 };
        let mut whole = Vec::new();
        for out in &forwarded {
            judge(out).map_err(TestCaseError::fail)?;
            prop_assert!(out.bytes.len() - 14 <= mtu);
            let at = if family == Family::V4 { 14 + 8 } else { 14 + 7 };
            prop_assert_eq!(out.bytes[at], hop_limit - 1);
            whole.extend_from_slice(&out.bytes[14 + header..]);
        }
        if !forwarded.is_empty() {
            prop_assert_eq!(&whole[..], &frame.bytes[14 + header..], "nothing lost, nothing changed");
        }
    }
}
