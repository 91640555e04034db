//! A packet on its way through a program.

use dataplane_abi::Identity;
use dataplane_abi::conntrack::CtWay;

use crate::ip::{Headers, Ip};

/// Everything known of an IP packet on its way through a program.
pub struct Flight<F: Ip> {
    /// What the headers say.
    pub headers: Headers<F>,
    /// Key of its connection.
    pub key: F::Key,
    /// Whether the sender is the higher end of the key.
    pub from_high: bool,
    /// Low 32 bits of the tick.
    pub now: u32,
    /// Where it goes, once known.
    pub way: CtWay,
}

impl<F: Ip> Flight<F> {
    /// A packet of which nothing is known yet.
    #[inline(always)]
    pub fn new(now: u32) -> Self {
        Self { headers: Headers::empty(), key: F::NO_KEY, from_high: false, now, way: CtWay::NONE }
    }
}

/// What is to be told about a packet at the end.
#[derive(Clone, Copy, Default)]
pub struct Seen {
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
    /// Flags of the event.
    pub flags: u8,
    /// Whether it is to be told if it was not dropped (monitor aggregation).
    pub report: bool,
}
