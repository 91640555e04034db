//! A packet on its way through a program.

use dataplane_abi::Identity;
use dataplane_abi::conntrack::CtWay;

use crate::ip::{Headers, Ip};

/// What the stages up to conntrack know of an IP packet.
pub struct Flight<F: Ip> {
    /// What the headers say.
    pub headers: Headers<F>,
    /// Key of its connection.
    pub key: F::Key,
    /// Whether the sender is the higher end of the key.
    pub from_high: bool,
    /// Low 32 bits of the tick.
    pub now: u32,
}

impl<F: Ip> Flight<F> {
    /// A packet of which nothing is known yet.
    #[inline(always)]
    pub fn new(ticks: u64) -> Self {
        let [a, b, c, d, ..] = ticks.to_le_bytes();
        Self {
            headers: Headers::empty(),
            key: F::NO_KEY,
            from_high: false,
            now: u32::from_le_bytes([a, b, c, d]),
        }
    }
}

/// What the stages from conntrack on need, whichever the family: where the packet goes, and what is to be told about it.
#[derive(Clone, Copy)]
pub struct Route {
    /// Where it goes, once known.
    pub way: CtWay,
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
    /// Identity of the receiver.
    pub dst: Identity,
    /// Endpoint at whose device it happened.
    pub endpoint: u16,
    /// Endpoint that receives.
    pub dst_endpoint: u16,
    /// Where it was observed last ([`dataplane_abi::events::TracePoint`] as number).
    pub point: u8,
    /// What conntrack knew ([`dataplane_abi::events::TraceReason`] as number).
    pub reason: u8,
}

impl Route {
    /// Nothing known yet.
    pub const NONE: Self = Self {
        way: CtWay::NONE,
        hop_word: 0,
        hops: 0,
        is_v6: false,
        flags: 0,
        report: false,
        src: Identity::UNKNOWN,
        dst: Identity::UNKNOWN,
        endpoint: 0,
        dst_endpoint: 0,
        point: 0,
        reason: 0,
    };
}
