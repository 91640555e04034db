//! `EVENTS`: the ring buffer, and the records in it.
//!
//! Every record is one [`Event`]: a fixed header and room for the first bytes of the packet, of which `len_cap` count.
//! The programs wake the reader only when a quarter of the ring is filled; it should look every 50 ms or so by itself.
//! When the ring is full, records are lost and counted in [`crate::metrics::EVENTS_LOST`]; verdicts do not depend on it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::policy::{PolicyMatch, Staged};
use crate::table::{TableKind, TableSpec, Writer};
use crate::{DropReason, Identity};

/// The ring buffer; its capacity is in bytes.
pub const EVENTS: TableSpec = TableSpec {
    name: "EVENTS",
    kind: TableKind::RingBuf,
    key_size: 0,
    value_size: 0,
    max_entries: 1 << 20,
    flags: 0,
    writer: Writer::Programs,
};

/// Most bytes of packet in a record.
pub const PAYLOAD_MAX: usize = 128;

/// Version of [`EventHeader`].
pub const EVENT_VERSION: u8 = 2;

/// A record as it lies in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// What happened.
    pub header: EventHeader,
    /// The packet from its link layer header on, as it was when the event was noted; zero from `len_cap` on.
    pub payload: [u8; PAYLOAD_MAX],
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventHeader {
    /// [`EventKind`] as number.
    pub kind: u8,
    /// Drop: [`DropReason`]. Trace: [`TracePoint`]. Policy verdict: [`DropReason`], or zero if it is allowed. As numbers.
    pub subtype: u8,
    /// Endpoint at whose device or for which it happened; where policy decided: whose policy it was. Zero: none.
    pub endpoint: u16,
    /// Hash of the flow as the kernel knows it, or zero.
    pub hash: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Length of the packet in bytes.
    pub len_orig: u32,
    /// Bytes of it in the record.
    pub len_cap: u16,
    /// [`EVENT_VERSION`].
    pub version: u8,
    /// [`crate::program::Program`] as number.
    pub program: u8,
    /// Identity of the sender.
    pub src_identity: Identity,
    /// Identity of the receiver.
    pub dst_identity: Identity,
    /// Endpoint that receives, if it is one of this node.
    pub dst_endpoint: u16,
    /// Trace: [`TraceReason`] as number.
    pub trace_reason: u8,
    /// Bits: see [`EventHeader::IPV6`] and its siblings.
    pub flags: u8,
    /// Device on which it happened.
    pub ifindex: u32,
    /// Policy verdict, and drop by policy: [`crate::policy::PolicyVerdict::cookie`]. Otherwise zero.
    pub arg: u32,
    /// Policy verdict: [`crate::policy::PolicyVerdict::staged_cookie`].
    pub staged_cookie: u32,
    /// Policy verdict: [`Staged`] as number.
    pub staged: u8,
    /// Policy verdict: [`PolicyMatch`] as number.
    pub policy_match: u8,
    /// Policy verdict, bits: see [`EventHeader::AUDITED`].
    pub policy_flags: u8,
    /// Zero; room for the address before translation.
    pub reserved: [u8; 5],
}

impl EventHeader {
    /// Flag: the packet is IPv6.
    pub const IPV6: u8 = 1;
    /// Flag: the packet goes in the reply direction of its connection.
    pub const REPLY: u8 = 2;
    /// Flag: the packet goes towards the pod (otherwise from it). Where policy decided: it was the policy for connections
    /// to the endpoint (otherwise for those from it).
    pub const INGRESS: u8 = 4;

    /// Policy flag: policy would have dropped it, but the endpoint's policy is only audited.
    pub const AUDITED: u8 = 1;

    /// The drop reason, if this is a drop.
    pub const fn drop_reason(&self) -> Option<DropReason> {
        if self.kind == EventKind::Drop as u8 { DropReason::from_number(self.subtype) } else { None }
    }

    /// Why it is denied, if this is the verdict of a policy that denies, also of one that is only audited.
    pub const fn denied(&self) -> Option<DropReason> {
        if self.kind == EventKind::PolicyVerdict as u8 { DropReason::from_number(self.subtype) } else { None }
    }

    /// What staged policies would change, if this is the verdict of a policy.
    pub const fn staged(&self) -> Option<Staged> {
        if self.kind == EventKind::PolicyVerdict as u8 { Staged::from_number(self.staged) } else { None }
    }

    /// Which kind of row decided, if this is the verdict of a policy.
    pub const fn policy_match(&self) -> Option<PolicyMatch> {
        if self.kind == EventKind::PolicyVerdict as u8 {
            PolicyMatch::from_number(self.policy_match)
        } else {
            None
        }
    }

    /// The trace point, if this is a trace.
    pub const fn trace_point(&self) -> Option<TracePoint> {
        if self.kind == EventKind::Trace as u8 { TracePoint::from_number(self.subtype) } else { None }
    }
}

/// Kinds of record (numbers as Cilium's monitor has them).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was dropped.
    Drop = 1,
    /// For developers.
    Debug = 2,
    /// A packet passed an observation point.
    Trace = 4,
    /// Policy decided about a new connection.
    PolicyVerdict = 5,
}

impl EventKind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Drop,
            2 => Self::Debug,
            4 => Self::Trace,
            5 => Self::PolicyVerdict,
            _ => return None,
        })
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $ty:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $name:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $ty {
            $($(#[$vdoc])* $variant = $number,)*
        }

        impl $ty {
            /// The one with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                Some(match number {
                    $($number => Self::$variant,)*
                    _ => return None,
                })
            }

            /// As monitors print it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

named! {
    /// Where a packet was observed.
    TracePoint {
        /// Delivered to a pod of this node.
        ToEndpoint = 0, "to-endpoint";
        /// Handed to the proxy.
        ToProxy = 1, "to-proxy";
        /// Handed to the node's own addresses.
        ToHost = 2, "to-host";
        /// Handed to the node's stack to route.
        ToStack = 3, "to-stack";
        /// Sent through the tunnel.
        ToOverlay = 4, "to-overlay";
        /// Sent by a pod of this node.
        FromEndpoint = 5, "from-endpoint";
        /// Sent by the proxy.
        FromProxy = 6, "from-proxy";
        /// Sent by the node itself.
        FromHost = 7, "from-host";
        /// Came from the node's stack.
        FromStack = 8, "from-stack";
        /// Came out of the tunnel.
        FromOverlay = 9, "from-overlay";
        /// Came from the underlay.
        FromNetwork = 10, "from-network";
        /// Sent to the underlay.
        ToNetwork = 11, "to-network";
        /// Came from decryption.
        FromCrypto = 12, "from-crypto";
        /// Goes to encryption.
        ToCrypto = 13, "to-crypto";
    }
}

named! {
    /// What conntrack knew of an observed packet.
    TraceReason {
        /// First packet of a connection.
        New = 0, "new";
        /// Of a known connection, original direction.
        Established = 1, "established";
        /// Of a known connection, reply direction.
        Reply = 2, "reply";
        /// ICMP error about a known connection.
        Related = 3, "related";
        /// A closed connection begun again.
        Reopened = 4, "reopened";
        /// Conntrack was not asked.
        Unknown = 5, "unknown";
    }
}

/// How much is left out of the trace events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Aggregation {
    /// Every packet at every point.
    None = 0,
    /// No `from-…` points.
    Low = 1,
    /// And of a known connection only a first packet, a new TCP flag, or one packet per interval and direction.
    Medium = 3,
}

const _: () = assert!(size_of::<EventHeader>() == 56);
const _: () = assert!(core::mem::offset_of!(EventHeader, staged_cookie) == 44);
const _: () = assert!(core::mem::offset_of!(EventHeader, policy_flags) == 50);
const _: () = assert!(size_of::<Event>() == 184);
