//! `FRAGS4`, `FRAGS6`: datagram → ports, so that fragments behind the first one find their connection.
//! Written by the programs when they meet a first fragment; LRU, so a full table forgets the oldest datagram.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Be16;
use crate::table::table;

table! {
    /// IPv4 fragments.
    Frags4 = "FRAGS4": LruHash<FragKey4, FragEntry>[8192], flags 0, writer Programs
}
table! {
    /// IPv6 fragments.
    Frags6 = "FRAGS6": LruHash<FragKey6, FragEntry>[8192], flags 0, writer Programs
}

/// An IPv4 datagram (RFC 791: source, destination, protocol, identification).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct FragKey4 {
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// Identification field.
    pub id: Be16,
    /// Protocol field.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

/// An IPv6 datagram (RFC 8200: source, destination, identification).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct FragKey6 {
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Identification field, network order.
    pub id: [u8; 4],
}

/// What the first fragment said.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FragEntry {
    /// Source port, or what stands for it (ICMP echo identifier).
    pub sport: Be16,
    /// Destination port, or what stands for it.
    pub dport: Be16,
    /// Upper-layer protocol.
    pub proto: u8,
    /// ICMP and `ICMPv6`: type of the message; otherwise zero.
    pub icmp_type: u8,
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<FragKey4>() == 12);
const _: () = assert!(size_of::<FragKey6>() == 36);
const _: () = assert!(size_of::<FragEntry>() == 8);
