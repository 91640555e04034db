//! IPv4 and IPv6: one trait, two files, everything else is written once.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::CtEntry;
use dataplane_abi::{Addr, Be16, DropReason, Family, Identity};

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
    /// Whether it is a group's address or a broadcast.
    fn is_group(addr: Self::Addr) -> bool;
    /// Whether it is the node's own address on the underlay.
    fn is_node(config: &NodeConfig, addr: Self::Addr) -> bool;
    /// Identity of what no row covers.
    fn world(config: &NodeConfig) -> Identity;
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
    /// Makes the row of a connection.
    fn ct_create<H: Maps>(host: H, key: &Self::Key, f: impl FnOnce(&mut CtEntry)) -> bool;
}
