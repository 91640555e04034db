//! Sending a packet on its way: hop limit, size, link layer addresses, tunnel.
//!
//! What a router would answer with an ICMP error or cut into fragments (the last hop used up, larger than the way takes)
//! goes to the node's stack, which is a router and does just that; its routes lead the same way.

use dataplane_abi::DropReason;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtWay, WayKind};
use dataplane_abi::events::TracePoint;
use zerocopy::transmute;

use crate::ethernet::{self, HEADER_LEN32};
use crate::flight::Route;
use crate::host::Packet;
use crate::ip::{v4, v6};
use crate::verdict::Step;

/// Least bytes of headers in front of the payload of a packet that will be cut: IP without options and TCP without options.
const SEGMENT_HEADERS: u32 = 40;

/// Sends a packet from a pod wherever its way leads.
#[inline(always)]
pub fn send<H: Packet>(host: H, config: &NodeConfig, route: &mut Route) -> Step {
    let kind = route.to.way.kind;
    if kind == WayKind::Local as u8 {
        return deliver(host, route, false);
    }
    let (mtu, point, step) = if kind == WayKind::Tunnel as u8 {
        (config.overlay_mtu, TracePoint::ToOverlay, Step::Tunnel)
    } else if kind == WayKind::Neighbour as u8 {
        (config.underlay_mtu, TracePoint::ToNetwork, Step::Neighbour)
    } else {
        return to_stack(route);
    };
    if route.hops <= 1 || is_too_large(host, mtu) {
        return to_stack(route);
    }
    route.point = point as u8;
    if decrement(host, route, false) { step } else { Step::Drop(DropReason::WriteError) }
}

/// Hands a packet to a pod of this node. `summed`: a device may have summed the packet.
#[inline(always)]
pub fn deliver<H: Packet>(host: H, route: &mut Route, summed: bool) -> Step {
    if route.hops <= 1 {
        return to_stack(route);
    }
    route.point = TracePoint::ToEndpoint as u8;
    if decrement(host, route, summed) && ethernet::store_addresses(host, link_addresses(&route.to.way)) {
        Step::Peer
    } else {
        Step::Drop(DropReason::WriteError)
    }
}

/// Lowers the hop limit by one.
#[inline(always)]
fn decrement<H: Packet>(host: H, route: &Route, summed: bool) -> bool {
    if route.is_v6 { v6::decrement(host, route.hops, summed) } else { v4::decrement(host, route.hop_word) }
}

/// The link layer addresses of a way to a local pod: the pod's and its gateway's.
#[inline(always)]
pub fn link_addresses(way: &CtWay) -> [u32; 3] {
    let [destination, both, source, _]: [u32; 4] = transmute!(way.data);
    [destination, both, source]
}

#[inline(always)]
fn to_stack(route: &mut Route) -> Step {
    route.point = TracePoint::ToStack as u8;
    Step::Pass
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
