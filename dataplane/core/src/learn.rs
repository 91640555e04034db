//! First packets, and those whose connection must be judged again: both ends are looked up, judged and written into the row.
//!
//! This is the one place where a connection is judged with both ends known; the policies' part is in [`crate::policy`].

use core::hint::black_box;

use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing, VXLAN_PORT};
use dataplane_abi::conntrack::{CtDir, WayKind};
use dataplane_abi::events::{EventHeader, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::{Be16, DropReason, Identity};

use crate::conntrack::{self, End, Found};
use crate::ends::{self, Meeting, Place};
use crate::ethernet;
use crate::flight::{Flight, Kind, Route, Turned};
use crate::host::{Host, Packet};
use crate::ip::{Ip, l4};
use crate::node;
use crate::policy::{self, Noted, Service, Side};
use crate::verdict::Step;

/// Looks closer at a packet that conntrack alone could not decide. After [`Step::Next`] the route has a way.
#[inline(never)]
pub fn learn<H: Host, F: Ip, const PROGRAM: u8>(host: H, flight: &Flight<F>, route: &mut Route) -> Step {
    host.meeting(|meeting| {
        meeting.staged = Noted::NONE;
        let step = meet::<H, F, PROGRAM>(host, flight, route, meeting);
        let is_denied = matches!(step, Step::Drop(DropReason::PolicyDenied | DropReason::PolicyDenyRule));
        meeting.staged.count(host, step == Step::Next, is_denied);
        step
    })
    .unwrap_or(Step::Drop(DropReason::NoConfig))
}

#[inline(always)]
fn meet<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
    meeting: &mut Meeting,
) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let is_error = flight.kind == Kind::Error;
    let mut addr = flight.dst();
    let place = ends::find::<H, F>(host, &addr, &mut meeting.dst, &mut meeting.dst_guard);
    route.to = meeting.dst;
    if place != Place::Pod && !route.to.identity.is_pod() && nests::<F, PROGRAM>(config, flight) {
        return Step::Drop(DropReason::EncapProhibited);
    }
    match receiver::<PROGRAM>(host.ifindex(), config, place, route, F::is_group(addr)) {
        Step::Next => {}
        other => return other,
    }
    addr = flight.src();
    // The sender of an ICMP error is not an end of the connection that the error is about.
    if is_error && let Some((sender, _)) = F::addresses(host) {
        addr = sender;
    }
    let place = ends::find::<H, F>(host, &addr, &mut meeting.src, &mut meeting.src_guard);
    route.endpoint = meeting.src.way.endpoint;
    route.src = meeting.src.identity;
    match source::<H, PROGRAM>(host, config, place, &mut meeting.src) {
        Step::Next => {}
        other => return other,
    }
    route.src = meeting.src.identity;
    route.report = config.flags.contains(ConfigFlags::TRACE_EVENTS);

    // Without this the kernel's verifier follows each outcome through all that comes after by itself.
    let found = black_box(conntrack::look(host, config, flight, &mut meeting.origin));
    if is_error {
        route.reason = TraceReason::Related as u8;
        return match found {
            Found::Original | Found::Reply => Step::Next,
            // Not all that the node does has a row, and without a policy nothing needs one.
            Found::Nothing | Found::Reopened if node::is_open::<PROGRAM>(meeting.dst_guard) => Step::Next,
            Found::Nothing | Found::Reopened => Step::Drop(DropReason::UnknownCtState),
        };
    }
    match found {
        Found::Original => route.reason = TraceReason::Established as u8,
        Found::Reply => {
            route.reason = TraceReason::Reply as u8;
            route.flags |= EventHeader::REPLY;
            // Of a pod behind another node the tunnel may tell an identity before the tables do; and of a caller outside the cluster,
            // who has come here by that node, it alone tells.
            let is_callers = PROGRAM == Program::FromContainer as u8
                && black_box(is_callers(route.to.identity, meeting.origin.identity));
            if route.to.identity == Identity::UNMANAGED || is_callers {
                route.to.identity = meeting.origin.identity;
            }
        }
        Found::Nothing | Found::Reopened => route.reason = TraceReason::New as u8,
    }
    // Nobody knows who began it, so it is no reason to drop what comes to the node if the node may have.
    let is_late = found == Found::Nothing
        && !(PROGRAM == Program::FromNetdev as u8 && route.turned != Turned::No)
        && node::is_late::<F, PROGRAM>(flight, meeting);
    let judged_as = if is_late { Found::Reply } else { found };
    match judge::<H, F, PROGRAM>(host, flight, route, meeting, judged_as) {
        Step::Next => {}
        end => return end,
    }
    match found {
        Found::Original => conntrack::refresh(host, flight, CtDir::Original, &meeting.src, &route.to),
        Found::Reply => conntrack::refresh(host, flight, CtDir::Reply, &meeting.src, &route.to),
        Found::Nothing | Found::Reopened if is_late || node::is_unclear::<F, PROGRAM>(flight, meeting) => {}
        Found::Nothing | Found::Reopened => {
            if !conntrack::create(host, flight, &meeting.src, &route.to) {
                return Step::Drop(DropReason::CtCreateFailed);
            }
        }
    }
    Step::Next
}

/// Asks the policies of both ends, if they have any.
#[inline(always)]
fn judge<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
    meeting: &mut Meeting,
    found: Found,
) -> Step {
    if meeting.src_guard.policy == 0 && meeting.dst_guard.policy == 0 {
        return Step::Next;
    }
    let sender = Side::new(&meeting.src, meeting.src_guard);
    let receiver = Side::new(&route.to, meeting.dst_guard);
    let (initiator, responder) = if found == Found::Reply { (receiver, sender) } else { (sender, receiver) };
    let service = service(flight, found, meeting.origin.icmp_type);
    policy::judge::<H, F, PROGRAM>(
        host,
        flight,
        route,
        &mut meeting.answer,
        &mut meeting.staged,
        initiator,
        responder,
        service,
    )
}

/// What the packet's connection opens. Without a row the sender is taken for the one who opens it.
#[inline(always)]
fn service<F: Ip>(flight: &Flight<F>, found: Found, first_type: u8) -> Service {
    let is_reply = found == Found::Reply;
    let is_new = !is_reply && found != Found::Original;
    let proto = F::proto(&flight.key);
    let (low, high) = F::ports(&flight.key);
    let port = if proto == l4::ICMP || proto == l4::ICMP6 {
        Be16::new(u16::from(if is_new { flight.tcp_flags } else { first_type }))
    } else if flight.is_from_high() == is_reply {
        high
    } else {
        low
    };
    Service { proto, is_new, is_reply, port }
}

/// Whether this program has to do with a receiver at that place.
#[inline(always)]
fn receiver<const PROGRAM: u8>(
    ifindex: u32,
    config: &NodeConfig,
    place: Place,
    route: &Route,
    is_group: bool,
) -> Step {
    let judges_node = config.flags.contains(ConfigFlags::HOST_FIREWALL);
    let dst = &route.to;
    // Asked before the place: the kernel's verifier would ask it for each.
    let is_given = PROGRAM == Program::FromNetdev as u8 && is_sent_on(route);
    if PROGRAM == Program::FromContainer as u8 {
        if is_group { Step::Drop(DropReason::UnknownTarget) } else { Step::Next }
    } else if PROGRAM == Program::FromOverlay as u8 {
        match place {
            Place::Pod => Step::Next,
            Place::Node if judges_node => Step::Next,
            Place::Node => Step::Pass,
            Place::Elsewhere if is_sent_on(route) => Step::Next,
            Place::Elsewhere => Step::Drop(DropReason::UnknownTarget),
        }
    } else if PROGRAM == Program::ToContainer as u8 {
        match place {
            Place::Pod if dst.way.ifindex == ifindex => Step::Next,
            // What the stack itself says on the link (neighbour discovery, group membership).
            _ if is_group => Step::Skip,
            _ => Step::Drop(DropReason::UnknownTarget),
        }
    } else if PROGRAM == Program::FromNetdev as u8 {
        match place {
            Place::Pod => Step::Next,
            Place::Node if judges_node => Step::Next,
            Place::Node | Place::Elsewhere if is_given && !is_group => Step::Next,
            Place::Node | Place::Elsewhere => Step::Skip,
        }
    } else {
        // What the node itself sends.
        Step::Next
    }
}

/// Whether a packet's receiver is one that it was given here. A pod that has gone is not.
#[inline(always)]
fn is_sent_on(route: &Route) -> bool {
    match route.turned {
        Turned::No => false,
        Turned::ToBackend => true,
        Turned::ToClient => !route.to.identity.is_pod(),
    }
}

/// Whether the end that is a node by the tables is a caller outside the cluster, by the row of the connection that it began.
#[inline(never)]
fn is_callers(known: Identity, noted: Identity) -> bool {
    known.is_remote_node() && noted.is_world()
}

/// Whether a packet is for the tunnel's own port. From a pod, a node would unpack it and believe the identity that the pod wrote
/// on it; only pods themselves may have such a port.
#[inline(always)]
fn nests<F: Ip, const PROGRAM: u8>(config: &NodeConfig, flight: &Flight<F>) -> bool {
    let is_of_pods = PROGRAM == Program::FromContainer as u8 || PROGRAM == Program::FromOverlay as u8;
    is_of_pods
        && config.routing == Routing::Vxlan as u8
        && F::proto(&flight.key) == l4::UDP
        && flight.kind != Kind::Error
        && flight.dst_port().get() == VXLAN_PORT
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
        // Which of the other nodes it is the tables know, and the tunnel does not.
        let knows_more = identity == Identity::REMOTE_NODE && src.identity.is_remote_node();
        if identity != Identity::UNKNOWN && !knows_more {
            src.identity = identity;
        }
    } else if PROGRAM == Program::FromNetdev as u8 && place != Place::Elsewhere {
        return Step::Drop(DropReason::InvalidSourceIp);
    }
    Step::Next
}

/// Whether the frame comes from the MAC of the pod at that end.
#[inline(always)]
pub fn has_source_mac<H: Packet>(host: H, pod: &End) -> bool {
    let [a, b, c, d, e, f, ..] = pod.way.data;
    pod.way.kind == WayKind::Local as u8 && host.load::<[u8; 6]>(ethernet::SOURCE) == Some([a, b, c, d, e, f])
}
