//! `from_netdev`: what comes in from the underlay. Answers to masqueraded pods become answers to them; calls from outside the cluster
//! to services are sent to backends; packets for pods of this node are delivered, those for the node itself are judged if they shall be,
//! everything else is left alone.

use core::hint::black_box;

use dataplane_abi::DropReason;
use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing};
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::TracePoint;
use dataplane_abi::policy::Direction;
use dataplane_abi::program::Program;

use super::with_config;
use crate::calls;
use crate::closer::{look_closer, nobody_turned, put_away};
use crate::conntrack::{self, End, Hit};
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route, Turned};
use crate::forward;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::masquerade;
use crate::node;
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
            Some(ethernet::IPV4) => match whose::<H, V4>(host) {
                Step::Next => {
                    let step = ip::<H, V4>(host, route);
                    look_closer::<H, V4, PROGRAM>(host, route, step)
                }
                end => end,
            },
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                match whose::<H, V6>(host) {
                    Step::Next => {
                        let step = ip::<H, V6>(host, route);
                        look_closer::<H, V6, PROGRAM>(host, route, step)
                    }
                    end => end,
                }
            }
            _ => Step::Skip,
        };
        match step {
            Step::Next if route.to.way.kind == WayKind::Local as u8 => forward::deliver(host, route, true),
            // Others' backends and callers are reached by the stack's routes.
            Step::Next if route.turned != Turned::No => {
                route.point = TracePoint::ToStack as u8;
                Step::Pass
            }
            Step::Next => Step::Skip,
            end => end,
        }
    })
}

/// Finds out whether the packet is for anybody here, and makes it one for the pod whose answer it is. [`Step::Next`]: it is.
#[inline(always)]
fn whose<H: Host, F: Ip>(host: H) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut step = Step::Skip;
    let may_be_called = calls::from_outside::<F>(config);
    if may_be_called {
        nobody_turned::<H, F>(host);
    }
    if (masquerade::is_on::<F>(config) || may_be_called) && is_for_node::<H, F>(host, config) {
        step = masquerade::come::<H, F>(host);
    }
    if step == Step::Closer {
        step = if may_be_called { Step::Next } else { Step::Skip };
    }
    // The kernel's verifier would follow each outcome to the end by itself.
    match black_box(step) {
        Step::Skip if is_left_alone::<H, F>(host, config) => Step::Skip,
        Step::Skip => Step::Next,
        end => end,
    }
}

#[inline(always)]
fn is_for_node<H: Host, F: Ip>(host: H, config: &NodeConfig) -> bool {
    F::addresses(host).is_some_and(|(_, dst)| F::is_node(config, dst))
}

/// Whether the packet is for nobody here: for a group; or for the node, where that is not judged, as the outer packets of the tunnel
/// are. Behind the tunnel no packets for pods are expected, and the stack routes those that come.
#[inline(always)]
fn is_left_alone<H: Host, F: Ip>(host: H, config: &NodeConfig) -> bool {
    let Some((_, dst)) = F::addresses(host) else { return true };
    if F::is_group(dst) {
        return true;
    }
    if config.flags.contains(ConfigFlags::HOST_FIREWALL) {
        config.routing != Routing::Native as u8
            && !calls::from_outside::<F>(config)
            && !node::is_own::<H, F>(host, config, dst)
    } else {
        F::is_node(config, dst)
    }
}

/// Everything that depends on the family.
#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let mut flight = Flight::<F>::new(host.ticks(), config);
    if let Err(reason) = F::parse(host, &mut flight) {
        return unreadable::<H, F>(host, reason);
    }
    if flight.kind == Kind::Control {
        return Step::Skip;
    }
    if config.flags.contains(ConfigFlags::HOST_FIREWALL) && node::is_exempt(config, &flight) {
        return Step::Skip;
    }
    route.hops = flight.hops;
    route.hop_word = flight.hop_word;
    match conntrack::lookup::<H, F, PROGRAM>(host, config, &mut flight, route, 0) {
        Hit::Known => Step::Next,
        hit => put_away(host, &flight, route, hit),
    }
}

/// What becomes of a packet that conntrack cannot follow.
#[inline(never)]
fn unreadable<H: Host, F: Ip>(host: H, reason: DropReason) -> Step {
    let (mut end, mut guard) = (End::NOBODY, Guard::NONE);
    let Some((_, dst)) = F::addresses(host) else { return Step::Skip };
    match ends::find_here::<H, F>(host, dst, &mut end, &mut guard) {
        Place::Pod => Step::Drop(reason),
        Place::Node if guard.closes(Direction::Ingress) => Step::Drop(reason),
        Place::Node | Place::Elsewhere => Step::Skip,
    }
}
