//! `IPCACHE`: address prefix → identity and the node behind which it is. Written by the agent; longest prefix wins.

use bitflags::bitflags;
use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::{F_NO_PREALLOC, table};
use crate::{Addr, Family, Identity};

table! {
    /// The table.
    IpCache = "IPCACHE": LpmTrie<IpCacheKey, IpCacheEntry>[512_000], flags F_NO_PREALLOC, writer Agent
}

/// Bits of the key before the address; they are always compared.
pub const STATIC_BITS: u32 = 32;

/// A prefix.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IpCacheKey {
    /// Bits that count, from `pad` on: [`STATIC_BITS`] + length of the prefix.
    pub prefixlen: u32,
    /// Zero (room for a cluster's number).
    pub pad: [u8; 3],
    /// [`Family`] as number.
    pub family: u8,
    /// Address; IPv4 in the first four bytes. Bits behind the prefix are zero in a row.
    pub addr: Addr,
}

impl IpCacheKey {
    /// Key to look up or store a single address.
    #[inline(always)]
    pub const fn host(addr: Addr, family: Family) -> Self {
        Self { prefixlen: STATIC_BITS + family.bits() as u32, pad: [0; 3], family: family as u8, addr }
    }

    /// Key of a prefix; a length beyond the family's is cut to it. Bits behind the prefix are cleared.
    pub fn prefix(ip: IpAddr, len: u8) -> Self {
        let (mut addr, family) = Addr::from_ip(ip);
        let len = if len > family.bits() { family.bits() } else { len };
        let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        addr.0 = (u128::from_be_bytes(addr.0) & keep).to_be_bytes();
        Self { prefixlen: STATIC_BITS + u32::from(len), pad: [0; 3], family: family as u8, addr }
    }

    /// Address and length, if the row is well formed.
    pub fn to_prefix(&self) -> Option<(IpAddr, u8)> {
        let family = Family::from_number(self.family)?;
        let len = u8::try_from(self.prefixlen.checked_sub(STATIC_BITS)?).ok()?;
        (len <= family.bits()).then(|| (self.addr.to_ip(family), len))
    }
}

/// What is known of a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IpCacheEntry {
    /// Identity of its addresses.
    pub identity: Identity,
    /// Node behind which they are: tunnel endpoint in VXLAN mode, next hop in native mode.
    pub node: Addr,
    /// [`Family`] of `node` as number; zero: not behind another node, leave it to the stack's routes.
    pub node_family: u8,
    /// More about it.
    pub flags: IpCacheFlags,
    /// Zero.
    pub pad: [u8; 2],
}

impl IpCacheEntry {
    /// A row for addresses that are not behind another node.
    pub const fn new(identity: Identity) -> Self {
        Self { identity, node: Addr::ZERO, node_family: 0, flags: IpCacheFlags(0), pad: [0; 2] }
    }

    /// A row for addresses behind another node.
    pub const fn behind(identity: Identity, node: IpAddr) -> Self {
        let (node, family) = Addr::from_ip(node);
        Self { identity, node, node_family: family as u8, flags: IpCacheFlags(0), pad: [0; 2] }
    }

    /// The node behind which the addresses are.
    pub fn node_ip(&self) -> Option<IpAddr> {
        Family::from_number(self.node_family).map(|f| self.node.to_ip(f))
    }
}

/// More about a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct IpCacheFlags(pub u8);

bitflags! {
    impl IpCacheFlags: u8 {
        /// Never encapsulate towards it, even in VXLAN mode: the stack's routes lead there.
        const SKIP_TUNNEL = 1;
    }
}

const _: () = assert!(size_of::<IpCacheKey>() == 24);
const _: () = assert!(size_of::<IpCacheEntry>() == 24);
