//! The end of every program: the packet is counted once, and told if someone watches.

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::events::{self, Aggregation, EVENT_VERSION, EventHeader, EventKind, TracePoint};
use dataplane_abi::metrics::{self, Direction};
use dataplane_abi::policy;
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, ForwardReason};

use crate::flight::Route;
use crate::host::Host;
use crate::policy::Answer;
use crate::verdict::{Step, Verdict};

/// Direction under which a program counts.
pub const fn direction(program: u8) -> Direction {
    if program == Program::FromContainer as u8
        || program == Program::ToNetdev as u8
        || program == Program::FromHost as u8
    {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Counts the packet by how its program ends, tells of it, and says the verdict.
#[inline(always)]
pub fn finish<H: Host, const PROGRAM: u8>(
    host: H,
    config: &NodeConfig,
    step: Step,
    route: &Route,
) -> Verdict {
    let mut step = step;
    // The tunnel's metadata is part of the packet; where it cannot be set, the packet cannot go.
    if step == Step::Tunnel && !host.set_tunnel(&route.to.way.data, route.to.way.family, route.src.to_vni()) {
        step = Step::Drop(DropReason::NoTunnelEndpoint);
    }
    let row = match step {
        Step::Drop(reason) => {
            metrics::index(reason.number(), drop_direction(direction(PROGRAM), reason, route))
        }
        Step::Skip => metrics::index(ForwardReason::Interface as u8, direction(PROGRAM)),
        _ => metrics::index(ForwardReason::Forwarded as u8, direction(PROGRAM)),
    };
    host.count(row, u64::from(host.len()));
    if let Step::Drop(reason) = step {
        if config.flags.contains(ConfigFlags::DROP_EVENTS) {
            dropped::<H, PROGRAM>(host, route, reason);
        }
        return Verdict::Drop(reason);
    }
    if route.report && step != Step::Skip {
        traced::<H, PROGRAM>(host, route);
    }
    let way = &route.to.way;
    match step {
        Step::Skip | Step::Next | Step::Closer | Step::Drop(_) => Verdict::Skip,
        Step::Pass => Verdict::Pass,
        Step::Answer if PROGRAM == Program::FromHost as u8 => Verdict::Ingress { ifindex: host.ifindex() },
        Step::Answer => Verdict::Egress { ifindex: host.ifindex() },
        Step::Peer => Verdict::Peer { ifindex: way.ifindex },
        Step::Egress => Verdict::Egress { ifindex: way.ifindex },
        Step::Tunnel => Verdict::Tunnel { ifindex: way.ifindex },
        Step::Neighbour => Verdict::Neighbour { ifindex: way.ifindex, family: way.family, address: way.data },
    }
}

/// Direction under which a drop counts: the program's; of what policy drops, the policy's.
#[inline(always)]
const fn drop_direction(program: Direction, reason: DropReason, route: &Route) -> Direction {
    match reason {
        DropReason::PolicyDenied | DropReason::PolicyDenyRule if route.flags & EventHeader::INGRESS != 0 => {
            Direction::Ingress
        }
        DropReason::PolicyDenied | DropReason::PolicyDenyRule => Direction::Egress,
        _ => program,
    }
}

/// Tells of a packet that comes in, where nothing is left out.
#[inline(always)]
pub fn arrived<H: Host, const PROGRAM: u8>(
    host: H,
    config: &NodeConfig,
    point: TracePoint,
    route: &mut Route,
) {
    if config.aggregation == Aggregation::None as u8 && config.flags.contains(ConfigFlags::TRACE_EVENTS) {
        route.point = point as u8;
        route.reason = events::TraceReason::Unknown as u8;
        traced::<H, PROGRAM>(host, route);
    }
}

/// Most bytes of packet in a record.
const PAYLOAD_MAX: u8 = 128;
const _: () = assert!(PAYLOAD_MAX as usize == events::PAYLOAD_MAX);

#[inline(never)]
fn dropped<H: Host, const PROGRAM: u8>(host: H, route: &Route, reason: DropReason) {
    let is_ingress = matches!(drop_direction(direction(PROGRAM), reason, route), Direction::Ingress);
    emit::<H, PROGRAM>(host, route, is_ingress, EventKind::Drop, reason.number(), |_| {});
}

#[inline(never)]
fn traced<H: Host, const PROGRAM: u8>(host: H, route: &Route) {
    let is_ingress = matches!(direction(PROGRAM), Direction::Ingress);
    emit::<H, PROGRAM>(host, route, is_ingress, EventKind::Trace, route.point, |_| {});
}

/// Whose policy decided about a new connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Whose {
    /// Endpoint whose policy it is.
    pub endpoint: u16,
    /// Direction of the policy.
    pub direction: policy::Direction,
    /// Whether it is let through although it is denied.
    pub audited: bool,
}

/// Tells how the policy of one end decided.
#[inline(never)]
pub fn judged<H: Host, const PROGRAM: u8>(host: H, route: &Route, answer: &Answer, whose: Whose) {
    let is_ingress = matches!(whose.direction, policy::Direction::Ingress);
    emit::<H, PROGRAM>(host, route, is_ingress, EventKind::PolicyVerdict, answer.reason, |header| {
        header.endpoint = whose.endpoint;
        header.arg = answer.verdict.cookie;
        header.staged_cookie = answer.verdict.staged_cookie;
        header.staged = answer.verdict.staged;
        header.policy_match = answer.matched;
        header.policy_flags = if whose.audited { EventHeader::AUDITED } else { 0 };
    });
}

#[inline(always)]
fn emit<H: Host, const PROGRAM: u8>(
    host: H,
    route: &Route,
    is_ingress: bool,
    kind: EventKind,
    subtype: u8,
    add: impl FnOnce(&mut EventHeader),
) {
    let Some(config) = host.config() else { return };
    let len = host.len();
    let side = if is_ingress { EventHeader::INGRESS } else { 0 };
    let family = if route.is_v6 { EventHeader::IPV6 } else { 0 };
    let most = if config.payload_len < PAYLOAD_MAX { config.payload_len } else { PAYLOAD_MAX };
    let [.., least] = len.to_be_bytes();
    let len_cap = u16::from(if len < u32::from(most) { least } else { most });
    host.emit(len_cap, |header| {
        *header = EventHeader {
            kind: kind as u8,
            subtype,
            endpoint: route.endpoint,
            hash: host.hash(),
            time_ns: host.now_ns(),
            len_orig: len,
            len_cap,
            version: EVENT_VERSION,
            program: PROGRAM,
            src_identity: route.src,
            dst_identity: route.to.identity,
            dst_endpoint: route.to.way.endpoint,
            trace_reason: route.reason,
            flags: route.flags | side | family,
            ifindex: host.ifindex(),
            arg: route.arg,
            staged_cookie: 0,
            staged: 0,
            policy_match: 0,
            policy_flags: 0,
            reserved: [0; 5],
        };
        add(header);
    });
}
