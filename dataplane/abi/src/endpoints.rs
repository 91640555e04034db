//! `ENDPOINTS`: address → local endpoint.
//!
//! Holds the pods of this node and the node's own addresses (flags [`EndpointFlags::HOST`], [`EndpointFlags::ROUTER`]).
//! Written by the agent. A pod with both families has two rows.

use bitflags::bitflags;
use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::{F_NO_PREALLOC, table};
use crate::{Addr, Family, Identity, Mac};

table! {
    /// The table.
    Endpoints = "ENDPOINTS": Hash<EndpointKey, EndpointEntry>[65535], flags F_NO_PREALLOC, writer Agent
}

/// Address of an endpoint.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EndpointKey {
    /// Address; IPv4 in the first four bytes.
    pub addr: Addr,
    /// [`Family`] as number.
    pub family: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl EndpointKey {
    /// Key of an address.
    #[inline(always)]
    pub const fn new(addr: Addr, family: Family) -> Self {
        Self { addr, family: family as u8, pad: [0; 3] }
    }

    /// Key of a standard address.
    pub const fn from_ip(ip: IpAddr) -> Self {
        let (addr, family) = Addr::from_ip(ip);
        Self::new(addr, family)
    }

    /// The address, if the family is a known one.
    pub fn ip(&self) -> Option<IpAddr> {
        Family::from_number(self.family).map(|f| self.addr.to_ip(f))
    }
}

/// What the programs know of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndpointEntry {
    /// Host side device (`lxc…`); zero for the node's own addresses.
    pub ifindex: u32,
    /// Endpoint id, as events and the API show it; zero for the node's own addresses.
    pub id: u16,
    /// What kind of endpoint.
    pub flags: EndpointFlags,
    /// Its identity ([`Identity::HOST`] for the node's own addresses).
    pub identity: Identity,
    /// Its policy in [`crate::policy::Policy`], in force in the directions that `flags` name; zero: none, everything is allowed.
    pub policy: u32,
    /// MAC of the pod's device.
    pub mac: Mac,
    /// MAC of the host side device, the pod's gateway.
    pub node_mac: Mac,
    /// Zero.
    pub pad: [u8; 4],
}

/// Kind of endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct EndpointFlags(pub u16);

bitflags! {
    impl EndpointFlags: u16 {
        /// One of the node's own addresses: delivered to the node's stack.
        const HOST = 1;
        /// The router address of the node (set together with `HOST`).
        const ROUTER = 2;
        /// Its policy decides about connections to it. Without this all are allowed.
        const ENFORCE_INGRESS = 4;
        /// Its policy decides about connections from it. Without this all are allowed.
        const ENFORCE_EGRESS = 8;
        /// What its policy would drop passes, and is told of as such.
        const AUDIT = 16;
        /// As [`EndpointFlags::AUDIT`], for connections that it opens.
        const AUDIT_EGRESS = 32;
    }
}

const _: () = assert!(size_of::<EndpointKey>() == 20);
const _: () = assert!(size_of::<EndpointEntry>() == 32);
