//! Calls of pods to services, packet by packet, for what no program on calls of sockets has translated.
//!
//! A conversation with a service has two rows in conntrack. That of the call lies between the client and the address that it calls,
//! and names the backend that was chosen, for as long as it lasts. That of the connection lies between the client and the backend,
//! as every other, and names the service that was called: what the backend says comes from there. Both are seen by each packet
//! of the conversation, so they are as old as each other, and either way a packet needs both.
//!
//! Packets are judged and sent between client and backend. Only into the client they go as from the service; on the way to a
//! router's duties (a last hop, one that is too large) they are what the backend sent, so that the stack answers the backend.
//!
//! Only what [`crate::closer`] looks at comes here.

use core::hint::black_box;

use dataplane_abi::affinity::AffinityKey;
use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtDir, CtEntry, CtFlags, CtState, CtWay, WayKind};
use dataplane_abi::endpoints::EndpointKey;
use dataplane_abi::events::{EventHeader, TracePoint, TraceReason};
use dataplane_abi::program::Program;
use dataplane_abi::services::{ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16, DropReason, Family};

use crate::conntrack::{self, End, Found, Hit, Origin};
use crate::ends::{self, Place};
use crate::flight::{Flight, Kind, Route};
use crate::host::Host;
use crate::ip::{Ip, l4};
use crate::learn::has_source_mac;
use crate::nat;
use crate::policy::Guard;
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

/// Whether a packet is one of a call, and who answers: who did until now, or who is chosen.
#[inline(never)]
pub(crate) fn call<H: Host, F: Ip>(host: H, flight: &Flight<F>, route: &mut Route) -> Called {
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
        standing => match find(host, flight) {
            Step::Next if standing == Standing::Asks && is_offered(host) => Step::Next,
            Step::Next => match choose(host, flight) {
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
    // A router answers what has no hop left, and to whom the pod has called.
    if flight.hops <= 1 {
        route.point = TracePoint::ToStack as u8;
        return Called::Ends(Step::Pass);
    }
    Called::Yes
}

/// Looks up the connection between client and backend, which the packet is of now.
#[inline(never)]
pub(crate) fn again<H: Host, F: Ip>(host: H, flight: &mut Flight<F>, route: &mut Route) -> Called {
    let Some(config) = host.config() else { return Called::No };
    const PROGRAM: u8 = Program::FromContainer as u8;
    host.calling(|calling| flight.key = key_to_backend(flight, calling));
    match conntrack::lookup::<H, F, PROGRAM>(host, config, flight, route, host.ifindex()) {
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
fn find<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> Step {
    let called = Peer {
        addr: F::to_abi(flight.dst()),
        family: F::FAMILY,
        port: flight.dst_port(),
        proto: F::proto(&flight.key),
    };
    let Some((key, service)) = service::find(host, &called) else { return Step::Skip };
    // Who sends under another's address begins nothing; it is dropped where all such packets are.
    let source = EndpointKey::new(F::to_abi(flight.src()), F::FAMILY);
    if host.endpoint(&source).is_none_or(|pod| pod.ifindex != host.ifindex()) {
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

/// Chooses a backend with whom the client does not speak from the same port for another reason, for nothing would tell the answers
/// apart. Datagrams are answered by the service that was called last.
#[inline(always)]
fn choose<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> Step {
    for _ in 0..DRAWS {
        if !black_box(draw(host, flight) && locate(host)) {
            return Step::Drop(DropReason::NoServiceBackend);
        }
        if black_box(is_free(host, flight)) {
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
fn is_free<H: Host, F: Ip>(host: H, flight: &Flight<F>) -> bool {
    let Some(config) = host.config() else { return false };
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
const fn behind(is_high: bool) -> CtFlags {
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
                if PROGRAM == Program::FromContainer as u8
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
