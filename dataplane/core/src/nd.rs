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
use crate::ethernet::HEADER_LEN;
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

/// A solicitation or an advertisement with one link layer address option, IPv6 header included.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Message {
    version: u32,
    length: u16,
    next: u8,
    hops: u8,
    src: [u16; 8],
    dst: [u16; 8],
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u32,
    target: [u16; 8],
    option: u16,
    mac: [u16; 3],
}

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
    let Some(mut message) = host.load_or_pull::<Message>(HEADER_LEN) else { return Step::Skip };
    if message.next != l4::ICMP6
        || message.length != LENGTH.to_be()
        || message.hops != 255
        || message.src == [0; 8]
    {
        return Step::Skip;
    }
    let router = is_router(config, message.target);
    if !router {
        match host.endpoint(&EndpointKey::new(Addr(transmute!(message.target)), Family::V6)) {
            Some(own) if own.ifindex == host.ifindex() => return Step::Skip,
            Some(_) => {}
            None => return Step::Drop(DropReason::UnknownTarget),
        }
    }
    let Some([d0, d1, d2, s0, s1, s2]) = host.load::<[u16; 6]>(0) else { return Step::Skip };
    let [first, _] = d0.to_ne_bytes();
    let gateway = if first & 1 == 0 {
        // Asked directly: the pod knows the address and wants it confirmed.
        [d0, d1, d2]
    } else {
        match host.endpoint(&EndpointKey::new(Addr(transmute!(message.src)), Family::V6)) {
            Some(pod) if pod.ifindex == host.ifindex() => words(pod.node_mac),
            _ => words(config.host_mac),
        }
    };
    let flags = if router { ROUTER | SOLICITED | OVERRIDE } else { SOLICITED | OVERRIDE };
    message.kind = NEIGHBOUR_ADVERTISEMENT;
    message.code = 0;
    message.flags = u32::from_ne_bytes([flags, 0, 0, 0]);
    message.dst = message.src;
    message.src = message.target;
    message.option = TARGET_ADDRESS;
    message.mac = gateway;
    message.checksum = 0;
    message.checksum = checksum(&message);
    let [g0, g1, g2] = gateway;
    if host.store(0, [s0, s1, s2, g0, g1, g2]) && host.store(HEADER_LEN, message) {
        Step::Answer
    } else {
        Step::Skip
    }
}

#[inline(always)]
fn is_router(config: &NodeConfig, target: [u16; 8]) -> bool {
    let router: [u16; 8] = transmute!(config.router_v6);
    router == target && router != [0; 8]
}

/// Checksum of the message with its pseudo header (RFC 4443, section 2.3), as it lies in the packet.
#[inline(always)]
fn checksum(message: &Message) -> u16 {
    let mut sum: u32 = 0;
    let mut add = |word: u16| sum = sum.wrapping_add(u32::from(word));
    for word in message.src.into_iter().chain(message.dst).chain(message.target).chain(message.mac) {
        add(word);
    }
    add(LENGTH.to_be());
    add(u16::from(l4::ICMP6).to_be());
    add(u16::from_ne_bytes([message.kind, message.code]));
    let [f0, f1, f2, f3] = message.flags.to_ne_bytes();
    add(u16::from_ne_bytes([f0, f1]));
    add(u16::from_ne_bytes([f2, f3]));
    add(message.option);
    let folded = (sum & 0xFFFF).wrapping_add(sum >> 16);
    let folded = (folded & 0xFFFF).wrapping_add(folded >> 16);
    let [.., b2, b3] = (!folded).to_be_bytes();
    u16::from_be_bytes([b2, b3])
}
