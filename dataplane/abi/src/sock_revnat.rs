//! `SOCK_REVNAT`: socket and backend → the frontend that its process called, so that it sees who it called.
//! Written by the programs; LRU, so a full table forgets what was not used longest: then a process sees the backend.
//!
//! Cookies of sockets are never used twice as long as the node is up, so a row that is left over is nobody's.

use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::table;
use crate::{Addr, Be16, Family};

table! {
    /// The table.
    SockRevNat = "SOCK_REVNAT": LruHash<SockRevNatKey, SockRevNatEntry>[65_536], flags 0, writer Programs
}

/// A socket, and whom it really speaks with.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockRevNatKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Address of the backend; IPv4 in the first four bytes.
    pub addr: Addr,
    /// Port of the backend.
    pub port: Be16,
    /// [`Family`] as number.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 4],
}

impl SockRevNatKey {
    /// Key of a socket and a backend.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr, family: Family, port: Be16, proto: u8) -> Self {
        Self { cookie, addr, port, family: family as u8, proto, pad: [0; 4] }
    }

    /// The address, if the family is a known one.
    pub fn ip(&self) -> Option<IpAddr> {
        Family::from_number(self.family).map(|family| self.addr.to_ip(family))
    }
}

/// Whom its process called. The family is the backend's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockRevNatEntry {
    /// Address of the frontend; IPv4 in the first four bytes.
    pub addr: Addr,
    /// Port of the frontend.
    pub port: Be16,
    /// Zero.
    pub pad: [u8; 2],
    /// [`crate::services::ServiceEntry::service`] of the frontend then.
    pub service: u32,
}

const _: () = assert!(size_of::<SockRevNatKey>() == 32);
const _: () = assert!(size_of::<SockRevNatEntry>() == 24);
