//! Rows of the conntrack tables in words.

use crate::words;
use agent_api::CtEntry;
use dataplane_abi::conntrack::{CtDir, CtEntry as Row, CtEntry6, CtHalf, CtKey4, CtKey6, CtState, WayKind};
use dataplane_abi::{Addr, Family};
use dataplane_loader::Clock;
use std::net::{IpAddr, SocketAddr};
use zerocopy::FromBytes as _;

/// The tick clock, derived from one reading of it and the monotonic clock.
#[derive(Debug)]
pub(super) struct Ticks {
    base: u64,
    at_ns: u64,
    per_s: u32,
}

/// A moment in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct TickNow {
    low: u32,
    per_s: u32,
}

impl Ticks {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { base: clock.now(), at_ns: dataplane_loader::clock::monotonic_ns(), per_s: clock.ticks_per_s() }
    }

    pub(super) fn now(&self) -> TickNow {
        let elapsed = dataplane_loader::clock::monotonic_ns().saturating_sub(self.at_ns);
        let ticks = u128::from(elapsed) * u128::from(self.per_s) / 1_000_000_000;
        let now = self.base.wrapping_add(u64::try_from(ticks).unwrap_or(0));
        // Rows keep the low half only.
        TickNow { low: u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0), per_s: self.per_s }
    }
}

impl TickNow {
    #[cfg(test)]
    pub(super) const fn new(low: u32, per_s: u32) -> Self {
        Self { low, per_s }
    }

    pub(super) fn age_s(self, stamp: u32) -> u64 {
        let ticks = self.low.wrapping_sub(stamp);
        // A stamp slightly ahead was written by another CPU meanwhile.
        if ticks >= 0x8000_0000 { 0 } else { u64::from(ticks / self.per_s.max(1)) }
    }
}

/// The row in words; `None` if it has another layout than ours.
pub(super) fn describe(key: &[u8], value: &[u8], now: TickNow) -> Option<CtEntry> {
    let (low, high, proto, row) = if key.len() == size_of::<CtKey4>() {
        let key = CtKey4::read_from_bytes(key).ok()?;
        let row = Row::read_from_bytes(value).ok()?;
        let end = |ip: [u8; 4], port: u16| SocketAddr::new(IpAddr::from(ip), port);
        (end(key.low, key.low_port.get()), end(key.high, key.high_port.get()), key.proto, row)
    } else {
        let key = CtKey6::read_from_bytes(key).ok()?;
        let row = CtEntry6::read_from_bytes(value).ok()?.entry;
        let end = |ip: [u8; 16], port: u16| SocketAddr::new(IpAddr::from(ip), port);
        (end(key.low, key.low_port.get()), end(key.high, key.high_port.get()), key.proto, row)
    };
    let (source, destination) = if row.origin_is_high() { (high, low) } else { (low, high) };
    let [original, reply] = &row.dirs;
    let idle_s = now.age_s(row.last_seen);
    let state = CtState::from_number(row.state);
    Some(CtEntry {
        protocol: words::protocol(proto),
        source,
        destination,
        state: state.map_or_else(|| format!("state {}", row.state), |state| state.name().to_owned()),
        source_identity: row.dirs[CtDir::Original as usize].identity.0,
        packets: original.packets.wrapping_add(reply.packets),
        bytes: original.bytes.wrapping_add(reply.bytes),
        idle_s,
        expires_s: state.map_or(0, |state| u64::from(state.timeout_s()).saturating_sub(idle_s)),
        forward: way(original),
        reverse: way(reply),
    })
}

/// Where packets of one direction go.
fn way(half: &CtHalf) -> String {
    let way = &half.way;
    let node = || Family::from_number(way.family).map(|family| Addr(way.data).to_ip(family));
    match WayKind::from_number(way.kind) {
        Some(WayKind::None) => String::new(),
        Some(WayKind::Local) => format!("endpoint {}", way.endpoint),
        Some(WayKind::Tunnel) => node().map_or_else(|| "tunnel".to_owned(), |node| format!("tunnel {node}")),
        Some(WayKind::Neighbour) => {
            node().map_or_else(|| "neighbour".to_owned(), |node| format!("via {node}"))
        }
        Some(WayKind::Stack) => "stack".to_owned(),
        Some(WayKind::Backend) => node().map_or_else(
            || "backend".to_owned(),
            |ip| format!("backend {}", SocketAddr::new(ip, way.backend_port().get())),
        ),
        None => format!("way {}", way.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::{TickNow, describe};
    use dataplane_abi::Be16;
    use dataplane_abi::conntrack::{CtEntry, CtFlags, CtKey4, CtState};
    use zerocopy::IntoBytes as _;

    #[test]
    fn the_end_that_began_is_the_source() {
        let (key, high) = CtKey4::of_packet([10, 0, 0, 9], [10, 0, 0, 2], Be16::new(4242), Be16::new(80), 6);
        assert!(high);
        let row = CtEntry {
            state: CtState::Established as u8,
            flags: CtFlags::ORIGIN_HIGH,
            last_seen: 1000,
            ..CtEntry::default()
        };
        let entry = describe(key.as_bytes(), row.as_bytes(), TickNow { low: 1550, per_s: 100 }).unwrap();
        assert_eq!(entry.source.to_string(), "10.0.0.9:4242");
        assert_eq!(entry.destination.to_string(), "10.0.0.2:80");
        assert_eq!(
            (entry.protocol.as_str(), entry.state.as_str(), entry.idle_s, entry.expires_s),
            ("tcp", "established", 5, 7995)
        );
    }

    #[test]
    fn rows_of_another_layout_are_left_out() {
        assert!(describe(&[0; 16], &[0; 3], TickNow { low: 0, per_s: 100 }).is_none());
        assert!(describe(&[0; 7], &[0; 128], TickNow { low: 0, per_s: 100 }).is_none());
    }
}
