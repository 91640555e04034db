//! `GET /v1/nat`: the node's ports that connections to the world leave by.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Who has a port of the node for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatEntry {
    /// Protocol in words: `tcp`, `udp`, `icmp`, `icmpv6`, or its number.
    pub protocol: String,
    /// The end behind the node, as it knows itself; for ICMP echo the port is the identifier.
    pub source: SocketAddr,
    /// The same end on the wire: an address of the node and the port.
    pub node: SocketAddr,
    /// The other end; for ICMP echo the port is 0.
    pub destination: SocketAddr,
    /// Whether the node itself has the port.
    pub own: bool,
    /// State in words, as connections have it.
    pub state: String,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Seconds until the port is free if nothing more is seen.
    pub expires_s: u64,
}
