//! The node as an endpoint: what its own policy judges, what it leaves alone, and that nothing happens while it is off.

mod world;

use dataplane_abi::config::{ConfigFlags, Routing};
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::events::{EventHeader, EventKind};
use dataplane_abi::ipcache::IpCacheEntry;
use dataplane_abi::metrics;
use dataplane_abi::policy::Direction::{self, Egress, Ingress};
use dataplane_abi::policy::{PolicyEntry, PolicyVerdict};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use std::net::IpAddr;
use world::{
    A1, ACK, B1, FAMILIES, HOST, OVERLAY, SYN, SYN_ACK, UNDERLAY, World, craft, node_ip, outside, router,
};

const EVERYBODY: u32 = 0;
const NODE: u32 = 9;

const BOTH: EndpointFlags = EndpointFlags::ENFORCE_INGRESS.union(EndpointFlags::ENFORCE_EGRESS);
const DENIED: Verdict = Verdict::Drop(DropReason::PolicyDenied);
const THROUGH: Verdict = Verdict::Tunnel { ifindex: OVERLAY };

fn allow() -> PolicyEntry {
    PolicyEntry::all(PolicyVerdict::allow(5))
}

/// A node whose own connections are looked at, with a policy in force in the directions that `flags` name.
fn node(routing: Routing, flags: EndpointFlags) -> World {
    let mut world = World::node(1, routing);
    world.config.flags.insert(ConfigFlags::HOST_FIREWALL);
    world.config.flags.remove(ConfigFlags::TRACE_EVENTS);
    world.write_config();
    guard(&mut world, if flags.is_empty() { 0 } else { NODE }, flags);
    world
}

/// Puts a policy in force for the node, or takes it back.
fn guard(world: &mut World, policy: u32, flags: EndpointFlags) {
    for address in FAMILIES.into_iter().flat_map(|family| [node_ip(1, family), router(1, family)]) {
        let entry = EndpointEntry {
            flags: flags | EndpointFlags::HOST,
            identity: Identity::HOST,
            policy,
            ..EndpointEntry::default()
        };
        assert!(world.native.tables_mut().endpoints.insert(EndpointKey::from_ip(address), entry));
    }
    world.revise();
}

fn arrives(world: &World, bytes: &[u8]) -> Verdict {
    world.run(Program::FromNetdev, bytes, UNDERLAY).0
}

fn leaves(world: &World, bytes: &[u8]) -> Verdict {
    world.run(Program::ToNetdev, bytes, UNDERLAY).0
}

fn through(world: &World, bytes: &[u8]) -> Verdict {
    world.run(Program::FromHost, bytes, HOST).0
}

fn tcp(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    Craft::new(src, dst).tcp(sport, dport, flags, b"")
}

/// What was told of policy: endpoint, direction, drop reason or zero, and the flags of the verdict.
fn told(world: &World, kind: EventKind) -> Vec<(u16, Direction, u8, u8)> {
    let of = |header: &EventHeader| {
        let direction = if header.flags & EventHeader::INGRESS == 0 { Egress } else { Ingress };
        (header.endpoint, direction, header.subtype, header.policy_flags)
    };
    world.told(kind).iter().map(|event| of(&event.header)).collect()
}

#[test]
fn while_it_is_off_no_program_has_more_to_do() {
    for family in FAMILIES {
        for routing in [Routing::Vxlan, Routing::Native] {
            let mut world = node(routing, BOTH);
            world.config.flags.remove(ConfigFlags::HOST_FIREWALL);
            // Rows of another agent, that had it on, are not there any more.
            guard(&mut world, 0, EndpointFlags::empty());
            let (here, there) = (node_ip(1, family), outside(family));
            assert_eq!(arrives(&world, &tcp(there, here, 4000, 22, SYN)), Verdict::Skip);
            assert_eq!(leaves(&world, &tcp(here, there, 4000, 443, SYN)), Verdict::Skip);
            if routing == Routing::Vxlan {
                assert_eq!(through(&world, &tcp(router(1, family), B1.ip(family), 4000, 80, SYN)), THROUGH);
                let bytes = tcp(B1.ip(family), here, 4000, 22, SYN);
                assert_eq!(world.tunnel_brings(&bytes, 300).0, Verdict::Pass);
            }
            assert_eq!(world.connections(), 0, "{routing:?}");
        }
    }
}

#[test]
fn what_comes_to_the_node_is_judged_wherever_it_is_handed_over() {
    for family in FAMILIES {
        let mut world = node(Routing::Vxlan, EndpointFlags::ENFORCE_INGRESS);
        for here in [node_ip(1, family), router(1, family)] {
            let send = |world: &World, sport| {
                [
                    arrives(world, &tcp(outside(family), here, sport, 22, SYN)),
                    arrives(world, &tcp(node_ip(2, family), here, sport, 22, SYN)),
                    world.tunnel_brings(&tcp(B1.ip(family), here, sport, 22, SYN), 300).0,
                    world.pod_sends(&A1, &craft(&A1, here).tcp(sport, 22, SYN, b"")).0,
                ]
            };
            assert_eq!(send(&world, 1), [DENIED; 4], "{here}");
            let world_identity = if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
            for identity in [world_identity.0, Identity::REMOTE_NODE.0, 300, A1.identity] {
                world.rule(NODE, Ingress, identity, allow());
            }
            let passes = [Verdict::Skip, Verdict::Skip, Verdict::Pass, Verdict::Pass];
            assert_eq!(send(&world, 2), passes, "{here}");
            for identity in [world_identity.0, Identity::REMOTE_NODE.0, 300, A1.identity] {
                world.no_rule(NODE, Ingress, identity);
            }
        }
        let told = told(&world, EventKind::Drop);
        assert_eq!(told, [(0, Ingress, 133, 0); 8]);
        assert!(world.counters().contains(&(133, metrics::Direction::Ingress, 8)));
    }
}

#[test]
fn what_the_node_opens_is_judged_wherever_it_leaves() {
    for family in FAMILIES {
        let mut world = node(Routing::Vxlan, EndpointFlags::ENFORCE_EGRESS);
        let (here, far) = (node_ip(1, family), outside(family));
        let send = |world: &World, sport| {
            [
                leaves(world, &tcp(here, far, sport, 443, SYN)),
                leaves(world, &tcp(here, node_ip(2, family), sport, 443, SYN)),
                through(world, &tcp(router(1, family), B1.ip(family), sport, 80, SYN)),
                world.run(Program::ToContainer, &tcp(here, A1.ip(family), sport, 80, SYN), A1.ifindex).0,
            ]
        };
        assert_eq!(send(&world, 1), [DENIED; 4]);
        assert_eq!(world.connections(), 0);
        assert_eq!(told(&world, EventKind::Drop), [(0, Egress, 133, 0); 4]);
        world.rule(NODE, Egress, EVERYBODY, allow());
        assert_eq!(send(&world, 2), [Verdict::Skip, Verdict::Skip, THROUGH, Verdict::Pass]);
        assert_eq!(world.connections(), 4);
    }
}

#[test]
fn a_pods_own_policy_still_lets_its_node_in() {
    for family in FAMILIES {
        let mut world = node(Routing::Vxlan, EndpointFlags::ENFORCE_INGRESS);
        world.guard(&A1, 7, EndpointFlags::ENFORCE_INGRESS);
        let bytes = tcp(node_ip(1, family), A1.ip(family), 4000, 80, SYN);
        assert_eq!(world.run(Program::ToContainer, &bytes, A1.ifindex).0, Verdict::Pass);
        let answer = craft(&A1, node_ip(1, family)).tcp(80, 4000, SYN_ACK, b"");
        assert_eq!(
            world.pod_sends(&A1, &answer).0,
            Verdict::Pass,
            "although nothing may be opened to the node"
        );
    }
}

#[test]
fn answers_pass_by_conntrack_alone() {
    for family in FAMILIES {
        let mut world = node(Routing::Vxlan, BOTH);
        let (here, far) = (node_ip(1, family), outside(family));
        world.rule(NODE, Egress, EVERYBODY, allow());
        assert_eq!(leaves(&world, &tcp(here, far, 4000, 443, SYN)), Verdict::Skip);
        assert_eq!(arrives(&world, &tcp(far, here, 443, 4000, SYN_ACK)), Verdict::Skip);
        assert_eq!(through(&world, &tcp(router(1, family), B1.ip(family), 4000, 80, SYN)), THROUGH);
        let back = tcp(B1.ip(family), router(1, family), 80, 4000, SYN_ACK);
        assert_eq!(world.tunnel_brings(&back, 300).0, Verdict::Pass);
        world.no_rule(NODE, Egress, EVERYBODY);
        world.rule(NODE, Ingress, EVERYBODY, allow());
        // Not judged again until the revision says so; then in the direction in which they were opened.
        assert_eq!(arrives(&world, &tcp(far, here, 443, 4000, ACK)), Verdict::Skip);
        world.revise();
        assert_eq!(arrives(&world, &tcp(far, here, 443, 4000, ACK)), DENIED);
        // What others opened is answered.
        assert_eq!(arrives(&world, &tcp(far, here, 4001, 22, SYN)), Verdict::Skip);
        assert_eq!(leaves(&world, &tcp(here, far, 22, 4001, SYN_ACK)), Verdict::Skip);
    }
}

#[test]
fn what_the_node_only_forwards_is_not_judged() {
    for family in FAMILIES {
        for routing in [Routing::Vxlan, Routing::Native] {
            let world = node(routing, BOTH);
            let (pod, far) = (A1.ip(family), outside(family));
            assert_eq!(leaves(&world, &tcp(pod, far, 4000, 443, SYN)), Verdict::Skip);
            assert_eq!(
                arrives(&world, &tcp(far, "198.51.100.1".parse().unwrap(), 4000, 443, SYN)),
                Verdict::Skip
            );
            let to_pod =
                if routing == Routing::Vxlan { Verdict::Skip } else { Verdict::Peer { ifindex: A1.ifindex } };
            assert_eq!(arrives(&world, &tcp(far, pod, 4000, 443, SYN)), to_pod, "as without it");
        }
    }
}

#[test]
fn what_keeps_the_node_on_its_network_is_never_judged() {
    let world = node(Routing::Vxlan, BOTH);
    let (here, there) = (node_ip(1, 4), node_ip(2, 4));
    let udp = |src, dst, sport, dport| Craft::new(src, dst).udp(sport, dport, b"x");
    let outer = udp(here, there, 50_000, 8472);
    assert_eq!(leaves(&world, &outer), Verdict::Skip);
    assert_eq!(arrives(&world, &udp(there, here, 50_000, 8472)), Verdict::Skip);
    assert_eq!(leaves(&world, &udp(here, there, 68, 67)), Verdict::Skip, "a lease is renewed");
    assert_eq!(arrives(&world, &udp(there, here, 67, 68)), Verdict::Skip);
    for group in ["224.0.0.251", "255.255.255.255"] {
        assert_eq!(leaves(&world, &udp(here, group.parse().unwrap(), 5353, 5353)), Verdict::Skip);
    }
    let link = "fe80::1".parse().unwrap();
    assert_eq!(leaves(&world, &Craft::new(link, node_ip(2, 6)).udp(5, 6, b"")), Verdict::Skip);
    let solicitation = Craft::new(node_ip(2, 6), node_ip(1, 6)).icmp(135, 0, [0; 4], &[0; 16]);
    assert_eq!(arrives(&world, &solicitation), Verdict::Skip);
    assert_eq!(world.connections(), 0);

    // Through the tunnel nothing is for the tunnel; and with native routing there is none.
    let inner = udp(B1.v4, here, 50_000, 8472);
    assert_eq!(world.tunnel_brings(&inner, 300).0, Verdict::Drop(DropReason::EncapProhibited));
    let world = node(Routing::Native, BOTH);
    assert_eq!(leaves(&world, &outer), DENIED);
}

#[test]
fn icmp_errors_come_in_for_known_connections_and_for_the_tunnel() {
    let mut world = node(Routing::Vxlan, BOTH);
    world.rule(NODE, Egress, EVERYBODY, allow());
    let (here, far) = (node_ip(1, 4), outside(4));
    let sent = Craft::new(here, far).udp(4000, 53, b"ask");
    let error = |about: &[u8]| Craft::new("192.0.2.1".parse().unwrap(), here).error_about(3, 4, about);
    assert_eq!(arrives(&world, &error(&sent)), Verdict::Drop(DropReason::UnknownCtState));
    assert_eq!(leaves(&world, &sent), Verdict::Skip);
    assert_eq!(arrives(&world, &error(&sent)), Verdict::Skip);
    let outer = Craft::new(here, node_ip(2, 4)).udp(50_000, 8472, &[0; 40]);
    assert_eq!(arrives(&world, &error(&outer)), Verdict::Skip);
    // Those that the node sends are not judged.
    world.no_rule(NODE, Egress, EVERYBODY);
    let got = Craft::new(far, A1.v4).udp(1, 2, b"");
    assert_eq!(leaves(&world, &Craft::new(here, far).error_about(11, 0, &got)), Verdict::Skip);
}

#[test]
fn what_conntrack_cannot_follow_passes_where_no_policy_has_a_say() {
    let (here, far) = (node_ip(1, 4), outside(4));
    for (flags, comes, goes) in [
        (EndpointFlags::empty(), true, true),
        (EndpointFlags::ENFORCE_INGRESS, false, true),
        (EndpointFlags::ENFORCE_EGRESS, true, false),
        (BOTH | EndpointFlags::AUDIT, true, true),
        (BOTH | EndpointFlags::AUDIT_EGRESS, false, true),
    ] {
        let world = node(Routing::Vxlan, flags);
        let verdict =
            |passes| if passes { Verdict::Skip } else { Verdict::Drop(DropReason::CtUnknownProtocol) };
        let esp = |src, dst| Craft::new(src, dst).upper(50, vec![0; 16], None);
        assert_eq!(arrives(&world, &esp(far, here)), verdict(comes), "{flags:?}");
        assert_eq!(leaves(&world, &esp(here, far)), verdict(goes), "{flags:?}");
        let by_tunnel = if comes { Verdict::Pass } else { Verdict::Drop(DropReason::CtUnknownProtocol) };
        assert_eq!(world.tunnel_brings(&esp(B1.v4, here), 300).0, by_tunnel, "{flags:?}");
    }
}

#[test]
fn a_connection_from_before_is_not_taken_for_one_that_the_other_end_began() {
    for family in FAMILIES {
        let mut world = node(Routing::Vxlan, EndpointFlags::empty());
        let (here, server) = (node_ip(1, family), outside(family));
        // Opened before anybody watched: what comes first is from the server.
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, ACK)), Verdict::Skip);
        assert_eq!(world.connections(), 0);
        // One that was seen from its beginning.
        assert_eq!(leaves(&world, &tcp(here, server, 4001, 443, SYN)), Verdict::Skip);
        assert_eq!(world.connections(), 1);
        guard(&mut world, NODE, EndpointFlags::ENFORCE_INGRESS);
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4001, ACK)), Verdict::Skip);
        // The old one goes on, as one that the node has begun; nothing can be opened that way.
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, ACK)), Verdict::Skip);
        assert_eq!(world.connections(), 1);
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, SYN)), DENIED);
        guard(&mut world, NODE, BOTH);
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, ACK)), DENIED, "the node may not begin it");
        world.rule(NODE, Egress, EVERYBODY, allow());
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, ACK)), Verdict::Skip);
        assert_eq!(leaves(&world, &tcp(here, server, 4000, 443, ACK)), Verdict::Skip);
        assert_eq!(world.connections(), 2);
        world.no_rule(NODE, Egress, EVERYBODY);
        world.revise();
        assert_eq!(arrives(&world, &tcp(server, here, 443, 4000, ACK)), DENIED, "the row knows who began it");
    }
}

#[test]
fn what_is_audited_passes_and_is_told() {
    for (audit, comes) in [(EndpointFlags::AUDIT, Verdict::Skip), (EndpointFlags::AUDIT_EGRESS, DENIED)] {
        let world = node(Routing::Vxlan, BOTH | audit);
        let (here, far) = (node_ip(1, 4), outside(4));
        assert_eq!(leaves(&world, &tcp(here, far, 4000, 443, SYN)), Verdict::Skip);
        assert_eq!(told(&world, EventKind::PolicyVerdict), [(0, Egress, 133, EventHeader::AUDITED)]);
        assert_eq!(arrives(&world, &tcp(far, here, 443, 4000, SYN_ACK)), Verdict::Skip, "the answer");
        assert_eq!(arrives(&world, &tcp(far, here, 4000, 22, SYN)), comes);
        let flags = if comes == DENIED { 0 } else { EventHeader::AUDITED };
        assert_eq!(told(&world, EventKind::PolicyVerdict), [(0, Ingress, 133, flags)]);
    }
}

#[test]
fn with_native_routing_pods_elsewhere_come_and_are_reached_by_the_underlay() {
    for family in FAMILIES {
        let mut world = node(Routing::Native, BOTH);
        let here = node_ip(1, family);
        world.ipcache(B1.ip(family), 128, IpCacheEntry::behind(Identity(300), node_ip(2, family)));
        assert_eq!(arrives(&world, &tcp(B1.ip(family), here, 4000, 22, SYN)), DENIED);
        assert_eq!(leaves(&world, &tcp(here, B1.ip(family), 4000, 80, SYN)), DENIED);
        world.rule(NODE, Ingress, 300, allow());
        world.rule(NODE, Egress, 300, allow());
        assert_eq!(arrives(&world, &tcp(B1.ip(family), here, 4000, 22, SYN)), Verdict::Skip);
        assert_eq!(leaves(&world, &tcp(here, B1.ip(family), 4000, 80, SYN)), Verdict::Skip);
        // Nobody comes from outside with an address of here.
        let spoofed = Verdict::Drop(DropReason::InvalidSourceIp);
        assert_eq!(arrives(&world, &tcp(A1.ip(family), here, 1, 22, SYN)), spoofed);
    }
}

#[test]
fn a_packet_of_a_known_connection_asks_no_policy() {
    let mut world = node(Routing::Vxlan, BOTH);
    world.rule(NODE, Egress, EVERYBODY, allow());
    let (here, far) = (node_ip(1, 4), outside(4));
    assert_eq!(leaves(&world, &tcp(here, far, 4000, 443, SYN)), Verdict::Skip);
    world.no_rule(NODE, Egress, EVERYBODY);
    for _ in 0..3 {
        assert_eq!(leaves(&world, &tcp(here, far, 4000, 443, ACK)), Verdict::Skip);
    }
    assert_eq!(world.ct(here, far, 4000, 443, 6).expect("a row").dirs.map(|dir| dir.packets), [4, 0]);
}
