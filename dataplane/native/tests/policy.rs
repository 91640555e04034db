//! Policy: who is asked, what drops, what goes on, and what is told; all counters compared.

mod world;

use dataplane_abi::config::{ConfigFlags, Routing};
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::events::{EventHeader, EventKind};
use dataplane_abi::ipcache::IpCacheEntry;
use dataplane_abi::metrics;
use dataplane_abi::policy::Direction::{self, Egress, Ingress};
use dataplane_abi::policy::{
    BlockKey, L4Key, Policy, PolicyEntry, PolicyL4, PolicyMatch, PolicyVerdict, Staged, StagedKey,
};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity, Table};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::tables::{HashTable, LpmTable};
use world::{
    A1, A2, ACK, B1, FAMILIES, Pod, SYN, TCP, UDP, UNDERLAY, World, craft, node_ip, outside, router,
};

const SCTP: u8 = 132;

/// The policies of A1 and of A2.
const ONE: u32 = 7;
const TWO: u32 = 8;
const EVERYBODY: u32 = 0;

const DENIED: Verdict = Verdict::Drop(DropReason::PolicyDenied);
const DENIED_BY_RULE: Verdict = Verdict::Drop(DropReason::PolicyDenyRule);
const TO_A1: Verdict = Verdict::Peer { ifindex: A1.ifindex };
const TO_A2: Verdict = Verdict::Peer { ifindex: A2.ifindex };

fn allow(cookie: u32) -> PolicyEntry {
    PolicyEntry::all(PolicyVerdict::allow(cookie))
}

fn deny(cookie: u32) -> PolicyEntry {
    PolicyEntry::all(PolicyVerdict::deny(cookie))
}

/// A world in which only policy is told of.
fn quiet(routing: Routing) -> World {
    let mut world = World::node(1, routing);
    world.config.flags.remove(ConfigFlags::TRACE_EVENTS);
    world.write_config();
    world
}

/// One with a policy that says nothing in force for A1, in one direction.
fn isolated(direction: Direction) -> World {
    let mut world = quiet(Routing::Vxlan);
    world.guard(&A1, ONE, enforced(direction));
    world
}

fn enforced(direction: Direction) -> EndpointFlags {
    if direction == Ingress { EndpointFlags::ENFORCE_INGRESS } else { EndpointFlags::ENFORCE_EGRESS }
}

fn to_container(world: &World, pod: &Pod, bytes: &[u8]) -> Verdict {
    world.run(Program::ToContainer, bytes, pod.ifindex).0
}

/// What the programs said of policy: endpoint, direction, drop reason (or zero) and cookie.
fn told(world: &World, kind: EventKind) -> Vec<(u16, Direction, u8, u32)> {
    let of = |header: &EventHeader| {
        let direction = if header.flags & EventHeader::INGRESS == 0 { Egress } else { Ingress };
        (header.endpoint, direction, header.subtype, header.arg)
    };
    world.told(kind).iter().map(|event| of(&event.header)).collect()
}

#[test]
fn what_is_not_in_force_asks_nobody() {
    let cases = [
        (0, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS),
        (ONE, EndpointFlags::ENFORCE_INGRESS),
        (ONE, EndpointFlags::AUDIT),
    ];
    for (family, (policy, flags)) in FAMILIES.into_iter().flat_map(|family| cases.map(|case| (family, case)))
    {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, policy, flags);
        world.rule(ONE, Egress, EVERYBODY, deny(1));
        assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.ip(family)).udp(1, 2, b"")).0, TO_A2);
        assert_eq!(world.counters(), [(0, metrics::Direction::Egress, 1)]);
        assert!(world.events().is_empty());
    }
}

#[test]
fn a_pod_whose_policy_says_nothing_may_speak_with_nobody() {
    for family in FAMILIES {
        let world = isolated(Egress);
        let peers = [A2.ip(family), B1.ip(family), outside(family), node_ip(1, family), node_ip(2, family)];
        for dst in peers {
            assert_eq!(world.pod_sends(&A1, &craft(&A1, dst).tcp(4000, 80, SYN, b"")).0, DENIED, "{dst}");
        }
        assert_eq!(world.connections(), 0);
        assert_eq!(world.counters(), [(133, metrics::Direction::Egress, 5)]);
        let drops = world.events();
        assert_eq!(drops.len(), 10, "a verdict and a drop of each");
        for event in drops {
            assert_eq!((event.header.endpoint, event.header.flags & EventHeader::INGRESS), (A1.id, 0));
        }
        // It may be spoken with, and answer.
        assert_eq!(world.pod_sends(&A2, &craft(&A2, A1.ip(family)).tcp(4000, 80, SYN, b"")).0, TO_A1);
        assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.ip(family)).tcp(80, 4000, SYN | ACK, b"")).0, TO_A2);
    }
}

#[test]
fn the_receivers_policy_is_asked_by_every_program_that_delivers() {
    for family in FAMILIES {
        for routing in [Routing::Vxlan, Routing::Native] {
            let mut world = quiet(routing);
            world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS);
            let to = A1.ip(family);
            let from = |src| Craft::new(src, to).udp(5, 53, b"");
            let send = |world: &World| {
                let remote = from(B1.ip(family));
                let by_network = match routing {
                    Routing::Vxlan => world.tunnel_brings(&remote, 300).0,
                    Routing::Native => world.run(Program::FromNetdev, &remote, UNDERLAY).0,
                };
                let by_stack = to_container(world, &A1, &from(outside(family)));
                [by_network, by_stack, world.pod_sends(&A2, &craft(&A2, to).udp(5, 53, b"")).0]
            };
            assert_eq!(send(&world), [DENIED; 3]);
            assert_eq!(world.connections(), 0);
            assert_eq!(world.counters(), [(133, metrics::Direction::Ingress, 3)], "it was A1's ingress");
            assert_eq!(told(&world, EventKind::Drop), [(A1.id, Ingress, 133, 0); 3]);

            // Whom the tunnel names is believed; otherwise the tables say who it is.
            let remote = if routing == Routing::Vxlan { 300 } else { Identity::UNMANAGED.0 };
            let far = if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
            for (identity, cookie) in [(remote, 1), (far.0, 2), (A2.identity, 3)] {
                world.rule(ONE, Ingress, identity, allow(cookie));
            }
            assert_eq!(send(&world), [TO_A1, Verdict::Pass, TO_A1]);
            let allowed = [1, 2, 3].map(|cookie| (A1.id, Ingress, 0, cookie));
            assert_eq!(told(&world, EventKind::PolicyVerdict), allowed);
            assert_eq!(world.connections(), 3);
        }
    }
}

#[test]
fn both_ends_of_one_node_are_asked() {
    let cases = [
        (allow(1), allow(2), TO_A2),
        (allow(1), deny(2), DENIED_BY_RULE),
        (deny(1), allow(2), DENIED_BY_RULE),
        (deny(1), deny(2), DENIED_BY_RULE),
    ];
    for (family, (egress, ingress, expected)) in
        FAMILIES.into_iter().flat_map(|family| cases.map(|case| (family, case)))
    {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_EGRESS);
        world.guard(&A2, TWO, EndpointFlags::ENFORCE_INGRESS);
        world.rule(ONE, Egress, A2.identity, egress);
        world.rule(TWO, Ingress, A1.identity, ingress);
        let bytes = craft(&A1, A2.ip(family)).tcp(4000, 80, SYN, b"");
        assert_eq!(world.pod_sends(&A1, &bytes).0, expected);
        let number = |entry: PolicyEntry| if entry == allow(entry.verdict.cookie) { 0 } else { 181 };
        let mut verdicts = vec![(A1.id, Egress, number(egress), 1), (A2.id, Ingress, number(ingress), 2)];
        verdicts.truncate(if number(egress) == 0 { 2 } else { 1 });
        let events = world.events();
        let seen: Vec<(u8, u16, u32)> =
            events.iter().map(|e| (e.header.kind, e.header.endpoint, e.header.arg)).collect();
        let mut wanted: Vec<(u8, u16, u32)> = verdicts.iter().map(|v| (5, v.0, v.3)).collect();
        if let Some((endpoint, _, _, cookie)) = verdicts.iter().find(|v| v.2 != 0) {
            wanted.push((1, *endpoint, *cookie));
        }
        assert_eq!(seen, wanted);
        let counted = match (number(egress), number(ingress)) {
            (0, 0) => (0, metrics::Direction::Egress, 1),
            (0, _) => (181, metrics::Direction::Ingress, 1),
            (_, _) => (181, metrics::Direction::Egress, 1),
        };
        assert_eq!(world.counters(), [counted]);
        assert_eq!(world.connections(), usize::from(expected == TO_A2));
        // The packet's ends are told as they are, whoever was asked.
        for event in events {
            let ends = (event.header.src_identity.0, event.header.dst_identity.0, event.header.dst_endpoint);
            assert_eq!(ends, (A1.identity, A2.identity, A2.id));
        }
    }
}

#[test]
fn an_identitys_row_is_asked_before_everybodys() {
    let mut world = isolated(Egress);
    world.rule(ONE, Egress, EVERYBODY, allow(1));
    world.rule(ONE, Egress, A2.identity, PolicyEntry::all(PolicyVerdict::NONE));
    assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b"")).0, DENIED);
    world.forwards(&A1, &craft(&A1, B1.v4).udp(1, 2, b""));
    let matches: Vec<u8> =
        world.told(EventKind::PolicyVerdict).iter().map(|event| event.header.policy_match).collect();
    assert_eq!(matches, [PolicyMatch::L3Only as u8, PolicyMatch::All as u8]);
}

#[test]
fn protocol_and_port_of_the_one_who_is_called_choose_in_a_set() {
    for family in FAMILIES {
        let mut world = isolated(Egress);
        world.rule(ONE, Egress, A2.identity, PolicyEntry::by_l4(5));
        world.l4(L4Key::ports(5, TCP, 80, 16), PolicyVerdict::allow(1));
        world.l4(L4Key::ports(5, TCP, 8080, 12), PolicyVerdict::allow(2));
        world.l4(L4Key::ports(5, TCP, 8081, 16), PolicyVerdict::deny(3));
        world.l4(L4Key::proto(5, UDP), PolicyVerdict::allow(4));
        world.l4(L4Key::ports(5, SCTP, 80, 16), PolicyVerdict::allow(5));
        // Another set is another matter.
        world.l4(L4Key::any(6), PolicyVerdict::allow(6));
        let to = craft(&A1, A2.ip(family));
        let sctp = |sport: u16, dport: u16| {
            let mut chunk = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
            chunk.extend([0; 12]);
            to.upper(SCTP, chunk, None)
        };
        for (bytes, expected, cookie) in [
            (to.tcp(4000, 80, SYN, b""), TO_A2, 1),
            (to.tcp(80, 4000, SYN, b""), DENIED, 0),
            (to.tcp(4000, 8087, SYN, b""), TO_A2, 2),
            (to.tcp(4000, 8081, SYN, b""), DENIED_BY_RULE, 3),
            (to.tcp(4000, 8096, SYN, b""), DENIED, 0),
            (to.udp(1, 9999, b""), TO_A2, 4),
            (sctp(1, 80), TO_A2, 5),
            (sctp(1, 81), DENIED, 0),
            (to.echo(true, 9, 1, b""), DENIED, 0),
        ] {
            assert_eq!(world.pod_sends(&A1, &bytes).0, expected);
            let [event] = &world.told(EventKind::PolicyVerdict)[..] else { panic!("one verdict") };
            let matched = if cookie == 0 { PolicyMatch::None } else { PolicyMatch::L3L4 };
            assert_eq!((event.header.arg, event.header.policy_match()), (cookie, Some(matched)));
        }
        world.l4(L4Key::any(5), PolicyVerdict::allow(7));
        assert_eq!(world.pod_sends(&A1, &to.echo(true, 9, 1, b"")).0, TO_A2);
        assert_eq!(
            world.counters(),
            [
                (0, metrics::Direction::Egress, 5),
                (133, metrics::Direction::Egress, 4),
                (181, metrics::Direction::Egress, 1)
            ]
        );
    }
}

#[test]
fn answers_need_no_rule_also_when_they_are_judged_again() {
    for family in FAMILIES {
        for asked in [&A2, &B1] {
            let mut world = quiet(Routing::Vxlan);
            world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
            let identity = if asked.id == A2.id { A2.identity } else { Identity::UNMANAGED.0 };
            world.rule(ONE, Egress, identity, PolicyEntry::by_l4(5));
            world.l4(L4Key::ports(5, UDP, 53, 16), PolicyVerdict::allow(1));
            let (a, b) = (A1.ip(family), asked.ip(family));
            let ask = craft(&A1, b).udp(5353, 53, b"ask");
            let reply = craft(asked, a).udp(53, 5353, b"answer");
            let answer = |world: &World| {
                if asked.id == A2.id {
                    world.pod_sends(&A2, &reply).0
                } else {
                    world.tunnel_brings(&reply, 0).0
                }
            };
            world.forwards(&A1, &ask);
            assert_eq!(answer(&world), TO_A1);
            world.revise();
            assert_eq!(answer(&world), TO_A1, "judged again as what it belongs to");
            let row = world.ct(a, b, 5353, 53, UDP).expect("a row");
            assert_eq!(row.dirs.map(|dir| (dir.packets, dir.revision)), [(1, 2), (2, 2)]);
            assert_eq!(told(&world, EventKind::PolicyVerdict), [(A1.id, Egress, 0, 1)], "only of new ones");

            // What may not be opened any more ends both ways, and the egress of A1 is what ends it.
            world.no_rule(ONE, Egress, identity);
            world.revise();
            assert_eq!(answer(&world), DENIED);
            assert_eq!(world.pod_sends(&A1, &ask).0, DENIED);
            assert_eq!(answer(&world), DENIED, "its row lets nothing pass");
            assert_eq!(told(&world, EventKind::Drop), [(A1.id, Egress, 133, 0); 3]);
            let forwarded = if asked.id == A2.id { (3, 0) } else { (1, 2) };
            let mut counters = vec![
                (0, metrics::Direction::Ingress, forwarded.1),
                (0, metrics::Direction::Egress, forwarded.0),
                (133, metrics::Direction::Egress, 3),
            ];
            counters.retain(|(.., packets)| *packets != 0);
            let mut counted = world.counters();
            counted.sort_by_key(|(reason, direction, _)| (*reason, *direction));
            assert_eq!(counted, counters);
            let row = world.ct(a, b, 5353, 53, UDP).expect("a row");
            assert_eq!(row.dirs.map(|dir| (dir.packets, dir.revision)), [(1, 2), (2, 2)]);

            // Allowed again, it goes on where it was.
            world.rule(ONE, Egress, identity, allow(2));
            world.revise();
            assert_eq!(answer(&world), TO_A1);
            world.forwards(&A1, &ask);
            let row = world.ct(a, b, 5353, 53, UDP).expect("a row");
            assert_eq!(row.dirs.map(|dir| (dir.packets, dir.revision)), [(2, 4), (3, 4)]);
            assert!(world.events().is_empty(), "it is not new");
        }
    }
}

#[test]
fn a_denied_connection_stays_denied_after_silence_and_at_its_own_revision() {
    let mut world = isolated(Egress);
    world.rule(ONE, Egress, A2.identity, allow(1));
    let bytes = craft(&A1, A2.v4).tcp(4000, 80, ACK, b"");
    world.forwards(&A1, &bytes);
    // The row of the policy is gone, and the revision that tells of it is still to come.
    world.no_rule(ONE, Egress, A2.identity);
    assert_eq!(world.pod_sends(&A1, &bytes).0, TO_A2);
    world.seconds(11);
    assert_eq!(world.pod_sends(&A1, &bytes).0, DENIED);
    assert_eq!(world.pod_sends(&A1, &bytes).0, DENIED);
    assert_eq!(world.pod_sends(&A2, &craft(&A2, A1.v4).tcp(80, 4000, ACK, b"")).0, DENIED);
}

#[test]
fn a_packet_of_a_known_connection_asks_no_policy() {
    for family in FAMILIES {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
        world.guard(&A2, TWO, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
        world.rule(ONE, Egress, A2.identity, allow(0));
        world.rule(TWO, Ingress, A1.identity, allow(0));
        let there = craft(&A1, A2.ip(family)).tcp(4000, 80, ACK, b"");
        let back = craft(&A2, A1.ip(family)).tcp(80, 4000, ACK, b"");
        world.forwards(&A1, &there);
        world.native.tables_mut().policy = HashTable::new(Policy::SPEC.max_entries);
        world.native.tables_mut().policy_l4 = LpmTable::new(PolicyL4::SPEC.max_entries);
        assert_eq!(world.pod_sends(&A1, &there).0, TO_A2);
        assert_eq!(world.pod_sends(&A2, &back).0, TO_A1);
        assert_eq!(world.counters(), [(0, metrics::Direction::Egress, 3)]);
    }
}

#[test]
fn the_node_reaches_its_pods_and_pods_need_a_rule_for_the_node() {
    for family in FAMILIES {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
        world.rule(ONE, Ingress, EVERYBODY, deny(1));
        for node in [node_ip(1, family), router(1, family)] {
            let probe = Craft::new(node, A1.ip(family)).tcp(5000, 8080, SYN, b"");
            assert_eq!(to_container(&world, &A1, &probe), Verdict::Pass);
            let answer = craft(&A1, node).tcp(8080, 5000, SYN | ACK, b"");
            assert_eq!(world.pod_sends(&A1, &answer).0, Verdict::Pass);
            world.revise();
            assert_eq!(world.pod_sends(&A1, &answer).0, Verdict::Pass, "judged again as the node's");
        }
        assert!(world.events().is_empty(), "nobody was asked");
        // Another node is somebody like everybody else.
        let probe = Craft::new(node_ip(2, family), A1.ip(family)).tcp(5000, 8080, SYN, b"");
        assert_eq!(world.tunnel_brings(&probe, 1).0, DENIED_BY_RULE);

        let call = craft(&A1, node_ip(1, family)).tcp(4000, 6443, SYN, b"");
        assert_eq!(world.pod_sends(&A1, &call).0, DENIED);
        world.rule(ONE, Egress, Identity::HOST.0, allow(2));
        assert_eq!(world.pod_sends(&A1, &call).0, Verdict::Pass);
        world.revise();
        let answer = Craft::new(node_ip(1, family), A1.ip(family)).tcp(6443, 4000, SYN | ACK, b"");
        assert_eq!(to_container(&world, &A1, &answer), Verdict::Pass);
    }
}

#[test]
fn a_pod_may_speak_with_itself() {
    for family in FAMILIES {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
        assert_eq!(world.pod_sends(&A1, &craft(&A1, A1.ip(family)).udp(1, 2, b"")).0, TO_A1);
        assert!(world.events().is_empty());
    }
}

#[test]
fn echo_is_judged_by_the_type_that_began_it() {
    for family in FAMILIES {
        let (icmp, request, reply) = if family == 4 { (1, 8, 0) } else { (58, 128, 129) };
        // The identifier stands for a port; zero leaves nothing to tell request from reply.
        for id in [0, 7] {
            let mut world = isolated(Egress);
            world.rule(ONE, Egress, EVERYBODY, PolicyEntry::by_l4(5));
            world.l4(L4Key::ports(5, icmp, request, 16), PolicyVerdict::allow(1));
            let (ask, answer) = (
                craft(&A1, A2.ip(family)).echo(true, id, 1, b""),
                craft(&A1, A2.ip(family)).echo(false, id, 1, b""),
            );
            assert_eq!(world.pod_sends(&A1, &answer).0, DENIED, "nobody asked");
            assert_eq!(world.pod_sends(&A1, &ask).0, TO_A2);
            let back = craft(&A2, A1.ip(family)).echo(false, id, 1, b"");
            assert_eq!(world.pod_sends(&A2, &back).0, TO_A1);
            world.revise();
            assert_eq!(world.pod_sends(&A2, &back).0, TO_A1);
            world.revise();
            assert_eq!(world.pod_sends(&A1, &ask).0, TO_A2);

            world.l4(L4Key::ports(5, icmp, request, 16), PolicyVerdict::deny(2));
            world.l4(L4Key::ports(5, icmp, reply, 16), PolicyVerdict::allow(3));
            world.revise();
            assert_eq!(world.pod_sends(&A2, &back).0, DENIED_BY_RULE, "the question is forbidden");
            assert_eq!(
                world.pod_sends(&A1, &craft(&A1, B1.ip(family)).echo(true, id, 1, b"")).0,
                DENIED_BY_RULE
            );
            world.forwards(&A1, &craft(&A1, B1.ip(family)).echo(false, id, 1, b""));
        }
    }
}

#[test]
fn errors_about_known_connections_are_never_judged() {
    for family in FAMILIES {
        let mut world = quiet(Routing::Vxlan);
        let sent = craft(&A1, B1.ip(family)).udp(7, 8, b"");
        world.forwards(&A1, &sent);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS);
        world.revise();
        let kind = if family == 4 { 3 } else { 1 };
        let error = Craft::new(node_ip(2, family), A1.ip(family)).error_about(kind, 0, &sent);
        assert_eq!(world.tunnel_brings(&error, 1).0, TO_A1);
        assert_eq!(world.pod_sends(&A1, &sent).0, DENIED);
        // Of what never was they tell nothing.
        let other = craft(&A1, B1.ip(family)).udp(9, 8, b"");
        assert_eq!(world.pod_sends(&A1, &other).0, DENIED);
        let error = Craft::new(node_ip(2, family), A1.ip(family)).error_about(kind, 0, &other);
        assert_eq!(world.tunnel_brings(&error, 1).0, Verdict::Drop(DropReason::UnknownCtState));
    }
}

#[test]
fn fragments_follow_the_first() {
    for family in FAMILIES {
        let icmp = if family == 4 { 1 } else { 58 };
        let request = if family == 4 { 8 } else { 128 };
        let mut world = isolated(Egress);
        world.rule(ONE, Egress, EVERYBODY, PolicyEntry::by_l4(5));
        world.l4(L4Key::ports(5, UDP, 53, 16), PolicyVerdict::allow(1));
        world.l4(L4Key::ports(5, icmp, request, 16), PolicyVerdict::allow(2));
        let piece = |id, offset, more| craft(&A1, A2.ip(family)).id(id).fragment(offset, more);
        for (id, dport, expected) in [(1, 53, TO_A2), (2, 54, DENIED)] {
            assert_eq!(world.pod_sends(&A1, &piece(id, 0, true).udp(5, dport, &[0; 16])).0, expected);
            assert_eq!(world.pod_sends(&A1, &piece(id, 3, false).upper(UDP, vec![0; 8], None)).0, expected);
        }
        for (id, asks, expected) in [(3, true, TO_A2), (4, false, DENIED)] {
            assert_eq!(world.pod_sends(&A1, &piece(id, 0, true).echo(asks, 0, 1, &[0; 16])).0, expected);
            // Also where the row of the first has been forgotten.
            world.forget();
            assert_eq!(world.pod_sends(&A1, &piece(id, 3, false).upper(icmp, vec![0; 8], None)).0, expected);
            world.forget();
        }
        assert_eq!(
            world.counters(),
            [(0, metrics::Direction::Egress, 4), (133, metrics::Direction::Egress, 4)]
        );
    }
}

#[test]
fn an_audited_pod_is_only_told_of() {
    for family in FAMILIES {
        let mut world = quiet(Routing::Vxlan);
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_EGRESS | EndpointFlags::AUDIT);
        world.rule(ONE, Egress, A2.identity, deny(3));
        let bytes = craft(&A1, A2.ip(family)).tcp(4000, 80, SYN, b"");
        assert_eq!(world.pod_sends(&A1, &bytes).0, TO_A2);
        world.revise();
        assert_eq!(world.pod_sends(&A1, &bytes).0, TO_A2);
        world.forwards(&A1, &craft(&A1, B1.ip(family)).udp(1, 2, b""));
        let events = world.events();
        assert_eq!(
            events.iter().map(|e| e.header.policy_flags).collect::<Vec<_>>(),
            [EventHeader::AUDITED; 2]
        );
        assert_eq!(
            events.iter().map(|e| (e.header.denied(), e.header.arg)).collect::<Vec<_>>(),
            [(Some(DropReason::PolicyDenyRule), 3), (Some(DropReason::PolicyDenied), 0)]
        );
        assert_eq!(world.counters(), [(0, metrics::Direction::Egress, 3)]);
        assert_eq!(world.connections(), 2);
        // In earnest, what was only let through ends.
        world.guard(&A1, ONE, EndpointFlags::ENFORCE_EGRESS);
        world.revise();
        assert_eq!(world.pod_sends(&A1, &bytes).0, DENIED_BY_RULE);
    }
}

#[test]
fn staged_policies_change_nothing_but_what_is_told() {
    let mut world = isolated(Egress);
    let staged = |verdict, staged: Staged, cookie| {
        PolicyEntry::all(PolicyVerdict { staged: staged as u8, staged_cookie: cookie, ..verdict })
    };
    world.rule(ONE, Egress, A2.identity, staged(PolicyVerdict::allow(1), Staged::WouldDeny, 8));
    world.rule(ONE, Egress, Identity::UNMANAGED.0, staged(PolicyVerdict::NONE, Staged::WouldAllow, 9));
    assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b"")).0, TO_A2);
    assert_eq!(world.pod_sends(&A1, &craft(&A1, B1.v4).udp(1, 2, b"")).0, DENIED);
    let said: Vec<_> = world
        .told(EventKind::PolicyVerdict)
        .iter()
        .map(|e| (e.header.subtype, e.header.staged(), e.header.arg, e.header.staged_cookie))
        .collect();
    assert_eq!(said, [(0, Some(Staged::WouldDeny), 1, 8), (133, Some(Staged::WouldAllow), 0, 9)]);
}

#[test]
fn what_staged_policies_would_decide_is_counted_though_nobody_listens() {
    let mut world = isolated(Egress);
    world.config.flags = ConfigFlags::empty();
    world.write_config();
    let staged = |verdict, staged: Staged, cookie| {
        PolicyEntry::all(PolicyVerdict { staged: staged as u8, staged_cookie: cookie, ..verdict })
    };
    world.rule(ONE, Egress, A2.identity, staged(PolicyVerdict::allow(1), Staged::WouldDeny, 8));
    world.rule(ONE, Egress, Identity::UNMANAGED.0, staged(PolicyVerdict::NONE, Staged::WouldAllow, 9));
    let counts = |world: &World| {
        let table = world.native.tables().staged.borrow();
        [StagedKey::new(8, Staged::WouldDeny as u8), StagedKey::new(9, Staged::WouldAllow as u8)]
            .map(|key| table.get(&key).map_or(0, |row| row.count))
    };
    for _ in 0..3 {
        assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b"")).0, TO_A2);
    }
    assert_eq!(counts(&world), [1, 0], "a connection that passes counts once");
    world.revise();
    assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b"")).0, TO_A2);
    assert_eq!(counts(&world), [1, 0], "also when it is judged again");
    assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(3, 2, b"")).0, TO_A2);
    assert_eq!(counts(&world), [2, 0]);
    for _ in 0..3 {
        assert_eq!(world.pod_sends(&A1, &craft(&A1, B1.v4).udp(1, 2, b"")).0, DENIED);
    }
    assert_eq!(counts(&world), [2, 3], "of what is dropped each packet counts");
    // Of a known connection too, once it is denied.
    world.rule(ONE, Egress, A2.identity, staged(PolicyVerdict::deny(1), Staged::WouldAllow, 9));
    world.revise();
    assert_eq!(world.pod_sends(&A1, &craft(&A1, A2.v4).udp(1, 2, b"")).0, DENIED_BY_RULE);
    assert_eq!(counts(&world), [2, 4]);
}

#[test]
fn what_should_go_through_a_proxy_does_not_pass_without_one() {
    for port in [0, 10_000] {
        let mut world = isolated(Ingress);
        world.rule(ONE, Ingress, A2.identity, PolicyEntry::all(PolicyVerdict::redirect(port, 4)));
        assert_eq!(world.pod_sends(&A2, &craft(&A2, A1.v4).tcp(1, 80, SYN, b"")).0, DENIED);
        assert_eq!(told(&world, EventKind::Drop), [(A1.id, Ingress, 133, 4)]);
    }
}

#[test]
fn verdicts_are_told_once_and_only_where_they_are_asked_for() {
    let mut world = isolated(Egress);
    world.rule(ONE, Egress, A2.identity, allow(1));
    let bytes = craft(&A1, A2.v4).tcp(4000, 80, SYN, b"");
    world.forwards(&A1, &bytes);
    world.forwards(&A1, &bytes);
    assert_eq!(told(&world, EventKind::PolicyVerdict), [(A1.id, Egress, 0, 1)]);
    world.config.flags.remove(ConfigFlags::POLICY_EVENTS);
    world.write_config();
    world.forwards(&A1, &craft(&A1, A2.v4).tcp(4001, 80, SYN, b""));
    assert_eq!(world.pod_sends(&A1, &craft(&A1, B1.v4).udp(1, 2, b"")).0, DENIED);
    let kinds: Vec<u8> = world.events().iter().map(|event| event.header.kind).collect();
    assert_eq!(kinds, [EventKind::Drop as u8]);
}

#[test]
fn without_a_row_whoever_sends_is_the_one_who_opens() {
    for family in FAMILIES {
        let mut world = isolated(Egress);
        let (there, back) = (
            craft(&A2, A1.ip(family)).tcp(4000, 80, SYN, b""),
            craft(&A1, A2.ip(family)).tcp(80, 4000, SYN | ACK, b""),
        );
        assert_eq!(world.pod_sends(&A2, &there).0, TO_A1);
        // The row is forgotten before the answer: that is now judged as if A1 had called port 4000.
        world.forget();
        assert_eq!(world.pod_sends(&A1, &back).0, DENIED);
        assert_eq!(world.connections(), 0);
        // The next packet of the one who called makes it known again.
        let next = craft(&A2, A1.ip(family)).tcp(4000, 80, ACK, b"");
        assert_eq!(world.pod_sends(&A2, &next).0, TO_A1);
        assert_eq!(world.pod_sends(&A1, &back).0, TO_A2);
        world.rule(ONE, Egress, EVERYBODY, allow(1));
        world.forget();
        assert_eq!(world.pod_sends(&A1, &back).0, TO_A2);
    }
}

#[test]
fn a_caller_whom_only_the_tunnel_names_is_remembered() {
    for family in FAMILIES {
        let mut world = isolated(Ingress);
        world.rule(ONE, Ingress, 300, allow(1));
        let call = Craft::new(B1.ip(family), A1.ip(family)).tcp(4000, 80, SYN, b"");
        let answer = craft(&A1, B1.ip(family)).tcp(80, 4000, ACK, b"");
        assert_eq!(world.tunnel_brings(&call, 300).0, TO_A1);
        // The ipcache has only the prefix of the other node's pods. The answer is judged by whom it answers, again and again.
        for _ in 0..3 {
            world.revise();
            world.forwards(&A1, &answer);
        }
        // What the ipcache says of the address itself is newer than the row.
        world.ipcache(B1.ip(family), 128, IpCacheEntry::behind(Identity(301), node_ip(2, 4)));
        world.revise();
        assert_eq!(world.pod_sends(&A1, &answer).0, DENIED);
    }
}

#[test]
fn a_block_of_addresses_decides_about_pods_in_it() {
    for family in FAMILIES {
        let mut world = isolated(Ingress);
        world.l4(L4Key::any(1), PolicyVerdict::NONE);
        world.rule(ONE, Ingress, EVERYBODY, PolicyEntry::by_blocks(1, 5));
        world.block(BlockKey::prefix(5, A2.ip(family), 24), allow(2));
        let there = craft(&A2, A1.ip(family)).tcp(4000, 80, SYN, b"");
        let back = craft(&A1, A2.ip(family)).tcp(80, 4000, ACK, b"");
        assert_eq!(world.pod_sends(&A2, &there).0, TO_A1);
        assert_eq!(told(&world, EventKind::PolicyVerdict), [(A1.id, Ingress, 0, 2)]);

        // The answer is judged again by the address of the one who called.
        world.revise();
        assert_eq!(world.pod_sends(&A1, &back).0, TO_A2);

        // An exception, and the same address outside of the cluster.
        world.block(BlockKey::prefix(5, A2.ip(family), 128), PolicyEntry::by_l4(1));
        world.revise();
        assert_eq!(world.pod_sends(&A2, &there).0, DENIED);
        world.block(BlockKey::prefix(5, B1.ip(family), 0), allow(3));
        let call = Craft::new(B1.ip(family), A1.ip(family)).tcp(4000, 80, SYN, b"");
        assert_eq!(world.tunnel_brings(&call, Identity::WORLD.0).0, DENIED);
        assert_eq!(world.tunnel_brings(&call, 300).0, TO_A1);
    }
}
