//! IPv6 neighbour discovery (RFC 4861): solicitations of pods are answered here.
//!
//! The router's address and those of other local pods are answered; the pod's own is left alone (duplicate address
//! detection); others are unknown. What else a pod says on the link (router solicitations, group membership) has no
//! meaning on a point-to-point device and is dropped as forbidden.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::EndpointKey;
use dataplane_abi::{Addr, DropReason, Family};
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::arp::words;
use crate::ethernet::{HEADER_LEN, SOURCE};
use crate::host::Host;
use crate::ip::l4;
use crate::verdict::Step;

/// ICMPv6 types.
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Flags of an advertisement.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The IPv6 header of a message.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    length: u16,
    next: u8,
    hops: u8,
}

/// Offsets of what is read and written: length, next header and hop limit; addresses; ICMPv6 header; target; option.
const HEADER: usize = HEADER_LEN + 4;
const SRC: usize = HEADER_LEN + 8;
const DST: usize = HEADER_LEN + 24;
const ICMP: usize = HEADER_LEN + 40;
const TARGET: usize = ICMP + 8;
const OPTION: usize = ICMP + 24;
/// Length of a frame with one option, and its last byte.
const END: u32 = 14 + 72;
const LAST: usize = OPTION + 7;

/// Bytes behind the IPv6 header.
const LENGTH: u16 = 32;
/// Option: link layer address of the target, one unit of eight bytes.
const TARGET_ADDRESS: u16 = 0x0201_u16.to_be();

/// Answers what a pod says on the link. `kind`: type of its ICMPv6 message.
#[inline(never)]
pub fn answer<H: Host>(host: H, kind: u8) -> Step {
    match kind {
        NEIGHBOUR_SOLICITATION => solicited(host),
        // The answer to a question of the stack's, or an announcement: none of our business.
        NEIGHBOUR_ADVERTISEMENT => Step::Skip,
        _ => Step::Drop(DropReason::ForbiddenIcmp6),
    }
}

#[inline(always)]
fn solicited<H: Host>(host: H) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    // Solicitations without the option (duplicate address detection) or with more than it are not answered.
    if host.load::<u8>(LAST).is_none() && !host.pull(END) {
        return Step::Skip;
    }
    let Some(header) = host.load::<Header>(HEADER) else { return Step::Skip };
    let Some(asker) = host.load::<[u64; 2]>(SRC) else { return Step::Skip };
    let Some(target) = host.load::<[u64; 2]>(TARGET) else { return Step::Skip };
    if header.next != l4::ICMP6 || header.length != LENGTH.to_be() || header.hops != 255 || asker == [0; 2] {
        return Step::Skip;
    }
    let router = is_router(config, target);
    if !router {
        match host.endpoint(&EndpointKey::new(Addr(transmute!(target)), Family::V6)) {
            Some(own) if own.ifindex == host.ifindex() => return Step::Skip,
            Some(_) => {}
            None => return Step::Drop(DropReason::UnknownTarget),
        }
    }
    let Some(gateway) = gateway(host, config, asker) else { return Step::Skip };
    let flags = if router { ROUTER | SOLICITED | OVERRIDE } else { SOLICITED | OVERRIDE };
    let sum = checksum(asker, target, gateway, flags);
    if answer_to(host, asker, target, gateway, [flags, 0, 0, 0], sum) { Step::Answer } else { Step::Skip }
}

/// The address that the pod has, or gets, for its gateway.
#[inline(always)]
fn gateway<H: Host>(host: H, config: &NodeConfig, asker: [u64; 2]) -> Option<[u16; 3]> {
    let [d0, d1, d2]: [u16; 3] = host.load(0)?;
    let [first, _] = d0.to_ne_bytes();
    if first & 1 == 0 {
        // Asked directly: the pod knows the address and wants it confirmed.
        return Some([d0, d1, d2]);
    }
    Some(match host.endpoint(&EndpointKey::new(Addr(transmute!(asker)), Family::V6)) {
        Some(pod) if pod.ifindex == host.ifindex() => words(pod.node_mac),
        _ => words(config.host_mac),
    })
}

/// Turns the solicitation into its advertisement.
#[inline(always)]
fn answer_to<H: Host>(
    host: H,
    asker: [u64; 2],
    target: [u64; 2],
    gateway: [u16; 3],
    flags: [u8; 4],
    sum: u16,
) -> bool {
    let Some(asker_mac) = host.load::<[u16; 3]>(SOURCE) else { return false };
    let [g0, g1, g2] = gateway;
    let [s0, s1] = sum.to_ne_bytes();
    host.store(0, asker_mac)
        && host.store(SOURCE, gateway)
        && host.store(SRC, target)
        && host.store(DST, asker)
        && host.store(ICMP, [NEIGHBOUR_ADVERTISEMENT, 0, s0, s1])
        && host.store(ICMP + 4, flags)
        && host.store(OPTION, [TARGET_ADDRESS, g0, g1, g2])
}

#[inline(always)]
fn is_router(config: &NodeConfig, target: [u64; 2]) -> bool {
    let router: [u64; 2] = transmute!(config.router_v6);
    router == target && router != [0; 2]
}

/// Checksum of the advertisement with its pseudo header (RFC 4443, section 2.3), as it lies in the packet.
#[inline(always)]
fn checksum(asker: [u64; 2], target: [u64; 2], gateway: [u16; 3], flags: u8) -> u16 {
    // One's complement sums may be taken over longer words and folded afterwards (RFC 1071). The target is summed twice:
    // it is the sender, too.
    let half = |word: u64| (word & 0xFFFF_FFFF).wrapping_add(word >> 32);
    let ([a0, a1], [t0, t1], [g0, g1, g2]) = (asker, target, gateway);
    let target = half(t0).wrapping_add(half(t1));
    let mut sum = half(a0).wrapping_add(half(a1)).wrapping_add(target).wrapping_add(target);
    for word in [
        LENGTH.to_be(),
        u16::from(l4::ICMP6).to_be(),
        u16::from_ne_bytes([NEIGHBOUR_ADVERTISEMENT, 0]),
        u16::from_ne_bytes([flags, 0]),
        TARGET_ADDRESS,
        g0,
        g1,
        g2,
    ] {
        sum = sum.wrapping_add(u64::from(word));
    }
    for _ in 0..4 {
        sum = (sum & 0xFFFF).wrapping_add(sum >> 16);
    }
    let [a, b, ..] = (!sum).to_le_bytes();
    u16::from_le_bytes([a, b])
}
