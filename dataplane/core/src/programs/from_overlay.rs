//! `from_overlay`: what other nodes sent through the tunnel.

use dataplane_abi::DropReason;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::{EventHeader, TracePoint};
use dataplane_abi::program::Program;

use super::from_container::low;
use super::{NO_ANSWER, ended, with_config};
use crate::conntrack::{self, End, Hit};
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::{Flight, Seen};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, Kind, V4, V6};
use crate::learn::learn;
use crate::report;
use crate::verdict::Verdict;

const PROGRAM: u8 = Program::FromOverlay as u8;

/// Decides about a packet that came out of the tunnel.
#[inline(always)]
pub fn from_overlay<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, seen| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromOverlay, seen);
        // The inner link layer destination is whatever the sender's pod had for a gateway.
        host.accept();
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, seen),
            Some(ethernet::IPV6) => {
                seen.flags = EventHeader::IPV6;
                ip::<H, V6>(host, config, seen)
            }
            _ => Verdict::Drop(DropReason::UnsupportedL3),
        }
    })
}

#[inline(always)]
fn ip<H: Host, F: Ip>(host: H, config: &NodeConfig, seen: &mut Seen) -> Verdict {
    let mut flight = Flight::<F>::new(low(host.ticks()));
    if let Err(reason) = F::parse(host, &mut flight.headers) {
        // The node itself may speak protocols that conntrack does not know.
        return if is_for_node::<H, F>(host) { to_host(seen) } else { Verdict::Drop(reason) };
    }
    if flight.headers.kind == Kind::Control {
        return Verdict::Drop(DropReason::ForbiddenIcmp6);
    }
    if conntrack::lookup(host, config, &mut flight, seen, 0) == Hit::Unsure {
        match ended(learn::<H, F, PROGRAM>(host, &mut flight, seen), NO_ANSWER) {
            Ok(()) => {}
            Err(Verdict::Pass) => return to_host(seen),
            Err(end) => return end,
        }
    }
    if flight.way.kind == WayKind::Local as u8 {
        return forward::deliver(host, &flight, seen, true);
    }
    // Of a connection between a pod here and the node it came from through the stack.
    if flight.way.kind == WayKind::Stack as u8 {
        to_host(seen)
    } else {
        Verdict::Drop(DropReason::UnknownTarget)
    }
}

#[inline(always)]
fn to_host(seen: &mut Seen) -> Verdict {
    seen.point = TracePoint::ToHost as u8;
    Verdict::Pass
}

/// Whether the packet is for the node itself.
#[inline(never)]
fn is_for_node<H: Host, F: Ip>(host: H) -> bool {
    let mut end = End::NOBODY;
    F::addresses(host).is_some_and(|(_, dst)| ends::find_here::<H, F>(host, dst, &mut end) == Place::Node)
}
