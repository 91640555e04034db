//! ARP, neighbour discovery, groups, fragments, options, extension headers, ICMP errors, and what has no business here.

mod world;

use std::net::IpAddr;

use dataplane_abi::DropReason;
use dataplane_abi::metrics::Direction::{Egress, Ingress};
use dataplane_abi::program::Program;
use dataplane_core::Verdict;
use dataplane_native::Frame;
use dataplane_native::craft::{Craft, arp_request, checksums_are_right, solicitation};
use world::{A1, A2, B1, FAMILIES, HOST, HOST_MAC, Pod, World, craft, outside, router};

fn octets4(ip: IpAddr) -> [u8; 4] {
    match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

fn octets6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[test]
fn arp_is_answered_for_everything_but_the_pods_own_address() {
    let world = World::vxlan();
    let own = octets4(A1.v4);
    for target in [octets4(router(1, 4)), octets4(A2.v4), octets4(outside(4)), [10, 9, 9, 9]] {
        let (verdict, frame) = world.pod_sends(&A1, &arp_request(A1.mac, own, target));
        assert_eq!(verdict, Verdict::Egress { ifindex: A1.ifindex });
        let mut expected = [A1.mac, A1.gateway].concat();
        expected.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend(A1.gateway);
        expected.extend(target);
        expected.extend(A1.mac);
        expected.extend(own);
        assert_eq!(frame.bytes, expected);
    }
    // Duplicate address detection and announcements of the own address.
    for sender in [[0; 4], own] {
        let sent = arp_request(A1.mac, sender, own);
        let (verdict, frame) = world.pod_sends(&A1, &sent);
        assert_eq!((verdict, frame.bytes), (Verdict::Skip, sent));
    }
    // The node, should its device want to know: it hears the answer on the same device.
    let (verdict, frame) =
        world.run(Program::FromHost, &arp_request(HOST_MAC, octets4(router(1, 4)), own), HOST);
    assert_eq!(verdict, Verdict::Ingress { ifindex: HOST });
    assert_eq!(frame.bytes[22..28], HOST_MAC);
    assert_eq!(world.counters(), [(0, Egress, 5), (3, Egress, 2)]);
}

#[test]
fn solicitations_are_answered_for_the_router_and_other_pods() {
    let world = World::vxlan();
    let link_local: [u8; 16] = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    for (sender, target, gateway, flags) in [
        (octets6(A1.v6), octets6(router(1, 6)), A1.gateway, 0xE0),
        (octets6(A1.v6), octets6(A2.v6), A1.gateway, 0x60),
        (link_local, octets6(router(1, 6)), HOST_MAC, 0xE0),
    ] {
        let (verdict, frame) = world.pod_sends(&A1, &solicitation(A1.mac, sender, target));
        assert_eq!(verdict, Verdict::Egress { ifindex: A1.ifindex });
        let answer = &frame.bytes;
        assert!(checksums_are_right(answer));
        assert_eq!(answer[..12], [A1.mac, gateway].concat());
        assert_eq!(answer[21], 255);
        assert_eq!(answer[22..38], target);
        assert_eq!(answer[38..54], sender);
        assert_eq!(answer[54..56], [136, 0]);
        assert_eq!(answer[58..62], [flags, 0, 0, 0]);
        assert_eq!(answer[62..78], target);
        assert_eq!(answer[78..86], [&[2, 1][..], &gateway].concat());
    }
    // Asked directly, the gateway confirms the address by which it was asked.
    let mut direct = solicitation(A1.mac, link_local, octets6(router(1, 6)));
    direct[..6].copy_from_slice(&[4; 6]);
    let (_, frame) = world.pod_sends(&A1, &direct);
    assert_eq!(frame.bytes[80..86], [4; 6]);

    let own = solicitation(A1.mac, octets6(A1.v6), octets6(A1.v6));
    assert_eq!(world.pod_sends(&A1, &own).0, Verdict::Skip);
    let unknown = solicitation(A1.mac, octets6(A1.v6), octets6(B1.v6));
    assert_eq!(world.pod_sends(&A1, &unknown).0, Verdict::Drop(DropReason::UnknownTarget));
    assert_eq!(world.counters(), [(0, Egress, 4), (3, Egress, 1), (150, Egress, 1)]);
}

#[test]
fn what_a_pod_says_to_groups_is_dropped_with_a_reason() {
    let group6: IpAddr = "ff02::2".parse().expect("an address");
    for (bytes, reason) in [
        (craft(&A1, group6).icmp(133, 0, [0; 4], &[]), 176),
        (
            craft(&A1, "ff02::16".parse().expect("an address")).extension(0, &[5, 2, 0, 0]).icmp(
                143,
                0,
                [0; 4],
                &[],
            ),
            176,
        ),
        (craft(&A1, group6).udp(5353, 5353, b""), 150),
        (craft(&A1, "224.0.0.251".parse().expect("an address")).udp(5353, 5353, b""), 150),
        (craft(&A1, "255.255.255.255".parse().expect("an address")).udp(68, 67, b""), 150),
    ] {
        let world = World::vxlan();
        let (verdict, _) = world.pod_sends(&A1, &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::from_number(reason).expect("a reason")));
        assert_eq!(world.counters(), [(reason, Egress, 1)]);
        assert!(world.native.tables().ct6.borrow().is_empty());
    }
}

#[test]
fn fragments_follow_their_first() {
    for family in FAMILIES {
        let world = World::vxlan();
        let craft = craft(&A1, B1.ip(family)).id(77);
        let later = craft.clone().fragment(100, false).upper(17, vec![1; 40], None);
        assert_eq!(world.pod_sends(&A1, &later).0, Verdict::Drop(DropReason::FragmentNotFound));
        let first = craft.clone().fragment(0, true).udp(5000, 53, &[1; 64]);
        assert!(matches!(world.pod_sends(&A1, &first).0, Verdict::Tunnel { .. }));
        let (verdict, frame) = world.pod_sends(&A1, &later);
        assert!(matches!(verdict, Verdict::Tunnel { .. }));
        assert!(checksums_are_right(&frame.bytes));
        let other = craft.clone().id(78).fragment(100, false).upper(17, vec![1; 40], None);
        assert_eq!(world.pod_sends(&A1, &other).0, Verdict::Drop(DropReason::FragmentNotFound));
        let entry = world.ct(A1.ip(family), B1.ip(family), 5000, 53, 17).expect("one row for all");
        assert_eq!(entry.dirs[0].packets, 2);
        assert_eq!(world.counters(), [(0, Egress, 2), (175, Egress, 2)]);
    }
}

#[test]
fn options_and_extension_headers_are_passed() {
    let plain = |world: &World, bytes: &[u8]| {
        let (verdict, frame) = world.pod_sends(&A1, bytes);
        assert_eq!(verdict, Verdict::Peer { ifindex: A2.ifindex });
        assert_eq!(frame.bytes[40..], bytes[40..], "only the fixed header changes");
        assert!(checksums_are_right(&frame.bytes));
    };
    let world = World::vxlan();
    plain(&world, &craft(&A1, A2.v4).options(&[7, 7, 4, 0, 0, 0, 0]).tcp(1, 2, 2, b"options"));
    plain(&world, &craft(&A1, A2.v4).options(&[1; 40]).udp(1, 2, b"options"));
    for chain in [&[0_u8][..], &[60], &[0, 60, 43], &[0, 43, 60, 60], &[0, 60, 60, 60, 60, 60, 60]] {
        let bytes =
            chain.iter().fold(craft(&A1, A2.v6), |craft, number| craft.extension(*number, &[1, 4, 0, 0]));
        plain(&world, &bytes.udp(1, 2, b"extensions"));
    }
    assert_eq!(world.counters(), [(0, Egress, 7)]);
    assert!(world.ct(A1.v6, A2.v6, 1, 2, 17).is_some());
}

#[test]
fn ports_are_found_behind_whatever_comes_before_them() {
    let v4 = |options: &[u8]| craft(&A1, A2.v4).options(options);
    // An authentication header of that many bytes, counted in words less two (RFC 4302), and UDP behind it.
    let authenticated = |bytes: usize| {
        let mut segment = vec![0xA5; bytes];
        segment[..4].copy_from_slice(&[17, u8::try_from(bytes / 4 - 2).expect("a short one"), 0, 0]);
        segment.extend([0, 1, 0, 2, 0, 16, 0, 0]);
        segment.extend([0; 64]);
        craft(&A1, A2.v6).upper(51, segment, None)
    };
    for (what, bytes, proto) in [
        ("no options", v4(&[]).udp(1, 2, b""), 17),
        ("a word of options", v4(&[1]).tcp(1, 2, 2, b""), 6),
        ("two words of options", v4(&[7, 7, 4, 0, 0, 0, 0]).udp(1, 2, b"12345678"), 17),
        ("all the options there can be", v4(&[1; 40]).tcp(1, 2, 2, b"12345678"), 6),
        ("an authentication header of 8 bytes", authenticated(8), 17),
        ("an authentication header of 16 bytes", authenticated(16), 17),
        ("an authentication header of 24 bytes", authenticated(24), 17),
        ("an authentication header of 32 bytes", authenticated(32), 17),
    ] {
        let world = World::vxlan();
        assert_eq!(world.pod_sends(&A1, &bytes).0, Verdict::Peer { ifindex: A2.ifindex }, "{what}");
        let family = if bytes[14] >> 4 == 4 { 4 } else { 6 };
        assert!(world.ct(A1.ip(family), A2.ip(family), 1, 2, proto).is_some(), "{what}");
    }
}

#[test]
fn a_hop_leaves_the_header_checksum_right_whatever_it_was() {
    let mut carries = 0;
    for id in (0..=0xFFFF).step_by(16) {
        let sent = craft(&A1, A2.v4).id(id).udp(1, 2, b"");
        carries += usize::from(sent[24] == 0xFF);
        let (_, frame) = World::vxlan().pod_sends(&A1, &sent);
        assert_eq!(frame.bytes[22], sent[22] - 1, "hop limit");
        assert!(
            checksums_are_right(&frame.bytes),
            "{:02x?} became {:02x?}",
            &sent[14..34],
            &frame.bytes[14..34]
        );
    }
    assert!(carries > 10, "{carries} sums whose high byte overflows");
}

#[test]
fn every_kind_of_icmp_error_reaches_whom_it_is_for() {
    let kinds: [(u8, &[u8]); 2] = [(4, &[3, 4, 5, 11, 12]), (6, &[1, 2, 3, 4])];
    for (family, kinds) in kinds {
        for kind in kinds {
            let world = World::vxlan();
            let (_, sent) = world.pod_sends(&A1, &craft(&A1, B1.ip(family)).udp(33434, 33434, b"trace"));
            let error = Craft::new(router(2, family), A1.ip(family)).error_about(*kind, 0, &sent.bytes);
            let (verdict, frame) = world.run(Program::ToContainer, &error, A1.ifindex);
            assert_eq!(verdict, Verdict::Pass, "type {kind} of IPv{family}");
            assert!(checksums_are_right(&frame.bytes));
            assert_eq!(world.counters(), [(0, Ingress, 1), (0, Egress, 1)], "type {kind} of IPv{family}");
        }
    }
}

#[test]
fn bad_headers_have_their_reasons() {
    let cut = |mut bytes: Vec<u8>, to: usize| {
        bytes.truncate(to);
        bytes
    };
    let edit = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    // What a frame has behind its packet looks like what the packet lacks.
    let padded = |mut bytes: Vec<u8>, padding: &[u8]| {
        bytes.extend(padding);
        bytes.extend([0; 64]);
        bytes
    };
    let (v4, v6) = (craft(&A1, A2.v4), craft(&A1, A2.v6));
    let quoted = Craft::new(A2.v4, A1.v4).udp(1, 2, b"")[14..].to_vec();
    let deep = (0..9).fold(v6.clone(), |craft, _| craft.extension(60, &[]));
    let mut tunnelled = edit(v4.udp(1, 2, b""), 12, 0x88);
    tunnelled[13] = 0x47;
    for (what, bytes, reason) in [
        ("cut in the IPv4 header", cut(v4.udp(1, 2, b""), 30), 134),
        ("shorter than it says", cut(v4.udp(1, 2, b"payload"), 44), 134),
        ("another version", edit(v4.udp(1, 2, b""), 14, 0x55), 134),
        ("too short a header", edit(v4.udp(1, 2, b""), 14, 0x44), 134),
        ("no room for UDP", v4.upper(17, vec![0; 4], None), 135),
        ("no room for TCP", v4.upper(6, vec![0; 12], None), 135),
        ("an unknown protocol", v4.upper(47, vec![0; 12], None), 137),
        ("an unknown ICMP type", v4.icmp(200, 0, [0; 4], &[]), 144),
        ("cut in the IPv6 header", cut(v6.udp(1, 2, b""), 50), 134),
        ("no room for UDP over IPv6", v6.upper(17, vec![0; 4], None), 135),
        ("an unknown protocol over IPv6", v6.upper(47, vec![0; 12], None), 137),
        ("nothing behind the header", v6.upper(59, vec![], None), 137),
        ("an unknown ICMPv6 type", v6.icmp(200, 0, [0; 4], &[]), 146),
        ("routing by the sender", v6.clone().extension(43, &[0, 1, 0, 0]).udp(1, 2, b""), 156),
        ("too many extension headers", deep.udp(1, 2, b""), 156),
        ("an extension header that is cut", v6.upper(60, vec![17, 9, 0], None), 156),
        ("UDP in the padding", padded(v4.upper(17, vec![], None), &[0, 1, 0, 2, 0, 8, 0, 0]), 135),
        ("half of TCP in the padding", padded(v4.upper(6, vec![0; 16], None), &[0; 4]), 135),
        ("ICMP in the padding", padded(v4.upper(1, vec![8, 0, 0, 0], None), &[0; 4]), 135),
        (
            "UDP behind options in the padding",
            padded(v4.clone().options(&[1]).upper(17, vec![], None), &[0; 8]),
            135,
        ),
        ("a quoted header in the padding", padded(v4.icmp(3, 3, [0; 4], &quoted[..24]), &quoted[24..]), 135),
        ("UDP over IPv6 in the padding", padded(v6.upper(17, vec![], None), &[0, 1, 0, 2, 0, 8, 0, 0]), 135),
        ("TCP over IPv6 in the padding", padded(v6.upper(6, vec![0; 16], None), &[0; 4]), 135),
        (
            "an extension header in the padding",
            padded(v6.upper(60, vec![], None), &[17, 0, 1, 4, 0, 0, 0, 0]),
            135,
        ),
        (
            "a fragment header in the padding",
            padded(v6.upper(44, vec![], None), &[17, 0, 0, 8, 0, 0, 0, 1]),
            135,
        ),
        ("not IP", tunnelled, 139),
        ("hardly a frame", vec![0; 13], 139),
    ] {
        let world = World::vxlan();
        let (verdict, frame) = world.pod_sends(&A1, &bytes);
        let reason = DropReason::from_number(reason).expect("a reason");
        assert_eq!(verdict, Verdict::Drop(reason), "{what}");
        assert_eq!(frame.bytes, bytes, "{what}");
        assert_eq!(world.counters(), [(reason.number(), Egress, 1)], "{what}");
        let events = world.events();
        assert_eq!(events.len(), 1, "{what}");
        assert_eq!(events[0].header.drop_reason(), Some(reason), "{what}");
    }
    for bytes in [v4.tcp(1, 2, 2, b""), v4.udp(1, 2, b""), v6.tcp(1, 2, 2, b""), v6.udp(1, 2, b"")] {
        let (verdict, _) = World::vxlan().pod_sends(&A1, &padded(bytes, &[]));
        assert_eq!(verdict, Verdict::Peer { ifindex: A2.ifindex }, "padding alone does no harm");
    }
    let mut tagged = Frame::new(v4.udp(1, 2, b""), A1.ifindex);
    tagged.tagged = true;
    assert_eq!(
        World::vxlan().native.run(Program::FromContainer, &mut tagged),
        Verdict::Drop(DropReason::VlanFiltered)
    );
}

#[test]
fn icmp_errors_go_the_way_of_what_they_are_about() {
    for family in FAMILIES {
        let (unreachable, too_big) = if family == 4 { ((3, 3), (3, 4)) } else { ((1, 4), (2, 0)) };
        for about in [0, 1, 2] {
            let world = World::vxlan();
            let asked = craft(&A1, A2.ip(family));
            let asked = match about {
                0 => asked.udp(5000, 53, b"?"),
                1 => asked.tcp(5000, 80, 2, b""),
                _ => asked.echo(true, 5, 1, b""),
            };
            let (_, sent) = world.pod_sends(&A1, &asked);
            // The other pod refuses.
            let refused = craft(&A2, A1.ip(family)).error_about(unreachable.0, unreachable.1, &sent.bytes);
            let (verdict, frame) = world.pod_sends(&A2, &refused);
            assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
            assert!(checksums_are_right(&frame.bytes));
            // A router on the way complains, through the stack.
            let complaint =
                Craft::new(router(1, family), A1.ip(family)).error_about(too_big.0, too_big.1, &sent.bytes);
            let (verdict, _) = world.run(Program::ToContainer, &complaint, A1.ifindex);
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(world.counters(), [(0, Ingress, 1), (0, Egress, 2)]);
            let rows = world.native.tables().ct4.borrow().len() + world.native.tables().ct6.borrow().len();
            assert_eq!(rows, 1, "an error is no connection");

            // About nothing that is known, from a pod that has no part in it, and to someone who did not send it.
            let world = World::vxlan();
            let (verdict, _) = world.pod_sends(&A2, &refused);
            assert_eq!(verdict, Verdict::Drop(DropReason::UnknownCtState));
            world.forwards(&A1, &asked);
            let stranger = Pod { mac: A1.mac, ..A1 };
            assert_eq!(world.pod_sends(&stranger, &refused).0, Verdict::Drop(DropReason::InvalidSourceIp));
            let misled = craft(&A2, B1.ip(family)).error_about(unreachable.0, unreachable.1, &asked);
            assert_eq!(world.pod_sends(&A2, &misled).0, Verdict::Drop(DropReason::InvalidPacket));
        }
    }
}

#[test]
fn bytes_that_are_not_at_hand_make_no_difference() {
    for family in FAMILIES {
        for bytes in [
            craft(&A1, A2.ip(family)).tcp(1, 2, 2, &[0; 100]),
            craft(&A1, B1.ip(family)).udp(1, 2, &[0; 100]),
            craft(&A1, A2.ip(family)).echo(true, 5, 1, &[0; 100]),
            solicitation(A1.mac, octets6(A1.v6), octets6(router(1, 6))),
            arp_request(A1.mac, octets4(A1.v4), octets4(A2.v4)),
        ] {
            let (verdict, whole) = World::vxlan().pod_sends(&A1, &bytes);
            for at_hand in [0, 14, 33, 34, 40, 54, 60] {
                let mut frame = Frame::new(bytes.clone(), A1.ifindex);
                frame.at_hand = at_hand;
                assert_eq!(World::vxlan().native.run(Program::FromContainer, &mut frame), verdict);
                assert_eq!(frame.bytes, whole.bytes);
            }
        }
    }
}
