//! Properties of policy: for any rows and packets, verdict and event are what a plain search through the rows says.

mod world;

use std::net::IpAddr;

use dataplane_abi::config::{ConfigFlags, Routing};
use dataplane_abi::endpoints::EndpointFlags;
use dataplane_abi::events::{EventHeader, EventKind};
use dataplane_abi::policy::{
    BlockKey, Direction, L4Key, PolicyEntry, PolicyFlags, PolicyKey, PolicyMatch, PolicyVerdict,
};
use dataplane_abi::{Be16, DropReason, Identity};
use dataplane_core::Verdict;
use proptest::prelude::*;
use world::{A1, A2, B1, Pod, World, craft, outside};

type Rows = Vec<(PolicyKey, PolicyEntry)>;
type Blocks = Vec<(BlockKey, PolicyEntry)>;
type Sets = Vec<(L4Key, PolicyVerdict)>;

/// Ports with much in common, so that prefixes cover some of them and not others.
const PORTS: [u16; 8] = [0, 80, 81, 88, 443, 8080, 8081, 65535];
/// TCP, UDP, SCTP.
const PROTOCOLS: [u8; 3] = [6, 17, 132];
const POLICIES: u32 = 3;
const SETS: u32 = 4;
const BLOCKS: u32 = 2;

fn verdict() -> impl Strategy<Value = PolicyVerdict> {
    (
        prop_oneof![4 => Just(1_u8), 2 => Just(2), 1 => Just(4), 2 => Just(0), 1 => any::<u8>()],
        0_u8..3,
        any::<u16>(),
        any::<(u32, u32)>(),
    )
        .prop_map(|(flags, staged, port, (cookie, staged_cookie))| PolicyVerdict {
            flags: PolicyFlags(flags),
            staged,
            proxy_port: Be16::new(port),
            cookie,
            staged_cookie,
        })
}

fn rows() -> impl Strategy<Value = Rows> {
    let identities = prop::sample::select(vec![
        0,
        A1.identity,
        A2.identity,
        Identity::UNMANAGED.0,
        Identity::WORLD_IPV4.0,
        Identity::WORLD_IPV6.0,
    ]);
    let by_blocks = (1..=SETS, 1..=BLOCKS).prop_map(|(set, blocks)| PolicyEntry::by_blocks(set, blocks));
    let entry = prop_oneof![entry(), by_blocks];
    let row =
        (1..=POLICIES, any::<bool>(), identities, entry).prop_map(|(policy, ingress, identity, entry)| {
            let direction = if ingress { Direction::Ingress } else { Direction::Egress };
            (PolicyKey::new(policy, direction, Identity(identity)), entry)
        });
    prop::collection::vec(row, 0..16)
}

fn entry() -> impl Strategy<Value = PolicyEntry> {
    prop_oneof![verdict().prop_map(PolicyEntry::all), (1..=SETS).prop_map(PolicyEntry::by_l4)]
}

/// Blocks around pods and around those outside: only those around pods may count.
fn blocks() -> impl Strategy<Value = Blocks> {
    let addresses: Vec<IpAddr> = [4, 6]
        .into_iter()
        .flat_map(|family| [A1.ip(family), A2.ip(family), B1.ip(family), outside(family)])
        .collect();
    let lengths = prop::sample::select(vec![0, 8, 16, 24, 32, 48, 64, 128]);
    let key = (1..=BLOCKS, prop::sample::select(addresses), lengths)
        .prop_map(|(blocks, address, length)| BlockKey::prefix(blocks, address, length));
    prop::collection::vec((key, entry()), 0..12)
}

fn sets() -> impl Strategy<Value = Sets> {
    let key =
        (1..=SETS, prop::sample::select(PROTOCOLS.to_vec()), prop::sample::select(PORTS.to_vec()), 0_u8..=17)
            .prop_map(|(set, proto, port, bits)| match bits {
                17 => L4Key::any(set),
                bits => L4Key::ports(set, proto, port, bits),
            });
    prop::collection::vec((key, verdict()), 0..24)
}

/// The last row of a key is the one that was written over the others.
fn row(rows: &Rows, key: PolicyKey) -> Option<PolicyEntry> {
    rows.iter().rev().find(|(found, _)| *found == key).map(|(_, entry)| *entry)
}

/// Whether a row of a set covers protocol and port.
fn covers(key: &L4Key, proto: u8, port: u16) -> bool {
    let bits = key.prefixlen.saturating_sub(L4Key::PROTO_BITS);
    let differ = u32::from(key.port.get() ^ port);
    key.prefixlen == L4Key::ANY_BITS || (key.proto == proto && differ >> (16 - bits) == 0)
}

/// Whether a block has an address.
fn contains(key: &BlockKey, address: IpAddr) -> bool {
    let Some((block, length)) = key.to_prefix() else { return false };
    match (block, address) {
        (IpAddr::V4(block), IpAddr::V4(address)) => {
            length == 0 || (block.to_bits() ^ address.to_bits()) >> (32 - length) == 0
        }
        (IpAddr::V6(block), IpAddr::V6(address)) => {
            length == 0 || (block.to_bits() ^ address.to_bits()) >> (128 - length) == 0
        }
        _ => false,
    }
}

/// What a plain search says.
fn search(
    (rows, blocks, sets): (&Rows, &Blocks, &Sets),
    (policy, direction, peer, address): (u32, Direction, Identity, IpAddr),
    proto: u8,
    port: u16,
) -> (PolicyVerdict, PolicyMatch) {
    let own = row(rows, PolicyKey::new(policy, direction, peer));
    let Some(entry) = own.or_else(|| row(rows, PolicyKey::new(policy, direction, PolicyKey::EVERYBODY)))
    else {
        return (PolicyVerdict::NONE, PolicyMatch::None);
    };
    let is_pod = [A1.identity, A2.identity, Identity::UNMANAGED.0].contains(&peer.0);
    let block = blocks
        .iter()
        .filter(|(key, _)| entry.blocks() == key.blocks && contains(key, address))
        .max_by_key(|(key, _)| key.prefixlen)
        .map(|(_, entry)| *entry);
    let asks_blocks = is_pod && entry.blocks() != 0;
    let Some(entry) = (if asks_blocks { block } else { Some(entry) }) else {
        return (PolicyVerdict::NONE, PolicyMatch::None);
    };
    let by_peer = own.is_some() || asks_blocks;
    if entry.l4 == 0 {
        return (entry.verdict, if by_peer { PolicyMatch::L3Only } else { PolicyMatch::All });
    }
    // Later ones win among equal lengths: they were written over the earlier ones.
    let best = sets
        .iter()
        .filter(|(key, _)| key.set == entry.l4 && covers(key, proto, port))
        .max_by_key(|(key, _)| key.prefixlen);
    match best {
        Some((_, verdict)) => (*verdict, if by_peer { PolicyMatch::L3L4 } else { PolicyMatch::L4Only }),
        None => (PolicyVerdict::NONE, PolicyMatch::None),
    }
}

/// Policy and flags of the endpoint row.
type Guard = (u32, u16);

fn guard() -> impl Strategy<Value = Guard> {
    (0..=POLICIES, 0_u16..8).prop_map(|(policy, bits)| (policy, bits << 2))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_a_plain_search_says_is_what_happens(
        rows in rows(),
        blocks in blocks(),
        sets in sets(),
        guards in [guard(), guard()],
        packets in prop::collection::vec(
            (prop_oneof![Just(4_u8), Just(6)], 0_usize..4, 0_usize..3, 0_usize..8, any::<u16>()), 1..16
        ),
    ) {
        let mut world = World::node(1, Routing::Vxlan);
        world.config.flags.remove(ConfigFlags::TRACE_EVENTS);
        world.write_config();
        for (key, entry) in &rows {
            world.native.tables_mut().policy.insert(*key, *entry);
        }
        for (key, entry) in &blocks {
            world.block(*key, *entry);
        }
        for (key, verdict) in &sets {
            world.l4(*key, *verdict);
        }
        for (pod, (policy, flags)) in [A1, A2].iter().zip(guards) {
            world.guard(pod, policy, EndpointFlags(flags));
        }
        for (family, way, proto, port, sport) in packets {
            world.forget();
            let (proto, port) = (PROTOCOLS[proto], PORTS[port]);
            let world_identity = if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
            // Who sends, who receives, and as what they are known.
            let a1 = (Some((&A1, guards[0])), Identity(A1.identity), A1.ip(family));
            let a2 = (Some((&A2, guards[1])), Identity(A2.identity), A2.ip(family));
            let away = (None, Identity::UNMANAGED, B1.ip(family));
            let far = (None, world_identity, outside(family));
            let (from, to): (End<'_>, End<'_>) = [(a1, a2), (a1, away), (a1, far), (away, a1)][way];
            let frame = {
                let craft = from.0.map_or_else(|| craft(&B1, to.2), |(pod, _)| craft(pod, to.2));
                match proto {
                    6 => craft.tcp(sport, port, 2, b""),
                    17 => craft.udp(sport, port, b""),
                    _ => {
                        let mut chunk = [sport.to_be_bytes(), port.to_be_bytes()].concat();
                        chunk.extend([0; 8]);
                        craft.upper(proto, chunk, None)
                    }
                }
            };

            let mut told = Vec::new();
            let mut dropped = None;
            let sides = [(from, to, Direction::Egress, 8), (to, from, Direction::Ingress, 4)];
            for (own, peer, direction, bit) in sides {
                let Some((pod, (policy, flags))) = own.0 else { continue };
                if policy == 0 || flags & bit == 0 || dropped.is_some() {
                    continue;
                }
                let (verdict, matched) = search((&rows, &blocks, &sets), (policy, direction, peer.1, peer.2), proto, port);
                let reason = match verdict.flags.0 {
                    1 => None,
                    flags if flags & 2 != 0 => Some(DropReason::PolicyDenyRule),
                    _ => Some(DropReason::PolicyDenied),
                };
                let audited = reason.is_some() && flags & 16 != 0;
                told.push((
                    (pod.id, direction == Direction::Ingress, reason.map_or(0, DropReason::number), verdict.cookie),
                    (matched as u8, audited, verdict.staged, verdict.staged_cookie),
                ));
                if !audited {
                    dropped = reason;
                }
            }

            let verdict = match from.0 {
                Some((pod, _)) => world.pod_sends(pod, &frame).0,
                None => world.tunnel_brings(&frame, 0).0,
            };
            match dropped {
                Some(reason) => prop_assert_eq!(verdict, Verdict::Drop(reason)),
                None => prop_assert!(!matches!(verdict, Verdict::Drop(_)), "{:?}", verdict),
            }
            prop_assert_eq!(world.connections(), usize::from(dropped.is_none()));
            let events = world.events();
            let said: Vec<_> = events
                .iter()
                .filter(|event| event.header.kind == EventKind::PolicyVerdict as u8)
                .map(|event| {
                    let header = &event.header;
                    let audited = header.policy_flags & EventHeader::AUDITED != 0;
                    let ingress = header.flags & EventHeader::INGRESS != 0;
                    (
                        (header.endpoint, ingress, header.subtype, header.arg),
                        (header.policy_match, audited, header.staged, header.staged_cookie),
                    )
                })
                .collect();
            prop_assert_eq!(said, told);
        }
    }
}

/// Pod with its policy, identity and address.
type End<'a> = (Option<(&'a Pod, Guard)>, Identity, IpAddr);
