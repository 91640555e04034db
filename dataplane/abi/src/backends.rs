//! `BACKENDS`: number → where connections of a service go. Written by the agent.
//!
//! A backend belongs to one service's port, so an endpoint of two services is two backends: whether it may be used is said
//! for each of them, and one row answers it.

use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::{F_NO_PREALLOC, table};
use crate::{Addr, Be16, Family};

table! {
    /// The table, by number, which is not zero.
    Backends = "BACKENDS": Hash<u32, BackendEntry>[65_536], flags F_NO_PREALLOC, writer Agent
}

/// A backend.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct BackendEntry {
    /// Address; IPv4 in the first four bytes.
    pub addr: Addr,
    /// The service's port that it belongs to: [`crate::services::ServiceEntry::service`].
    pub service: u32,
    /// Port.
    pub port: Be16,
    /// [`Family`] as number.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// [`BackendState`] as number.
    pub state: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl BackendEntry {
    /// The address, if the family is a known one.
    pub fn ip(&self) -> Option<IpAddr> {
        Family::from_number(self.family).map(|family| self.addr.to_ip(family))
    }
}

/// What a backend may be used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BackendState {
    /// Takes new connections: it is in the slots of its frontends.
    Active = 0,
    /// Keeps what it has and takes nothing new.
    Terminating = 1,
}

impl BackendState {
    /// The state with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Active),
            1 => Some(Self::Terminating),
            _ => None,
        }
    }

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Terminating => "terminating",
        }
    }
}

const _: () = assert!(size_of::<BackendEntry>() == 28);
