//! Clients without connections: ping and the echo over UDP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{ClientKind, ClientReport, ClientSpec, World};
use crate::calls::Caller;
use crate::frame::{put, u16_at, u32_at};
use crate::{icmp, ip};

/// The least time between the requests of a client that never ends.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes before the data of an echo message or datagram.
const HEADER: usize = 8;

/// Requests and the answers that are still to come.
pub(super) struct Datagrams {
    due: Duration,
    outstanding: BTreeMap<u32, Duration>,
    /// Where the last one went.
    peer: Option<SocketAddr>,
}

impl Datagrams {
    pub(super) fn new(now: Duration) -> Self {
        Self { due: now, outstanding: BTreeMap::new(), peer: None }
    }

    /// Where the last one went.
    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(super) fn step(
        &mut self,
        world: &mut World<'_>,
        caller: Option<Caller>,
        spec: &ClientSpec,
        report: &mut ClientReport,
    ) {
        let now = world.now;
        self.outstanding.retain(|_, sent| *sent + spec.timeout > now);
        while !all_sent(spec, report) && self.due <= now {
            report.sent = report.sent.saturating_add(1);
            let to = SocketAddr::new(spec.to, spec.port);
            let to = caller.map_or(Some(to), |caller| world.calls.send(caller, to));
            self.peer = to;
            match to.and_then(|to| request(world, to, spec, report)) {
                Some(packet) => {
                    self.outstanding.insert(report.sent, now);
                    world.out.push(packet);
                }
                None => report.refused += 1,
            }
            let least = if spec.count == 0 { LEAST_INTERVAL } else { Duration::ZERO };
            self.due = now + spec.interval.max(least);
        }
        report.finished = all_sent(spec, report) && self.outstanding.is_empty();
    }

    pub(super) fn next(&self, spec: &ClientSpec, report: &ClientReport) -> Option<Duration> {
        let due = (!all_sent(spec, report)).then_some(self.due);
        // Sent in order, so the first is the oldest.
        let lost = self.outstanding.values().next().map(|sent| *sent + spec.timeout);
        due.into_iter().chain(lost).min()
    }

    /// Data that came back, behind the header.
    pub(super) fn answer(
        &mut self,
        now: Duration,
        spec: &ClientSpec,
        report: &mut ClientReport,
        data: &[u8],
    ) {
        let sequence = match spec.kind {
            // The sequence number of an echo message has 16 bits; which round it is, the outstanding ones tell.
            ClientKind::Ping => u16_at(data, 0).and_then(|low| {
                self.outstanding.keys().find(|sent| *sent & 0xFFFF == u32::from(low)).copied()
            }),
            _ => u32_at(data, 0),
        };
        let whole = sequence.filter(|sequence| body(spec, *sequence) == data);
        let Some(sent) = whole.and_then(|sequence| self.outstanding.remove(&sequence)) else {
            return;
        };
        if sent + spec.timeout > now {
            report.answer(sent, now);
        }
    }
}

fn all_sent(spec: &ClientSpec, report: &ClientReport) -> bool {
    spec.count != 0 && report.sent >= spec.count
}

/// What a request carries, and an answer has to. For ping that begins with the sequence number of the message.
fn body(spec: &ClientSpec, sequence: u32) -> Vec<u8> {
    let size = usize::from(spec.size);
    if spec.kind == ClientKind::Ping {
        let low = u16::try_from(sequence & 0xFFFF).unwrap_or_default();
        let mut data = low.to_be_bytes().to_vec();
        data.extend((0..size).map(pattern));
        return data;
    }
    let mut data: Vec<u8> = (0..size.max(4)).map(pattern).collect();
    put(&mut data, 0, &sequence.to_be_bytes());
    data
}

fn pattern(at: usize) -> u8 {
    u8::try_from(at & 0xFF).unwrap_or_default()
}

fn request(
    world: &mut World<'_>,
    to: SocketAddr,
    spec: &ClientSpec,
    report: &ClientReport,
) -> Option<Vec<u8>> {
    let from = world.net.source(to.ip(), None)?;
    let local = report.local_port?;
    let body = body(spec, report.sent);
    let most = if from.is_ipv4() { 65_535 - 20 } else { 65_535 };
    let ends = (from, to.ip());
    let (protocol, sum_at, mut payload) = match (spec.kind, from) {
        (ClientKind::Ping, from) => {
            let (kind, protocol) = match from {
                IpAddr::V4(_) => (icmp::V4_ECHO_REQUEST, ip::ICMP),
                IpAddr::V6(_) => (icmp::V6_ECHO_REQUEST, ip::ICMPV6),
            };
            let mut message = vec![kind, 0, 0, 0];
            message.extend_from_slice(&local.to_be_bytes());
            message.extend_from_slice(&body);
            (protocol, 2, message)
        }
        _ => {
            let length = u16::try_from(body.len() + HEADER).ok()?;
            let mut datagram = Vec::with_capacity(body.len() + HEADER);
            for field in [local, to.port(), length, 0] {
                datagram.extend_from_slice(&field.to_be_bytes());
            }
            datagram.extend_from_slice(&body);
            (ip::UDP, 6, datagram)
        }
    };
    if payload.len() > most {
        return None;
    }
    ip::seal(ends, protocol, sum_at, &mut payload);
    Some(ip::build(ends, protocol, 64, None, &payload))
}
