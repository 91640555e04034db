//! Rows of ports, and where none are needed, in words.

use super::connections::TickNow;
use crate::words;
use agent_api::{MapRow, NatEntry};
use dataplane_abi::conntrack::{CtKey4, CtKey6, CtScope, CtState};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::nat::{NatEntry as Row, NatFlags};
use dataplane_abi::no_masquerade::{NoMasqueradeEntry, Why};
use dataplane_abi::{Be16, Family};
use std::net::{IpAddr, SocketAddr};
use zerocopy::FromBytes as _;

/// Ends of a key, the node's first, its protocol, and what it is about.
fn ends(key: &[u8]) -> Option<(SocketAddr, SocketAddr, u8, u8)> {
    fn end(ip: impl Into<IpAddr>, port: Be16) -> SocketAddr {
        SocketAddr::new(ip.into(), port.get())
    }
    if key.len() == size_of::<CtKey4>() {
        let key = CtKey4::read_from_bytes(key).ok()?;
        Some((end(key.low, key.low_port), end(key.high, key.high_port), key.proto, key.scope))
    } else {
        let key = CtKey6::read_from_bytes(key).ok()?;
        Some((end(key.low, key.low_port), end(key.high, key.high_port), key.proto, key.scope))
    }
}

/// The row in words; `None` if it has another layout than ours, or says only to which port a connection of the node's was moved: the
/// row of that port says as much.
pub(super) fn describe(key: &[u8], value: &[u8], now: TickNow) -> Option<NatEntry> {
    let (node, destination, proto, scope) = ends(key)?;
    let row = Row::read_from_bytes(value).ok()?;
    if scope != CtScope::Connection as u8 {
        return None;
    }
    let family = if node.is_ipv4() { Family::V4 } else { Family::V6 };
    let idle_s = now.age_s(row.last_seen);
    let state = CtState::from_number(row.state);
    Some(NatEntry {
        protocol: words::protocol(proto),
        source: SocketAddr::new(row.addr.to_ip(family), row.port.get()),
        node,
        destination,
        own: row.flags.contains(NatFlags::OF_NODE),
        state: state.map_or_else(|| format!("state {}", row.state), |state| state.name().to_owned()),
        idle_s,
        expires_s: state.map_or(0, |state| u64::from(state.timeout_s()).saturating_sub(idle_s)),
    })
}

/// A row of `NO_MASQUERADE`.
pub(super) fn no_masquerade(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let (ip, length) = IpCacheKey::read_from_bytes(key).ok()?.to_prefix()?;
    let why = Why::from_number(NoMasqueradeEntry::read_from_bytes(value).ok()?.why)?;
    Some(MapRow { key: format!("{ip}/{length}"), value: why.name().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{describe, no_masquerade};
    use crate::tables::connections::TickNow;
    use dataplane_abi::conntrack::{CtKey4, CtScope, CtState};
    use dataplane_abi::ipcache::IpCacheKey;
    use dataplane_abi::nat::NatEntry;
    use dataplane_abi::no_masquerade::{NoMasqueradeEntry, Why};
    use dataplane_abi::{Addr, Be16};
    use zerocopy::IntoBytes as _;

    #[test]
    fn a_port_is_told_with_all_three_ends() {
        let mut key = CtKey4 {
            low: [172, 30, 0, 1],
            high: [192, 0, 2, 7],
            low_port: Be16::new(40_000),
            high_port: Be16::new(443),
            proto: 6,
            scope: CtScope::Connection as u8,
            pad: [0; 2],
        };
        let row = NatEntry {
            last_seen: 1000,
            state: CtState::Established as u8,
            port: Be16::new(5000),
            addr: Addr::v4([10, 1, 0, 5]),
            ..NatEntry::default()
        };
        let now = TickNow::new(1550, 100);
        let entry = describe(key.as_bytes(), row.as_bytes(), now).unwrap();
        let ends = [entry.source, entry.node, entry.destination].map(|end| end.to_string());
        assert_eq!(ends, ["10.1.0.5:5000", "172.30.0.1:40000", "192.0.2.7:443"]);
        assert_eq!((entry.protocol.as_str(), entry.state.as_str(), entry.own), ("tcp", "established", false));
        assert_eq!((entry.idle_s, entry.expires_s), (5, 7995));
        key.scope = CtScope::Moved as u8;
        assert_eq!(describe(key.as_bytes(), row.as_bytes(), now), None);
        assert_eq!(describe(&[0; 3], row.as_bytes(), now), None);
    }

    #[test]
    fn prefixes_have_their_reason() {
        let key = IpCacheKey::prefix([10, 0, 0, 0].into(), 8);
        let entry = NoMasqueradeEntry { why: Why::Excluded as u8, pad: [0; 3] };
        let row = no_masquerade(key.as_bytes(), entry.as_bytes()).unwrap();
        assert_eq!((row.key.as_str(), row.value.as_str()), ("10.0.0.0/8", "excluded"));
    }
}
