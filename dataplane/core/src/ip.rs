//! IPv4 and IPv6: one trait, two files, everything else is written once.

use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::CtEntry;
use dataplane_abi::{Addr, Be16, DropReason, Family, Identity};

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
    /// All-zero address.
    const UNSPECIFIED: Self::Addr;
    /// A key that is of no connection.
    const NO_KEY: Self::Key;

    /// Reads the headers. What is common is read in place, the rest by a function of its own.
    fn parse<H: Host>(host: H, headers: &mut Headers<Self>) -> Result<(), DropReason>;
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
    /// Key of the packet's connection, and whether its sender is the higher end.
    fn key(headers: &Headers<Self>) -> (Self::Key, bool);
    /// Runs `f` on the row of a connection.
    fn ct<H: Maps, R>(host: H, key: &Self::Key, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R>;
    /// Makes the row of a connection.
    fn ct_create<H: Maps>(host: H, key: &Self::Key, f: impl FnOnce(&mut CtEntry)) -> bool;
}

/// What the headers of a packet say, as far as conntrack and forwarding ask.
pub struct Headers<F: Ip> {
    /// Sender. For ICMP errors: the receiver of the packet that the error is about.
    pub src: F::Addr,
    /// Receiver. For ICMP errors it is the sender of the packet that the error is about.
    pub dst: F::Addr,
    /// Source port, or what stands for it.
    pub sport: Be16,
    /// Destination port, or what stands for it.
    pub dport: Be16,
    /// The four bytes that hold the hop limit, as they lie in the packet.
    pub hop_word: u32,
    /// Upper-layer protocol. For ICMP errors: of the packet that the error is about.
    pub proto: u8,
    /// What kind of packet it is.
    pub kind: Kind,
    /// TCP flags; for [`Kind::Control`] the ICMP type.
    pub tcp_flags: u8,
    /// Hop limit.
    pub hops: u8,
}

impl<F: Ip> Headers<F> {
    /// Of which nothing is known.
    #[inline(always)]
    pub const fn empty() -> Self {
        Self {
            src: F::UNSPECIFIED,
            dst: F::UNSPECIFIED,
            sport: Be16::ZERO,
            dport: Be16::ZERO,
            hop_word: 0,
            proto: 0,
            kind: Kind::Datagram,
            tcp_flags: 0,
            hops: 0,
        }
    }
}

/// Kinds of packet, as conntrack tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// UDP, SCTP and ICMP echo: a connection lasts while there are packets.
    Datagram = 0,
    /// TCP with its flags.
    Tcp = 1,
    /// An ICMP error; addresses and ports are those of the packet it is about, the other way round.
    Error = 2,
    /// A fragment behind the first.
    Fragment = 3,
    /// ICMPv6 that is about the link (neighbour discovery, group membership); its type is in the TCP flags.
    Control = 4,
}
