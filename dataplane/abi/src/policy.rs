//! `POLICY`, `POLICY_BLOCKS`, `POLICY_L4`: who may speak with the endpoints of a policy. Written by the agent.
//! `STAGED`: how often policies that are not in force would have decided otherwise. Counted by the programs.
//!
//! Rows hold decisions, not rules: tiers, priorities and deny over allow are settled before they are written, and the
//! programs know no precedence. The row of an identity is the whole decision for that identity in that direction,
//! rules for everybody included, so one row says it.
//!
//! Look-up of (policy, direction, peer, protocol, port): the row of the peer's identity, else the row of
//! [`PolicyKey::EVERYBODY`], else nothing is allowed. Where the row names a set of [`PolicyL4`], the longest prefix of
//! the set that covers protocol and port decides, and nothing is allowed that none covers.
//!
//! Pods with one identity have different addresses, and rules may name blocks of these. Where that makes a difference the
//! row names blocks beside the set: of a pod the longest prefix of [`PolicyBlocks`] that covers its address decides, as a
//! row of its own, and nothing is allowed where none covers it; of everybody else the set decides.
//!
//! Sets and blocks are written whole before a row names them and do not change afterwards; so each written row of `POLICY`
//! moves one identity in one direction from one decision to another at once.

use bitflags::bitflags;
use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::{F_NO_PREALLOC, table};
use crate::{Addr, Be16, DropReason, Family, Identity};

table! {
    /// Decisions by policy, direction and identity of the peer.
    Policy = "POLICY": Hash<PolicyKey, PolicyEntry>[1_048_576], flags F_NO_PREALLOC, writer Agent
}
table! {
    /// Decisions by address of a pod, for rows of [`Policy`] that need them.
    PolicyBlocks = "POLICY_BLOCKS": LpmTrie<BlockKey, PolicyEntry>[512_000], flags F_NO_PREALLOC, writer Agent
}
table! {
    /// Decisions by protocol and port, for rows of [`Policy`] that need them.
    PolicyL4 = "POLICY_L4": LpmTrie<L4Key, PolicyVerdict>[1_048_576], flags F_NO_PREALLOC, writer Agent
}

table! {
    /// Decisions that staged policies would have made otherwise, counted by each CPU for itself. A row comes with its first count; the agent removes those
    /// whose cookie stands for nothing any more. What finds no room is not counted.
    StagedCounts = "STAGED": PerCpuHash<StagedKey, StagedCount>[16_384], flags F_NO_PREALLOC, writer Programs
}

/// Which decisions of staged policies.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StagedKey {
    /// [`PolicyVerdict::staged_cookie`], not zero.
    pub cookie: u32,
    /// [`Staged`] as number, not [`Staged::Nothing`].
    pub staged: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl StagedKey {
    /// The key of the decisions of a cookie.
    #[inline(always)]
    pub const fn new(cookie: u32, staged: u8) -> Self {
        Self { cookie, staged, pad: [0; 3] }
    }
}

/// How many.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StagedCount {
    /// Would be denied: new connections that were let through, each once for each direction in which a policy was asked.
    /// Would be allowed: packets that were dropped.
    pub count: u64,
}

/// Which of an endpoint's connections: those that it takes or those that it opens. Packets of a connection go both ways
/// and belong to the direction in which it was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Connections to the endpoint.
    Ingress = 0,
    /// Connections from the endpoint.
    Egress = 1,
}

impl Direction {
    /// The direction with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Whom a row is about.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyKey {
    /// Number of the policy, as [`crate::endpoints::EndpointEntry::policy`] has it; not zero.
    pub policy: u32,
    /// Identity of the peer, or [`PolicyKey::EVERYBODY`].
    pub identity: Identity,
    /// [`Direction`] as number.
    pub direction: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl PolicyKey {
    /// Stands for every identity that has no row of its own.
    pub const EVERYBODY: Identity = Identity::UNKNOWN;

    /// Key of a row.
    #[inline(always)]
    pub const fn new(policy: u32, direction: Direction, identity: Identity) -> Self {
        Self { policy, identity, direction: direction as u8, pad: [0; 3] }
    }
}

/// What holds for an identity, or for pods in a block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicyEntry {
    /// Set in [`PolicyL4`] that decides; zero: `verdict` holds for every protocol and port.
    pub l4: u32,
    /// The decision, if there is no set. With a set all of it is zero but `cookie`: see [`PolicyEntry::blocks`].
    pub verdict: PolicyVerdict,
}

impl PolicyEntry {
    /// One decision for every protocol and port.
    pub const fn all(verdict: PolicyVerdict) -> Self {
        Self { l4: 0, verdict }
    }

    /// A set decides. `set` is not zero.
    pub const fn by_l4(set: u32) -> Self {
        Self { l4: set, verdict: PolicyVerdict::NONE }
    }

    /// A set decides, and of pods the block of [`PolicyBlocks`] in which they are. Neither number is zero.
    pub const fn by_blocks(set: u32, blocks: u32) -> Self {
        Self { l4: set, verdict: PolicyVerdict { cookie: blocks, ..PolicyVerdict::NONE } }
    }

    /// Number of the blocks that decide about pods; zero: there are none. It has the place of a verdict's cookie, which a
    /// row with a set has no use for.
    #[inline(always)]
    pub const fn blocks(&self) -> u32 {
        if self.l4 == 0 { 0 } else { self.verdict.cookie }
    }
}

/// A block of addresses.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct BlockKey {
    /// Bits that count, from `blocks` on: [`BlockKey::STATIC_BITS`] + length of the prefix.
    pub prefixlen: u32,
    /// Number of the blocks, as [`PolicyEntry::blocks`] has it.
    pub blocks: u32,
    /// Zero.
    pub pad: [u8; 3],
    /// [`Family`] as number.
    pub family: u8,
    /// Address; IPv4 in the first four bytes. Bits behind the prefix are zero in a row.
    pub addr: Addr,
}

impl BlockKey {
    /// Bits of the key before the address; they are always compared.
    pub const STATIC_BITS: u32 = 64;

    /// Key to look up an address.
    #[inline(always)]
    pub const fn host(blocks: u32, addr: Addr, family: Family) -> Self {
        Self {
            prefixlen: Self::STATIC_BITS + family.bits() as u32,
            blocks,
            pad: [0; 3],
            family: family as u8,
            addr,
        }
    }

    /// Key of a prefix; a length beyond the family's is cut to it. Bits behind the prefix are cleared.
    pub fn prefix(blocks: u32, ip: IpAddr, len: u8) -> Self {
        let (mut addr, family) = Addr::from_ip(ip);
        let len = if len > family.bits() { family.bits() } else { len };
        let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        addr.0 = (u128::from_be_bytes(addr.0) & keep).to_be_bytes();
        Self { prefixlen: Self::STATIC_BITS + u32::from(len), ..Self::host(blocks, addr, family) }
    }

    /// Address and length, if the row is well formed.
    pub fn to_prefix(&self) -> Option<(IpAddr, u8)> {
        let family = Family::from_number(self.family)?;
        let len = u8::try_from(self.prefixlen.checked_sub(Self::STATIC_BITS)?).ok()?;
        (len <= family.bits()).then(|| (self.addr.to_ip(family), len))
    }
}

/// A prefix of protocol and port in a set.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct L4Key {
    /// Bits that count, from `set` on: [`L4Key::ANY_BITS`] for every protocol, [`L4Key::PROTO_BITS`] for every port
    /// of a protocol, up to [`L4Key::FULL_BITS`] for one port.
    pub prefixlen: u32,
    /// Number of the set.
    pub set: u32,
    /// IP protocol (upper layer, behind extension headers).
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Port of the end that was called; for ICMP and `ICMPv6` the type of the message; zero for protocols without.
    /// Bits behind the prefix are zero in a row.
    pub port: Be16,
}

impl L4Key {
    /// Bits of a key that tells only the set.
    pub const ANY_BITS: u32 = 32;
    /// Bits of a key that tells set and protocol.
    pub const PROTO_BITS: u32 = 48;
    /// Bits of a key that tells all.
    pub const FULL_BITS: u32 = 64;

    /// Every protocol and port.
    pub const fn any(set: u32) -> Self {
        Self { prefixlen: Self::ANY_BITS, set, proto: 0, pad: 0, port: Be16::ZERO }
    }

    /// Every port of a protocol.
    pub const fn proto(set: u32, proto: u8) -> Self {
        Self { prefixlen: Self::PROTO_BITS, set, proto, pad: 0, port: Be16::ZERO }
    }

    /// The ports whose first `bits` bits are those of `port`; more than 16 are taken for 16. The others are cleared.
    pub const fn ports(set: u32, proto: u8, port: u16, bits: u8) -> Self {
        let bits = if bits > 16 { 16 } else { bits };
        // In 32 bits, of which the lower half counts: all sixteen may be shifted out.
        let [_, _, high, low] = (0xFFFF_u32 << (16 - bits)).to_be_bytes();
        let keep = u16::from_be_bytes([high, low]);
        Self {
            prefixlen: Self::PROTO_BITS + bits as u32,
            set,
            proto,
            pad: 0,
            port: Be16::from_bytes((port & keep).to_be_bytes()),
        }
    }

    /// Key to look up, or to store one port.
    #[inline(always)]
    pub const fn exact(set: u32, proto: u8, port: Be16) -> Self {
        Self { prefixlen: Self::FULL_BITS, set, proto, pad: 0, port }
    }
}

/// A decision. All zero: nothing allows it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicyVerdict {
    /// What was decided.
    pub flags: PolicyFlags,
    /// [`Staged`] as number.
    pub staged: u8,
    /// With [`PolicyFlags::REDIRECT`]: port of the proxy on this node; zero: it has none, and nothing passes.
    pub proxy_port: Be16,
    /// Stands for the rules that decided; zero: none did.
    pub cookie: u32,
    /// Stands for the rules that would decide if the staged policies were in force; zero: none would.
    pub staged_cookie: u32,
}

impl PolicyVerdict {
    /// Nothing allows it.
    pub const NONE: Self =
        Self { flags: PolicyFlags(0), staged: 0, proxy_port: Be16::ZERO, cookie: 0, staged_cookie: 0 };

    /// A rule allows it.
    pub const fn allow(cookie: u32) -> Self {
        Self { flags: PolicyFlags::ALLOW, cookie, ..Self::NONE }
    }

    /// A rule denies it.
    pub const fn deny(cookie: u32) -> Self {
        Self { flags: PolicyFlags::DENY, cookie, ..Self::NONE }
    }

    /// A rule sends it through the proxy at that port.
    pub const fn redirect(proxy_port: u16, cookie: u32) -> Self {
        let proxy_port = Be16::from_bytes(proxy_port.to_be_bytes());
        Self { flags: PolicyFlags::REDIRECT, proxy_port, cookie, ..Self::NONE }
    }

    /// Why it may not pass; `None`: it may. What is not plainly allowed may not.
    #[inline(always)]
    pub const fn denies(&self) -> Option<DropReason> {
        if self.flags.0 & PolicyFlags::DENY.0 != 0 {
            Some(DropReason::PolicyDenyRule)
        } else if self.flags.0 == PolicyFlags::ALLOW.0 {
            None
        } else {
            Some(DropReason::PolicyDenied)
        }
    }
}

/// What was decided. None of them: no rule matched where one has to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PolicyFlags(pub u8);

bitflags! {
    impl PolicyFlags: u8 {
        /// A rule allows it.
        const ALLOW = 1;
        /// A rule denies it, whatever else is set.
        const DENY = 2;
        /// A rule sends it through a proxy. Nothing passes before there is one.
        const REDIRECT = 4;
    }
}

/// What staged policies would change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Staged {
    /// Nothing.
    Nothing = 0,
    /// They would allow it.
    WouldAllow = 1,
    /// They would deny it.
    WouldDeny = 2,
}

impl Staged {
    /// The one with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Nothing,
            1 => Self::WouldAllow,
            2 => Self::WouldDeny,
            _ => return None,
        })
    }
}

/// Which kind of row decided (numbers as Cilium's monitor has them).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PolicyMatch {
    /// None did.
    None = 0,
    /// The identity's, for every protocol and port.
    L3Only = 1,
    /// The identity's, by protocol and port.
    L3L4 = 2,
    /// Everybody's, by protocol and port.
    L4Only = 3,
    /// Everybody's, for every protocol and port.
    All = 4,
}

impl PolicyMatch {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::L3Only,
            2 => Self::L3L4,
            3 => Self::L4Only,
            4 => Self::All,
            _ => return None,
        })
    }

    /// As monitors print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L3Only => "L3-Only",
            Self::L3L4 => "L3-L4",
            Self::L4Only => "L4-Only",
            Self::All => "all",
        }
    }
}

const _: () = assert!(size_of::<PolicyKey>() == 12);
const _: () = assert!(size_of::<PolicyEntry>() == 16);
const _: () = assert!(size_of::<L4Key>() == 12);
const _: () = assert!(size_of::<BlockKey>() == 28);
const _: () = assert!(size_of::<PolicyVerdict>() == 12);
const _: () = assert!(size_of::<StagedKey>() == 8);
const _: () = assert!(core::mem::offset_of!(PolicyEntry, verdict) == 4);
const _: () = assert!(core::mem::offset_of!(L4Key, set) == 4);
const _: () = assert!(core::mem::offset_of!(L4Key, proto) == 8);
const _: () = assert!(core::mem::offset_of!(L4Key, port) == 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_ports_keeps_its_first_bits() {
        for (port, bits, kept, prefixlen) in [
            (8080, 16, 8080, 64),
            (8081, 15, 8080, 63),
            (0xFFFF, 1, 0x8000, 49),
            (0xFFFF, 0, 0, 48),
            (0xFFFF, 99, 0xFFFF, 64),
        ] {
            let key = L4Key::ports(7, 6, port, bits);
            assert_eq!((key.port.get(), key.prefixlen), (kept, prefixlen), "{port}/{bits}");
        }
        assert_eq!(L4Key::ports(7, 6, 80, 0), L4Key::proto(7, 6));
        assert_eq!(L4Key::ports(7, 6, 80, 16), L4Key::exact(7, 6, Be16::new(80)));
    }

    #[test]
    fn only_what_is_plainly_allowed_passes() {
        for flags in 0..=u8::MAX {
            let verdict = PolicyVerdict { flags: PolicyFlags(flags), ..PolicyVerdict::NONE };
            let denied = match flags {
                1 => None,
                _ if flags & 2 != 0 => Some(DropReason::PolicyDenyRule),
                _ => Some(DropReason::PolicyDenied),
            };
            assert_eq!(verdict.denies(), denied, "{flags}");
        }
        assert_eq!(PolicyVerdict::redirect(10_000, 1).denies(), Some(DropReason::PolicyDenied));
    }
}
