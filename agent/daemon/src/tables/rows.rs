//! Rows of any table in words, where the layout is known, and as hexadecimal bytes otherwise.

use agent_api::MapRow;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::{MetricsEntry, from_index};
use dataplane_loader::Table;
use std::fmt::Write as _;
use zerocopy::FromBytes as _;

/// The row; `None` for rows of counters that are zero, of which a table of counters is full.
pub(super) fn describe(table: &Table, key: &[u8], value: &[u8]) -> Option<MapRow> {
    let known = match table.info().name.as_str() {
        "IPCACHE" => ipcache(key, value),
        "ENDPOINTS" => endpoint(key, value),
        "METRICS" => {
            let sum: Vec<MetricsEntry> = table
                .split_per_cpu(value)
                .iter()
                .filter_map(|cpu| MetricsEntry::read_from_bytes(cpu).ok())
                .collect();
            let (packets, bytes) = sum
                .iter()
                .fold((0_u64, 0_u64), |(packets, bytes), cpu| (packets + cpu.packets, bytes + cpu.bytes));
            if packets == 0 && bytes == 0 {
                return None;
            }
            metrics(key, packets, bytes)
        }
        _ => None,
    };
    Some(known.unwrap_or_else(|| MapRow { key: hex(key), value: hex(value) }))
}

fn ipcache(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let (ip, length) = IpCacheKey::read_from_bytes(key).ok()?.to_prefix()?;
    let entry = IpCacheEntry::read_from_bytes(value).ok()?;
    let node = entry.node_ip().map(|node| format!(" node {node}")).unwrap_or_default();
    Some(MapRow { key: format!("{ip}/{length}"), value: format!("identity {}{node}", entry.identity) })
}

fn endpoint(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let ip = EndpointKey::read_from_bytes(key).ok()?.ip()?;
    let entry = EndpointEntry::read_from_bytes(value).ok()?;
    let what = if entry.flags.contains(EndpointFlags::ROUTER) {
        "router".to_owned()
    } else if entry.flags.contains(EndpointFlags::HOST) {
        "host".to_owned()
    } else {
        format!("endpoint {} device {} mac {}", entry.id, entry.ifindex, mac(&entry.mac))
    };
    Some(MapRow { key: ip.to_string(), value: format!("{what} identity {}", entry.identity) })
}

fn metrics(key: &[u8], packets: u64, bytes: u64) -> Option<MapRow> {
    let (reason, direction) = from_index(u32::read_from_bytes(key).ok()?);
    let reason =
        dataplane_abi::drop_reason::reason_text(reason).map_or_else(|| reason.to_string(), ToOwned::to_owned);
    let direction = direction.map_or("-", dataplane_abi::metrics::Direction::name);
    Some(MapRow { key: format!("{reason} {direction}"), value: format!("{packets} packets {bytes} bytes") })
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}
