//! `from_overlay`: what other nodes sent through the tunnel. Answers of backends there to callers outside the cluster become answers to
//! them, which the stack sends on.

use dataplane_abi::DropReason;
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::TracePoint;
use dataplane_abi::policy::Direction;
use dataplane_abi::program::Program;

use super::with_config;
use crate::closer::{look_closer, put_away};
use crate::conntrack::{self, End, Hit};
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route, Turned};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::policy::Guard;
use crate::report;
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::FromOverlay as u8;

/// Decides about a packet that came out of the tunnel.
#[inline(always)]
pub fn from_overlay<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromOverlay, route);
        // The inner link layer destination is whatever the sender's pod had for a gateway.
        host.accept();
        let step = match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => {
                let step = ip::<H, V4>(host, route);
                look_closer::<H, V4, PROGRAM>(host, route, step)
            }
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                let step = ip::<H, V6>(host, route);
                look_closer::<H, V6, PROGRAM>(host, route, step)
            }
            _ => Step::Drop(DropReason::UnsupportedL3),
        };
        if step == Step::Next && route.to.way.kind == WayKind::Local as u8 {
            return forward::deliver(host, route, true);
        }
        match step {
            Step::Next if route.to.way.kind != WayKind::Stack as u8 => Step::Drop(DropReason::UnknownTarget),
            Step::Next if route.turned != Turned::No => {
                route.point = TracePoint::ToStack as u8;
                Step::Pass
            }
            // For the node itself, or of a connection that goes through its stack.
            Step::Next | Step::Pass => {
                route.point = TracePoint::ToHost as u8;
                Step::Pass
            }
            end => end,
        }
    })
}

/// Everything that depends on the family.
#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        // The node itself may speak protocols that conntrack does not know.
        return if is_open_node::<H, F>(host) { Step::Pass } else { Step::Drop(reason) };
    }
    if flight.kind == Kind::Control {
        return Step::Drop(DropReason::ForbiddenIcmp6);
    }
    route.hops = flight.hops;
    route.hop_word = flight.hop_word;
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, 0) {
        Hit::Known => Step::Next,
        hit => put_away(host, &flight, route, hit),
    }
}

/// Whether the packet is for the node itself, whose policy closes nothing.
#[inline(never)]
fn is_open_node<H: Host, F: Ip>(host: H) -> bool {
    let (mut end, mut guard) = (End::NOBODY, Guard::NONE);
    F::addresses(host).is_some_and(|(_, dst)| {
        ends::find_here::<H, F>(host, dst, &mut end, &mut guard) == Place::Node
            && !guard.closes(Direction::Ingress)
    })
}
