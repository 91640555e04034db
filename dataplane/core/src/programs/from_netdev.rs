//! `from_netdev`: what comes in from the underlay. Packets for pods of this node are delivered, everything else is left alone.

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

const PROGRAM: u8 = Program::FromNetdev as u8;

/// Decides about a packet that came from the underlay.
#[inline(always)]
pub fn from_netdev<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, seen| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromNetwork, seen);
        if host.is_tagged() {
            return Verdict::Skip;
        }
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => ip::<H, V4>(host, config, seen),
            Some(ethernet::IPV6) => {
                seen.flags = EventHeader::IPV6;
                ip::<H, V6>(host, config, seen)
            }
            _ => Verdict::Skip,
        }
    })
}

#[inline(always)]
fn ip<H: Host, F: Ip>(host: H, config: &NodeConfig, seen: &mut Seen) -> Verdict {
    // The node's own traffic, the outer packets of the tunnel above all.
    match F::addresses(host) {
        Some((_, dst)) if !F::is_node(config, dst) && !F::is_group(dst) => {}
        _ => return Verdict::Skip,
    }
    let mut flight = Flight::<F>::new(low(host.ticks()));
    if let Err(reason) = F::parse(host, &mut flight.headers) {
        return if is_for_pod::<H, F>(host) { Verdict::Drop(reason) } else { Verdict::Skip };
    }
    if flight.headers.kind == Kind::Control {
        return Verdict::Skip;
    }
    if conntrack::lookup(host, config, &mut flight, seen, 0) == Hit::Unsure
        && let Err(end) = ended(learn::<H, F, PROGRAM>(host, &mut flight, seen), NO_ANSWER)
    {
        return end;
    }
    if flight.way.kind == WayKind::Local as u8 {
        forward::deliver(host, &flight, seen, true)
    } else {
        Verdict::Skip
    }
}

/// Whether the packet is for a pod of this node.
#[inline(never)]
fn is_for_pod<H: Host, F: Ip>(host: H) -> bool {
    let mut end = End::NOBODY;
    F::addresses(host).is_some_and(|(_, dst)| ends::find_here::<H, F>(host, dst, &mut end) == Place::Pod)
}
