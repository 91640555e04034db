//! IPv4 and IPv6: one trait, two files, everything else is written once.

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtEntry, CtScope};
use dataplane_abi::nat::NatEntry;
use dataplane_abi::{Addr, Be16, DropReason, Family, Identity};

use crate::closer::Room;
use crate::flight::Flight;

use crate::host::{Host, Maps, Packet, Raw};

pub mod l4;
pub mod v4;
pub mod v6;

pub use v4::V4;
pub use v6::V6;

/// An IP version.
pub trait Ip: Copy + 'static {
    /// An address as it lies in the packet.
    type Addr: Raw + Eq;
    /// Key of a connection.
    type Key: Copy;
    /// Row of a connection, with what a longer address needs.
    type Row;
    /// What stands for a pod where it speaks with itself through a service: its own stack takes no packets that come from its own
    /// address.
    const LOOPBACK: Self::Addr;
    /// The family.
    const FAMILY: Family;
    /// A key that is of no connection.
    const NO_KEY: Self::Key;

    /// Reads the headers. What is common is read in place, the rest by a function of its own.
    fn parse<H: Host>(host: H, flight: &mut Flight<Self>) -> Result<(), DropReason>;
    /// Source and destination address.
    fn addresses<H: Packet>(host: H) -> Option<(Self::Addr, Self::Addr)>;
    /// As tables store it.
    fn to_abi(addr: Self::Addr) -> Addr;
    /// From a table.
    fn from_abi(addr: Addr) -> Self::Addr;
    /// Whether the checksum of ICMP covers the addresses.
    const ICMP_COVERS_ADDRESSES: bool;
    /// Writes source (`SOURCE`) or destination of a packet that is quoted at an offset, with the checksum of its header. Says what that
    /// changes in the sum over all of it. `None`: it is not there.
    fn store_quoted<H: Packet, const SOURCE: bool>(host: H, quote: u32, addr: Self::Addr) -> Option<u32>;
    /// What another address changes in checksums that cover it ([`crate::nat`]).
    fn difference(old: Self::Addr, new: Self::Addr) -> u32;
    /// Writes source (`SOURCE`) or destination, which makes that difference, and sees to the checksums of the header and of devices.
    /// `hop_word` follows the word of the header with the hop limit.
    fn store_end<H: Packet, const SOURCE: bool>(
        host: H,
        addr: Self::Addr,
        difference: u32,
        hop_word: &mut u32,
    ) -> bool;
    /// Whether it is a group's address or a broadcast.
    fn is_group(addr: Self::Addr) -> bool;
    /// What says that pods are masqueraded.
    const MASQUERADE: ConfigFlags;
    /// The node's own address on the underlay.
    fn node(config: &NodeConfig) -> Self::Addr;
    /// The address with which the node speaks to pods.
    fn router(config: &NodeConfig) -> Self::Addr;
    /// Whether it is the node's own address on the underlay.
    fn is_node(config: &NodeConfig, addr: Self::Addr) -> bool;
    /// Identity of what no row covers.
    fn world(config: &NodeConfig) -> Identity;
    /// Key with the ends of a packet, the sender's first.
    fn key(src: Self::Addr, dst: Self::Addr, sport: Be16, dport: Be16, proto: u8) -> Self::Key;
    /// Address of a key's first end.
    fn low(key: &Self::Key) -> Self::Addr;
    /// Address of a key's second end.
    fn high(key: &Self::Key) -> Self::Addr;
    /// Ports of a key's first and second end.
    fn ports(key: &Self::Key) -> (Be16, Be16);
    /// Upper-layer protocol of a key.
    fn proto(key: &Self::Key) -> u8;
    /// Puts a key's ends in order; returns whether the sender, who was first, is the higher one.
    fn order(key: &mut Self::Key) -> bool;
    /// Runs `f` on the row of a connection.
    fn ct<H: Maps, R>(host: H, key: &Self::Key, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R>;
    /// Runs `f` with room for a packet that is looked at closely, which lasts as long as it is.
    fn room<H: Maps, R>(host: H, f: impl FnOnce(&mut Room<Self>) -> R) -> Option<R>;
    /// Runs `f` on the whole row of a connection.
    fn row<H: Maps, R>(host: H, key: &Self::Key, f: impl FnOnce(&mut Self::Row) -> R) -> Option<R>;
    /// What rows of both families have.
    fn entry(row: &mut Self::Row) -> &mut CtEntry;
    /// Address of the service that was called, where the row has one.
    fn frontend(row: &Self::Row) -> Self::Addr;
    /// Sets it.
    fn set_frontend(row: &mut Self::Row, addr: Self::Addr);
    /// Sets the port of a key's first end.
    fn set_low_port(key: &mut Self::Key, port: Be16);
    /// Says what a key is about, in the tables of ports.
    fn set_scope(key: &mut Self::Key, scope: CtScope);
    /// Runs `f` on the row of a port of the node's.
    fn nat<H: Maps, R>(host: H, key: &Self::Key, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R>;
    /// Makes the row of a port. False: somebody has it, or there is no room.
    fn nat_create<H: Maps>(host: H, key: &Self::Key, entry: &NatEntry) -> bool;
    /// Makes the row of a connection.
    fn ct_create<H: Maps>(host: H, key: &Self::Key, f: impl FnOnce(&mut CtEntry)) -> bool;
}
