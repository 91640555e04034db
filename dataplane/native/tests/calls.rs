//! Calls to services, packet by packet: frames in, verdicts, bytes, rows and all counters out.

mod world;

use std::net::{IpAddr, SocketAddr};

use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::config::{ConfigFlags, Routing};
use dataplane_abi::conntrack::{CtEntry, CtFlags, CtState, WayKind};
use dataplane_abi::metrics::Direction::{self, Egress};
use dataplane_abi::policy;
use dataplane_abi::program::Program;
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16, DropReason};
use dataplane_core::Verdict;
use dataplane_native::Frame;
use dataplane_native::craft::{Craft, checksums_are_right};
use world::{
    A1, A2, ACK, B1, FAMILIES, FIN, Pod, RST, SYN, SYN_ACK, TCP, UDP, UNDERLAY, World, craft, node_ip,
    outside,
};

/// Number of the service of these tests.
const SHOP: u32 = 77;

fn vip(family: u8) -> IpAddr {
    if family == 4 { IpAddr::from([10, 96, 0, 1]) } else { IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, 1]) }
}

/// Offers these places under an address: as an agent would write it, with what was there before gone.
fn offer(world: &mut World, at: SocketAddr, proto: u8, backends: &[SocketAddr], timeout_s: u32) {
    let (addr, family) = Addr::from_ip(at.ip());
    let key = ServiceKey::frontend(addr, family, Be16::new(at.port()), proto, ServiceScope::Internal);
    let tables = world.native.tables_mut();
    for n in 0..100 {
        tables.backends.remove(&n);
    }
    let mut count = 0;
    for place in backends {
        count += 1;
        let entry = BackendEntry {
            addr: Addr::from_ip(place.ip()).0,
            service: SHOP,
            port: Be16::new(place.port()),
            family: family as u8,
            proto,
            state: BackendState::Active as u8,
            pad: [0; 3],
        };
        assert!(tables.backends.insert(number(*place), entry));
        assert!(tables.services.insert(key.slot(count), ServiceEntry::slot(SHOP, number(*place))));
    }
    let entry = ServiceEntry::frontend(SHOP, count, timeout_s, ServiceFlags::CLUSTER_IP);
    assert!(tables.services.insert(key, entry));
}

fn number(place: SocketAddr) -> u32 {
    match place.ip() {
        IpAddr::V4(ip) => u32::from(ip.octets()[3]),
        IpAddr::V6(ip) => u32::from(ip.octets()[15]),
    }
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Source and destination of a frame with plain headers.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |offset: usize| u16::from_be_bytes([frame[offset], frame[offset + 1]]);
    if frame[12] == 0x08 {
        let ip = |offset: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[offset..offset + 4]).expect("four"));
        let upper = 14 + usize::from(frame[14] & 15) * 4;
        (at(ip(26), port(upper)), at(ip(30), port(upper + 2)))
    } else {
        let ip =
            |offset: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[offset..offset + 16]).expect("sixteen"));
        (at(ip(22), port(54)), at(ip(38), port(56)))
    }
}

#[track_caller]
fn assert_reaches(outcome: &(Verdict, Frame), pod: &Pod, from: SocketAddr, to: SocketAddr) {
    let (verdict, frame) = outcome;
    assert_eq!(*verdict, Verdict::Peer { ifindex: pod.ifindex });
    assert_eq!(ends(&frame.bytes), (from, to));
    assert_eq!(frame.bytes[..6], pod.mac);
    assert!(checksums_are_right(&frame.bytes));
}

#[test]
fn a_conversation_with_a_pod_of_the_node() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, backend) = (A1.ip(family), A2.ip(family));
        let shop = at(vip(family), 80);
        offer(&mut world, shop, TCP, &[at(backend, 8080)], 0);
        for (n, flags) in [SYN, ACK, ACK, FIN | ACK].into_iter().enumerate() {
            let there = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, flags, b"odd"));
            assert_reaches(&there, &A2, at(client, 4000), at(backend, 8080));
            let back = if n == 0 { SYN_ACK } else { flags };
            let back = world.pod_sends(&A2, &craft(&A2, client).tcp(8080, 4000, back, b""));
            assert_reaches(&back, &A1, shop, at(client, 4000));
        }
        let call = world.ct(client, vip(family), 4000, 80, TCP).expect("a row of the call");
        let connection = world.ct(client, backend, 4000, 8080, TCP).expect("a row of the connection");
        assert!(call.flags.contains(CtFlags::CALL) && !connection.flags.contains(CtFlags::CALL));
        assert_eq!(call.dirs[0].way.kind, WayKind::Backend as u8);
        for row in [call, connection] {
            assert_eq!(row.state, CtState::Closing as u8);
            assert_eq!(row.dirs.map(|half| half.packets), [4, 4]);
            assert_eq!(row.last_seen, call.last_seen);
        }
        assert_eq!(world.connections(), 2);
        assert_eq!(world.counters(), [(0, Egress, 8)]);
    }
}

#[test]
fn datagrams_stay_with_their_backend_as_long_as_it_is_one() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let places: Vec<SocketAddr> = [A2.ip(family), B1.ip(family)].map(|ip| at(ip, 53)).to_vec();
        let shop = at(vip(family), 53);
        offer(&mut world, shop, UDP, &places, 0);
        let send = |world: &World, port: u16| {
            let (verdict, frame) = world.pod_sends(&A1, &craft(&A1, vip(family)).udp(port, 53, b"question"));
            assert!(matches!(verdict, Verdict::Peer { .. } | Verdict::Tunnel { .. }), "{verdict:?}");
            assert!(checksums_are_right(&frame.bytes));
            ends(&frame.bytes).1
        };
        let mut seen = std::collections::BTreeSet::new();
        for port in 4000..4040 {
            let first = send(&world, port);
            seen.insert(first);
            for _ in 0..5 {
                world.seconds(40);
                assert_eq!(send(&world, port), first);
            }
        }
        assert_eq!(seen.len(), 2, "all of them");
        // One goes: who was with it moves, the others stay.
        let before: Vec<SocketAddr> = (4000..4040).map(|port| send(&world, port)).collect();
        offer(&mut world, shop, UDP, &places[..1], 0);
        for (port, before) in (4000..4040).zip(before) {
            let now = send(&world, port);
            assert_eq!(now, places[0]);
            assert!(before == now || before == places[1]);
        }
    }
}

#[test]
fn a_connection_stays_with_its_backend_whatever_becomes_of_it() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let shop = at(vip(family), 80);
        let (old, new) = (at(A2.ip(family), 8080), at(B1.ip(family), 8080));
        offer(&mut world, shop, TCP, &[old], 0);
        let send = |world: &World, flags: u8| {
            ends(&world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, flags, b"")).1.bytes).1
        };
        assert_eq!(send(&world, SYN), old);
        assert_eq!(send(&world, ACK), old);
        offer(&mut world, shop, TCP, &[new], 0);
        world.seconds(5);
        assert_eq!(send(&world, ACK), old);
        world.seconds(600);
        assert_eq!(send(&world, ACK), old, "idle for long, but not over");
        // What begins again goes to who is there.
        assert_eq!(send(&world, RST), old);
        assert_eq!(send(&world, SYN), new);
        assert_eq!(send(&world, ACK), new);
    }
}

#[test]
fn answers_come_from_the_service_on_every_way_in() {
    for family in FAMILIES {
        for routing in [Routing::Vxlan, Routing::Native] {
            let mut world = World::node(1, routing);
            let (client, backend) = (A1.ip(family), B1.ip(family));
            let shop = at(vip(family), 80);
            offer(&mut world, shop, TCP, &[at(backend, 8080)], 0);
            let (verdict, frame) = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, SYN, b""));
            assert!(matches!(verdict, Verdict::Tunnel { .. } | Verdict::Neighbour { .. }), "{verdict:?}");
            assert_eq!(ends(&frame.bytes), (at(client, 4000), at(backend, 8080)));
            assert!(checksums_are_right(&frame.bytes));
            for flags in [SYN_ACK, ACK] {
                let answer = craft(&B1, client).tcp(8080, 4000, flags, b"odd");
                let outcome = match routing {
                    Routing::Vxlan => world.tunnel_brings(&answer, B1.identity),
                    Routing::Native => world.run(Program::FromNetdev, &answer, UNDERLAY),
                };
                assert_reaches(&outcome, &A1, shop, at(client, 4000));
            }
            // What the stack has to do with it is the backend's own until it goes into the client.
            let last = Craft::new(backend, client).hops(1).tcp(8080, 4000, ACK, b"");
            let (verdict, frame) = match routing {
                Routing::Vxlan => world.tunnel_brings(&last, B1.identity),
                Routing::Native => world.run(Program::FromNetdev, &last, UNDERLAY),
            };
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(frame.bytes, last);
            let (verdict, frame) = world.run(Program::ToContainer, &last, A1.ifindex);
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(ends(&frame.bytes), (shop, at(client, 4000)));
            assert!(checksums_are_right(&frame.bytes));
        }
    }
}

#[test]
fn the_node_itself_is_a_backend() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, node) = (A1.ip(family), node_ip(1, family));
        let shop = at(vip(family), 443);
        offer(&mut world, shop, TCP, &[at(node, 6443)], 0);
        let (verdict, frame) = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 443, SYN, b""));
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(ends(&frame.bytes), (at(client, 4000), at(node, 6443)));
        assert!(checksums_are_right(&frame.bytes));
        let answer = Craft::new(node, client).tcp(6443, 4000, SYN_ACK, b"");
        let (verdict, frame) = world.run(Program::ToContainer, &answer, A1.ifindex);
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(ends(&frame.bytes), (shop, at(client, 4000)));
        assert!(checksums_are_right(&frame.bytes));
    }
}

#[test]
fn a_pod_speaks_with_itself() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let pod = A1.ip(family);
        let shop = at(vip(family), 80);
        offer(&mut world, shop, TCP, &[at(pod, 8080)], 0);
        for (n, flags) in [SYN, ACK].into_iter().enumerate() {
            let there = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, flags, b"me"));
            let (from, to) = ends(&there.1.bytes);
            assert!(from.ip() != pod && from.port() == 4000, "{from}");
            assert_reaches(&there, &A1, from, at(pod, 8080));
            let back = if n == 0 { SYN_ACK } else { ACK };
            let back = world.pod_sends(&A1, &craft(&A1, from.ip()).tcp(8080, 4000, back, b"myself"));
            assert_reaches(&back, &A1, shop, at(pod, 4000));
            // The agent writes something else meanwhile.
            world.revise();
            assert_eq!(to, at(pod, 8080));
        }
        // Nobody else has that address, and nobody is reached at it.
        let stray = world.pod_sends(
            &A2,
            &craft(
                &A2,
                ends(&world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, ACK, b"")).1.bytes).0.ip(),
            )
            .tcp(1, 2, SYN, b""),
        );
        assert_eq!(stray.0, Verdict::Drop(DropReason::UnknownTarget));
    }
}

#[test]
fn without_backends_calls_are_dropped_and_counted() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let shop = at(vip(family), 80);
        offer(&mut world, shop, TCP, &[], 0);
        let (verdict, _) = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, SYN, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::NoServiceBackend));
        assert_eq!(world.counters(), [(158, Egress, 1)]);
        assert_eq!(world.connections(), 0);
    }
}

#[test]
fn who_is_not_the_sender_begins_nothing_and_says_nothing() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let shop = at(vip(family), 80);
        offer(&mut world, shop, TCP, &[at(B1.ip(family), 8080)], 0);
        let forged = Craft::new(A1.ip(family), vip(family)).macs(A2.mac, A2.gateway);
        let (verdict, _) = world.pod_sends(&A2, &forged.tcp(4000, 80, SYN, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::InvalidSourceIp));
        assert_eq!(world.connections(), 0);
        world.forwards(&A1, &craft(&A1, vip(family)).tcp(4000, 80, SYN, b""));
        let before = world.ct(A1.ip(family), vip(family), 4000, 80, TCP);
        let (verdict, _) = world.pod_sends(&A2, &forged.tcp(4000, 80, RST, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::InvalidSourceIp));
        assert_eq!(world.ct(A1.ip(family), vip(family), 4000, 80, TCP), before);
        // Nor in the name of the service.
        let forged = Craft::new(vip(family), A1.ip(family)).macs(A2.mac, A2.gateway);
        let (verdict, _) = world.pod_sends(&A2, &forged.tcp(80, 4000, RST, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::InvalidSourceIp));
        assert_eq!(world.ct(A1.ip(family), vip(family), 4000, 80, TCP), before);
    }
}

#[test]
fn answers_are_not_mixed_up() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, backend) = (A1.ip(family), at(B1.ip(family), 8080));
        let shop = at(vip(family), 80);
        offer(&mut world, shop, TCP, &[backend], 0);
        // The client speaks with the backend itself, from the same port: no answer could be told from the other's.
        world.forwards(&A1, &craft(&A1, backend.ip()).tcp(4000, 8080, SYN, b""));
        let (verdict, _) = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, SYN, b""));
        assert_eq!(verdict, Verdict::Drop(DropReason::NatNoMapping));
        let answer = craft(&B1, client).tcp(8080, 4000, SYN_ACK, b"");
        assert_reaches(&world.tunnel_brings(&answer, B1.identity), &A1, backend, at(client, 4000));
        // From another port it is free.
        world.forwards(&A1, &craft(&A1, vip(family)).tcp(4001, 80, SYN, b""));
        let answer = craft(&B1, client).tcp(8080, 4001, SYN_ACK, b"");
        assert_reaches(&world.tunnel_brings(&answer, B1.identity), &A1, shop, at(client, 4001));
    }
}

#[test]
fn a_row_that_is_lost_is_made_anew_with_its_service() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, backend) = (A1.ip(family), at(A2.ip(family), 53));
        let shop = at(vip(family), 53);
        offer(&mut world, shop, UDP, &[backend], 0);
        world.forwards(&A1, &craft(&A1, vip(family)).udp(4000, 53, b"?"));
        // Of both rows only that of the call is left, and the backend speaks first.
        for table in ["CT4", "CT6"] {
            for (key, value) in world.native.tables().dump(table).expect("a table") {
                if value[std::mem::offset_of!(CtEntry, flags)] & CtFlags::CALL.0 == 0 {
                    world.native.tables_mut().delete(table, &key).expect("a row");
                }
            }
        }
        assert_eq!(world.connections(), 1);
        let stray = world.pod_sends(&A2, &craft(&A2, client).udp(53, 4000, b"!"));
        assert_reaches(&stray, &A1, backend, at(client, 4000));
        // The client goes on, and is answered by whom it calls, whoever is taken for the one who began.
        let there = world.pod_sends(&A1, &craft(&A1, vip(family)).udp(4000, 53, b"?"));
        assert_reaches(&there, &A2, at(client, 4000), backend);
        let back = world.pod_sends(&A2, &craft(&A2, client).udp(53, 4000, b"!"));
        assert_reaches(&back, &A1, shop, at(client, 4000));
    }
}

#[test]
fn a_service_that_comes_later_is_noticed() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let shop = at(vip(family), 53);
        let send = |world: &World| {
            ends(&world.pod_sends(&A1, &craft(&A1, vip(family)).udp(4000, 53, b"?")).1.bytes).1
        };
        assert_eq!(send(&world), shop);
        assert_eq!(send(&world), shop);
        offer(&mut world, shop, UDP, &[at(A2.ip(family), 53)], 0);
        world.seconds(1);
        assert_eq!(send(&world), at(A2.ip(family), 53));
    }
}

#[test]
fn sessions_are_those_of_addresses() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let places: Vec<SocketAddr> = (30..40)
            .map(|n| {
                at(
                    if family == 4 {
                        IpAddr::from([10, 1, 2, n])
                    } else {
                        IpAddr::from([0xfd00, 1, 2, 0, 0, 0, 0, u16::from(n)])
                    },
                    80,
                )
            })
            .collect();
        offer(&mut world, at(vip(family), 80), TCP, &places, 100);
        let call = |world: &World, pod: &Pod, port: u16| {
            ends(&world.pod_sends(pod, &craft(pod, vip(family)).tcp(port, 80, SYN, b"")).1.bytes).1
        };
        let first = call(&world, &A1, 4000);
        for port in 4001..4020 {
            world.seconds(90);
            assert_eq!(call(&world, &A1, port), first);
        }
        let others: std::collections::BTreeSet<_> = (5000..5100)
            .map(|port| {
                world.seconds(101);
                call(&world, &A1, port)
            })
            .collect();
        assert!(others.len() > 5, "a session ends");
    }
}

#[test]
fn policy_is_asked_about_the_backend() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        offer(&mut world, at(vip(family), 80), TCP, &[at(A2.ip(family), 8080)], 0);
        world.guard(&A2, 5, dataplane_abi::endpoints::EndpointFlags::ENFORCE_INGRESS);
        let send =
            |world: &World, flags| world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, flags, b"")).0;
        assert_eq!(send(&world, SYN), Verdict::Drop(DropReason::PolicyDenied));
        let allow = policy::PolicyEntry::all(policy::PolicyVerdict::allow(1));
        world.rule(5, policy::Direction::Ingress, A1.identity, allow);
        world.revise();
        assert_eq!(send(&world, SYN), Verdict::Peer { ifindex: A2.ifindex });
        world.no_rule(5, policy::Direction::Ingress, A1.identity);
        world.revise();
        assert_eq!(send(&world, ACK), Verdict::Drop(DropReason::PolicyDenied));
        let counted: u64 =
            world.counters().iter().filter(|(reason, ..)| *reason == 133).map(|(.., n)| n).sum();
        assert_eq!(counted, 2);
        assert!(world.counters().contains(&(133, Direction::Ingress, 2)));
    }
}

#[test]
fn node_ports_are_called_at_nodes_alone() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        (world.config.node_port_min, world.config.node_port_max) = (30_000, 32_767);
        world.write_config();
        let every = if family == 4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let backend = at(A2.ip(family), 8080);
        offer(&mut world, at(every, 30_080), TCP, &[backend], 0);
        let call = |world: &World, to: IpAddr| {
            ends(&world.pod_sends(&A1, &craft(&A1, to).tcp(4000, 30_080, SYN, b"")).1.bytes).1
        };
        assert_eq!(call(&world, node_ip(1, family)), backend);
        world.forget();
        assert_eq!(call(&world, node_ip(2, family)), backend);
        world.forget();
        for other in [outside(family), B1.ip(family)] {
            assert_eq!(call(&world, other), at(other, 30_080));
        }
    }
}

#[test]
fn fragments_options_and_absent_checksums_are_turned_too() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, backend) = (A1.ip(family), at(A2.ip(family), 5353));
        let shop = at(vip(family), 53);
        offer(&mut world, shop, UDP, &[backend], 0);
        // A datagram in two fragments sums to what it shall when it is put together.
        let to_vip = craft(&A1, vip(family));
        let whole = to_vip.udp(4000, 53, &[7; 48]);
        let upper = if family == 4 { 34 } else { 54 };
        let datagram = whole[upper..].to_vec();
        let mut pieces = Vec::new();
        for (offset, more, range) in [(0, true, 0..24), (3, false, 24..56)] {
            let piece =
                to_vip.clone().id(9).fragment(offset, more).upper(UDP, datagram[range].to_vec(), None);
            let (verdict, frame) = world.pod_sends(&A1, &piece);
            assert_eq!(verdict, Verdict::Peer { ifindex: A2.ifindex });
            assert!(checksums_are_right(&frame.bytes));
            let header = if family == 4 { upper } else { upper + 8 };
            pieces.extend(frame.bytes[header..].to_vec());
        }
        let together = Craft::new(client, backend.ip()).upper(UDP, pieces.clone(), None);
        assert!(checksums_are_right(&together));
        assert_eq!(pieces[..4], [0x0F, 0xA0, 0x14, 0xE9]);
        // Without a checksum it stays so.
        let mut none = to_vip.udp(4001, 53, b"none");
        none[upper + 6..upper + 8].fill(0);
        let (_, frame) = world.pod_sends(&A1, &none);
        assert_eq!(ends(&frame.bytes), (at(client, 4001), backend));
        assert_eq!(frame.bytes[upper + 6..upper + 8], [0, 0]);
        if family == 4 {
            let (_, frame) =
                world.pod_sends(&A1, &to_vip.clone().options(&[1, 1, 1, 1, 1]).udp(4002, 53, b"odd"));
            assert_eq!(ends(&frame.bytes), (at(client, 4002), backend));
            assert!(checksums_are_right(&frame.bytes));
        } else {
            let (verdict, frame) = world
                .pod_sends(&A1, &to_vip.clone().extension(60, &[1, 4, 0, 0, 0, 0]).udp(4003, 53, b"odd"));
            assert_eq!(verdict, Verdict::Peer { ifindex: A2.ifindex });
            let plain = Craft::new(client, backend.ip()).upper(UDP, frame.bytes[62..].to_vec(), None);
            assert!(checksums_are_right(&plain));
        }
    }
}

#[test]
fn a_sum_that_a_device_has_made_stays_right() {
    // The device's sum is over all that is behind the link layer header.
    let sum = |frame: &[u8]| {
        let mut sum = 0_u64;
        for pair in frame[14..].chunks(2) {
            sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        u32::try_from(sum).expect("folded")
    };
    let folded = |sum: u32| {
        let sum = (sum & 0xFFFF) + (sum >> 16);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        if sum == 0xFFFF { 0 } else { sum }
    };
    for family in FAMILIES {
        for proto in [TCP, UDP] {
            let mut world = World::node(1, Routing::Native);
            let (client, backend) = (A1.ip(family), at(B1.ip(family), 8080));
            offer(&mut world, at(vip(family), 80), proto, &[backend], 0);
            let craft_a = craft(&A1, vip(family));
            let there =
                if proto == TCP { craft_a.tcp(4000, 80, SYN, b"") } else { craft_a.udp(4000, 80, b"") };
            world.forwards(&A1, &there);
            let craft_b = craft(&B1, client);
            let back = if proto == TCP {
                craft_b.tcp(8080, 4000, SYN_ACK, b"x")
            } else {
                craft_b.udp(8080, 4000, b"x")
            };
            let mut frame = Frame::new(back.clone(), UNDERLAY);
            frame.device_sum = Some(sum(&back));
            let verdict = world.native.run(Program::FromNetdev, &mut frame);
            assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
            let kept = frame.device_sum.expect("a sum");
            assert_eq!(folded(kept), folded(sum(&frame.bytes)), "family {family} protocol {proto}");
        }
    }
}

#[test]
fn without_the_flag_nothing_is_translated() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        world.config.flags -= ConfigFlags::SERVICE_PACKETS;
        world.write_config();
        offer(&mut world, at(vip(family), 80), TCP, &[at(A2.ip(family), 8080)], 0);
        let frame = craft(&A1, vip(family)).tcp(4000, 80, SYN, b"");
        let (verdict, after) = world.pod_sends(&A1, &frame);
        assert_eq!((verdict, after.bytes), (Verdict::Pass, frame));
    }
}

#[test]
fn a_last_hop_is_the_stacks() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        offer(&mut world, at(vip(family), 80), TCP, &[at(A2.ip(family), 8080)], 0);
        let frame = craft(&A1, vip(family)).hops(1).tcp(4000, 80, SYN, b"");
        let (verdict, after) = world.pod_sends(&A1, &frame);
        assert_eq!((verdict, after.bytes), (Verdict::Pass, frame));
    }
}

/// Ends of the packet that an ICMP error quotes, both with plain headers.
fn quoted(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let upper = if frame[12] == 0x08 { 34 } else { 54 };
    ends(&[&frame[..14], &frame[upper + 8..]].concat())
}

/// Source and destination address of a frame.
fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    let (from, to) = ends(frame);
    (from.ip(), to.ip())
}

#[test]
fn icmp_errors_are_about_whom_the_client_has_called() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (client, backend) = (A1.ip(family), at(B1.ip(family), 8080));
        let shop = at(vip(family), 80);
        offer(&mut world, shop, UDP, &[backend], 0);
        let (_, sent) = world.pod_sends(&A1, &craft(&A1, vip(family)).udp(4000, 80, b"too much"));
        let (too_big, unreachable) = if family == 4 { ((3, 4), (3, 3)) } else { ((2, 0), (1, 4)) };
        // From the backend's node it comes from the service, from a router on the way as it is.
        for (from, seen) in [(backend.ip(), shop.ip()), (node_ip(2, family), node_ip(2, family))] {
            for (kind, code) in [too_big, unreachable] {
                let error = Craft::new(from, client).error_about(kind, code, &sent.bytes);
                let (verdict, frame) = world.tunnel_brings(&error, B1.identity);
                assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
                assert_eq!(addresses(&frame.bytes), (seen, client));
                assert_eq!(quoted(&frame.bytes), (at(client, 4000), shop));
                assert!(checksums_are_right(&frame.bytes));
                let (verdict, frame) = world.run(Program::ToContainer, &error, A1.ifindex);
                assert_eq!(verdict, Verdict::Pass);
                assert_eq!((addresses(&frame.bytes).0, quoted(&frame.bytes).1), (seen, shop));
                assert!(checksums_are_right(&frame.bytes));
            }
        }
        // The client's own, about an answer, is about the backend's packet.
        let answer = craft(&B1, client).udp(8080, 4000, b"too late");
        let (_, heard) = world.tunnel_brings(&answer, B1.identity);
        let error = craft(&A1, vip(family)).error_about(unreachable.0, unreachable.1, &heard.bytes);
        let (verdict, frame) = world.pod_sends(&A1, &error);
        assert!(matches!(verdict, Verdict::Tunnel { .. }), "{verdict:?}");
        assert_eq!(addresses(&frame.bytes), (client, backend.ip()));
        assert_eq!(quoted(&frame.bytes), (backend, at(client, 4000)));
        assert!(checksums_are_right(&frame.bytes));
        // About no conversation it goes nowhere, and none has counted any of these.
        let error = craft(&A1, vip(family)).error_about(unreachable.0, unreachable.1, &answer);
        assert!(matches!(world.pod_sends(&A1, &error).0, Verdict::Drop(_)));
        let row = world.ct(client, vip(family), 4000, 80, UDP).expect("a row of the call");
        assert_eq!(row.dirs.map(|half| half.packets), [1, 1]);
    }
}

#[test]
fn icmp_errors_of_a_pod_about_itself() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let pod = A1.ip(family);
        let shop = at(vip(family), 80);
        offer(&mut world, shop, UDP, &[at(pod, 8080)], 0);
        let (_, heard) = world.pod_sends(&A1, &craft(&A1, vip(family)).udp(4000, 80, b"me"));
        let (kind, code) = if family == 4 { (3, 3) } else { (1, 4) };
        let error = craft(&A1, addresses(&heard.bytes).0).error_about(kind, code, &heard.bytes);
        let (verdict, frame) = world.pod_sends(&A1, &error);
        assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
        assert_eq!(addresses(&frame.bytes), (shop.ip(), pod));
        assert_eq!(quoted(&frame.bytes), (at(pod, 4000), shop));
        assert!(checksums_are_right(&frame.bytes));
    }
}

#[test]
fn others_tell_a_pod_of_what_it_answered_itself() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let pod = A1.ip(family);
        offer(&mut world, at(vip(family), 80), TCP, &[at(pod, 8080)], 0);
        let (_, heard) = world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, SYN, b""));
        let answer = craft(&A1, addresses(&heard.bytes).0).tcp(8080, 4000, SYN_ACK, b"");
        world.forwards(&A1, &answer);
        let (kind, code) = if family == 4 { (3, 4) } else { (2, 0) };
        let error = craft(&A2, pod).error_about(kind, code, &answer);
        let (verdict, frame) = world.pod_sends(&A2, &error);
        assert_eq!(verdict, Verdict::Peer { ifindex: A1.ifindex });
        assert_eq!(quoted(&frame.bytes), ends(&answer));
        assert!(checksums_are_right(&frame.bytes));
        // Nobody does in the name of others, nor of what is none.
        let forged = Craft::new(pod, pod).macs(A2.mac, A2.gateway).error_about(kind, code, &answer);
        assert_eq!(world.pod_sends(&A2, &forged).0, Verdict::Drop(DropReason::InvalidSourceIp));
        let other = craft(&A1, addresses(&heard.bytes).0).tcp(8080, 4001, SYN_ACK, b"");
        let error = craft(&A2, pod).error_about(kind, code, &other);
        assert_eq!(world.pod_sends(&A2, &error).0, Verdict::Drop(DropReason::UnknownCtState));
    }
}

#[test]
fn what_begins_asks_whether_the_service_is_still_there() {
    for family in FAMILIES {
        let mut world = World::vxlan();
        let (shop, backend) = (at(vip(family), 80), at(A2.ip(family), 8080));
        offer(&mut world, shop, TCP, &[backend], 0);
        let send = |world: &World, flags: u8| {
            ends(&world.pod_sends(&A1, &craft(&A1, vip(family)).tcp(4000, 80, flags, b"")).1.bytes).1
        };
        assert_eq!(send(&world, SYN), backend);
        // Its backend goes on under another address.
        let (addr, number) = Addr::from_ip(shop.ip());
        let key = ServiceKey::frontend(addr, number, Be16::new(80), TCP, ServiceScope::Internal);
        world.native.tables_mut().services.remove(&key);
        assert_eq!(send(&world, SYN), shop);
    }
}
