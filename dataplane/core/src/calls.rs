//! Calls to services, packet by packet: of pods, for what no program on calls of sockets has translated, and of whoever is outside the
//! cluster.
//!
//! A conversation with a service has two rows in conntrack. That of the call lies between the client and the address that it calls,
//! and names the backend that was chosen, for as long as it lasts. That of the connection lies between the client and the backend,
//! as every other, and names the service that was called: what the backend says comes from there. Both are seen by each packet
//! of the conversation, so they are as old as each other, and either way a packet needs both.
//!
//! Packets are judged and sent between client and backend. Only into the client they go as from the service; on the way to a
//! router's duties (a last hop, one that is too large) they are what the backend sent, so that the stack answers the backend.
//! For a client outside the cluster the device by which it is reached is what a pod's is for the pod: what comes from it is sent to a
//! backend there, and what leaves for it is made the service's ([`leaves`]). Backends that are not here answer this node, which
//! speaks with them by a port of its own ([`crate::masquerade`]).
//!
//! Only what [`crate::closer`] looks at comes here.

use core::hint::black_box;

use dataplane_abi::affinity::AffinityKey;
use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtDir, CtEntry, CtFlags, CtState, CtWay, WayKind};
use dataplane_abi::endpoints::EndpointKey;
use dataplane_abi::events::{EventHeader, TracePoint, TraceReason};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::program::Program;
use dataplane_abi::services::{ServiceFlags, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16, DropReason, Family};

use crate::conntrack::{self, End, Found, Hit, Origin};
use crate::ends::{self, Place};
use crate::flight::{Flight, Kind, Route};
use crate::host::Host;
use crate::ip::{Ip, l4};
use crate::learn::has_source_mac;
use crate::nat;
use crate::policy::Guard;
use crate::ports::Leaving;
use crate::service;
use crate::socket::Peer;
use crate::verdict::Step;

/// How often a backend is drawn to find one with whom the client does not speak already.
const DRAWS: u32 = 2;

/// A call that is being translated. It does not lie on the stack, which has no room for it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Calling {
    /// Address that was called.
    pub called: Addr,
    /// Address of the backend.
    pub backend: Addr,
    /// The service that was called.
    pub key: ServiceKey,
    /// How many backends take new connections.
    pub count: u32,
    /// Seconds for which clients stay with a backend; zero: they need not.
    pub affinity_timeout_s: u32,
    /// Number of the service's port.
    pub service: u32,
    /// Number of the backend.
    pub number: u32,
    /// Port that was called.
    pub called_port: Be16,
    /// Port of the backend.
    pub port: Be16,
}

impl Calling {
    /// Nothing known yet.
    pub const NONE: Self = Self {
        called: Addr::ZERO,
        backend: Addr::ZERO,
        key: ServiceKey::frontend(Addr::ZERO, Family::V4, Be16::ZERO, 0, ServiceScope::Internal),
        count: 0,
        affinity_timeout_s: 0,
        service: 0,
        number: 0,
        called_port: Be16::ZERO,
        port: Be16::ZERO,
    };
}

/// What the row of a call says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Standing {
    /// It is that of a connection, which goes on.
    Connection,
    /// Whom it names answers.
    Kept,
    /// Whom it names answers, if the service is still there and offers it.
    Asks,
    /// There is none that counts.
    Nothing,
}

/// What becomes of a packet that may be one of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Called {
    /// It is of none.
    No,
    /// It is one, and it is known who answers.
    Yes,
    /// It goes to a backend, and conntrack knows how.
    Known,
    /// It goes to a backend.
    Unsure,
    /// The program ends.
    Ends(Step),
}

const _: () = assert!(size_of::<Called>() == 1);

/// Whether calls from outside the cluster are translated by a family: the node must have an address to speak with backends elsewhere.
#[inline(always)]
pub fn from_outside<F: Ip>(config: &NodeConfig) -> bool {
    config.flags.contains(ConfigFlags::OUTSIDE_CALLS) && !F::is_node(config, F::from_abi(Addr::ZERO))
}

/// Whether a packet is one of a call, and who answers: who did until now, or who is chosen.
#[inline(never)]
pub(crate) fn call<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
) -> Called {
    let Some(config) = host.config() else { return Called::No };
    let proto = F::proto(&flight.key);
    if proto != l4::TCP && proto != l4::UDP {
        return Called::No;
    }
    let step = match standing(host, config, flight) {
        Standing::Connection => Step::Skip,
        Standing::Kept => Step::Next,
        // An error about what the client has not heard.
        Standing::Nothing if flight.kind == Kind::Error => Step::Skip,
        standing => match find::<H, F, PROGRAM>(host, flight) {
            Step::Next if standing == Standing::Asks && is_offered(host) => Step::Next,
            Step::Next => match choose::<H, F, PROGRAM>(host, flight) {
                Step::Next => record(host, flight),
                end => end,
            },
            end => end,
        },
    };
    match black_box(step) {
        Step::Next => {}
        Step::Skip => return Called::No,
        end => return Called::Ends(end),
    }
    // A router answers what has no hop left, and to whom the pod has called. To somebody outside the error is translated.
    if PROGRAM == Program::FromContainer as u8 && flight.hops <= 1 {
        route.point = TracePoint::ToStack as u8;
        return Called::Ends(Step::Pass);
    }
    Called::Yes
}

/// Looks up the connection between client and backend, which the packet is of now.
#[inline(never)]
pub(crate) fn again<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &mut Flight<F>,
    route: &mut Route,
) -> Called {
    let Some(config) = host.config() else { return Called::No };
    host.calling(|calling| flight.key = key_to_backend(flight, calling));
    let sender = if PROGRAM == Program::FromContainer as u8 { host.ifindex() } else { 0 };
    match conntrack::lookup::<H, F, PROGRAM>(host, config, flight, route, sender) {
        Hit::Unsure => Called::Unsure,
        Hit::Known | Hit::Maybe => Called::Known,
    }
}

/// What the packet's row says of the call, if it has one: a row of a call is kept while it lasts, except that datagrams are not sent to
/// who is no backend any more, and connections that begin not for a service that is none.
#[inline(always)]
fn standing<H: Host, F: Ip>(host: H, config: &NodeConfig, flight: &Flight<F>) -> Standing {
    if !flight.has_row {
        return Standing::Nothing;
    }
    let (ifindex, ticks_per_s) = (host.ifindex(), config.ticks_per_s);
    let begins = flight.kind == Kind::Tcp && conntrack::begins(flight.tcp_flags);
    let is_new = begins || (F::proto(&flight.key) == l4::UDP && flight.kind != Kind::Error);
    let found = host
        .calling(|calling| {
            F::ct(host, &flight.key, |row| stands(row, flight, ifindex, ticks_per_s, begins, calling))
        })
        .flatten();
    match found {
        Some(Standing::Kept) if begins => Standing::Asks,
        Some(Standing::Kept) if is_new && !is_offered(host) => Standing::Nothing,
        Some(Standing::Connection) if is_new => Standing::Nothing,
        Some(standing) => black_box(standing),
        None => Standing::Nothing,
    }
}

#[inline(always)]
fn stands<F: Ip>(
    row: &mut CtEntry,
    flight: &Flight<F>,
    ifindex: u32,
    ticks_per_s: u32,
    begins: bool,
    calling: &mut Calling,
) -> Standing {
    if !row.flags.contains(CtFlags::CALL) {
        return Standing::Connection;
    }
    let [there, back] = &mut row.dirs;
    // Another pod's, that had the address before.
    if back.way.ifindex != ifindex || row.flags.contains(CtFlags::ORIGIN_HIGH) != flight.from_high {
        return Standing::Nothing;
    }
    let idle = flight.now.wrapping_sub(row.last_seen);
    let timeout = conntrack::timeout_ticks(row.state, ticks_per_s);
    let is_over = idle < 0x8000_0000 && idle > timeout;
    if is_over || (begins && row.state == CtState::Closing as u8) {
        return Standing::Nothing;
    }
    if flight.kind != Kind::Error {
        row.last_seen = flight.now;
        there.packets = there.packets.wrapping_add(1);
    }
    if flight.kind == Kind::Tcp {
        there.tcp_flags |= flight.tcp_flags;
        row.state = conntrack::next_state(row.state, flight.tcp_flags, there.tcp_flags, back.tcp_flags);
    }
    calling.backend = Addr(there.way.data);
    calling.port = there.way.backend_port();
    calling.number = there.way.ifindex;
    calling.service = u32::from_ne_bytes(row.service);
    Standing::Kept
}

/// Whether the backend of the call is still one of its service's.
#[inline(always)]
fn is_offered<H: Host>(host: H) -> bool {
    host.calling(|calling| {
        host.backend(calling.number).is_some_and(|backend| {
            backend.service == calling.service
                && backend.addr == calling.backend
                && backend.port == calling.port
        })
    })
    .unwrap_or(false)
}

/// Finds the service that a packet is for, if it is for one and may begin a call.
#[inline(never)]
fn find<H: Host, F: Ip, const PROGRAM: u8>(host: H, flight: &Flight<F>) -> Step {
    let is_pods = PROGRAM == Program::FromContainer as u8;
    if !is_pods && is_of_node(host, flight) {
        return Step::Skip;
    }
    let called = Peer {
        addr: F::to_abi(flight.dst()),
        family: F::FAMILY,
        port: flight.dst_port(),
        proto: F::proto(&flight.key),
    };
    let found =
        if is_pods { service::find(host, &called) } else { service::find_from_outside(host, &called) };
    let Some((key, service)) = found else { return Step::Skip };
    if !is_pods && service.count == 0 && refuses(host, flight, service.flags) {
        return Step::Skip;
    }
    // Who sends under another's address begins nothing; it is dropped where all such packets are.
    let may_call =
        if is_pods { is_here::<H, F>(host, flight.src()) } else { is_outside::<H, F>(host, flight.src()) };
    if !may_call {
        return Step::Skip;
    }
    let found = host.calling(|calling| {
        calling.key = key;
        calling.service = service.service;
        calling.count = u32::from(service.count);
        calling.affinity_timeout_s = service.affinity_timeout_s;
        calling.called = F::to_abi(flight.dst());
        calling.called_port = flight.dst_port();
    });
    if found.is_some() { Step::Next } else { Step::Skip }
}

/// Whether a packet in the midst of a TCP connection is one with the node itself, as far as ports tell: for a port that only calls to
/// its own processes have. Each packet of the node's connections comes here.
#[inline(always)]
fn is_of_node<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> bool {
    let Some(config) = host.config() else { return true };
    let port = flight.dst_port().get();
    flight.kind == Kind::Tcp
        && !conntrack::begins(flight.tcp_flags)
        && F::is_node(config, flight.dst())
        && (port < config.node_port_min || port > config.node_port_max)
}

/// Whether the node's own stack refuses calls to a service without backends: who sees that nobody listens need not wait.
/// Where backends are left out on purpose, other nodes have some, and it is better not to be heard.
#[inline(always)]
fn refuses<H: Host, F: Ip>(host: H, flight: &Flight<F>, flags: ServiceFlags) -> bool {
    !flags.contains(ServiceFlags::EXTERNAL_LOCAL)
        && host.config().is_some_and(|config| F::is_node(config, flight.dst()))
}

/// Whether the pod at the packet's device has an address.
#[inline(always)]
fn is_here<H: Host, F: Ip>(host: H, addr: F::Addr) -> bool {
    let source = EndpointKey::new(F::to_abi(addr), F::FAMILY);
    host.endpoint(&source).is_some_and(|pod| pod.ifindex == host.ifindex())
}

/// Whether an address is that of no pod and no node.
#[inline(always)]
fn is_outside<H: Host, F: Ip>(host: H, addr: F::Addr) -> bool {
    let addr = F::to_abi(addr);
    host.endpoint(&EndpointKey::new(addr, F::FAMILY)).is_none()
        && host
            .ipcache(&IpCacheKey::host(addr, F::FAMILY))
            .is_none_or(|entry| !entry.identity.is_pod() && !entry.identity.is_remote_node())
}

/// Chooses a backend with whom the client does not speak from the same port for another reason, for nothing would tell the answers
/// apart. Datagrams are answered by the service that was called last.
#[inline(always)]
fn choose<H: Host, F: Ip, const PROGRAM: u8>(host: H, flight: &Flight<F>) -> Step {
    for _ in 0..DRAWS {
        if !black_box(draw(host, flight) && locate(host)) {
            return Step::Drop(DropReason::NoServiceBackend);
        }
        if black_box(is_free::<H, F, PROGRAM>(host, flight)) {
            return Step::Next;
        }
    }
    Step::Drop(DropReason::NatNoMapping)
}

/// Draws a backend. False: there is none.
#[inline(never)]
fn draw<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> bool {
    let drawn = host.calling(|calling| {
        let client = || AffinityKey::of_address(F::to_abi(flight.src()), calling.service);
        let count = u16::try_from(calling.count).unwrap_or(u16::MAX);
        service::choose(host, calling.key, client, calling.affinity_timeout_s, count)
            .map(|(number, _)| calling.number = number)
    });
    drawn.flatten().is_some()
}

/// Finds where the backend is that was drawn. False: it has gone meanwhile.
#[inline(never)]
fn locate<H: Host>(host: H) -> bool {
    let located = host.calling(|calling| {
        host.backend(calling.number).map(|backend| {
            calling.backend = backend.addr;
            calling.port = backend.port;
        })
    });
    located.flatten().is_some()
}

/// Makes the row of a call.
#[inline(never)]
fn record<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> Step {
    let (now, ifindex) = (flight.now, host.ifindex());
    let made = host.calling(|calling| {
        F::ct_create(host, &flight.key, |row| {
            row.last_seen = now;
            row.created = now;
            row.state = conntrack::first_state(flight) as u8;
            row.flags = if flight.from_high { CtFlags::CALL | CtFlags::ORIGIN_HIGH } else { CtFlags::CALL };
            row.service = calling.service.to_ne_bytes();
            let [there, back] = &mut row.dirs;
            there.tcp_flags = if flight.kind == Kind::Tcp { flight.tcp_flags } else { 0 };
            there.packets = 1;
            there.way = CtWay::backend(calling.number, calling.backend, calling.port, F::FAMILY as u8);
            back.way.ifindex = ifindex;
        })
    });
    if made == Some(true) { Step::Next } else { Step::Drop(DropReason::CtCreateFailed) }
}

/// Whether the client has no living connection with the backend that is not of this call.
#[inline(never)]
fn is_free<H: Host, F: Ip, const PROGRAM: u8>(host: H, flight: &Flight<F>) -> bool {
    let Some(config) = host.config() else { return false };
    // Who is outside does not know the address that stands for a pod towards itself.
    if PROGRAM != Program::FromContainer as u8
        && host.calling(|calling| F::from_abi(calling.backend) == flight.src()) == Some(true)
    {
        return false;
    }
    if F::proto(&flight.key) != l4::TCP {
        return true;
    }
    let (now, ticks_per_s) = (flight.now, config.ticks_per_s);
    let is_free = host.calling(|calling| {
        let mut key = key_to_backend(flight, calling);
        let behind = behind(!F::order(&mut key));
        F::row(host, &key, |row| {
            let addr = F::frontend(row);
            let entry = F::entry(row);
            entry.is_expired(now, ticks_per_s)
                || entry.state == CtState::Closing as u8
                || (entry.flags.contains(behind)
                    && F::to_abi(addr) == calling.called
                    && entry.frontend_port == calling.called_port)
        })
    });
    is_free.flatten().unwrap_or(true)
}

/// That what an end sends comes from the service.
#[inline(always)]
pub(crate) const fn behind(is_high: bool) -> CtFlags {
    if is_high { CtFlags::BEHIND_HIGH } else { CtFlags::BEHIND_LOW }
}

/// Key of the connection between client and backend, the client first.
#[inline(always)]
fn key_to_backend<F: Ip>(flight: &Flight<F>, calling: &Calling) -> F::Key {
    let (client, backend) = (flight.src(), F::from_abi(calling.backend));
    let client = if client == backend { F::LOOPBACK } else { client };
    F::key(client, backend, flight.src_port(), calling.port, F::proto(&flight.key))
}

/// Sends the packet to the backend: in its bytes, and as conntrack looks at it.
#[inline(never)]
pub(crate) fn turn<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route) -> Called {
    let done = host.calling(|calling| {
        calling.called = F::to_abi(flight.dst());
        calling.called_port = flight.dst_port();
        let backend = F::from_abi(calling.backend);
        nat::set_end::<H, F, false>(host, flight, &backend, calling.port, route)
            && (flight.src() != backend
                || nat::set_end::<H, F, true>(host, flight, &F::LOOPBACK, flight.src_port(), route))
    });
    if done == Some(true) { Called::Yes } else { Called::Ends(Step::Drop(DropReason::WriteError)) }
}

/// The same with an ICMP error of the client's, about an answer.
#[inline(never)]
pub(crate) fn turn_error<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route) -> Called {
    let done = host.calling(|calling| {
        let backend = F::from_abi(calling.backend);
        let is_itself = flight.src() == backend;
        nat::set_quoted::<H, F, true>(host, flight, &backend, calling.port)
            && nat::set_end_of_error::<H, F, false>(host, flight, &backend, route)
            && (!is_itself
                || (nat::set_quoted::<H, F, false>(host, flight, &F::LOOPBACK, flight.src_port())
                    && nat::set_end_of_error::<H, F, true>(host, flight, &F::LOOPBACK, route)))
    });
    if done == Some(true) { Called::Yes } else { Called::Ends(Step::Drop(DropReason::WriteError)) }
}

/// Writes whom the client has called into the row of its connection with the backend.
#[inline(never)]
pub(crate) fn note<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> Step {
    let behind = behind(!flight.is_from_high());
    host.calling(|calling| {
        let called = F::from_abi(calling.called);
        F::row(host, &flight.key, |row| {
            if F::frontend(row) != called || !F::entry(row).flags.contains(behind) {
                F::set_frontend(row, called);
                let entry = F::entry(row);
                entry.flags.remove(CtFlags::BEHIND_LOW | CtFlags::BEHIND_HIGH);
                entry.flags.insert(behind);
            }
            F::entry(row).frontend_port = calling.called_port;
        });
    });
    Step::Next
}

/// Makes what a backend sends into its client come from the service.
#[inline(never)]
pub(crate) fn answer<H: Host, F: Ip, const PROGRAM: u8>(
    host: H,
    flight: &Flight<F>,
    route: &mut Route,
) -> Step {
    let sender = behind(flight.is_from_high());
    let is_answer = host
        .calling(|calling| {
            F::row(host, &flight.key, |row| {
                calling.called = F::to_abi(F::frontend(row));
                let entry = F::entry(row);
                // A client that calls the backend itself is answered by it.
                if (PROGRAM == Program::FromContainer as u8 || PROGRAM == Program::FromNetdev as u8)
                    && flight.kind != Kind::Error
                    && !entry.flags.contains(sender)
                {
                    entry.flags.remove(CtFlags::BEHIND_LOW | CtFlags::BEHIND_HIGH);
                }
                calling.called_port = entry.frontend_port;
                entry.flags.contains(sender)
            })
        })
        .flatten();
    let goes_in = PROGRAM == Program::ToContainer as u8
        || (route.to.way.kind == WayKind::Local as u8 && route.hops > 1);
    if !(is_answer == Some(true) && goes_in) {
        Step::Next
    } else if flight.kind == Kind::Error {
        turn_error_back(host, flight, route)
    } else {
        turn_back(host, flight, route)
    }
}

/// Finds whether what leaves is an answer to a client outside the cluster, and from whom it has to come: the service that was called.
/// [`Step::Next`]: it is; [`Step::Skip`]: it is none.
#[inline(never)]
pub(crate) fn leaves<H: Host, F: Ip>(host: H, flight: &Flight<F>, leaving: &mut Leaving<F>) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    let proto = F::proto(&flight.key);
    if proto != l4::TCP && proto != l4::UDP {
        return Step::Skip;
    }
    let sender = behind(flight.is_from_high());
    // What pods send was counted where they sent it, and what the node sends where it is judged.
    let counts = flight.kind != Kind::Error
        && leaving.is_of_node != 0
        && !config.flags.contains(ConfigFlags::HOST_FIREWALL);
    let bytes = u64::from(host.len());
    let is_answer = F::row(host, &flight.key, |row| {
        let called = F::frontend(row);
        let entry = F::entry(row);
        let is_answer = entry.flags.contains(sender);
        if is_answer {
            (leaving.addr, leaving.port) = (called, entry.frontend_port);
            if counts {
                said(entry, flight, bytes);
            }
        }
        is_answer
    });
    if black_box(is_answer) != Some(true) {
        return Step::Skip;
    }
    if flight.kind != Kind::Error {
        let mut key = F::key(flight.dst(), leaving.addr, flight.dst_port(), leaving.port, proto);
        F::order(&mut key);
        F::ct(host, &key, |row| heard(row, flight));
    }
    Step::Next
}

/// Notes an answer of the node itself in the row of its connection with the client.
#[inline(always)]
fn said<F: Ip>(row: &mut CtEntry, flight: &Flight<F>, bytes: u64) {
    let [there, back] = &mut row.dirs;
    row.last_seen = flight.now;
    row.flags.insert(CtFlags::SEEN_REPLY);
    back.packets = back.packets.wrapping_add(1);
    back.bytes = back.bytes.wrapping_add(bytes);
    if flight.kind == Kind::Tcp {
        back.tcp_flags |= flight.tcp_flags;
        row.state = conntrack::next_state(row.state, flight.tcp_flags, back.tcp_flags, there.tcp_flags);
    }
}

#[inline(never)]
fn turn_back<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route) -> Step {
    touch(host, flight);
    let done = host.calling(|calling| {
        let (service, backend) = (F::from_abi(calling.called), flight.src());
        nat::set_end::<H, F, true>(host, flight, &service, calling.called_port, route)
            && (flight.dst() != F::LOOPBACK
                || nat::set_end::<H, F, false>(host, flight, &backend, flight.dst_port(), route))
    });
    if done == Some(true) { Step::Next } else { Step::Drop(DropReason::WriteError) }
}

/// Makes an ICMP error one about the call. It may come from the backend or from a router on the way.
#[inline(never)]
fn turn_error_back<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route) -> Step {
    let done = host.calling(|calling| {
        let (service, backend) = (F::from_abi(calling.called), flight.src());
        let is_itself = flight.dst() == F::LOOPBACK;
        let Some((sender, _)) = F::addresses(host) else { return false };
        nat::set_quoted::<H, F, false>(host, flight, &service, calling.called_port)
            && (sender != backend || nat::set_end_of_error::<H, F, true>(host, flight, &service, route))
            && (!is_itself
                || (nat::set_quoted::<H, F, true>(host, flight, &backend, flight.dst_port())
                    && nat::set_end_of_error::<H, F, false>(host, flight, &backend, route)))
    });
    if done == Some(true) { Step::Next } else { Step::Drop(DropReason::WriteError) }
}

/// Finds the row of the call that a packet answers.
#[inline(never)]
fn touch<H: Host, F: Ip>(host: H, flight: &Flight<F>) {
    host.calling(|calling| {
        let client = if flight.dst() == F::LOOPBACK { flight.src() } else { flight.dst() };
        let (service, port) = (F::from_abi(calling.called), calling.called_port);
        let mut key = F::key(client, service, flight.dst_port(), port, F::proto(&flight.key));
        F::order(&mut key);
        F::ct(host, &key, |row| heard(row, flight));
    });
}

/// Notes an answer in the row of the call, so that it is as old as that of the connection.
#[inline(always)]
fn heard<F: Ip>(row: &mut CtEntry, flight: &Flight<F>) {
    if !row.flags.contains(CtFlags::CALL) {
        return;
    }
    let [there, back] = &mut row.dirs;
    row.last_seen = flight.now;
    back.packets = back.packets.wrapping_add(1);
    if flight.kind == Kind::Tcp {
        back.tcp_flags |= flight.tcp_flags;
        row.state = conntrack::next_state(row.state, flight.tcp_flags, back.tcp_flags, there.tcp_flags);
    }
}

/// Finds the way of a pod to itself, with an address that stands for it at one end. `called`: it has called a service.
/// [`Step::Skip`]: the packet has no such end.
#[inline(never)]
pub(crate) fn itself<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route, called: bool) -> Step {
    let Some(config) = host.config() else { return Step::Skip };
    if flight.src() != F::LOOPBACK && flight.dst() != F::LOOPBACK {
        return Step::Skip;
    }
    let is_error = flight.kind == Kind::Error;
    let (mut pod, mut guard) = (End::NOBODY, Guard::NONE);
    let end = if flight.src() == F::LOOPBACK { flight.dst() } else { flight.src() };
    // An ICMP error may come from somebody else.
    let sender = if is_error { F::addresses(host).map_or(end, |(sender, _)| sender) } else { end };
    let place = ends::find_here::<H, F>(host, sender, &mut pod, &mut guard);
    if place != Place::Pod || pod.way.ifindex != host.ifindex() || !has_source_mac(host, &pod) {
        return Step::Drop(DropReason::InvalidSourceIp);
    }
    let mut origin = Origin::UNKNOWN;
    let found = black_box(conntrack::look(host, config, flight, &mut origin));
    route.src = pod.identity;
    route.endpoint = pod.way.endpoint;
    if is_error && ends::find_here::<H, F>(host, end, &mut pod, &mut guard) != Place::Pod {
        return Step::Drop(DropReason::UnknownCtState);
    }
    route.to = pod;
    route.report = config.flags.contains(ConfigFlags::TRACE_EVENTS);
    if is_error {
        route.reason = TraceReason::Related as u8;
        return match found {
            Found::Original | Found::Reply => Step::Next,
            Found::Nothing | Found::Reopened => Step::Drop(DropReason::UnknownCtState),
        };
    }
    match found {
        Found::Original => {
            route.reason = TraceReason::Established as u8;
            conntrack::refresh(host, flight, CtDir::Original, &pod, &pod);
        }
        Found::Reply => {
            route.reason = TraceReason::Reply as u8;
            route.flags |= EventHeader::REPLY;
            conntrack::refresh(host, flight, CtDir::Reply, &pod, &pod);
        }
        Found::Nothing | Found::Reopened if !called => return Step::Drop(DropReason::UnknownTarget),
        Found::Nothing | Found::Reopened => {
            route.reason = TraceReason::New as u8;
            if !conntrack::create(host, flight, &pod, &pod) {
                return Step::Drop(DropReason::CtCreateFailed);
            }
        }
    }
    Step::Next
}
