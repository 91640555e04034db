//! The tables of services in words.

use crate::words;
use agent_api::{LbBackend, LbFrontend, MapRow};
use dataplane_abi::affinity::{AffinityEntry, AffinityKey, ClientKind};
use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::services::{ServiceEntry, ServiceKey, ServiceScope};
use dataplane_abi::sock_revnat::{SockRevNatEntry, SockRevNatKey};
use dataplane_abi::{Addr, Family};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use zerocopy::FromBytes as _;

/// Rows as they are in the tables.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn scope(number: u8) -> &'static str {
    ServiceScope::from_number(number).map_or("unknown", ServiceScope::name)
}

fn state(number: u8) -> &'static str {
    BackendState::from_number(number).map_or("unknown", BackendState::name)
}

/// Frontends with what is in their slots, in the order of their addresses. Rows of other layouts are left out.
pub(super) fn frontends(services: &Rows, backends: &Rows) -> Vec<LbFrontend> {
    let backends: BTreeMap<u32, BackendEntry> = backends
        .iter()
        .filter_map(|(key, value)| {
            Some((u32::read_from_bytes(key).ok()?, BackendEntry::read_from_bytes(value).ok()?))
        })
        .collect();
    let rows: BTreeMap<ServiceKey, ServiceEntry> = services
        .iter()
        .filter_map(|(key, value)| {
            Some((ServiceKey::read_from_bytes(key).ok()?, ServiceEntry::read_from_bytes(value).ok()?))
        })
        .collect();
    let slot = |key: &ServiceKey, slot: u16| {
        let row = rows.get(&key.slot(slot))?;
        let backend = backends.get(&row.backend);
        Some(LbBackend {
            slot,
            id: row.backend,
            address: backend.and_then(|b| Some(SocketAddr::new(b.ip()?, b.port.get()))),
            state: backend.map(|backend| state(backend.state).to_owned()).unwrap_or_default(),
        })
    };
    let mut frontends: Vec<LbFrontend> = rows
        .iter()
        .filter(|(key, _)| key.slot == 0)
        .filter_map(|(key, row)| {
            Some(LbFrontend {
                frontend: SocketAddr::new(key.ip()?, key.port.get()),
                protocol: words::protocol(key.proto),
                scope: scope(key.scope).to_owned(),
                service: row.service,
                affinity_s: row.affinity_timeout_s,
                backends: (1..=row.count).filter_map(|number| slot(key, number)).collect(),
            })
        })
        .collect();
    frontends.sort_by(|a, b| (a.frontend, &a.protocol).cmp(&(b.frontend, &b.protocol)));
    frontends
}

/// A row of `SERVICES`.
pub(super) fn service(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = ServiceKey::read_from_bytes(key).ok()?;
    let row = ServiceEntry::read_from_bytes(value).ok()?;
    let frontend = SocketAddr::new(key.ip()?, key.port.get());
    let text = if key.slot == 0 {
        let affinity = match row.affinity_timeout_s {
            0 => String::new(),
            seconds => format!(" affinity {seconds}s"),
        };
        format!("service {} count {}{affinity}", row.service, row.count)
    } else {
        format!("service {} backend {}", row.service, row.backend)
    };
    let (protocol, scope) = (words::protocol(key.proto), scope(key.scope));
    Some(MapRow { key: format!("{frontend} {protocol} {scope} slot {}", key.slot), value: text })
}

/// A row of `BACKENDS`.
pub(super) fn backend(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let number = u32::read_from_bytes(key).ok()?;
    let row = BackendEntry::read_from_bytes(value).ok()?;
    let address = SocketAddr::new(row.ip()?, row.port.get());
    let (protocol, state) = (words::protocol(row.proto), state(row.state));
    Some(MapRow {
        key: format!("backend {number}"),
        value: format!("{address} {protocol} service {} {state}", row.service),
    })
}

/// A row of `AFFINITY`.
pub(super) fn affinity(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = AffinityKey::read_from_bytes(key).ok()?;
    let row = AffinityEntry::read_from_bytes(value).ok()?;
    let kind = if key.kind == ClientKind::Socket as u8 { "socket" } else { "netns" };
    Some(MapRow {
        key: format!("{kind} {} service {}", key.client, key.service),
        value: format!("backend {}", row.backend),
    })
}

/// A row of `SOCK_REVNAT`.
pub(super) fn sock_revnat(key: &[u8], value: &[u8]) -> Option<MapRow> {
    let key = SockRevNatKey::read_from_bytes(key).ok()?;
    let row = SockRevNatEntry::read_from_bytes(value).ok()?;
    let family = Family::from_number(key.family)?;
    let address = |addr: Addr, port: u16| SocketAddr::new(addr.to_ip(family), port);
    let (backend, called) = (address(key.addr, key.port.get()), address(row.addr, row.port.get()));
    let protocol = words::protocol(key.proto);
    Some(MapRow {
        key: format!("socket {} {protocol} {backend}", key.cookie),
        value: format!("called {called} service {}", row.service),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane_abi::Be16;
    use dataplane_abi::services::ServiceFlags;
    use zerocopy::IntoBytes as _;

    fn rows() -> (Rows, Rows) {
        let key = ServiceKey::frontend(
            Addr::v4([10, 96, 0, 1]),
            Family::V4,
            Be16::new(80),
            6,
            ServiceScope::Internal,
        );
        let entry = ServiceEntry::frontend(5, 2, 30, ServiceFlags::CLUSTER_IP);
        let services =
            [(key, entry), (key.slot(1), ServiceEntry::slot(5, 7)), (key.slot(2), ServiceEntry::slot(5, 8))];
        let backend = BackendEntry {
            addr: Addr::v4([10, 1, 0, 1]),
            service: 5,
            port: Be16::new(8080),
            family: Family::V4 as u8,
            proto: 6,
            state: BackendState::Active as u8,
            pad: [0; 3],
        };
        let services = services.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        (services, vec![(7_u32.as_bytes().to_vec(), backend.as_bytes().to_vec())])
    }

    #[test]
    fn frontends_have_what_is_in_their_slots() {
        let (services, backends) = rows();
        let list = frontends(&services, &backends);
        assert_eq!(list.len(), 1);
        assert_eq!(
            (list[0].frontend.to_string().as_str(), list[0].protocol.as_str()),
            ("10.96.0.1:80", "tcp")
        );
        assert_eq!((list[0].scope.as_str(), list[0].service, list[0].affinity_s), ("internal", 5, 30));
        let slots: Vec<_> =
            list[0].backends.iter().map(|b| (b.slot, b.id, b.address, b.state.as_str())).collect();
        assert_eq!(slots, [(1, 7, "10.1.0.1:8080".parse().ok(), "active"), (2, 8, None, "")]);
    }

    #[test]
    fn rows_of_services_are_words() {
        let (services, backends) = rows();
        let text = |row: Option<MapRow>| row.map(|row| format!("{}: {}", row.key, row.value)).unwrap();
        let words: Vec<String> = services.iter().map(|(key, value)| text(service(key, value))).collect();
        assert_eq!(
            words,
            [
                "10.96.0.1:80 tcp internal slot 0: service 5 count 2 affinity 30s",
                "10.96.0.1:80 tcp internal slot 1: service 5 backend 7",
                "10.96.0.1:80 tcp internal slot 2: service 5 backend 8",
            ]
        );
        let (key, value) = &backends[0];
        assert_eq!(text(backend(key, value)), "backend 7: 10.1.0.1:8080 tcp service 5 active");
        let client = AffinityKey::new(ClientKind::Netns, 3, 5);
        let stays = AffinityEntry { last_used_ns: 1, backend: 7, pad: [0; 4] };
        assert_eq!(text(affinity(client.as_bytes(), stays.as_bytes())), "netns 3 service 5: backend 7");
        let key = SockRevNatKey::new(9, Addr::v4([10, 1, 0, 1]), Family::V4, Be16::new(8080), 6);
        let called =
            SockRevNatEntry { addr: Addr::v4([10, 96, 0, 1]), port: Be16::new(80), pad: [0; 2], service: 5 };
        assert_eq!(
            text(sock_revnat(key.as_bytes(), called.as_bytes())),
            "socket 9 tcp 10.1.0.1:8080: called 10.96.0.1:80 service 5"
        );
    }
}
