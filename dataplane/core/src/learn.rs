//! First packets, and those whose connection must be judged again: both ends are looked up, judged and written into the row.
//!
//! This is the one place where a connection is judged with both ends known; the policies' part is in [`crate::policy`].

use core::hint::black_box;

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtDir, WayKind};
use dataplane_abi::events::{EventHeader, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::{Be16, DropReason, Identity};

use crate::conntrack::{self, End, Found, Origin};
use crate::ends::{self, Place};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route};
use crate::host::{Host, Packet};
use crate::ip::{Ip, l4};
use crate::policy::{self, Case, Guard, Side};
use crate::verdict::Step;

/// Looks closer at a packet that conntrack alone could not decide. After [`Step::Next`] the route has a way.
#[inline(never)]
pub fn learn<H: Host, F: Ip, const PROGRAM: u8>(host: H, flight: &Flight<F>, route: &mut Route) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let is_error = flight.kind == Kind::Error;
    let mut addr = flight.dst();
    let (mut src_guard, mut dst_guard) = (Guard::NONE, Guard::NONE);
    let place = ends::find::<H, F>(host, &addr, &mut route.to, &mut dst_guard);
    match receiver::<PROGRAM>(host.ifindex(), place, &route.to, F::is_group(addr)) {
        Step::Next => {}
        other => return other,
    }
    addr = flight.src();
    // The sender of an ICMP error is not an end of the connection that the error is about.
    if is_error && let Some((sender, _)) = F::addresses(host) {
        addr = sender;
    }
    let mut src = End::NOBODY;
    let place = ends::find::<H, F>(host, &addr, &mut src, &mut src_guard);
    route.endpoint = src.way.endpoint;
    route.src = src.identity;
    match source::<H, PROGRAM>(host, config, place, &mut src) {
        Step::Next => {}
        other => return other,
    }
    route.src = src.identity;
    route.report = config.flags.contains(ConfigFlags::TRACE_EVENTS);

    // Without this the kernel's verifier follows each outcome through all that comes after by itself.
    let mut origin = Origin { identity: Identity::UNKNOWN, icmp_type: 0 };
    let found = black_box(conntrack::look(host, config, flight, &mut origin));
    if is_error {
        route.reason = TraceReason::Related as u8;
        return match found {
            Found::Original | Found::Reply => Step::Next,
            Found::Nothing | Found::Reopened => Step::Drop(DropReason::UnknownCtState),
        };
    }
    match found {
        Found::Original => route.reason = TraceReason::Established as u8,
        Found::Reply => {
            route.reason = TraceReason::Reply as u8;
            route.flags |= EventHeader::REPLY;
            // Of a pod behind another node the tunnel may tell an identity before the tables do.
            if route.to.identity == Identity::UNMANAGED {
                route.to.identity = origin.identity;
            }
        }
        Found::Nothing | Found::Reopened => route.reason = TraceReason::New as u8,
    }
    if src_guard.policy != 0 || dst_guard.policy != 0 {
        let sender = Side { identity: src.identity, guard: src_guard };
        let receiver = Side { identity: route.to.identity, guard: dst_guard };
        let case = case(flight, found, origin.icmp_type, sender, receiver);
        match policy::judge::<H, PROGRAM>(host, &case, route) {
            Step::Next => {}
            end => return end,
        }
    }
    match found {
        Found::Original => {
            conntrack::refresh(host, flight, CtDir::Original, &src, &route.to);
        }
        Found::Reply => {
            conntrack::refresh(host, flight, CtDir::Reply, &src, &route.to);
        }
        Found::Nothing | Found::Reopened => {
            if !conntrack::create(host, flight, &src, &route.to) {
                return Step::Drop(DropReason::CtCreateFailed);
            }
        }
    }
    Step::Next
}

/// The packet's connection as policy sees it. Without a row the sender is taken for the one who opens it.
#[inline(always)]
fn case<F: Ip>(flight: &Flight<F>, found: Found, first_type: u8, sender: Side, receiver: Side) -> Case {
    let is_reply = found == Found::Reply;
    let is_new = !is_reply && found != Found::Original;
    let proto = F::proto(&flight.key);
    let (low, high) = F::ports(&flight.key);
    let port = if proto == l4::ICMP || proto == l4::ICMP6 {
        Be16::new(u16::from(if is_new { flight.tcp_flags } else { first_type }))
    } else if flight.from_high == is_reply {
        high
    } else {
        low
    };
    let (initiator, responder) = if is_reply { (receiver, sender) } else { (sender, receiver) };
    Case { initiator, responder, port, proto, is_new }
}

/// Whether this program has to do with a receiver at that place.
#[inline(always)]
fn receiver<const PROGRAM: u8>(ifindex: u32, place: Place, dst: &End, is_group: bool) -> Step {
    if PROGRAM == Program::FromContainer as u8 {
        if is_group { Step::Drop(DropReason::UnknownTarget) } else { Step::Next }
    } else if PROGRAM == Program::FromOverlay as u8 {
        match place {
            Place::Pod => Step::Next,
            Place::Node => Step::Pass,
            Place::Elsewhere => Step::Drop(DropReason::UnknownTarget),
        }
    } else if PROGRAM == Program::ToContainer as u8 {
        match place {
            Place::Pod if dst.way.ifindex == ifindex => Step::Next,
            // What the stack itself says on the link (neighbour discovery, group membership).
            _ if is_group => Step::Skip,
            _ => Step::Drop(DropReason::UnknownTarget),
        }
    } else {
        match place {
            Place::Pod => Step::Next,
            Place::Node | Place::Elsewhere => Step::Skip,
        }
    }
}

/// Whether the sender may be who it says it is.
#[inline(always)]
fn source<H: Host, const PROGRAM: u8>(host: H, config: &NodeConfig, place: Place, src: &mut End) -> Step {
    if PROGRAM == Program::FromContainer as u8 {
        if config.flags.contains(ConfigFlags::SOURCE_CHECK)
            && !(place == Place::Pod && src.way.ifindex == host.ifindex() && has_source_mac(host, src))
        {
            return Step::Drop(DropReason::InvalidSourceIp);
        }
    } else if PROGRAM == Program::FromOverlay as u8 {
        if place != Place::Elsewhere {
            return Step::Drop(DropReason::InvalidSourceIp);
        }
        let Some(key) = host.tunnel_key() else { return Step::Drop(DropReason::NoTunnelKey) };
        let identity = Identity::from_vni(key);
        if identity != Identity::UNKNOWN {
            src.identity = identity;
        }
    } else if PROGRAM == Program::FromNetdev as u8 && place != Place::Elsewhere {
        return Step::Drop(DropReason::InvalidSourceIp);
    }
    Step::Next
}

/// Whether the frame comes from the MAC of the pod at that end.
#[inline(always)]
fn has_source_mac<H: Packet>(host: H, pod: &End) -> bool {
    let [a, b, c, d, e, f, ..] = pod.way.data;
    pod.way.kind == WayKind::Local as u8 && host.load::<[u8; 6]>(ethernet::SOURCE) == Some([a, b, c, d, e, f])
}
