//! Sending a packet on its way: hop limit, size, link layer addresses, tunnel.
//!
//! What a router would answer with an ICMP error or cut into fragments (the last hop used up, larger than the way takes)
//! goes to the node's stack, which is a router and does just that; its routes lead the same way.

use dataplane_abi::DropReason;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtWay, WayKind};
use dataplane_abi::events::TracePoint;

use crate::ethernet::{self, HEADER_LEN32};
use crate::flight::{Flight, Seen};
use crate::host::Packet;
use crate::ip::Ip;
use crate::verdict::Verdict;

/// Least bytes of headers in front of the payload of a packet that will be cut: IP without options and TCP without options.
const SEGMENT_HEADERS: u32 = 40;

/// Sends a packet from a pod wherever its way leads.
#[inline(always)]
pub fn send<H: Packet, F: Ip>(host: H, config: &NodeConfig, flight: &Flight<F>, seen: &mut Seen) -> Verdict {
    let way = &flight.way;
    if way.kind == WayKind::Local as u8 {
        return deliver(host, flight, seen, false);
    }
    if flight.headers.hops <= 1 {
        return to_stack(seen);
    }
    if way.kind == WayKind::Tunnel as u8 {
        if is_too_large(host, config.overlay_mtu) {
            return to_stack(seen);
        }
        seen.point = TracePoint::ToOverlay as u8;
        if !F::decrement(host, &flight.headers, false) {
            return Verdict::Drop(DropReason::WriteError);
        }
        if !host.set_tunnel(way.data, way.family, seen.src.to_vni()) {
            return Verdict::Drop(DropReason::NoTunnelEndpoint);
        }
        return Verdict::Egress { ifindex: way.ifindex };
    }
    if way.kind == WayKind::Neighbour as u8 {
        if is_too_large(host, config.underlay_mtu) {
            return to_stack(seen);
        }
        seen.point = TracePoint::ToNetwork as u8;
        if !F::decrement(host, &flight.headers, false) {
            return Verdict::Drop(DropReason::WriteError);
        }
        return Verdict::Neighbour { ifindex: way.ifindex, family: way.family, address: way.data };
    }
    to_stack(seen)
}

/// Hands a packet to a pod of this node. `summed`: a device may have summed the packet.
#[inline(always)]
pub fn deliver<H: Packet, F: Ip>(host: H, flight: &Flight<F>, seen: &mut Seen, summed: bool) -> Verdict {
    if flight.headers.hops <= 1 {
        return to_stack(seen);
    }
    seen.point = TracePoint::ToEndpoint as u8;
    if !F::decrement(host, &flight.headers, summed)
        || !ethernet::store_addresses(host, link_addresses(&flight.way))
    {
        return Verdict::Drop(DropReason::WriteError);
    }
    Verdict::Peer { ifindex: flight.way.ifindex }
}

/// The link layer addresses of a way to a local pod: the pod's and its gateway's.
#[inline(always)]
pub fn link_addresses(way: &CtWay) -> [u32; 3] {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, ..] = way.data;
    [
        u32::from_ne_bytes([a0, a1, a2, a3]),
        u32::from_ne_bytes([a4, a5, a6, a7]),
        u32::from_ne_bytes([a8, a9, a10, a11]),
    ]
}

#[inline(always)]
fn to_stack(seen: &mut Seen) -> Verdict {
    seen.point = TracePoint::ToStack as u8;
    Verdict::Pass
}

/// Whether the packet, or any of those it will be cut into, is larger than a way takes.
#[inline(always)]
fn is_too_large<H: Packet>(host: H, mtu: u32) -> bool {
    if host.len() <= mtu.wrapping_add(HEADER_LEN32) {
        return false;
    }
    let segment = host.segment_len();
    segment == 0 || segment.wrapping_add(SEGMENT_HEADERS) > mtu
}
