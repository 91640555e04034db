//! `from_netdev`: what comes in from the underlay. Packets for pods of this node are delivered, everything else is left alone.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::TracePoint;
use dataplane_abi::program::Program;

use super::with_config;
use crate::conntrack::{self, End, Hit};
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::learn::learn;
use crate::policy::Guard;
use crate::report;
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::FromNetdev as u8;

/// Decides about a packet that came from the underlay.
#[inline(always)]
pub fn from_netdev<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromNetwork, route);
        if host.is_tagged() {
            return Step::Skip;
        }
        let step = match ethernet::ethertype(host) {
            Some(ethernet::IPV4) if !is_plainly_for_node::<H, V4>(host, config) => ip::<H, V4>(host, route),
            Some(ethernet::IPV6) if !is_plainly_for_node::<H, V6>(host, config) => {
                route.is_v6 = true;
                ip::<H, V6>(host, route)
            }
            _ => Step::Skip,
        };
        match step {
            Step::Next if route.to.way.kind == WayKind::Local as u8 => forward::deliver(host, route, true),
            Step::Next => Step::Skip,
            end => end,
        }
    })
}

/// Whether the packet is for the node's own address on the underlay, as the outer packets of the tunnel are, or for a group.
#[inline(always)]
fn is_plainly_for_node<H: Host, F: Ip>(host: H, config: &NodeConfig) -> bool {
    F::addresses(host).is_none_or(|(_, dst)| F::is_node(config, dst) || F::is_group(dst))
}

/// Everything that depends on the family.
#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return if is_for_pod::<H, F>(host) { Step::Drop(reason) } else { Step::Skip };
    }
    if flight.kind == Kind::Control {
        return Step::Skip;
    }
    route.hops = flight.hops;
    route.hop_word = flight.hop_word;
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, 0) {
        Hit::Known => Step::Next,
        Hit::Unsure => learn::<H, F, PROGRAM>(host, &flight, route),
    }
}

/// Whether the packet is for a pod of this node.
#[inline(never)]
fn is_for_pod<H: Host, F: Ip>(host: H) -> bool {
    let (mut end, mut guard) = (End::NOBODY, Guard::NONE);
    F::addresses(host)
        .is_some_and(|(_, dst)| ends::find_here::<H, F>(host, dst, &mut end, &mut guard) == Place::Pod)
}
