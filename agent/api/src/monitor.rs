//! `GET /v1/monitor`: events as they happen, one JSON object per line.
//!
//! Query parameters: `endpoint=ID` (repeatable by comma), `kind=drop,trace,policy-verdict`.
//! The stream never blocks the dataplane: a reader that is too slow gets a [`MonitorEvent::Lost`]
//! line with the number of events it missed.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// [`LostEvent::place`]: the ring buffer was full, nobody saw the events.
pub const PLACE_RING_BUFFER: &str = "ring-buffer";
/// [`LostEvent::place`]: this reader was too slow, others may have seen them.
pub const PLACE_READER: &str = "reader";

/// [`DropEvent::reason_code`]: nothing allows it.
pub const POLICY_DENIED: u8 = 133;
/// [`DropEvent::reason_code`]: a rule denies it.
pub const POLICY_DENY: u8 = 181;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum MonitorEvent {
    /// A packet was dropped.
    Drop(DropEvent),
    /// A packet passed a trace point.
    Trace(TraceEvent),
    /// Policy decided about a new connection.
    PolicyVerdict(PolicyVerdictEvent),
    /// The dataplane's debug message.
    Debug(DebugEvent),
    /// Events were lost, in the ring buffer or because this reader was too slow.
    Lost(LostEvent),
}

/// A packet was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// When it happened.
    pub time: Timestamp,
    /// Name of the reason as Hubble prints it, such as `POLICY_DENIED`.
    pub reason: String,
    /// Number of the reason.
    pub reason_code: u8,
    /// `ingress` or `egress`, seen from the pod; of a drop by policy the direction of the policy.
    pub direction: String,
    /// Of a drop by policy what stands for the rules that decided; 0 when none did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cookie: u32,
    /// Those rules, as `Kind/namespace/name ingress[0]`; where nothing allows the packet those that isolate its endpoint, as
    /// `Kind/namespace/name isolates`. Empty: none did, or they are not known any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<String>,
    /// Where, who and what.
    #[serde(flatten)]
    pub packet: PacketInfo,
}

/// A packet passed a trace point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// When it happened.
    pub time: Timestamp,
    /// The trace point, such as `to-endpoint` or `from-overlay`.
    pub point: String,
    /// What conntrack said: `new`, `established`, `reply`, `related`, `unknown`.
    pub reason: String,
    /// Where, who and what.
    #[serde(flatten)]
    pub packet: PacketInfo,
}

/// Policy decided about a new connection, for one of its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVerdictEvent {
    /// When it happened.
    pub time: Timestamp,
    /// `ingress` or `egress`: direction of the connection, seen from the pod whose policy it is.
    pub direction: String,
    /// `allowed`, `denied`, or `audited`: let through although it is denied.
    pub verdict: String,
    /// Why it is denied, as Hubble prints it, such as `POLICY_DENIED`; empty when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Number of the reason; 0 when it is allowed.
    pub reason_code: u8,
    /// Which kind of row decided: `none`, `L3-Only`, `L3-L4`, `L4-Only`, `all`.
    pub match_type: String,
    /// What stands for the rules that decided; 0 when none did.
    pub cookie: u32,
    /// Those rules, as in [`DropEvent::decided_by`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<String>,
    /// What staged policies would change: `allow`, `deny`, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub staged: String,
    /// What stands for the rules that would decide with them; 0 when none would.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub staged_cookie: u32,
    /// Those rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged_by: Vec<String>,
    /// Where, who and what.
    #[serde(flatten)]
    pub packet: PacketInfo,
}

/// The dataplane's debug message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugEvent {
    /// When it happened.
    pub time: Timestamp,
    /// Endpoint whose program sent it; 0 when none.
    pub endpoint: u16,
    /// Number of the message.
    pub code: u8,
    /// Its arguments.
    pub args: [u32; 3],
}

/// Events were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvent {
    /// When this was noticed.
    pub time: Timestamp,
    /// How many.
    pub count: u64,
    /// [`PLACE_RING_BUFFER`] or [`PLACE_READER`].
    pub place: String,
}

/// Where an event happened, between whom, and the packet's headers in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketInfo {
    /// Endpoint whose program sent the event; 0 for the host's programs.
    pub endpoint: u16,
    /// Endpoint that the packet goes to, when it is local and known; else 0.
    #[serde(default)]
    pub to_endpoint: u16,
    /// Security identity of the source; 0 unknown.
    pub source_identity: u32,
    /// Security identity of the destination; 0 unknown.
    pub destination_identity: u32,
    /// Labels of the source's identity as `source:key=value`; only in what policy decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// Labels of the destination's identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_labels: Vec<String>,
    /// The pod that the source is, as `namespace/name`; only in what policy decided, and where it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_pod: String,
    /// The pod that the destination is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub destination_pod: String,
    /// Interface the program ran on, or the packet went out by.
    pub ifindex: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// Source address; absent when the packet is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Destination address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Source port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port, where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Protocol in words: `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or a number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// What else a person wants to know: TCP flags, ICMP type, fragment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl MonitorEvent {
    /// The word used in `kind=` and on each line.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Drop(_) => "drop",
            Self::Trace(_) => "trace",
            Self::PolicyVerdict(_) => "policy-verdict",
            Self::Debug(_) => "debug",
            Self::Lost(_) => "lost",
        }
    }

    /// The packet of a decision of policy.
    pub const fn judged_packet(&self) -> Option<&PacketInfo> {
        match self {
            Self::Drop(DropEvent { packet, reason_code: POLICY_DENIED | POLICY_DENY, .. })
            | Self::PolicyVerdict(PolicyVerdictEvent { packet, .. }) => Some(packet),
            Self::Drop(_) | Self::Trace(_) | Self::Debug(_) | Self::Lost(_) => None,
        }
    }

    /// The same, to be filled in.
    pub const fn judged_packet_mut(&mut self) -> Option<&mut PacketInfo> {
        match self {
            Self::Drop(DropEvent { packet, reason_code: POLICY_DENIED | POLICY_DENY, .. })
            | Self::PolicyVerdict(PolicyVerdictEvent { packet, .. }) => Some(packet),
            Self::Drop(_) | Self::Trace(_) | Self::Debug(_) | Self::Lost(_) => None,
        }
    }

    /// Whether an endpoint took part, as the one whose program ran or as the receiver.
    pub fn concerns(&self, endpoint: u16) -> bool {
        match self {
            Self::Drop(DropEvent { packet, .. })
            | Self::Trace(TraceEvent { packet, .. })
            | Self::PolicyVerdict(PolicyVerdictEvent { packet, .. }) => {
                packet.endpoint == endpoint || packet.to_endpoint == endpoint
            }
            Self::Debug(event) => event.endpoint == endpoint,
            Self::Lost(_) => true,
        }
    }
}
