//! `AFFINITY`: client and service → the backend that the client stays with. Written by the programs; LRU, so a full table
//! forgets the client that was silent longest, which then may get another backend.
//!
//! Two kinds of clients stay: with session affinity everybody behind one address, and without it a socket that sends datagrams
//! to a service, for what it sends is one conversation although no connection says so.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;
use crate::table::table;

table! {
    /// The table.
    Affinity = "AFFINITY": LruHash<AffinityKey, AffinityEntry>[65_536], flags 0, writer Programs
}

/// Seconds after its last datagram for which a socket stays with its backend, as long as conntrack keeps what is not TCP.
pub const DATAGRAM_TIMEOUT_S: u32 = crate::conntrack::TIMEOUT_ANY_S;

/// Who stays with a backend of what.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AffinityKey {
    /// By `kind` the cookie of the network namespace, that of the socket, or what [`AffinityKey::of_address`] makes of the address.
    pub client: u64,
    /// [`crate::services::ServiceEntry::service`].
    pub service: u32,
    /// [`ClientKind`] as number.
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl AffinityKey {
    /// Key of a client and a service.
    #[inline(always)]
    pub const fn new(kind: ClientKind, client: u64, service: u32) -> Self {
        Self { client, service, kind: kind as u8, pad: [0; 3] }
    }

    /// Key of everybody at an address and a service. IPv6 addresses that come to one number share a session, which costs them
    /// nothing but that they have one backend.
    #[inline(always)]
    pub const fn of_address(addr: Addr, service: u32) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr.0;
        let (high, low) =
            (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
        Self::new(ClientKind::Address, high.rotate_left(17) ^ low, service)
    }
}

/// Kinds of clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ClientKind {
    /// All sockets of a network namespace: they have one address. Session affinity.
    Netns = 0,
    /// One socket. Datagrams.
    Socket = 1,
    /// Everybody at an address, where calls are translated packet by packet. Session affinity.
    Address = 2,
}

/// With whom the client stays.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityEntry {
    /// Nanoseconds (`CLOCK_MONOTONIC`) of the last connection or datagram.
    pub last_used_ns: u64,
    /// The backend.
    pub backend: u32,
    /// Zero.
    pub pad: [u8; 4],
}

impl AffinityEntry {
    /// Whether the client has been silent for longer than that.
    #[inline(always)]
    pub const fn is_over(&self, now_ns: u64, timeout_s: u32) -> bool {
        // A stamp that is a little ahead (another CPU wrote it after `now_ns` was read) is not old.
        now_ns.saturating_sub(self.last_used_ns) > (timeout_s as u64).saturating_mul(1_000_000_000)
    }
}

const _: () = assert!(size_of::<AffinityKey>() == 16);
const _: () = assert!(size_of::<AffinityEntry>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_lasts_for_its_time_and_bears_a_stamp_ahead() {
        let entry = AffinityEntry { last_used_ns: 5_000_000_000, ..AffinityEntry::default() };
        assert!(!entry.is_over(8_000_000_000, 3));
        assert!(entry.is_over(8_000_000_001, 3));
        assert!(!entry.is_over(4_000_000_000, 0));
    }
}
