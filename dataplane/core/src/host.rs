//! What the programs need from the world. There are two implementations: the kernel's and the one in memory.
//!
//! Hosts are handles: `Copy`, passed by value, with all state behind them.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtEntry, CtEntry6, CtKey4, CtKey6};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::events::EventHeader;
use dataplane_abi::frags::{FragEntry, FragKey4, FragKey6};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::nat::NatEntry;
use dataplane_abi::policy::{BlockKey, L4Key, PolicyEntry, PolicyKey, PolicyVerdict, StagedKey};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::calls::Calling;
use crate::closer::Room;
use crate::ends::Meeting;
use crate::ip::{V4, V6};
use crate::socket::{Random, ServiceMaps};

/// A value that is just bytes. Multi-byte numbers are as they lie in the packet: network order unless converted.
pub trait Raw: Copy + FromBytes + IntoBytes + Immutable {}

impl<T: Copy + FromBytes + IntoBytes + Immutable> Raw for T {}

/// The packet, from its link layer header on.
#[expect(clippy::len_without_is_empty, reason = "there are no empty packets")]
pub trait Packet: Copy {
    /// Length in bytes, whether the bytes are at hand or not.
    fn len(self) -> u32;
    /// Device on which the packet is.
    fn ifindex(self) -> u32;
    /// The packet's mark.
    fn mark(self) -> u32;
    /// Whether a VLAN tag was taken off the packet.
    fn is_tagged(self) -> bool;
    /// Bytes of payload per packet on the wire if the packet will be cut later (GSO), else zero.
    fn segment_len(self) -> u32;
    /// Hash of the flow, as far as the host knows one.
    fn hash(self) -> u32;
    /// Reads at a constant offset. `None`: the bytes are not there or not at hand (then [`Packet::pull`] helps).
    fn load<T: Raw>(self, offset: usize) -> Option<T>;
    /// Reads anywhere, at a cost. `None`: the packet is shorter.
    fn load_at<T: Raw>(self, offset: u32) -> Option<T>;
    /// Writes at a constant offset what [`Packet::load`] could read. False: the bytes are not at hand.
    #[must_use]
    fn store<T: Raw>(self, offset: usize, value: T) -> bool;
    /// Writes anywhere, at a cost. False: the packet is shorter.
    #[must_use]
    fn store_at<T: Raw>(self, offset: u32, value: T) -> bool;
    /// Corrects the upper layer's checksum at an offset by the difference ([`crate::nat`]) that a change makes which it covers: of
    /// the addresses (`of_addresses`), or of its own header. `may_be_absent`: zero stands for none (UDP). A sum that is yet to be
    /// made is not touched but for the addresses. False: the packet is shorter.
    #[must_use]
    fn correct_sum(self, offset: u32, difference: u32, of_addresses: bool, may_be_absent: bool) -> bool;
    /// Brings the first `len` bytes at hand. False: the packet is shorter.
    #[must_use]
    fn pull(self, len: u32) -> bool;
    /// Tells that the sum of the bytes behind the link layer header has changed by `difference` (one's complement, host order),
    /// which matters where the device has summed the packet.
    fn checksum_changed(self, difference: u32);
    /// Declares that the packet is for this node, whatever its link layer destination says.
    fn accept(self);
    /// Key of the tunnel through which the packet came.
    fn tunnel_key(self) -> Option<u32>;
    /// Sets where the overlay device shall send the packet. `family`: 1 IPv4 (first four bytes), 2 IPv6.
    #[must_use]
    fn set_tunnel(self, node: &[u8; 16], family: u8, key: u32) -> bool;

    /// [`Packet::load`], bringing the bytes at hand if need be.
    #[inline(always)]
    fn load_or_pull<T: Raw>(self, offset: usize) -> Option<T> {
        if let Some(value) = self.load(offset) {
            return Some(value);
        }
        let end = u32::try_from(offset.wrapping_add(size_of::<T>())).ok()?;
        if self.pull(end) { self.load(offset) } else { None }
    }
}

/// The tables that say who is where.
pub trait Places: Copy {
    /// The node's configuration.
    fn config(&self) -> Option<&NodeConfig>;
    /// A local endpoint.
    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry>;
    /// Longest prefix that covers an address.
    fn ipcache(&self, key: &IpCacheKey) -> Option<&IpCacheEntry>;
}

/// The tables that packets need.
pub trait Maps: Places {
    /// What a policy says of an identity.
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry>;
    /// Longest block that covers an address.
    fn policy_block(&self, key: &BlockKey) -> Option<&PolicyEntry>;
    /// Longest prefix of a set that covers protocol and port.
    fn policy_l4(&self, key: &L4Key) -> Option<&PolicyVerdict>;
    /// Adds one to what staged policies would have decided otherwise.
    fn count_staged(self, key: &StagedKey);
    /// Runs `f` on the row of a connection, if there is one.
    fn ct4<R>(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R>;
    /// Makes or replaces the row of a connection: `f` fills a zeroed one. False: there is no room.
    #[must_use]
    fn ct4_create(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry)) -> bool;
    /// As [`Maps::ct4`].
    fn ct6<R>(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry6) -> R) -> Option<R>;
    /// As [`Maps::ct4_create`].
    #[must_use]
    fn ct6_create(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry)) -> bool;
    /// Runs `f` on the row of a port of the node's, if there is one.
    fn nat4<R>(self, key: &CtKey4, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R>;
    /// Makes the row of a port. False: somebody has it, or there is no room.
    #[must_use]
    fn nat4_create(self, key: &CtKey4, entry: &NatEntry) -> bool;
    /// As [`Maps::nat4`].
    fn nat6<R>(self, key: &CtKey6, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R>;
    /// As [`Maps::nat4_create`].
    #[must_use]
    fn nat6_create(self, key: &CtKey6, entry: &NatEntry) -> bool;
    /// Whether pods speak with an address by their own, as a table of prefixes has it.
    fn is_not_masqueraded(self, key: &IpCacheKey) -> bool;
    /// What the first fragment of a datagram said.
    fn frag4(self, key: &FragKey4) -> Option<FragEntry>;
    /// Notes it. A full table forgets another datagram.
    fn set_frag4(self, key: &FragKey4, entry: &FragEntry);
    /// As [`Maps::frag4`].
    fn frag6(self, key: &FragKey6) -> Option<FragEntry>;
    /// As [`Maps::set_frag4`].
    fn set_frag6(self, key: &FragKey6, entry: &FragEntry);
    /// Runs `f` with room for what is found out about a packet; what is in it is left over from other packets.
    fn meeting<R>(self, f: impl FnOnce(&mut Meeting) -> R) -> Option<R>;
    /// Runs `f` with room for an IPv4 packet that is looked at closely, which lasts as long as it is.
    fn room4<R>(self, f: impl FnOnce(&mut Room<V4>) -> R) -> Option<R>;
    /// As [`Maps::room4`].
    fn room6<R>(self, f: impl FnOnce(&mut Room<V6>) -> R) -> Option<R>;
    /// Runs `f` with room for a call that is being translated, which lasts as long as the packet is looked at.
    fn calling<R>(self, f: impl FnOnce(&mut Calling) -> R) -> Option<R>;
    /// Adds one packet to a row of the counters.
    fn count(self, index: u32, bytes: u64);
}

/// Time.
pub trait Clock: Copy {
    /// Ticks; cheap and coarse.
    fn ticks(self) -> u64;
    /// Monotonic nanoseconds; dear.
    fn now_ns(self) -> u64;
}

/// The way to whoever watches.
pub trait Events: Copy {
    /// Sends a record: the header and the first `len_cap` bytes of the packet. If there is no room, that is counted.
    /// `fill` writes all of the header in its place, once there is one, so that it need not lie on the stack first.
    fn emit(self, len_cap: u16, fill: impl FnOnce(&mut EventHeader));
}

/// A host is all of them.
pub trait Host: Packet + Maps + ServiceMaps + Random + Clock + Events {}

impl<T: Packet + Maps + ServiceMaps + Random + Clock + Events> Host for T {}
