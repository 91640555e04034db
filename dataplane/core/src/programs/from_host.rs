//! `from_host`: what the node's stack routes to `bristle_host`, that is: what it sends to pods, here or behind the tunnel.
//!
//! For a pod of this node, `to_container` on its device has the last word. There is no conntrack here, unless the node's own
//! connections are judged; except that what callers outside the cluster send to backends behind the tunnel leaves with the node's
//! address.

use core::hint::black_box;

use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing};
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::{Aggregation, TracePoint, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity, mark};

use super::with_config;
use crate::arp;
use crate::calls;
use crate::conntrack::End;
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::Route;
use crate::forward::link_addresses;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
use crate::masquerade;
use crate::node;
use crate::policy::Guard;
use crate::report;
use crate::verdict::{Step, Verdict};

const PROGRAM: u8 = Program::FromHost as u8;

/// Decides about a packet that the stack sends to a pod.
#[inline(always)]
pub fn from_host<H: Host>(host: H) -> Verdict {
    with_config::<H, PROGRAM>(host, |config, route| {
        report::arrived::<H, PROGRAM>(host, config, TracePoint::FromHost, route);
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => whole::<H, V4>(host, config, route),
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                whole::<H, V6>(host, config, route)
            }
            // Should the device not be without ARP: any answer will do, the addresses are rewritten here.
            Some(ethernet::ARP) => arp::answer(host),
            _ => Step::Skip,
        }
    })
}

/// Everything that depends on the family. The way is found last, whatever was found before, so that the kernel's verifier need not
/// follow the one for each outcome of the other.
#[inline(always)]
fn whole<H: Host, F: Ip>(host: H, config: &NodeConfig, route: &mut Route) -> Step {
    if config.flags.contains(ConfigFlags::HOST_FIREWALL) {
        match black_box(node::sends::<H, F, PROGRAM>(host, route)) {
            Step::Next => *route = Route { is_v6: route.is_v6, ..Route::NONE },
            end => return end,
        }
    }
    let is_callers = match black_box(of_callers::<H, F>(host, config, route)) {
        Step::Drop(reason) => return Step::Drop(reason),
        step => step == Step::Pass,
    };
    ip::<H, F>(host, route, black_box(is_callers))
}

/// Gives a packet that goes through the tunnel, and that the node does not send by itself, the address and port with which it leaves if
/// it is one of a caller's from outside the cluster; [`Step::Pass`] if it is.
#[inline(always)]
fn of_callers<H: Host, F: Ip>(host: H, config: &NodeConfig, route: &mut Route) -> Step {
    if config.routing != Routing::Vxlan as u8
        || !calls::from_outside::<F>(config)
        || is_routers::<H, F>(host, config)
    {
        return Step::Skip;
    }
    match black_box(masquerade::read::<H, F, true>(host)) {
        Step::Next => masquerade::leave::<H, F, true>(host, route),
        end => end,
    }
}

/// Whether it comes from the address with which the node speaks to pods.
#[inline(always)]
fn is_routers<H: Host, F: Ip>(host: H, config: &NodeConfig) -> bool {
    F::addresses(host).is_some_and(|(src, _)| src == F::router(config))
}

#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route, is_callers: bool) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let Some((from, to)) = F::addresses(host) else { return Step::Drop(DropReason::InvalidPacket) };
    if F::is_group(to) {
        return Step::Skip;
    }
    // For a pod of this node `to_container` asks the policies of both.
    let (mut src, mut guard) = (End::NOBODY, Guard::NONE);
    let place = ends::find::<H, F>(host, &to, &mut route.to, &mut guard);
    let _: Place = ends::find::<H, F>(host, &from, &mut src, &mut guard);
    // Of a caller outside the cluster the tunnel tells no more than that.
    route.src =
        if is_callers { F::world(config) } else { mark::identity(host.mark()).unwrap_or(src.identity) };
    if route.src == Identity::UNKNOWN {
        route.src = config.host_identity;
    }
    route.endpoint = src.way.endpoint;
    route.reason = TraceReason::Unknown as u8;
    match place {
        Place::Pod => {
            route.point = TracePoint::ToEndpoint as u8;
            // `to_container` tells of it, with what conntrack knows.
            route.report = false;
            if ethernet::store_addresses(host, link_addresses(&route.to.way)) {
                Step::Egress
            } else {
                Step::Drop(DropReason::WriteError)
            }
        }
        Place::Node => Step::Skip,
        Place::Elsewhere if route.to.way.kind == WayKind::Tunnel as u8 => {
            route.point = TracePoint::ToOverlay as u8;
            // Without conntrack one packet is as good as the other; only those who want all of them get them.
            route.report = config.flags.contains(ConfigFlags::TRACE_EVENTS)
                && config.aggregation < Aggregation::Medium as u8;
            Step::Tunnel
        }
        Place::Elsewhere => Step::Drop(DropReason::UnknownTarget),
    }
}
