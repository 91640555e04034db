//! `GET /v1/ct`: the connections that the dataplane tracks.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One connection, seen from the side that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtEntry {
    /// Protocol in words: `tcp`, `udp`, `icmp`, `icmpv6`, or its number.
    pub protocol: String,
    /// The originator; for ICMP echo the port is the identifier.
    pub source: SocketAddr,
    /// The responder; for ICMP echo the port is 0.
    pub destination: SocketAddr,
    /// State in words, such as `syn-sent`, `established`, `closing`.
    pub state: String,
    /// Security identity of the originator.
    pub source_identity: u32,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Seconds until it expires if nothing more is seen.
    pub expires_s: u64,
    /// How packets leave towards the responder, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub forward: String,
    /// How packets leave towards the originator, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reverse: String,
}
