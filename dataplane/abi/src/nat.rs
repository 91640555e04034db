//! `NAT4`, `NAT6`: who on this node has a port for a destination outside the cluster, while pods are masqueraded.
//!
//! A pod's connection to the world has two rows that belong together. That of conntrack lies between pod and destination, as every
//! other, and names the port by which it leaves ([`crate::conntrack::CtHalf::leaves_by`]). The row here lies between the node and the
//! destination, as the wire has it and with the node first, and names the pod. Packets are translated only while each names the other: a row that is left
//! alone, because the other was evicted, expired or belongs to a pod that has the address now, translates nothing.
//!
//! The node's own connections have a row here too, so that no pod gets their port. Where a pod was first, the node's connection is
//! moved to another port, and a second row, of scope [`crate::conntrack::CtScope::Moved`], says which.
//!
//! Written by the programs, expired by the agent as connections are; LRU.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::conntrack::{CtKey4, CtKey6, CtState};
use crate::table::table;
use crate::{Addr, Be16};

table! {
    /// Ports of the node's IPv4 address.
    Nat4 = "NAT4": LruHash<CtKey4, NatEntry>[131_072], flags 0, writer Programs
}
table! {
    /// Ports of the node's IPv6 address.
    Nat6 = "NAT6": LruHash<CtKey6, NatEntry>[131_072], flags 0, writer Programs
}

/// Who has a port. ICMP echo: the identifier stands for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatEntry {
    /// Low 32 bits of the tick of the last packet.
    pub last_seen: u32,
    /// Low 32 bits of the tick at which the port was given out.
    pub created: u32,
    /// [`CtState`] as number.
    pub state: u8,
    /// More about it.
    pub flags: NatFlags,
    /// Port of whoever has it, as its own stack knows it. Scope `Moved`: port on the wire.
    pub port: Be16,
    /// TCP flags seen of packets that left.
    pub flags_out: u8,
    /// TCP flags seen of packets that came.
    pub flags_in: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Address of whoever has it.
    pub addr: Addr,
}

/// More about a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct NatFlags(pub u8);

bitflags! {
    impl NatFlags: u8 {
        /// The node itself has the port.
        const OF_NODE = 1;
    }
}

impl NatEntry {
    /// Whether a port last used then is free again at `now` (both low 32 bits of ticks): when its connection is over.
    #[inline(always)]
    pub const fn is_expired(&self, now: u32, ticks_per_s: u32) -> bool {
        CtState::is_over(self.state, self.last_seen, now, ticks_per_s)
    }
}

const _: () = assert!(size_of::<NatEntry>() == 32);
