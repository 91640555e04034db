//! Conntrack: one look-up for a packet of a known connection.
//!
//! The row says whether the packet may pass at the current revision and where it goes. What does not fit
//! (no row, an old revision, another device than the sender's, idle for long, a connection begun again, ICMP errors)
//! is left to [`crate::learn`].

use dataplane_abi::Identity;
use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{
    CtDir, CtEntry, CtFlags, CtHalf, CtState, CtWay, TIMEOUT_TCP_CLOSE_S, WayKind,
};
use dataplane_abi::events::{Aggregation, EventHeader, TraceReason};
use dataplane_abi::program::Program;

use crate::flight::{Flight, Kind, Route};
use crate::host::{Maps, Packet};
use crate::ip::l4::{ACK, FIN, RST, SYN};
use crate::ip::{Ip, l4};

/// What the row said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hit {
    /// The way is in the route.
    Known,
    /// The way is in the route, but services may have a say ([`crate::closer`]).
    Maybe,
    /// Someone has to look closer.
    Unsure,
}

/// Looks the packet's connection up. `sender`: the device on which its sender must be, or zero where that is not known.
#[inline(always)]
pub fn lookup<H: Packet + Maps, F: Ip, const PROGRAM: u8>(
    host: H,
    config: &NodeConfig,
    flight: &mut Flight<F>,
    route: &mut Route,
    sender: u32,
) -> Hit {
    flight.from_high = F::order(&mut flight.key);
    let bytes = u64::from(host.len());
    let packet = &*flight;
    let hit = F::ct(host, &packet.key, |entry| {
        established::<F, PROGRAM>(config, packet, sender, bytes, entry, route)
    });
    flight.has_row = hit.is_some();
    hit.unwrap_or(Hit::Unsure)
}

#[inline(always)]
fn established<F: Ip, const PROGRAM: u8>(
    config: &NodeConfig,
    packet: &Flight<F>,
    sender: u32,
    bytes: u64,
    entry: &mut CtEntry,
    route: &mut Route,
) -> Hit {
    let (kind, now) = (packet.kind, packet.now);
    let reply = entry.origin_is_high() != packet.from_high;
    let [first, second] = &mut entry.dirs;
    let (half, back) = if reply { (second, first) } else { (first, second) };
    if half.revision != packet.revision || (sender != 0 && back.way.ifindex != sender) || kind == Kind::Error
    {
        return Hit::Unsure;
    }
    let idle = now.wrapping_sub(entry.last_seen);
    if idle != 0 {
        // Whoever was silent for longer than the shortest timeout is looked at closely.
        if idle > config.ticks_per_s.wrapping_mul(TIMEOUT_TCP_CLOSE_S) {
            return Hit::Unsure;
        }
        entry.last_seen = now;
    }
    // What a pod begins may be for a service that was not there when it began: not each packet is worth a look.
    let mut asks = PROGRAM == Program::FromContainer as u8
        && idle != 0
        && half.way.kind != WayKind::Local as u8
        && !reply
        && config.flags.contains(ConfigFlags::SERVICE_PACKETS);
    let mut news = false;
    if kind == Kind::Tcp {
        let flags = packet.tcp_flags;
        let fresh = flags & !half.tcp_flags;
        asks &= begins(flags);
        if fresh != 0 || flags & (SYN | FIN | RST) != 0 || entry.state != CtState::Established as u8 {
            if begins(flags) && entry.state == CtState::Closing as u8 {
                return Hit::Unsure;
            }
            half.tcp_flags |= flags;
            entry.state = next_state(entry.state, flags, half.tcp_flags, back.tcp_flags);
            news = fresh & config.monitor_flags != 0;
        }
    }
    if reply && !entry.flags.contains(CtFlags::SEEN_REPLY) {
        entry.flags.insert(CtFlags::SEEN_REPLY);
        news = true;
    }
    half.packets = half.packets.wrapping_add(1);
    half.bytes = half.bytes.wrapping_add(bytes);
    route.to.way = half.way;
    route.src = half.identity;
    route.to.identity = back.identity;
    route.endpoint = back.way.endpoint;
    if reply {
        route.flags |= EventHeader::REPLY;
        route.reason = TraceReason::Reply as u8;
    } else {
        route.reason = TraceReason::Established as u8;
    }
    route.report = config.flags.contains(ConfigFlags::TRACE_EVENTS) && due(config, half, now, news);
    // What the node itself sends comes from no service.
    let is_of_node = PROGRAM == Program::FromHost as u8 || PROGRAM == Program::ToNetdev as u8;
    if !is_of_node && (asks || entry.flags.intersects(CtFlags::BEHIND_LOW | CtFlags::BEHIND_HIGH)) {
        Hit::Maybe
    } else {
        Hit::Known
    }
}

/// Whether a packet of a known connection is to be told.
#[inline(always)]
fn due(config: &NodeConfig, half: &mut CtHalf, now: u32, news: bool) -> bool {
    if config.aggregation < Aggregation::Medium as u8 {
        return true;
    }
    let due = news || now.wrapping_sub(half.reported) >= config.monitor_interval_ticks;
    if due {
        half.reported = now;
    }
    due
}

/// Whether TCP flags begin a connection.
#[inline(always)]
pub const fn begins(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// State of a TCP connection after a packet. `own`, `other`: flags seen so far from its sender (with this packet) and from the other end.
///
/// Never goes back: SYN → established → closing. A connection that is begun again gets a new row instead.
#[inline(always)]
pub const fn next_state(state: u8, flags: u8, own: u8, other: u8) -> u8 {
    if flags & RST != 0 || (own & FIN != 0 && other & FIN != 0) {
        CtState::Closing as u8
    } else if state == CtState::Syn as u8 && flags & SYN == 0 {
        CtState::Established as u8
    } else {
        state
    }
}

/// Ticks without packets after which a connection in a state is over.
#[inline(always)]
pub const fn timeout_ticks(state: u8, ticks_per_s: u32) -> u32 {
    match CtState::from_number(state) {
        Some(state) => state.timeout_s().wrapping_mul(ticks_per_s),
        None => 0,
    }
}

/// State of a connection after its first packet.
#[inline(always)]
pub fn first_state<F: Ip>(flight: &Flight<F>) -> CtState {
    match flight.kind {
        Kind::Tcp if flight.tcp_flags & RST != 0 => CtState::Closing,
        Kind::Tcp if flight.tcp_flags & SYN != 0 => CtState::Syn,
        Kind::Tcp => CtState::Established,
        Kind::Fragment if F::proto(&flight.key) == l4::TCP => CtState::Established,
        Kind::Datagram | Kind::Error | Kind::Fragment | Kind::Control => CtState::Any,
    }
}

/// What a closer look at a row finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Found {
    /// There is none, or it is of a connection that is over.
    Nothing,
    /// It is of a connection that was closed and that this packet begins again.
    Reopened,
    /// The connection lives; the packet goes in its original direction.
    Original,
    /// The connection lives; the packet goes in its reply direction.
    Reply,
}

/// What the row of a living connection says of how it began.
#[derive(Clone, Copy)]
pub struct Origin {
    /// Identity of the end that began.
    pub identity: Identity,
    /// Type of the ICMP message that began it.
    pub icmp_type: u8,
}

impl Origin {
    /// Not known.
    pub const UNKNOWN: Self = Self { identity: Identity::UNKNOWN, icmp_type: 0 };
}

/// Looks closer; writes down how a living connection began. Changes nothing.
#[inline(always)]
pub fn look<H: Packet + Maps, F: Ip>(
    host: H,
    config: &NodeConfig,
    flight: &Flight<F>,
    origin: &mut Origin,
) -> Found {
    if !flight.has_row {
        return Found::Nothing;
    }
    let (from_high, now) = (flight.from_high, flight.now);
    let begun = flight.kind == Kind::Tcp && begins(flight.tcp_flags);
    let ticks_per_s = config.ticks_per_s;
    F::ct(host, &flight.key, |entry| {
        let [first, _] = &entry.dirs;
        *origin = Origin { identity: first.identity, icmp_type: first.tcp_flags };
        if entry.is_expired(now, ticks_per_s) || entry.flags.contains(CtFlags::CALL) {
            Found::Nothing
        } else if begun && entry.state == CtState::Closing as u8 {
            Found::Reopened
        } else if entry.origin_is_high() == from_high {
            Found::Original
        } else {
            Found::Reply
        }
    })
    .unwrap_or(Found::Nothing)
}

/// One end of a connection, as it is written into the row.
#[derive(Clone, Copy)]
pub struct End {
    /// Its identity.
    pub identity: Identity,
    /// The way to it.
    pub way: CtWay,
}

/// Writes the ends into the row of a living connection and counts the packet.
#[inline(always)]
pub fn refresh<H: Packet + Maps, F: Ip>(host: H, flight: &Flight<F>, dir: CtDir, src: &End, dst: &End) {
    let (now, revision) = (flight.now, flight.revision);
    let bytes = u64::from(host.len());
    let (kind, flags) = (flight.kind, flight.tcp_flags);
    F::ct(host, &flight.key, |entry| {
        let [first, second] = &mut entry.dirs;
        let (half, back) = if dir == CtDir::Reply { (second, first) } else { (first, second) };
        half.revision = revision;
        half.identity = src.identity;
        half.way = dst.way;
        half.reported = now;
        half.packets = half.packets.wrapping_add(1);
        half.bytes = half.bytes.wrapping_add(bytes);
        back.revision = revision;
        back.identity = dst.identity;
        back.way = src.way;
        if kind == Kind::Tcp {
            half.tcp_flags |= flags;
            entry.state = next_state(entry.state, flags, half.tcp_flags, back.tcp_flags);
        }
        if dir == CtDir::Reply {
            entry.flags.insert(CtFlags::SEEN_REPLY);
        }
        entry.last_seen = now;
    });
}

/// Makes the row of a new connection. False: there is no room.
#[inline(always)]
pub fn create<H: Packet + Maps, F: Ip>(host: H, flight: &Flight<F>, src: &End, dst: &End) -> bool {
    let (now, revision) = (flight.now, flight.revision);
    let bytes = u64::from(host.len());
    F::ct_create(host, &flight.key, |entry| {
        entry.last_seen = now;
        entry.created = now;
        entry.state = first_state(flight) as u8;
        entry.flags = if flight.from_high { CtFlags::ORIGIN_HIGH } else { CtFlags(0) };
        let [there, back] = &mut entry.dirs;
        there.revision = revision;
        there.reported = now;
        there.identity = src.identity;
        there.tcp_flags = flight.tcp_flags;
        there.packets = 1;
        there.bytes = bytes;
        there.way = dst.way;
        back.revision = revision;
        back.reported = now;
        back.identity = dst.identity;
        back.way = src.way;
    })
}
