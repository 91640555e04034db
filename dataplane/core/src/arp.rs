//! ARP (RFC 826): whatever a pod asks for, its gateway has it.
//!
//! So nothing depends on the gateway's address, which may change while pods live. Only the pod's own address is left
//! unanswered, or its duplicate address detection (RFC 5227) would find a duplicate.

use dataplane_abi::endpoints::EndpointKey;
use dataplane_abi::{Addr, Family, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ethernet::{self, HEADER_LEN};
use crate::host::Host;
use crate::verdict::Step;

/// An ARP packet for IPv4 over Ethernet, in halves that keep it aligned.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: u16,
    operation: u16,
    sender_mac: [u16; 3],
    sender: [u16; 2],
    target_mac: [u16; 3],
    target: [u16; 2],
}

const ETHERNET: u16 = 1_u16.to_be();
const LENGTHS: u16 = 0x0604_u16.to_be();
const REQUEST: u16 = 1_u16.to_be();
const REPLY: u16 = 2_u16.to_be();

/// Turns a request into its answer.
#[inline(never)]
pub fn answer<H: Host>(host: H) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let Some(mut arp) = host.load_or_pull::<Arp>(HEADER_LEN) else { return Step::Skip };
    if arp.hardware != ETHERNET
        || arp.protocol != ethernet::IPV4
        || arp.lengths != LENGTHS
        || arp.operation != REQUEST
    {
        return Step::Skip;
    }
    let key = |address: [u16; 2]| {
        let ([a, b], [c, d]) = halves(address);
        EndpointKey::new(Addr::v4([a, b, c, d]), Family::V4)
    };
    if let Some(asked) = host.endpoint(&key(arp.target))
        && asked.ifindex == host.ifindex()
    {
        return Step::Skip;
    }
    // The gateway's address as the pod's row has it; who is not an endpoint (the node itself on `bristle_host`,
    // a pod that has not got its address yet) gets the node's, which the programs accept as well.
    let gateway = match host.endpoint(&key(arp.sender)) {
        Some(pod) if pod.ifindex == host.ifindex() => pod.node_mac,
        _ => config.host_mac,
    };
    let gateway = words(gateway);
    arp.operation = REPLY;
    arp.target_mac = arp.sender_mac;
    (arp.sender, arp.target) = (arp.target, arp.sender);
    arp.sender_mac = gateway;
    let [d0, d1, d2] = arp.target_mac;
    let [s0, s1, s2] = gateway;
    if host.store(0, [d0, d1, d2, s0, s1, s2]) && host.store(HEADER_LEN, arp) {
        Step::Answer
    } else {
        Step::Skip
    }
}

/// A MAC as halves.
#[inline(always)]
pub(crate) const fn words(mac: Mac) -> [u16; 3] {
    let [a, b, c, d, e, f] = mac;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}

#[inline(always)]
const fn halves(address: [u16; 2]) -> ([u8; 2], [u8; 2]) {
    let [high, low] = address;
    (high.to_ne_bytes(), low.to_ne_bytes())
}
