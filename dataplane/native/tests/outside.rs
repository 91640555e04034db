//! Calls from outside the cluster: frames through the programs that they meet on their way to a backend and back.

mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::config::{ConfigFlags, Routing};
use dataplane_abi::conntrack::{CtFlags, CtState, Leaves};
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::ipcache::IpCacheEntry;
use dataplane_abi::metrics::Direction::Ingress;
use dataplane_abi::policy::{self, PolicyEntry, PolicyVerdict};
use dataplane_abi::program::Program;
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16, DropReason, Identity};
use dataplane_core::Verdict;
use dataplane_native::craft::{Craft, checksums_are_right};
use world::{
    A1, A2, ACK, B1, FAMILIES, FIN, HOST, Pod, RST, SYN, SYN_ACK, TCP, UDP, UNDERLAY, World, craft, node_ip,
    outside, router,
};

const MODES: [Routing; 2] = [Routing::Vxlan, Routing::Native];
/// Number of the service of these tests.
const SHOP: u32 = 77;
/// Its port at every node.
const NODE_PORT: u16 = 30_080;
/// The client's port, which is not one by which the node speaks with backends elsewhere.
const PORT: u16 = 4000;

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn world(routing: Routing) -> World {
    let mut world = World::node(1, routing);
    world.config.flags |= ConfigFlags::OUTSIDE_CALLS;
    (world.config.node_port_min, world.config.node_port_max) = (30_000, 32_767);
    (world.config.snat_port_min, world.config.snat_port_max) = (32_768, 65_535);
    world.write_config();
    world
}

fn each() -> impl Iterator<Item = (u8, Routing)> {
    FAMILIES.into_iter().flat_map(|family| MODES.map(|routing| (family, routing)))
}

/// An address of a load balancer.
fn balancer(family: u8) -> IpAddr {
    if family == 4 { "203.0.113.9" } else { "2001:db8:9::9" }.parse().expect("an address")
}

fn unspecified(family: u8) -> IpAddr {
    if family == 4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

fn frontend(at: SocketAddr, proto: u8, scope: ServiceScope) -> ServiceKey {
    let (addr, family) = Addr::from_ip(at.ip());
    ServiceKey::frontend(addr, family, Be16::new(at.port()), proto, scope)
}

/// Offers places under a frontend, as an agent would write it.
fn offer_as(
    world: &mut World,
    key: ServiceKey,
    backends: &[SocketAddr],
    timeout_s: u32,
    flags: ServiceFlags,
) {
    let tables = world.native.tables_mut();
    for n in 0..100 {
        tables.backends.remove(&n);
    }
    let mut count = 0;
    for place in backends {
        count += 1;
        let (addr, family) = Addr::from_ip(place.ip());
        let number = match place.ip() {
            IpAddr::V4(ip) => u32::from(ip.octets()[3]),
            IpAddr::V6(ip) => u32::from(ip.octets()[15]),
        };
        let entry = BackendEntry {
            addr,
            service: SHOP,
            port: Be16::new(place.port()),
            family: family as u8,
            proto: key.proto,
            state: BackendState::Active as u8,
            pad: [0; 3],
        };
        assert!(tables.backends.insert(number, entry));
        assert!(tables.services.insert(key.slot(count), ServiceEntry::slot(SHOP, number)));
    }
    assert!(tables.services.insert(key, ServiceEntry::frontend(SHOP, count, timeout_s, flags)));
}

/// Offers them at a port of every node.
fn offer(world: &mut World, family: u8, proto: u8, backends: &[SocketAddr]) {
    let key = frontend(at(unspecified(family), NODE_PORT), proto, ServiceScope::Internal);
    offer_as(world, key, backends, 0, ServiceFlags::NODE_PORT);
}

/// Offset of the upper layer of a frame with plain headers, or with a fragment header.
fn upper(frame: &[u8]) -> usize {
    match (frame[12], frame[20]) {
        (0x08, _) => 14 + usize::from(frame[14] & 15) * 4,
        (_, 44) => 62,
        _ => 54,
    }
}

fn ips(packet: &[u8]) -> (IpAddr, IpAddr) {
    if packet[0] >> 4 == 4 {
        let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four"));
        (ip(12), ip(16))
    } else {
        let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen"));
        (ip(8), ip(24))
    }
}

fn ports(bytes: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]))
}

/// Source and destination of a frame.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let ((src, dst), (sport, dport)) = (ips(&frame[14..]), ports(&frame[upper(frame)..]));
    (at(src, sport), at(dst, dport))
}

/// Source and destination of what an error quotes.
fn quoted(error: &[u8]) -> (SocketAddr, SocketAddr) {
    let quote = &error[upper(error) + 8..];
    let header = if error[12] == 0x08 { 20 } else { 40 };
    let ((src, dst), (sport, dport)) = (ips(quote), ports(&quote[header..]));
    (at(src, sport), at(dst, dport))
}

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Goes {
    /// Into a pod of the node.
    Pod(u32),
    /// To the node's stack.
    Stack,
}

/// A frame comes from the wire.
#[track_caller]
fn comes(world: &World, bytes: &[u8]) -> (Goes, Vec<u8>) {
    let (verdict, frame) = world.run(Program::FromNetdev, bytes, UNDERLAY);
    assert!(checksums_are_right(&frame.bytes));
    match verdict {
        Verdict::Peer { ifindex } => (Goes::Pod(ifindex), frame.bytes),
        Verdict::Skip | Verdict::Pass => (Goes::Stack, frame.bytes),
        verdict => panic!("{verdict:?}"),
    }
}

/// The stack sends a frame out of the underlay device.
#[track_caller]
fn leaves(world: &World, bytes: &[u8]) -> Vec<u8> {
    let (verdict, frame) = world.run(Program::ToNetdev, bytes, UNDERLAY);
    assert!(matches!(verdict, Verdict::Pass | Verdict::Skip), "{verdict:?}");
    assert!(checksums_are_right(&frame.bytes));
    frame.bytes
}

/// The stack sends a frame to a pod of another node, by the routing's way.
#[track_caller]
fn sent_on(world: &World, routing: Routing, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    let (verdict, frame) = match routing {
        Routing::Vxlan => world.run(Program::FromHost, bytes, HOST),
        Routing::Native => world.run(Program::ToNetdev, bytes, UNDERLAY),
    };
    match verdict {
        Verdict::Drop(reason) => return Err(reason),
        Verdict::Tunnel { .. } if routing == Routing::Vxlan => {
            let key = frame.to_tunnel.expect("a tunnel").key;
            let world = if frame.bytes[12] == 0x08 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
            assert_eq!(key, world.to_vni());
        }
        Verdict::Pass if routing == Routing::Native => {}
        verdict => panic!("{verdict:?}"),
    }
    assert!(checksums_are_right(&frame.bytes));
    Ok(frame.bytes)
}

/// A frame of a pod of another node comes, and the stack gets it.
#[track_caller]
fn comes_back(world: &World, routing: Routing, bytes: &[u8], identity: u32) -> Vec<u8> {
    let (verdict, frame) = match routing {
        Routing::Vxlan => world.tunnel_brings(bytes, identity),
        Routing::Native => world.run(Program::FromNetdev, bytes, UNDERLAY),
    };
    assert_eq!(verdict, Verdict::Pass);
    assert!(checksums_are_right(&frame.bytes));
    frame.bytes
}

/// A pod answers somebody outside: its program, the stack, the wire.
#[track_caller]
fn answers(world: &World, pod: &Pod, bytes: &[u8]) -> Vec<u8> {
    let (verdict, frame) = world.pod_sends(pod, bytes);
    assert_eq!(verdict, Verdict::Pass);
    leaves(world, &frame.bytes)
}

fn client(family: u8, called: IpAddr) -> Craft {
    Craft::new(outside(family), called)
}

#[test]
fn a_conversation_with_a_pod_of_the_node_keeps_the_clients_address() {
    for (family, routing) in each() {
        for (called, is_node_port) in [(node_ip(1, family), true), (balancer(family), false)] {
            let mut world = world(routing);
            let (client_at, backend) = (at(outside(family), PORT), at(A2.ip(family), 8080));
            let called = at(called, if is_node_port { NODE_PORT } else { 80 });
            if is_node_port {
                offer(&mut world, family, TCP, &[backend]);
            } else {
                let key = frontend(called, TCP, ServiceScope::Internal);
                offer_as(&mut world, key, &[backend], 0, ServiceFlags::LOAD_BALANCER);
            }
            for (n, flags) in [SYN, ACK, ACK, FIN | ACK].into_iter().enumerate() {
                let sent = client(family, called.ip()).tcp(PORT, called.port(), flags, b"odd");
                let (goes, frame) = comes(&world, &sent);
                assert_eq!(goes, Goes::Pod(A2.ifindex));
                assert_eq!(ends(&frame), (client_at, backend));
                let back = if n == 0 { SYN_ACK } else { flags };
                let back = craft(&A2, client_at.ip()).tcp(8080, PORT, back, b"");
                assert_eq!(ends(&answers(&world, &A2, &back)), (called, client_at));
            }
            let call = world.ct(client_at.ip(), called.ip(), PORT, called.port(), TCP).expect("a call");
            let connection = world.ct(client_at.ip(), backend.ip(), PORT, 8080, TCP).expect("a connection");
            assert!(call.flags.contains(CtFlags::CALL) && !connection.flags.contains(CtFlags::CALL));
            for row in [call, connection] {
                assert_eq!(row.state, CtState::Closing as u8);
                assert_eq!(row.dirs.map(|half| half.packets), [4, 4]);
                assert_eq!(row.last_seen, call.last_seen);
            }
            let world_of_family = if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
            assert_eq!(connection.dirs[0].identity, world_of_family);
            assert_eq!(connection.dirs[0].leaves, Leaves::Undecided as u8);
            assert_eq!(world.connections(), 2);
        }
    }
}

#[test]
fn a_conversation_with_a_pod_elsewhere_goes_by_this_node_both_ways() {
    for ((family, routing), proto) in each().flat_map(|mode| [TCP, UDP].map(|proto| (mode, proto))) {
        let mut world = world(routing);
        let (client_at, backend) = (at(outside(family), PORT), at(B1.ip(family), 8080));
        let called = at(node_ip(1, family), NODE_PORT);
        offer(&mut world, family, proto, &[backend]);
        let mut node = None;
        for (n, flags) in [SYN, ACK, ACK].into_iter().enumerate() {
            let segment = |craft: Craft, from: u16, to: u16, flags: u8| {
                if proto == TCP { craft.tcp(from, to, flags, b"odd") } else { craft.udp(from, to, b"odd") }
            };
            let (goes, frame) =
                comes(&world, &segment(client(family, called.ip()), PORT, called.port(), flags));
            assert_eq!((goes, ends(&frame)), (Goes::Stack, (client_at, backend)));
            let there = sent_on(&world, routing, &frame).expect("a port");
            let (by, to) = ends(&there);
            assert_eq!((by.ip(), to), (node_ip(1, family), backend));
            assert!(by.port() >= 32_768 && *node.get_or_insert(by) == by, "it keeps its port");
            let back = if n == 0 { SYN_ACK } else { ACK };
            // Policies and identities change meanwhile.
            world.revise();
            let back = segment(craft(&B1, by.ip()), 8080, by.port(), back);
            let frame = comes_back(&world, routing, &back, B1.identity);
            assert_eq!(ends(&frame), (backend, client_at));
            assert_eq!(ends(&leaves(&world, &frame)), (called, client_at));
        }
        let connection = world.ct(client_at.ip(), backend.ip(), PORT, 8080, proto).expect("a connection");
        assert_eq!(connection.dirs.map(|half| half.packets), [3, 3]);
        assert_eq!(connection.dirs[0].leaves, Leaves::Masqueraded as u8);
        assert_eq!(world.connections(), 2);
    }
}

#[test]
fn what_the_other_node_sees_is_a_caller_of_the_world() {
    for family in FAMILIES {
        // Node 2: the packet of the first node's, out of the tunnel.
        let mut world = World::node(2, Routing::Vxlan);
        let node = node_ip(1, family);
        let allowed = if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
        world.guard(&B1, 5, EndpointFlags::ENFORCE_INGRESS);
        world.rule(5, policy::Direction::Ingress, allowed.0, PolicyEntry::all(PolicyVerdict::allow(1)));
        let call = |flags| Craft::new(node, B1.ip(family)).tcp(50_000, 8080, flags, b"");
        let (verdict, _) = world.tunnel_brings(&call(SYN), Identity::HOST.to_vni());
        assert_eq!(verdict, Verdict::Drop(DropReason::PolicyDenied), "the node itself may not");
        let (verdict, _) = world.tunnel_brings(&call(SYN), allowed.to_vni());
        assert_eq!(verdict, Verdict::Peer { ifindex: B1.ifindex });
        // Answers are judged again as those to the same caller.
        world.revise();
        let (verdict, _) = world.pod_sends(&B1, &craft(&B1, node).tcp(8080, 50_000, SYN_ACK, b""));
        assert!(matches!(verdict, Verdict::Tunnel { .. }), "{verdict:?}");
    }
}

#[test]
fn the_nodes_own_process_answers_as_the_service() {
    for ((family, routing), firewall) in each().flat_map(|mode| [false, true].map(|on| (mode, on))) {
        let mut world = world(routing);
        world.config.flags.set(ConfigFlags::HOST_FIREWALL, firewall);
        world.write_config();
        let (client_at, backend) = (at(outside(family), PORT), at(node_ip(1, family), 6443));
        let called = at(balancer(family), 443);
        let key = frontend(called, TCP, ServiceScope::Internal);
        offer_as(&mut world, key, &[backend], 0, ServiceFlags::LOAD_BALANCER);
        for (there, back) in [(SYN, SYN_ACK), (ACK, ACK), (FIN | ACK, FIN | ACK)] {
            let (goes, frame) = comes(&world, &client(family, called.ip()).tcp(PORT, 443, there, b"odd"));
            assert_eq!((goes, ends(&frame)), (Goes::Stack, (client_at, backend)));
            let answer = Craft::new(backend.ip(), client_at.ip()).tcp(6443, PORT, back, b"odd");
            assert_eq!(ends(&leaves(&world, &answer)), (called, client_at));
        }
        let connection = world.ct(client_at.ip(), backend.ip(), PORT, 6443, TCP).expect("a connection");
        assert_eq!(connection.dirs.map(|half| half.packets), [3, 3]);
        assert_eq!(connection.state, CtState::Closing as u8);
        // Who calls the process itself is answered by it.
        let direct = client(family, backend.ip()).tcp(PORT + 1, 6443, SYN, b"");
        assert_eq!(comes(&world, &direct), (Goes::Stack, direct));
        let answer = Craft::new(backend.ip(), client_at.ip()).tcp(6443, PORT + 1, SYN_ACK, b"");
        assert_eq!(leaves(&world, &answer), answer);
    }
}

#[test]
fn a_process_of_another_node_is_called_from_this_nodes_address() {
    for (family, routing) in each() {
        let mut world = world(routing);
        world.ipcache(node_ip(2, family), 128, IpCacheEntry::new(Identity::REMOTE_NODE));
        let (client_at, backend) = (at(outside(family), PORT), at(node_ip(2, family), 6443));
        let called = at(node_ip(1, family), NODE_PORT);
        offer(&mut world, family, TCP, &[backend]);
        let (_, frame) = comes(&world, &client(family, called.ip()).tcp(PORT, NODE_PORT, SYN, b""));
        let wire = leaves(&world, &frame);
        let (by, to) = ends(&wire);
        assert_eq!((by.ip(), to), (node_ip(1, family), backend));
        let (goes, frame) = comes(&world, &Craft::new(to.ip(), by.ip()).tcp(6443, by.port(), SYN_ACK, b""));
        assert_eq!((goes, ends(&frame)), (Goes::Stack, (backend, client_at)));
        assert_eq!(ends(&leaves(&world, &frame)), (called, client_at));
    }
}

#[test]
fn callers_of_the_cluster_are_not_these() {
    for (family, routing) in each() {
        let mut world = world(routing);
        offer(&mut world, family, TCP, &[at(A1.ip(family), 8080)]);
        for caller in [node_ip(2, family), B1.ip(family), A2.ip(family), router(1, family)] {
            let call = Craft::new(caller, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b"");
            assert_eq!(comes(&world, &call), (Goes::Stack, call), "{caller}");
        }
        // Nor is any call without the flag.
        world.config.flags -= ConfigFlags::OUTSIDE_CALLS;
        world.write_config();
        let call = client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b"");
        assert_eq!(comes(&world, &call), (Goes::Stack, call));
        assert_eq!(world.connections(), 0);
    }
}

#[test]
fn cluster_ips_are_not_reached_from_outside() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let key = frontend(at(balancer(family), 80), TCP, ServiceScope::Internal);
        offer_as(&mut world, key, &[at(A1.ip(family), 8080)], 0, ServiceFlags::CLUSTER_IP);
        let call = client(family, balancer(family)).tcp(PORT, 80, SYN, b"");
        assert_eq!(comes(&world, &call), (Goes::Stack, call));
    }
}

#[test]
fn what_is_said_for_callers_outside_counts_before_what_is_said_for_all() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let called = at(balancer(family), 80);
        let flags = ServiceFlags::LOAD_BALANCER | ServiceFlags::EXTERNAL_LOCAL;
        let call = |world: &World, port: u16| {
            world.run(Program::FromNetdev, &client(family, called.ip()).tcp(port, 80, SYN, b""), UNDERLAY)
        };
        let all = [at(A1.ip(family), 8080), at(B1.ip(family), 8080)];
        offer_as(&mut world, frontend(called, TCP, ServiceScope::Internal), &all, 0, flags);
        offer_as(&mut world, frontend(called, TCP, ServiceScope::External), &all[..1], 0, flags);
        for port in PORT..PORT + 40 {
            assert_eq!(call(&world, port).0, Verdict::Peer { ifindex: A1.ifindex });
        }
        // None here: others have some, and nobody is heard.
        offer_as(&mut world, frontend(called, TCP, ServiceScope::External), &[], 0, flags);
        assert_eq!(call(&world, PORT + 50).0, Verdict::Drop(DropReason::NoServiceBackend));
        assert!(world.counters().contains(&(158, Ingress, 1)));
    }
}

#[test]
fn without_backends_the_nodes_stack_refuses_what_is_called_at_the_node() {
    for (family, routing) in each() {
        let mut world = world(routing);
        offer(&mut world, family, TCP, &[]);
        let call = client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b"");
        assert_eq!(comes(&world, &call), (Goes::Stack, call.clone()));
        let key = frontend(at(unspecified(family), NODE_PORT), TCP, ServiceScope::Internal);
        let flags = ServiceFlags::NODE_PORT | ServiceFlags::EXTERNAL_LOCAL;
        offer_as(&mut world, key, &[], 0, flags);
        let (verdict, _) = world.run(Program::FromNetdev, &call, UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::NoServiceBackend), "other nodes have some");
        let key = frontend(at(balancer(family), 80), TCP, ServiceScope::Internal);
        offer_as(&mut world, key, &[], 0, ServiceFlags::LOAD_BALANCER);
        let call = client(family, balancer(family)).tcp(PORT, 80, SYN, b"");
        let (verdict, _) = world.run(Program::FromNetdev, &call, UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::NoServiceBackend), "nobody has such an address");
        assert_eq!(world.connections(), 0);
    }
}

#[test]
fn policy_is_asked_about_the_client_and_the_backend() {
    for (family, routing) in each() {
        let mut world = world(routing);
        offer(&mut world, family, TCP, &[at(A1.ip(family), 8080)]);
        world.guard(&A1, 5, EndpointFlags::ENFORCE_INGRESS);
        let call = client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b"");
        let run = |world: &World| world.run(Program::FromNetdev, &call, UNDERLAY).0;
        assert_eq!(run(&world), Verdict::Drop(DropReason::PolicyDenied));
        let identity = 0x0100_0007;
        world.ipcache(outside(family), 128, IpCacheEntry::new(Identity(identity)));
        world.rule(5, policy::Direction::Ingress, identity, PolicyEntry::all(PolicyVerdict::allow(1)));
        world.revise();
        assert_eq!(run(&world), Verdict::Peer { ifindex: A1.ifindex });
    }
}

#[test]
fn a_connection_stays_and_datagrams_move_when_a_backend_goes() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let (old, new) = (at(A1.ip(family), 8080), at(A2.ip(family), 8080));
        let tcp = |world: &World, flags| {
            ends(&comes(world, &client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, flags, b"")).1).1
        };
        offer(&mut world, family, TCP, &[old]);
        assert_eq!((tcp(&world, SYN), tcp(&world, ACK)), (old, old));
        offer(&mut world, family, TCP, &[new]);
        world.seconds(600);
        assert_eq!(tcp(&world, ACK), old);
        assert_eq!(tcp(&world, RST), old);
        assert_eq!(tcp(&world, SYN), new, "what begins again goes to who is there");
        let udp = |world: &World| {
            ends(&comes(world, &client(family, node_ip(1, family)).udp(PORT, NODE_PORT, b"?")).1).1
        };
        offer(&mut world, family, UDP, &[old]);
        assert_eq!((udp(&world), udp(&world)), (old, old));
        offer(&mut world, family, UDP, &[new]);
        assert_eq!(udp(&world), new);
    }
}

#[test]
fn sessions_are_those_of_addresses() {
    for family in FAMILIES {
        let mut world = world(Routing::Native);
        let places: Vec<SocketAddr> = (30..40)
            .map(|n| match family {
                4 => at(IpAddr::from([10, 1, 2, n]), 80),
                _ => at(IpAddr::from([0xfd00, 1, 2, 0, 0, 0, 0, u16::from(n)]), 80),
            })
            .collect();
        let key = frontend(at(unspecified(family), NODE_PORT), TCP, ServiceScope::Internal);
        offer_as(&mut world, key, &places, 100, ServiceFlags::NODE_PORT);
        let call = |world: &World, port: u16| {
            ends(&comes(world, &client(family, node_ip(1, family)).tcp(port, NODE_PORT, SYN, b"")).1).1
        };
        let first = call(&world, PORT);
        for port in PORT + 1..PORT + 20 {
            world.seconds(90);
            assert_eq!(call(&world, port), first);
        }
        let others: BTreeSet<_> = (5000..5100)
            .map(|port| {
                world.seconds(101);
                call(&world, port)
            })
            .collect();
        assert!(others.len() > 5, "a session ends");
    }
}

#[test]
fn clients_with_one_port_get_two_and_none_is_left_for_a_third() {
    for (family, routing) in each() {
        let mut world = world(routing);
        (world.config.snat_port_min, world.config.snat_port_max) = (50_000, 50_001);
        world.write_config();
        offer(&mut world, family, UDP, &[at(B1.ip(family), 53)]);
        let from = |n: u8| match outside(family) {
            IpAddr::V4(ip) => IpAddr::from([ip.octets()[0], ip.octets()[1], ip.octets()[2], 100 + n]),
            IpAddr::V6(ip) => std::net::Ipv6Addr::from(u128::from(ip) + 100 + u128::from(n)).into(),
        };
        let mut by = Vec::new();
        for n in 0..2 {
            let call = Craft::new(from(n), node_ip(1, family)).udp(50_000, NODE_PORT, b"?");
            // By chance a port is found within a few packets.
            let sent = (0..50).find_map(|_| sent_on(&world, routing, &comes(&world, &call).1).ok());
            by.push(ends(&sent.expect("a port")).0);
        }
        assert_eq!(by.iter().map(SocketAddr::port).collect::<BTreeSet<_>>(), [50_000, 50_001].into());
        for (n, by) in (0..2).zip(&by) {
            let back = craft(&B1, by.ip()).udp(53, by.port(), b"!");
            let frame = comes_back(&world, routing, &back, B1.identity);
            assert_eq!(ends(&frame).1, at(from(n), 50_000));
        }
        let call = Craft::new(from(2), node_ip(1, family)).udp(50_000, NODE_PORT, b"?");
        let (_, frame) = comes(&world, &call);
        assert_eq!(sent_on(&world, routing, &frame), Err(DropReason::NatNoMapping));
    }
}

#[test]
fn two_conversations_of_one_port_are_not_mixed_up() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let backend = at(A1.ip(family), 8080);
        offer(&mut world, family, TCP, &[backend]);
        let key = frontend(at(balancer(family), 80), TCP, ServiceScope::Internal);
        offer_as(&mut world, key, &[backend], 0, ServiceFlags::LOAD_BALANCER);
        let (goes, _) = comes(&world, &client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b""));
        assert_eq!(goes, Goes::Pod(A1.ifindex));
        let other = client(family, balancer(family)).tcp(PORT, 80, SYN, b"");
        let (verdict, _) = world.run(Program::FromNetdev, &other, UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::NatNoMapping));
        let back = craft(&A1, outside(family)).tcp(8080, PORT, SYN_ACK, b"");
        assert_eq!(ends(&answers(&world, &A1, &back)).0, at(node_ip(1, family), NODE_PORT));
    }
}

#[test]
fn a_client_that_is_the_backend_is_not_sent_to_itself() {
    for (family, routing) in each() {
        let mut world = world(routing);
        offer(&mut world, family, TCP, &[at(outside(family), 8080)]);
        let call = client(family, node_ip(1, family)).tcp(PORT, NODE_PORT, SYN, b"");
        let (verdict, _) = world.run(Program::FromNetdev, &call, UNDERLAY);
        assert_eq!(verdict, Verdict::Drop(DropReason::NatNoMapping));
    }
}

#[test]
fn errors_about_what_the_client_sent_are_about_whom_it_has_called() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let (client_at, called) = (at(outside(family), PORT), at(node_ip(1, family), NODE_PORT));
        let (kind, code) = if family == 4 { (3, 4) } else { (2, 0) };
        // The node's own stack says that it is too large for the tunnel.
        let remote = at(B1.ip(family), 8080);
        offer(&mut world, family, TCP, &[remote]);
        let (_, frame) = comes(&world, &client(family, called.ip()).tcp(PORT, NODE_PORT, SYN, b""));
        let there = sent_on(&world, routing, &frame).expect("a port");
        let error = Craft::new(node_ip(1, family), client_at.ip()).error_about(kind, code, &frame);
        let wire = leaves(&world, &error);
        assert_eq!(ips(&wire[14..]), (node_ip(1, family), client_at.ip()));
        assert_eq!(quoted(&wire), (client_at, called));
        // A router behind it, or the backend's node, says it about what left.
        let by = ends(&there).0;
        for sender in [node_ip(2, family), remote.ip()] {
            let error = Craft::new(sender, by.ip()).error_about(kind, code, &there);
            let frame = comes_back(&world, routing, &error, B1.identity);
            assert_eq!(quoted(&frame), (client_at, remote));
            let wire = leaves(&world, &frame);
            let seen = if sender == remote.ip() { called.ip() } else { sender };
            assert_eq!(ips(&wire[14..]), (seen, client_at.ip()));
            assert_eq!(quoted(&wire), (client_at, called));
        }
        // A backend here.
        let here = at(A1.ip(family), 8080);
        offer(&mut world, family, UDP, &[here]);
        let (_, frame) = comes(&world, &client(family, called.ip()).udp(PORT, NODE_PORT, b"?"));
        let (refuses, code) = if family == 4 { (3, 3) } else { (1, 4) };
        let error = craft(&A1, client_at.ip()).error_about(refuses, code, &frame);
        let wire = answers(&world, &A1, &error);
        assert_eq!(ips(&wire[14..]), (called.ip(), client_at.ip()));
        assert_eq!(quoted(&wire), (client_at, called));
    }
}

#[test]
fn errors_about_answers_reach_the_backend() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let (client_at, called) = (at(outside(family), PORT), at(node_ip(1, family), NODE_PORT));
        let (kind, code) = if family == 4 { (3, 4) } else { (2, 0) };
        let far = if family == 4 { "198.51.100.7" } else { "2001:db8:7::7" }.parse().expect("an address");
        for (pod, proto) in [(&A1, TCP), (&B1, UDP)] {
            let backend = at(pod.ip(family), 8080);
            offer(&mut world, family, proto, &[backend]);
            let segment = |craft: Craft, from: u16, to: u16| {
                if proto == TCP { craft.tcp(from, to, SYN, b"") } else { craft.udp(from, to, b"?") }
            };
            let (_, frame) = comes(&world, &segment(client(family, called.ip()), PORT, NODE_PORT));
            let by = (pod.id == B1.id).then(|| ends(&sent_on(&world, routing, &frame).expect("a port")).0);
            let answer = segment(Craft::new(called.ip(), client_at.ip()), NODE_PORT, PORT);
            for sender in [client_at.ip(), far] {
                let error = Craft::new(sender, called.ip()).error_about(kind, code, &answer);
                let (goes, frame) = comes(&world, &error);
                assert_eq!(ips(&frame[14..]), (sender, backend.ip()));
                assert_eq!(quoted(&frame), (backend, client_at));
                let Some(by) = by else {
                    assert_eq!(goes, Goes::Pod(pod.ifindex));
                    continue;
                };
                assert_eq!(goes, Goes::Stack);
                let there = sent_on(&world, routing, &frame).expect("its port");
                let seen = if sender == client_at.ip() { by.ip() } else { sender };
                assert_eq!(ips(&there[14..]), (seen, backend.ip()));
                assert_eq!(quoted(&there), (backend, by));
            }
        }
    }
}

#[test]
fn a_last_hop_is_the_routers_to_answer() {
    for (family, routing) in each() {
        let mut world = world(routing);
        offer(&mut world, family, TCP, &[at(A1.ip(family), 8080)]);
        let call = client(family, node_ip(1, family)).hops(1).tcp(PORT, NODE_PORT, SYN, b"");
        let (goes, frame) = comes(&world, &call);
        assert_eq!((goes, ends(&frame).1), (Goes::Stack, at(A1.ip(family), 8080)));
        let exceeded = if family == 4 { 11 } else { 3 };
        let error = Craft::new(node_ip(1, family), outside(family)).error_about(exceeded, 0, &frame);
        let wire = leaves(&world, &error);
        assert_eq!(quoted(&wire), (at(outside(family), PORT), at(node_ip(1, family), NODE_PORT)));
    }
}

#[test]
fn fragments_follow_the_first() {
    for (family, routing) in each() {
        let mut world = world(routing);
        let (client_at, called) = (at(outside(family), PORT), at(node_ip(1, family), NODE_PORT));
        for pod in [&A1, &B1] {
            offer(&mut world, family, UDP, &[at(pod.ip(family), 53)]);
            let pieces = |from: SocketAddr, to: SocketAddr, id: u32| {
                let whole = Craft::new(from.ip(), to.ip());
                let datagram = whole.udp(from.port(), to.port(), &[7; 64]);
                let body = datagram[upper(&datagram)..].to_vec();
                let piece = || match from.ip() {
                    ip if ip == pod.ip(family) && pod.id == A1.id => craft(pod, to.ip()).id(id),
                    ip => Craft::new(ip, to.ip()).id(id),
                };
                [
                    piece().fragment(0, true).upper(UDP, body[..40].to_vec(), None),
                    piece().fragment(5, false).upper(UDP, body[40..].to_vec(), None),
                ]
            };
            let mut by = None;
            for piece in pieces(client_at, called, 70 + u32::from(pod.id)) {
                let (_, frame) = comes(&world, &piece);
                assert_eq!(ips(&frame[14..]), (client_at.ip(), pod.ip(family)));
                assert_eq!(frame[upper(&frame) + 8..], piece[upper(&piece) + 8..]);
                if pod.id == B1.id {
                    let there = sent_on(&world, routing, &frame).expect("a port");
                    assert_eq!(ips(&there[14..]), (node_ip(1, family), pod.ip(family)));
                    by.get_or_insert(ends(&there).0);
                }
            }
            let back = by.unwrap_or(client_at);
            for (n, piece) in pieces(at(pod.ip(family), 53), back, 80 + u32::from(pod.id)).iter().enumerate()
            {
                let wire = if pod.id == B1.id {
                    leaves(&world, &comes_back(&world, routing, piece, B1.identity))
                } else {
                    answers(&world, &A1, piece)
                };
                assert_eq!(ips(&wire[14..]), (called.ip(), client_at.ip()));
                if n == 0 {
                    assert_eq!(ends(&wire), (called, client_at));
                }
            }
        }
    }
}

#[test]
fn the_tunnels_outer_packets_and_the_nodes_own_connections_are_left_alone() {
    for family in FAMILIES {
        let mut world = world(Routing::Vxlan);
        offer(&mut world, family, TCP, &[at(A1.ip(family), 8080)]);
        let here = node_ip(1, family);
        let outer = Craft::new(node_ip(2, family), here).udp(50_000, 8472, b"inner");
        let ssh = client(family, here).tcp(PORT, 22, SYN, b"");
        let echo = client(family, here).echo(true, 7, 1, b"");
        for frame in [&outer, &ssh, &echo] {
            assert_eq!(comes(&world, frame), (Goes::Stack, frame.clone()));
        }
        let out = Craft::new(here, node_ip(2, family)).udp(50_000, 8472, b"inner");
        let ssh = Craft::new(here, outside(family)).tcp(22, PORT, SYN_ACK, b"");
        for frame in [&out, &ssh] {
            assert_eq!(leaves(&world, frame), *frame);
        }
        assert_eq!(world.connections(), 0);
        assert_eq!(world.native.tables().nat4.borrow().len() + world.native.tables().nat6.borrow().len(), 0);
        // What pods send to the world keeps their address, as long as they are not masqueraded.
        let (verdict, frame) = world.pod_sends(&A1, &craft(&A1, outside(family)).tcp(PORT, 80, SYN, b""));
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(leaves(&world, &frame.bytes), frame.bytes);
    }
}
