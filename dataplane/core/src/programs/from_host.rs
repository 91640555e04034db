//! `from_host`: what the node's stack routes to `bristle_host`, that is: what it sends to pods, here or behind the tunnel.
//!
//! For a pod of this node, `to_container` on its device has the last word. There is no conntrack here, unless the node's own
//! connections are judged.

use dataplane_abi::config::ConfigFlags;
use dataplane_abi::conntrack::WayKind;
use dataplane_abi::events::{Aggregation, TracePoint, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, Identity, mark};

use super::with_config;
use crate::arp;
use crate::conntrack::End;
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::Route;
use crate::forward::link_addresses;
use crate::host::Host;
use crate::ip::{Ip, V4, V6};
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
        let judges_node = config.flags.contains(ConfigFlags::HOST_FIREWALL);
        match ethernet::ethertype(host) {
            Some(ethernet::IPV4) => {
                if judges_node {
                    match judged::<H, V4>(host, route) {
                        Step::Next => {}
                        end => return end,
                    }
                }
                ip::<H, V4>(host, route)
            }
            Some(ethernet::IPV6) => {
                route.is_v6 = true;
                if judges_node {
                    match judged::<H, V6>(host, route) {
                        Step::Next => route.is_v6 = true,
                        end => return end,
                    }
                }
                ip::<H, V6>(host, route)
            }
            // Should the device not be without ARP: any answer will do, the addresses are rewritten here.
            Some(ethernet::ARP) => arp::answer(host),
            _ => Step::Skip,
        }
    })
}

/// Judges what the node itself sends. The way is found afterwards, whatever was found here, so that the kernel's verifier need
/// not follow the one for each outcome of the other.
#[inline(always)]
fn judged<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let step = node::sends::<H, F, PROGRAM>(host, route);
    if step == Step::Next {
        *route = Route::NONE;
    }
    step
}

#[inline(never)]
fn ip<H: Host, F: Ip>(host: H, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let Some((from, to)) = F::addresses(host) else { return Step::Drop(DropReason::InvalidPacket) };
    if F::is_group(to) {
        return Step::Skip;
    }
    // For a pod of this node `to_container` asks the policies of both.
    let (mut src, mut guard) = (End::NOBODY, Guard::NONE);
    let place = ends::find::<H, F>(host, &to, &mut route.to, &mut guard);
    let _: Place = ends::find::<H, F>(host, &from, &mut src, &mut guard);
    route.src = mark::identity(host.mark()).unwrap_or(src.identity);
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
