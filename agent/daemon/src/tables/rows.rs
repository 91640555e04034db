//! Rows of any table in words, where the layout is known, and as hexadecimal bytes otherwise.

use super::{nat, services};
use crate::words;
use agent_api::MapRow;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::{MetricsEntry, from_index};
use dataplane_abi::policy::{
    BlockKey, Direction, L4Key, PolicyEntry, PolicyFlags, PolicyKey, PolicyVerdict, Staged, StagedCount,
    StagedKey,
};
use dataplane_loader::Table;
use std::fmt::Write as _;
use zerocopy::FromBytes as _;

/// The row; `None` for rows of counters that are zero, of which a table of counters is full.
pub(super) fn describe(table: &Table, key: &[u8], value: &[u8]) -> Option<MapRow> {
    let known = match table.info().name.as_str() {
        "IPCACHE" => ipcache(key, value),
        "ENDPOINTS" => endpoint(key, value),
        "POLICY" => policy(key, value),
        "POLICY_BLOCKS" => policy_block(key, value),
        "POLICY_L4" => policy_l4(key, value),
        "NO_MASQUERADE" => nat::no_masquerade(key, value),
        "SERVICES" => services::service(key, value),
        "BACKENDS" => services::backend(key, value),
        "AFFINITY" => services::affinity(key, value),
        "SOCK_REVNAT" => services::sock_revnat(key, value),
        "STAGED" => {
            let cpus = table.split_per_cpu(value);
            staged(
                key,
                cpus.iter().filter_map(|cpu| Some(StagedCount::read_from_bytes(cpu).ok()?.count)).sum(),
            )
        }
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
    let what = if entry.policy == 0 { what } else { format!("{what} policy {}", entry.policy) };
    Some(MapRow { key: ip.to_string(), value: format!("{what} identity {}", entry.identity) })
}

fn policy(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = PolicyKey::read_from_bytes(key).ok()?;
    let entry = PolicyEntry::read_from_bytes(value).ok()?;
    let direction = Direction::from_number(key.direction)?.name();
    let peer = if key.identity == PolicyKey::EVERYBODY {
        "everybody".to_owned()
    } else {
        format!("identity {}", key.identity)
    };
    Some(MapRow { key: format!("policy {} {direction} {peer}", key.policy), value: decision(&entry) })
}

fn policy_block(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = BlockKey::read_from_bytes(key).ok()?;
    let (ip, length) = key.to_prefix()?;
    let entry = PolicyEntry::read_from_bytes(value).ok()?;
    Some(MapRow { key: format!("blocks {} {ip}/{length}", key.blocks), value: decision(&entry) })
}

fn decision(entry: &PolicyEntry) -> String {
    match (entry.l4, entry.blocks()) {
        (0, _) => verdict(&entry.verdict),
        (set, 0) => format!("set {set}"),
        (set, blocks) => format!("set {set} blocks {blocks}"),
    }
}

fn policy_l4(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = L4Key::read_from_bytes(key).ok()?;
    let value = PolicyVerdict::read_from_bytes(value).ok()?;
    let what = match key.prefixlen {
        L4Key::ANY_BITS => "any protocol".to_owned(),
        L4Key::PROTO_BITS => words::protocol(key.proto),
        L4Key::FULL_BITS => format!("{} {}", words::protocol(key.proto), key.port),
        bits if bits > L4Key::PROTO_BITS && bits < L4Key::FULL_BITS => {
            format!("{} {}/{}", words::protocol(key.proto), key.port, bits - L4Key::PROTO_BITS)
        }
        _ => return None,
    };
    Some(MapRow { key: format!("set {} {what}", key.set), value: verdict(&value) })
}

fn staged(key: &[u8], count: u64) -> Option<MapRow> {
    let key = StagedKey::read_from_bytes(key).ok()?;
    let would = match Staged::from_number(key.staged)? {
        Staged::WouldAllow => "allow",
        Staged::WouldDeny => "deny",
        Staged::Nothing => return None,
    };
    Some(MapRow { key: format!("cookie {} would {would}", key.cookie), value: format!("{count} times") })
}

fn verdict(verdict: &PolicyVerdict) -> String {
    let decision = if verdict.flags.contains(PolicyFlags::DENY) {
        "deny".to_owned()
    } else if verdict.flags.contains(PolicyFlags::REDIRECT) {
        format!("proxy {}", verdict.proxy_port)
    } else if verdict.flags.contains(PolicyFlags::ALLOW) {
        "allow".to_owned()
    } else {
        "none".to_owned()
    };
    let cookie = |number: u32| if number == 0 { String::new() } else { format!(" cookie {number}") };
    let staged = match Staged::from_number(verdict.staged) {
        Some(Staged::WouldAllow) => format!(" staged allow{}", cookie(verdict.staged_cookie)),
        Some(Staged::WouldDeny) => format!(" staged deny{}", cookie(verdict.staged_cookie)),
        Some(Staged::Nothing) | None => String::new(),
    };
    format!("{decision}{}{staged}", cookie(verdict.cookie))
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

#[cfg(test)]
mod tests {
    use super::{policy, policy_block, policy_l4};
    use dataplane_abi::Identity;
    use dataplane_abi::policy::{BlockKey, Direction, L4Key, PolicyEntry, PolicyKey, PolicyVerdict, Staged};
    use zerocopy::IntoBytes as _;

    #[test]
    fn rows_of_policy_are_words() {
        let row = |identity, entry: PolicyEntry| {
            let row = policy(PolicyKey::new(3, Direction::Ingress, identity).as_bytes(), entry.as_bytes());
            row.map(|row| format!("{}: {}", row.key, row.value)).unwrap()
        };
        assert_eq!(
            row(Identity(300), PolicyEntry::all(PolicyVerdict::deny(9))),
            "policy 3 ingress identity 300: deny cookie 9"
        );
        assert_eq!(row(PolicyKey::EVERYBODY, PolicyEntry::by_l4(4)), "policy 3 ingress everybody: set 4");
        assert_eq!(
            row(PolicyKey::EVERYBODY, PolicyEntry::by_blocks(4, 5)),
            "policy 3 ingress everybody: set 4 blocks 5"
        );
        let key = BlockKey::prefix(5, [10, 1, 0, 0].into(), 16);
        let block = policy_block(key.as_bytes(), PolicyEntry::by_l4(6).as_bytes()).unwrap();
        assert_eq!((block.key.as_str(), block.value.as_str()), ("blocks 5 10.1.0.0/16", "set 6"));
        let staged =
            PolicyVerdict { staged: Staged::WouldDeny as u8, staged_cookie: 8, ..PolicyVerdict::allow(0) };
        assert_eq!(
            row(Identity::HOST, PolicyEntry::all(staged)),
            "policy 3 ingress identity reserved:host: allow staged deny cookie 8"
        );
        for (key, words) in [
            (L4Key::any(4), "set 4 any protocol: proxy 10000"),
            (L4Key::proto(4, 17), "set 4 udp: proxy 10000"),
            (L4Key::ports(4, 6, 8080, 12), "set 4 tcp 8080/12: proxy 10000"),
            (L4Key::ports(4, 6, 80, 16), "set 4 tcp 80: proxy 10000"),
        ] {
            let row = policy_l4(key.as_bytes(), PolicyVerdict::redirect(10_000, 0).as_bytes()).unwrap();
            assert_eq!(format!("{}: {}", row.key, row.value), words);
        }
        let odd = L4Key { prefixlen: 40, ..L4Key::any(4) };
        assert!(policy_l4(odd.as_bytes(), PolicyVerdict::NONE.as_bytes()).is_none());
    }
}
