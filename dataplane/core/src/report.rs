//! The end of every program: the packet is counted once, and told if someone watches.

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::events::{Aggregation, EVENT_VERSION, EventHeader, EventKind, TracePoint};
use dataplane_abi::metrics::{self, Direction};
use dataplane_abi::program::Program;
use dataplane_abi::{DropReason, ForwardReason};

use crate::flight::Seen;
use crate::host::Host;
use crate::verdict::Verdict;

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

/// Counts the packet by its verdict and tells of it.
#[inline(always)]
pub fn finish<H: Host, const PROGRAM: u8>(
    host: H,
    config: &NodeConfig,
    verdict: Verdict,
    seen: &mut Seen,
) -> Verdict {
    let direction = direction(PROGRAM);
    let bytes = u64::from(host.len());
    match verdict {
        Verdict::Drop(reason) => {
            host.count(metrics::index(reason.number(), direction), bytes);
            if config.flags.contains(ConfigFlags::DROP_EVENTS) {
                dropped::<H, PROGRAM>(host, seen, reason);
            }
        }
        Verdict::Skip => host.count(metrics::index(ForwardReason::Interface as u8, direction), bytes),
        Verdict::Pass
        | Verdict::Peer { .. }
        | Verdict::Egress { .. }
        | Verdict::Ingress { .. }
        | Verdict::Neighbour { .. } => {
            host.count(metrics::index(ForwardReason::Forwarded as u8, direction), bytes);
            if seen.report {
                traced::<H, PROGRAM>(host, seen);
            }
        }
    }
    verdict
}

/// Tells of a packet that comes in, where nothing is left out.
#[inline(always)]
pub fn arrived<H: Host, const PROGRAM: u8>(host: H, config: &NodeConfig, point: TracePoint, seen: &mut Seen) {
    if config.aggregation == Aggregation::None as u8 && config.flags.contains(ConfigFlags::TRACE_EVENTS) {
        seen.point = point as u8;
        seen.reason = dataplane_abi::events::TraceReason::Unknown as u8;
        traced::<H, PROGRAM>(host, seen);
    }
}

#[inline(never)]
fn dropped<H: Host, const PROGRAM: u8>(host: H, seen: &Seen, reason: DropReason) {
    emit::<H, PROGRAM>(host, seen, EventKind::Drop, reason.number());
}

#[inline(never)]
fn traced<H: Host, const PROGRAM: u8>(host: H, seen: &Seen) {
    emit::<H, PROGRAM>(host, seen, EventKind::Trace, seen.point);
}

#[inline(always)]
fn emit<H: Host, const PROGRAM: u8>(host: H, seen: &Seen, kind: EventKind, subtype: u8) {
    let Some(config) = host.config() else { return };
    let len = host.len();
    let side = if matches!(direction(PROGRAM), Direction::Ingress) { EventHeader::INGRESS } else { 0 };
    let len_cap = if len < u32::from(config.payload_len) { len } else { u32::from(config.payload_len) };
    let [.., c0, c1] = len_cap.to_be_bytes();
    let header = EventHeader {
        kind: kind as u8,
        subtype,
        endpoint: seen.endpoint,
        hash: host.hash(),
        time_ns: host.now_ns(),
        len_orig: len,
        len_cap: u16::from_be_bytes([c0, c1]),
        version: EVENT_VERSION,
        program: PROGRAM,
        src_identity: seen.src,
        dst_identity: seen.dst,
        dst_endpoint: seen.dst_endpoint,
        trace_reason: seen.reason,
        flags: seen.flags | side,
        ifindex: host.ifindex(),
        arg: 0,
        reserved: [0; 12],
    };
    host.emit(&header);
}
