//! A packet on its way through a program.

use core::hint::black_box;

use dataplane_abi::config::NodeConfig;
use dataplane_abi::{Be16, Identity};

use crate::conntrack::End;
use crate::ip::Ip;

/// What the stages up to conntrack know of an IP packet.
#[derive(Clone, Copy)]
pub struct Flight<F: Ip> {
    /// Key of its connection. Until [`crate::conntrack::lookup`] puts it in order, the lower end is the sender's.
    /// For ICMP errors it is the connection that the error is about, and the error goes in the direction in which it is sent.
    pub key: F::Key,
    /// The four bytes that hold the hop limit, as they lie in the packet.
    pub hop_word: u32,
    /// Low 32 bits of the tick.
    pub now: u32,
    /// The node's revision before any other table was read. What is learned from those is of this revision or a later
    /// one; were it read afterwards, rows of the revision before could pass for rows of the new one.
    pub revision: u32,
    /// What kind of packet it is.
    pub kind: Kind,
    /// Offset of the upper layer, where the packet has it.
    pub l4: u16,
    /// Of an ICMP error: offset of the upper layer of the packet that it quotes.
    pub quoted_l4: u16,
    /// TCP flags; for ICMP that is not an error the type of the message, also of fragments behind the first.
    pub tcp_flags: u8,
    /// Hop limit.
    pub hops: u8,
    /// Whether the sender is the higher end of the key.
    pub from_high: bool,
    /// Whether the key has a row, be it of a connection that is over.
    pub has_row: bool,
}

/// An offset in a packet's headers, all of which fit a few thousand bytes.
#[inline(always)]
pub const fn offset16(offset: u32) -> u16 {
    let [a, b, ..] = offset.to_le_bytes();
    u16::from_le_bytes([a, b])
}

impl<F: Ip> Flight<F> {
    /// One that is of no packet.
    pub const EMPTY: Self = Self {
        key: F::NO_KEY,
        hop_word: 0,
        now: 0,
        revision: 0,
        kind: Kind::Datagram,
        l4: 0,
        quoted_l4: 0,
        tcp_flags: 0,
        hops: 0,
        from_high: false,
        has_row: false,
    };

    /// A packet of which nothing is known yet.
    #[inline(always)]
    pub fn new(ticks: u64, config: &NodeConfig) -> Self {
        let [a, b, c, d, ..] = ticks.to_le_bytes();
        Self { now: u32::from_le_bytes([a, b, c, d]), revision: config.revision, ..Self::EMPTY }
    }

    /// Whether the sender is the higher end, for those who choose an end by it: the compiler would make an offset of the flag
    /// itself, of which the kernel's verifier does not know that it is zero or one.
    #[inline(always)]
    pub fn is_from_high(&self) -> bool {
        black_box(u8::from(self.from_high)) != 0
    }

    /// Address of the sender, once the key is in order. For ICMP errors: of the receiver of what the error is about.
    #[inline(always)]
    pub fn src(&self) -> F::Addr {
        if self.is_from_high() { F::high(&self.key) } else { F::low(&self.key) }
    }

    /// Address of the receiver, once the key is in order.
    #[inline(always)]
    pub fn dst(&self) -> F::Addr {
        if self.is_from_high() { F::low(&self.key) } else { F::high(&self.key) }
    }

    /// Port of the sender, once the key is in order.
    #[inline(always)]
    pub fn src_port(&self) -> Be16 {
        let (low, high) = F::ports(&self.key);
        if self.is_from_high() { high } else { low }
    }

    /// Port of the receiver, once the key is in order.
    #[inline(always)]
    pub fn dst_port(&self) -> Be16 {
        let (low, high) = F::ports(&self.key);
        if self.is_from_high() { low } else { high }
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
    /// An ICMP error.
    Error = 2,
    /// A fragment behind the first.
    Fragment = 3,
    /// `ICMPv6` that is about the link (neighbour discovery, group membership); its type is in the TCP flags.
    Control = 4,
}

/// Whom a packet that came from outside has been given for a receiver in place of the one that it named. Such packets this node sends
/// on, wherever their receiver is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Turned {
    /// Nobody.
    No = 0,
    /// The backend of the service that is called.
    ToBackend = 1,
    /// Who called, by the port that stands for it.
    ToClient = 2,
}

/// What the stages from conntrack on need, whichever the family: where the packet goes, and what is to be told about it.
#[derive(Clone, Copy)]
pub struct Route {
    /// Who receives it, and the way there, once known.
    pub to: End,
    /// The four bytes that hold the hop limit, as they lie in the packet.
    pub hop_word: u32,
    /// Hop limit.
    pub hops: u8,
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Flags of the event.
    pub flags: u8,
    /// Whether it is to be told if it was not dropped (monitor aggregation).
    pub report: bool,
    /// Identity of the sender.
    pub src: Identity,
    /// Endpoint at whose device it happened.
    pub endpoint: u16,
    /// Where it was observed last ([`dataplane_abi::events::TracePoint`] as number).
    pub point: u8,
    /// What conntrack knew ([`dataplane_abi::events::TraceReason`] as number).
    pub reason: u8,
    /// For a drop by policy: what stands for the rules that decided.
    pub arg: u32,
    /// Whom it has been given for a receiver here.
    pub turned: Turned,
}

impl Route {
    /// Nothing known yet.
    pub const NONE: Self = Self {
        to: End::NOBODY,
        hop_word: 0,
        hops: 0,
        is_v6: false,
        flags: 0,
        report: false,
        src: Identity::UNKNOWN,
        endpoint: 0,
        point: 0,
        reason: 0,
        arg: 0,
        turned: Turned::No,
    };
}
