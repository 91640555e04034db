//! Services: from the frontend that somebody calls to the backend that answers, and back.
//!
//! A call to a frontend costs two look-ups in `SERVICES` and one in `BACKENDS`. What clients stay with comes on top: for
//! services with session affinity, and for datagrams, of which each is a call of its own and all together are one conversation.
//! A call to a port that services may have at every node costs one more, and if one has it, the look whether a node is called.
//! Which backends may be chosen, and which only keep what they have, is settled by who writes the tables.

use dataplane_abi::affinity::{AffinityEntry, AffinityKey, ClientKind, DATAGRAM_TIMEOUT_S};
use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::endpoints::{EndpointFlags, EndpointKey};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::metrics::{self, Direction};
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::sock_revnat::{SockRevNatEntry, SockRevNatKey};
use dataplane_abi::{Addr, DropReason, Family, ForwardReason};

use crate::host::Places;
use crate::socket::{Chooser, Peer, ServiceMaps, SocketHost, SocketVerdict};

/// Sends a call to a backend if it is one to a service. `DATAGRAM`: the call is about one datagram alone.
#[inline(always)]
pub fn translate<H: SocketHost, const DATAGRAM: bool>(host: H) -> SocketVerdict {
    let Some(called) = Peer::of(host) else { return SocketVerdict::Pass };
    let Some((key, service)) = find(host, &called) else { return SocketVerdict::Pass };
    let (number, timeout_s, count) = (service.service, service.affinity_timeout_s, service.count);
    let Some(backend) = select::<H, DATAGRAM>(host, key, number, timeout_s, count) else {
        host.count_call(metrics::index(DropReason::NoServiceBackend.number(), Direction::Service));
        return SocketVerdict::Refuse;
    };
    let answers = Peer { addr: backend.addr, port: backend.port, ..called };
    if !note::<H, DATAGRAM>(host, &called, &answers, number) {
        host.count_call(metrics::index(ForwardReason::RevNatUpdate as u8, Direction::Service));
        // Whoever sends datagrams would take the answer for somebody else's; a connection has its one peer anyway.
        if DATAGRAM {
            return SocketVerdict::Refuse;
        }
    }
    answers.set_in(host);
    SocketVerdict::Pass
}

/// Puts into a call whom its process has called, in place of the backend that it really speaks with.
#[inline(always)]
pub fn restore<H: SocketHost>(host: H) {
    let Some(answers) = Peer::of(host) else { return };
    let key = SockRevNatKey::new(host.cookie(), answers.addr, answers.family, answers.port, answers.proto);
    if let Some(row) = host.sock_revnat(&key) {
        Peer { addr: row.addr, port: row.port, ..answers }.set_in(host);
    }
}

/// The frontend that is called, if it is one. A node port has one for all nodes, and one of its own where a node is different.
#[inline(always)]
pub fn find<H: Places + ServiceMaps>(host: H, called: &Peer) -> Option<(ServiceKey, ServiceEntry)> {
    let exact =
        ServiceKey::frontend(called.addr, called.family, called.port, called.proto, ServiceScope::Internal);
    if let Some(service) = host.service(&exact) {
        return Some((exact, *service));
    }
    let port = called.port.get();
    let config = host.config()?;
    if port < config.node_port_min || port > config.node_port_max {
        return None;
    }
    let key = ServiceKey { addr: Addr::ZERO, ..exact };
    let service = *host.service(&key)?;
    is_node(host, called.addr, called.family).then_some((key, service))
}

/// The same for a caller outside the cluster, for whom cluster IPs are none. Where traffic policies leave other backends for such
/// callers, there is a frontend for them alone.
#[inline(always)]
pub fn find_from_outside<H: Places + ServiceMaps>(
    host: H,
    called: &Peer,
) -> Option<(ServiceKey, ServiceEntry)> {
    let own =
        ServiceKey::frontend(called.addr, called.family, called.port, called.proto, ServiceScope::External);
    if let Some(service) = host.service(&own) {
        return Some((own, *service));
    }
    find(host, called).filter(|(_, service)| !service.flags.contains(ServiceFlags::CLUSTER_IP))
}

/// Whether what is called at an address and a port of this node is a port that a service has at every node. The address that is none
/// stands for all; that of IPv6 for those of IPv4 too, since a call does not say if the socket is for IPv6 alone.
#[inline(always)]
pub fn is_node_port<H: Places + ServiceMaps>(host: H, bound: &Peer) -> bool {
    let port = bound.port.get();
    let Some(config) = host.config() else { return false };
    if port < config.node_port_min || port > config.node_port_max {
        return false;
    }
    let at_all = |family| {
        let key = ServiceKey::frontend(Addr::ZERO, family, bound.port, bound.proto, ServiceScope::Internal);
        host.service(&key).is_some()
    };
    if bound.addr != Addr::ZERO {
        return at_all(bound.family) && is_node(host, bound.addr, bound.family);
    }
    at_all(bound.family) || (matches!(bound.family, Family::V6) && at_all(Family::V4))
}

/// Whether an address is that of a node, this or another. Router addresses, which are for pods alone, do not count.
#[inline(always)]
fn is_node<H: Places>(host: H, addr: Addr, family: Family) -> bool {
    match host.endpoint(&EndpointKey::new(addr, family)) {
        Some(here) => here.flags & (EndpointFlags::HOST | EndpointFlags::ROUTER) == EndpointFlags::HOST,
        None => {
            host.ipcache(&IpCacheKey::host(addr, family)).is_some_and(|entry| entry.identity.is_remote_node())
        }
    }
}

/// Notes whom the process has called. False: there is no room.
#[inline(always)]
fn note<H: SocketHost, const DATAGRAM: bool>(host: H, called: &Peer, answers: &Peer, service: u32) -> bool {
    let key = SockRevNatKey::new(host.cookie(), answers.addr, answers.family, answers.port, answers.proto);
    let entry = SockRevNatEntry { addr: called.addr, port: called.port, pad: [0; 2], service };
    // Of many datagrams all but the first find the row as it shall be, and a look is cheaper than a row.
    if DATAGRAM && host.sock_revnat(&key) == Some(entry) {
        return true;
    }
    host.set_sock_revnat(&key, &entry)
}

/// Chooses the backend of a call of a socket to a frontend. `None`: there is none.
#[inline(always)]
fn select<H: SocketHost, const DATAGRAM: bool>(
    host: H,
    key: ServiceKey,
    service: u32,
    timeout_s: u32,
    count: u16,
) -> Option<BackendEntry> {
    let client = || AffinityKey::new(ClientKind::Netns, host.netns_cookie(), service);
    if !DATAGRAM {
        return choose(host, key, client, timeout_s, count).map(|(_, backend)| backend);
    }
    if count == 0 {
        return None;
    }
    // Made twice, for it would lie on the stack meanwhile.
    let socket = || AffinityKey::new(ClientKind::Socket, host.cookie(), service);
    if let Some((_, backend)) = stays(host, &socket(), DATAGRAM_TIMEOUT_S, host.now_ns()) {
        return Some(backend);
    }
    let (number, backend) = choose(host, key, client, timeout_s, count)?;
    let entry = AffinityEntry { last_used_ns: host.now_ns(), backend: number, pad: [0; 4] };
    host.set_affinity(&socket(), &entry);
    Some(backend)
}

/// Chooses the backend of a new connection to a frontend, and says its number. `None`: there is none.
/// `client`: who stays with a backend, asked only where clients do.
#[inline(always)]
pub fn choose<H: Chooser>(
    host: H,
    key: ServiceKey,
    client: impl FnOnce() -> AffinityKey,
    timeout_s: u32,
    count: u16,
) -> Option<(u32, BackendEntry)> {
    if count == 0 {
        return None;
    }
    if timeout_s == 0 {
        return draw(host, key, count);
    }
    of_session(host, key, &client(), timeout_s, count)
}

/// The backend of the client's session, or one with which a session begins.
#[inline(always)]
fn of_session<H: Chooser>(
    host: H,
    key: ServiceKey,
    client: &AffinityKey,
    timeout_s: u32,
    count: u16,
) -> Option<(u32, BackendEntry)> {
    let now_ns = host.now_ns();
    // What a session adds are new connections, which an ending backend does not take.
    let stayed = stays(host, client, timeout_s, now_ns)
        .filter(|(_, backend)| backend.state == BackendState::Active as u8);
    if stayed.is_some() {
        return stayed;
    }
    let (number, backend) = draw(host, key, count)?;
    host.set_affinity(client, &AffinityEntry { last_used_ns: now_ns, backend: number, pad: [0; 4] });
    Some((number, backend))
}

/// The backend with which a client stays, if it is still one of the service's. From now on the time counts anew.
#[inline(always)]
fn stays<H: ServiceMaps>(
    host: H,
    key: &AffinityKey,
    timeout_s: u32,
    now_ns: u64,
) -> Option<(u32, BackendEntry)> {
    let number = host.affinity(key, |row| {
        if row.is_over(now_ns, timeout_s) {
            return 0;
        }
        row.last_used_ns = now_ns;
        row.backend
    })?;
    let backend = *host.backend(number)?;
    (backend.service == key.service).then_some((number, backend))
}

/// One of the frontend's backends by chance.
#[inline(always)]
fn draw<H: Chooser>(host: H, key: ServiceKey, count: u16) -> Option<(u32, BackendEntry)> {
    let place = u64::from(host.random()).wrapping_mul(u64::from(count)) >> 32;
    let slot = u16::try_from(place).ok()?.wrapping_add(1);
    // The count is read before the slot: the one that was drawn may have gone in between. The first is the last to go.
    at_slot(host, key.slot(slot)).or_else(|| at_slot(host, key.slot(1)))
}

#[inline(always)]
fn at_slot<H: ServiceMaps>(host: H, key: ServiceKey) -> Option<(u32, BackendEntry)> {
    let Some(ServiceEntry { backend: number, .. }) = host.service(&key).copied() else {
        host.count_call(metrics::index(ForwardReason::NoBackendSlot as u8, Direction::Service));
        return None;
    };
    let Some(backend) = host.backend(number) else {
        host.count_call(metrics::index(ForwardReason::NoBackend as u8, Direction::Service));
        return None;
    };
    Some((number, *backend))
}
