//! `SERVICES`: frontend → how many backends it has, and each of them. Written by the agent.
//!
//! A frontend is an address, a port and a protocol under which a service is reached. Its row at slot 0 says how many slots
//! there are; the rows at slots 1 to that number name one backend each, of those that take new connections.
//! The programs look slot 0 up and then one slot, drawn at random.
//!
//! Rows are changed one by one while connections are opened, so the agent writes them in an order in which each look-up finds
//! a backend that is right: backends before slots that name them, slots before the count that covers them; and the
//! other way round when there are fewer. A program that finds no row at its slot takes the first one.

use bitflags::bitflags;
use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::{F_NO_PREALLOC, table};
use crate::{Addr, Be16, Family};

table! {
    /// The table.
    Services = "SERVICES": Hash<ServiceKey, ServiceEntry>[65_536], flags F_NO_PREALLOC, writer Agent
}

/// A frontend, or one of its slots. That of a node port, which is reached at every address of every node, has the address zero.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ServiceKey {
    /// Address; IPv4 in the first four bytes.
    pub addr: Addr,
    /// Port.
    pub port: Be16,
    /// Zero: the frontend itself. 1 to [`ServiceEntry::count`]: one of its backends.
    pub slot: u16,
    /// [`Family`] as number.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// [`ServiceScope`] as number.
    pub scope: u8,
    /// Zero.
    pub pad: u8,
}

impl ServiceKey {
    /// Key of a frontend.
    #[inline(always)]
    pub const fn frontend(addr: Addr, family: Family, port: Be16, proto: u8, scope: ServiceScope) -> Self {
        Self { addr, port, slot: 0, family: family as u8, proto, scope: scope as u8, pad: 0 }
    }

    /// Key of one of its slots.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, slot: u16) -> Self {
        Self { slot, ..self }
    }

    /// The address, if the family is a known one.
    pub fn ip(&self) -> Option<IpAddr> {
        Family::from_number(self.family).map(|family| self.addr.to_ip(family))
    }
}

/// From where a frontend is seen: traffic policies may leave different backends for each. Where they do not, there is the internal
/// one alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ServiceScope {
    /// From outside the cluster.
    External = 0,
    /// From pods and nodes of the cluster.
    Internal = 1,
}

impl ServiceScope {
    /// The scope with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::External),
            1 => Some(Self::Internal),
            _ => None,
        }
    }

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

/// What is known of a frontend, or the backend at one of its slots.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceEntry {
    /// Number of the service's port in the frontend's family, not zero: [`crate::backends`] and [`crate::affinity`] name it so.
    /// All frontends of a port that have the same backends have one number.
    pub service: u32,
    /// Slot 0: zero. Others: the backend in [`crate::backends::Backends`], not zero.
    pub backend: u32,
    /// Slot 0: seconds after its last connection for which a client stays with its backend; zero: it need not. Others: zero.
    pub affinity_timeout_s: u32,
    /// Slot 0: how many backends take new connections; zero: connections are refused. Others: zero.
    pub count: u16,
    /// Slot 0: more about it. Others: none.
    pub flags: ServiceFlags,
}

impl ServiceEntry {
    /// A frontend with that many backends.
    pub const fn frontend(service: u32, count: u16, affinity_timeout_s: u32, flags: ServiceFlags) -> Self {
        Self { service, backend: 0, affinity_timeout_s, count, flags }
    }

    /// A slot.
    pub const fn slot(service: u32, backend: u32) -> Self {
        Self { service, backend, affinity_timeout_s: 0, count: 0, flags: ServiceFlags(0) }
    }
}

/// More about a frontend. Of it the programs read only what matters for calls from outside: whether the frontend is a cluster IP,
/// which nobody reaches from there, and whether other nodes' backends are left out on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ServiceFlags(pub u16);

bitflags! {
    impl ServiceFlags: u16 {
        /// A cluster IP.
        const CLUSTER_IP = 1;
        /// Only backends of this node are in its slots (`internalTrafficPolicy: Local`).
        const INTERNAL_LOCAL = 2;
        /// Only backends that are meant for this node's zone are in its slots.
        const ZONE_HINTS = 4;
        /// No backend is ready: those in its slots are ending.
        const ENDING = 8;
        /// A port of every node.
        const NODE_PORT = 16;
        /// An address that somebody sees to that it leads to nodes (`externalIPs`).
        const EXTERNAL_IP = 32;
        /// An address of a load balancer.
        const LOAD_BALANCER = 64;
        /// Only backends of the node that is called are in its slots (`externalTrafficPolicy: Local`).
        const EXTERNAL_LOCAL = 128;
    }
}

impl ServiceFlags {
    /// How a frontend is called, as lists show it.
    pub const fn kind(self) -> &'static str {
        if self.contains(Self::CLUSTER_IP) {
            "ClusterIP"
        } else if self.contains(Self::NODE_PORT) {
            "NodePort"
        } else if self.contains(Self::LOAD_BALANCER) {
            "LoadBalancer"
        } else if self.contains(Self::EXTERNAL_IP) {
            "ExternalIP"
        } else {
            "unknown"
        }
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 24);
const _: () = assert!(size_of::<ServiceEntry>() == 16);
