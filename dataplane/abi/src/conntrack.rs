//! `CT4`, `CT6`: one row per connection.
//!
//! The key is the same for both directions: the end with the lower (address, port) comes first, and a flag in the row says
//! which end began. So an established packet costs one look-up whichever way it goes, and on local delivery both pods share the row.
//!
//! What stands for ports where there are none: ICMP echo has the identifier as the requester's port and zero as the other's;
//! other protocols have zero for both.
//!
//! Written by the programs, expired by the agent ([`CtEntry::is_expired`]); LRU, so a full table forgets the connection
//! that was idle longest. Counters are added to without atomics: a packet or two may be missed when both CPUs
//! handle one direction of one connection at once.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::table::table;
use crate::{Addr, Be16, Identity, Mac};

table! {
    /// IPv4 connections.
    Ct4 = "CT4": LruHash<CtKey4, CtEntry>[131_072], flags 0, writer Programs
}
table! {
    /// IPv6 connections.
    Ct6 = "CT6": LruHash<CtKey6, CtEntry6>[131_072], flags 0, writer Programs
}

/// Which way a packet goes in its connection; index of the per-direction fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CtDir {
    /// From the end that began.
    Original = 0,
    /// Back to it.
    Reply = 1,
}

impl CtDir {
    /// The other one.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// An IPv4 connection. See the module's words on order and ports.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct CtKey4 {
    /// Address of the lower end.
    pub low: [u8; 4],
    /// Address of the higher end.
    pub high: [u8; 4],
    /// Port of the lower end.
    pub low_port: Be16,
    /// Port of the higher end.
    pub high_port: Be16,
    /// IP protocol.
    pub proto: u8,
    /// [`CtScope`] as number.
    pub scope: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// An IPv6 connection. See the module's words on order and ports.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct CtKey6 {
    /// Address of the lower end.
    pub low: [u8; 16],
    /// Address of the higher end.
    pub high: [u8; 16],
    /// Port of the lower end.
    pub low_port: Be16,
    /// Port of the higher end.
    pub high_port: Be16,
    /// IP protocol (upper layer, behind extension headers).
    pub proto: u8,
    /// [`CtScope`] as number.
    pub scope: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CtScope {
    /// A connection between two ends as they are on the wire.
    Connection = 0,
    /// In [`crate::nat`]: one of the node's own that leaves by another port than its stack knows; with the port that the stack knows.
    Moved = 1,
}

impl CtKey4 {
    /// Key of a packet, and whether its sender is the higher end.
    #[inline(always)]
    pub fn of_packet(src: [u8; 4], dst: [u8; 4], sport: Be16, dport: Be16, proto: u8) -> (Self, bool) {
        let scope = CtScope::Connection as u8;
        let mut key =
            Self { low: src, high: dst, low_port: sport, high_port: dport, proto, scope, pad: [0; 2] };
        let from_high = key.order();
        (key, from_high)
    }

    /// Puts the lower end first; `low` was the sender's. Returns whether the sender is the higher end.
    ///
    /// In words: a processor that reads a word whose bytes were just written one by one has to wait for them.
    #[inline(always)]
    pub fn order(&mut self) -> bool {
        let [low, high, ports, rest]: [u32; 4] = transmute!(*self);
        let swapped = swapped(ports);
        let swap = u32::from_be(low) > u32::from_be(high)
            || (low == high && u32::from_be(ports) > u32::from_be(swapped));
        if swap {
            *self = transmute!([high, low, swapped, rest]);
        }
        swap
    }

    /// Sets both ports from the first four bytes of the upper layer's header, as they lie in a packet of the lower end.
    #[inline(always)]
    pub fn set_ports(&mut self, ports: u32) {
        let [low, high, _, rest]: [u32; 4] = transmute!(*self);
        *self = transmute!([low, high, ports, rest]);
    }
}

impl CtKey6 {
    /// Key of a packet, and whether its sender is the higher end.
    #[inline(always)]
    pub fn of_packet(src: [u8; 16], dst: [u8; 16], sport: Be16, dport: Be16, proto: u8) -> (Self, bool) {
        let scope = CtScope::Connection as u8;
        let mut key =
            Self { low: src, high: dst, low_port: sport, high_port: dport, proto, scope, pad: [0; 2] };
        let from_high = key.order();
        (key, from_high)
    }

    /// Puts the lower end first; `low` was the sender's. Returns whether the sender is the higher end.
    #[inline(always)]
    pub fn order(&mut self) -> bool {
        let (low, high) = (u128::from_be_bytes(self.low), u128::from_be_bytes(self.high));
        let swap = low > high || (low == high && self.low_port.get() > self.high_port.get());
        if swap {
            (self.low, self.high) = (self.high, self.low);
            (self.low_port, self.high_port) = (self.high_port, self.low_port);
        }
        swap
    }

    /// Sets both ports from the first four bytes of the upper layer's header, as they lie in a packet of the lower end.
    #[inline(always)]
    pub fn set_ports(&mut self, ports: u32) {
        let [a, b, c, d] = ports.to_ne_bytes();
        (self.low_port, self.high_port) = (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]));
    }
}

/// Two ports in the other order, as they lie in memory.
#[inline(always)]
const fn swapped(ports: u32) -> u32 {
    ports.rotate_left(16)
}

/// A connection's row. 128 bytes: with the kernel's 48 and the key's 16 a multiple of a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtEntry {
    /// Low 32 bits of the tick of the last packet; written only when the tick has changed.
    pub last_seen: u32,
    /// [`CtState`] as number.
    pub state: u8,
    /// More about it.
    pub flags: CtFlags,
    /// With [`CtFlags::BEHIND_LOW`] or [`CtFlags::BEHIND_HIGH`]: port of the service that was called. Else zero.
    pub frontend_port: Be16,
    /// Low 32 bits of the tick at which the row was made.
    pub created: u32,
    /// With [`CtFlags::CALL`]: number of the service's port ([`crate::services::ServiceEntry::service`]), as it lies in memory.
    /// With [`CtFlags::BEHIND_LOW`] or [`CtFlags::BEHIND_HIGH`], IPv4: address of the service that was called. Else zero.
    pub service: [u8; 4],
    /// What is kept per direction, indexed by [`CtDir`].
    pub dirs: [CtHalf; 2],
}

/// What is kept for one direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtHalf {
    /// [`crate::config::NodeConfig::revision`] at which the direction was judged and its way found; zero: not yet.
    pub revision: u32,
    /// Low 32 bits of the tick of the last trace report.
    pub reported: u32,
    /// Identity of the end that sends in this direction.
    pub identity: Identity,
    /// TCP: flags seen (RFC 9293 bits). ICMP and `ICMPv6`, original direction: type of the message that began it.
    pub tcp_flags: u8,
    /// [`Leaves`] as number; of the original direction.
    pub leaves: u8,
    /// With [`Leaves::Masqueraded`]: port of the node by which the connection leaves. Else zero.
    pub leaves_by: Be16,
    /// Packets.
    pub packets: u64,
    /// Bytes from the link layer on.
    pub bytes: u64,
    /// Way out.
    pub way: CtWay,
}

/// Row of an IPv6 connection: [`CtEntry`] and the room that longer addresses need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtEntry6 {
    /// As for IPv4.
    pub entry: CtEntry,
    /// With [`CtFlags::BEHIND_LOW`] or [`CtFlags::BEHIND_HIGH`]: address of the service that was called. Else zero.
    pub frontend: [u8; 16],
    /// Zero; with the key and the kernel's 48 bytes a multiple of a cache line.
    pub reserved: [u8; 24],
}

impl From<CtEntry> for CtEntry6 {
    fn from(entry: CtEntry) -> Self {
        Self { entry, frontend: [0; 16], reserved: [0; 24] }
    }
}

/// With which address a pod's connection leaves the node by the underlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Leaves {
    /// Nobody has asked yet.
    Undecided = 0,
    /// With the pod's.
    Plain = 1,
    /// With the node's ([`crate::nat`]).
    Masqueraded = 2,
}

/// Where packets of one direction go.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtWay {
    /// [`WayKind`] as number.
    pub kind: u8,
    /// Family of the address in `data` (tunnel, neighbour).
    pub family: u8,
    /// Id of the local endpoint that receives; zero where none does. To a backend: its port, as it lies in a packet.
    pub endpoint: u16,
    /// Device: the pod's host side, the overlay or the underlay. To a backend: its number.
    pub ifindex: u32,
    /// Local: MAC of the pod (6), MAC of its gateway (6), zero (4). Tunnel, neighbour: address of the node. Backend: its address.
    pub data: [u8; 16],
}

impl CtWay {
    /// Not found out yet.
    pub const NONE: Self =
        Self { kind: WayKind::None as u8, family: 0, endpoint: 0, ifindex: 0, data: [0; 16] };

    /// To a pod of this node.
    #[inline(always)]
    pub const fn local(ifindex: u32, endpoint: u16, mac: Mac, node_mac: Mac) -> Self {
        let [a0, a1, a2, a3, a4, a5] = mac;
        let [b0, b1, b2, b3, b4, b5] = node_mac;
        let data = [a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5, 0, 0, 0, 0];
        Self { kind: WayKind::Local as u8, family: 0, endpoint, ifindex, data }
    }

    /// To another node, by tunnel or as next hop.
    #[inline(always)]
    pub const fn remote(kind: WayKind, ifindex: u32, node: Addr, family: u8) -> Self {
        Self { kind: kind as u8, family, endpoint: 0, ifindex, data: node.0 }
    }

    /// To the node's stack.
    #[inline(always)]
    pub const fn stack() -> Self {
        Self { kind: WayKind::Stack as u8, family: 0, endpoint: 0, ifindex: 0, data: [0; 16] }
    }

    /// To a backend of a service.
    #[inline(always)]
    pub const fn backend(number: u32, addr: Addr, port: Be16, family: u8) -> Self {
        let endpoint = u16::from_ne_bytes(port.to_bytes());
        Self { kind: WayKind::Backend as u8, family, endpoint, ifindex: number, data: addr.0 }
    }

    /// Port of the backend to which it leads.
    #[inline(always)]
    pub const fn backend_port(&self) -> Be16 {
        Be16::from_bytes(self.endpoint.to_ne_bytes())
    }
}

/// Kinds of way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum WayKind {
    /// Not found out yet.
    None = 0,
    /// To a pod of this node.
    Local = 1,
    /// Through the tunnel to another node.
    Tunnel = 2,
    /// To a next hop on the underlay.
    Neighbour = 3,
    /// To the node's stack.
    Stack = 4,
    /// To a backend of the service that is called: another row says how to get there.
    Backend = 5,
}

impl WayKind {
    /// The kind with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Local,
            2 => Self::Tunnel,
            3 => Self::Neighbour,
            4 => Self::Stack,
            5 => Self::Backend,
            _ => return None,
        })
    }
}

/// State of a connection; decides how long it is kept without packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CtState {
    /// TCP of which only SYN has been seen.
    Syn = 1,
    /// TCP on which something else than SYN has been seen.
    Established = 2,
    /// TCP closed by RST or by FIN of both ends.
    Closing = 3,
    /// Anything but TCP.
    Any = 4,
}

impl CtState {
    /// The state with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Syn,
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::Any,
            _ => return None,
        })
    }

    /// Seconds without packets after which a connection in this state is over.
    #[inline(always)]
    pub const fn timeout_s(self) -> u32 {
        match self {
            Self::Syn => TIMEOUT_TCP_SYN_S,
            Self::Established => TIMEOUT_TCP_S,
            Self::Closing => TIMEOUT_TCP_CLOSE_S,
            Self::Any => TIMEOUT_ANY_S,
        }
    }

    /// Whether what was seen last then, in a state by number, is over at `now` (both low 32 bits of ticks). No known state: it is.
    #[inline(always)]
    pub const fn is_over(state: u8, last_seen: u32, now: u32, ticks_per_s: u32) -> bool {
        match Self::from_number(state) {
            Some(state) => {
                let idle = now.wrapping_sub(last_seen);
                // A stamp that is a little ahead (another CPU wrote it after `now` was read) is not old.
                idle < 0x8000_0000 && idle > state.timeout_s().saturating_mul(ticks_per_s)
            }
            None => true,
        }
    }

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Any => "any",
        }
    }
}

/// Seconds that an idle established TCP connection is kept.
pub const TIMEOUT_TCP_S: u32 = 8000;
/// Seconds that a TCP connection of which only SYN was seen is kept.
pub const TIMEOUT_TCP_SYN_S: u32 = 60;
/// Seconds that a closed TCP connection is kept.
pub const TIMEOUT_TCP_CLOSE_S: u32 = 10;
/// Seconds that anything else is kept.
pub const TIMEOUT_ANY_S: u32 = 60;

/// More about a connection.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct CtFlags(pub u8);

bitflags! {
    impl CtFlags: u8 {
        /// The higher end began.
        const ORIGIN_HIGH = 1;
        /// A packet of the reply direction has been seen.
        const SEEN_REPLY = 2;
        /// A call to a service, between the client and the address that it calls: the way of its original direction is to the
        /// backend that was chosen ([`CtWay::backend`]), that of the other names the client's device. No packet of it is on a wire.
        const CALL = 4;
        /// What the lower end sends comes from the service that was called, as far as the higher one is to know.
        const BEHIND_LOW = 8;
        /// What the higher end sends comes from the service that was called, as far as the lower one is to know.
        const BEHIND_HIGH = 16;
    }
}

impl CtEntry {
    /// Which end began: the sender of the packet that made the row was the higher one.
    pub const fn origin_is_high(&self) -> bool {
        self.flags.contains(CtFlags::ORIGIN_HIGH)
    }

    /// Whether a connection last seen then is over at `now` (both low 32 bits of ticks).
    /// A row in no known state is over.
    #[inline(always)]
    pub const fn is_expired(&self, now: u32, ticks_per_s: u32) -> bool {
        CtState::is_over(self.state, self.last_seen, now, ticks_per_s)
    }
}

const _: () = assert!(size_of::<CtKey4>() == 16);
const _: () = assert!(size_of::<CtKey6>() == 40);
const _: () = assert!(size_of::<CtWay>() == 24);
const _: () = assert!(size_of::<CtHalf>() == 56);
const _: () = assert!(size_of::<CtEntry>() == 128);
const _: () = assert!(size_of::<CtEntry6>() == 168);
const _: () = assert!((48 + size_of::<CtKey4>() + size_of::<CtEntry>()).is_multiple_of(64));
const _: () = assert!((48 + size_of::<CtKey6>() + size_of::<CtEntry6>()).is_multiple_of(64));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (there, high_there) = CtKey4::of_packet(a, b, Be16::new(4000), Be16::new(80), 6);
        let (back, high_back) = CtKey4::of_packet(b, a, Be16::new(80), Be16::new(4000), 6);
        assert_eq!(there, back);
        assert!(!high_there);
        assert!(high_back);
    }

    #[test]
    fn one_address_is_ordered_by_port() {
        let a = [0xfd; 16];
        let (there, high) = CtKey6::of_packet(a, a, Be16::new(4000), Be16::new(80), 17);
        let (back, _) = CtKey6::of_packet(a, a, Be16::new(80), Be16::new(4000), 17);
        assert_eq!(there, back);
        assert!(high);
    }

    #[test]
    fn expiry_survives_wrap_and_a_stamp_ahead() {
        let mut e = CtEntry { state: CtState::Any as u8, last_seen: u32::MAX - 10, ..CtEntry::default() };
        assert!(!e.is_expired(5, 100));
        assert!(e.is_expired(6100, 100));
        e.last_seen = 7;
        assert!(!e.is_expired(5, 100));
        e.state = 0;
        assert!(e.is_expired(7, 100));
    }
}
