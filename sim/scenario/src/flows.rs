//! Flows: what the programs of all nodes told of the packets of a traffic, in terms that every arm can tell.
//!
//! A program tells of a packet more than once or not at all, as monitor aggregation has it, so flows are sets: each observation counts once.
//! Addresses, port numbers of clients and numbers of identities differ between arms and are not in them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Place, Traffic, TrafficKind};

/// How long after the end of a traffic its packets still count: connections are closed, rings of events are read.
pub const AFTERMATH: std::time::Duration = std::time::Duration::from_secs(1);

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Flow {
    /// The node whose program told it.
    pub node: String,
    /// `trace to-endpoint`, `drop POLICY_DENIED ingress`, `policy-verdict allowed egress`.
    pub event: String,
    /// Who sent the packet, as the program knew it: see [`party`].
    pub source: String,
    /// Who it was for.
    pub destination: String,
    /// It is an answer.
    pub reply: bool,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.reply { "answer" } else { "packet" };
        let Self { node, event, source, destination, .. } = self;
        write!(f, "`{event}` of a {what} on {node}, {source} to {destination}")
    }
}

/// A word for an identity, by its number: those of pods and CIDRs are numbered in the order in which agents meet them.
pub fn party(identity: u32) -> String {
    // The ranges are those of Cilium's identities: 8 bits are reserved, 16 are the cluster's, the byte above 24 bits is the scope of local ones.
    match identity {
        0 => "unknown".to_owned(),
        1..=255 => format!("reserved {identity}"),
        256..=65_535 => "pod".to_owned(),
        _ if identity >> 24 == 1 => "cidr".to_owned(),
        _ if identity >> 24 == 2 => "node".to_owned(),
        _ => format!("identity {identity}"),
    }
}

/// What a program tells, in the words of [`Flow::event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation<'a> {
    /// A drop: its reason's name and direction.
    Drop(&'a str, &'a str),
    /// A trace: its observation point.
    Trace(&'a str),
    /// What a policy said (`allowed`, `denied`, `audited`), and its direction.
    PolicyVerdict(&'a str, &'a str),
}

impl fmt::Display for Observation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(reason, direction) => write!(f, "drop {reason} {direction}"),
            Self::Trace(point) => write!(f, "trace {point}"),
            Self::PolicyVerdict(verdict, direction) => write!(f, "policy-verdict {verdict} {direction}"),
        }
    }
}

/// Whether it is known before whom a traffic goes to: a service would choose.
pub const fn are_known(traffic: &Traffic) -> bool {
    !matches!(traffic.to, Place::Service { .. } | Place::NodePort(_) | Place::Address(_))
}

/// Whether its packets have the sender's own address all the way: nodes have several, and what goes out into the world may go in the
/// node's name.
pub const fn keep_sender(traffic: &Traffic) -> bool {
    matches!((&traffic.from, &traffic.to), (Place::Pod { .. }, Place::Pod { .. } | Place::Node(_)))
}

/// What packets belong to a traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packets {
    /// Its kind.
    pub kind: TrafficKind,
    /// Address of who sends; `None`: any, as nodes have several.
    pub from: Option<IpAddr>,
    /// Where it goes.
    pub to: IpAddr,
    /// To which port, except for pings.
    pub port: Option<u16>,
}

impl Packets {
    /// Whether a packet is one of them, and if so, whether it is an answer. `protocol` is `tcp`, `udp`, `icmp` or `icmpv6`.
    pub fn find(
        &self,
        protocol: &str,
        source: IpAddr,
        destination: IpAddr,
        ports: Option<(u16, u16)>,
    ) -> Option<bool> {
        let is_kind = match self.kind {
            TrafficKind::Ping => matches!(protocol, "icmp" | "icmpv6"),
            TrafficKind::Http | TrafficKind::Tcp => protocol == "tcp",
            TrafficKind::Udp => protocol == "udp",
        };
        let is_ping = self.kind == TrafficKind::Ping;
        let is = |from: IpAddr, to: IpAddr, port: Option<u16>| {
            is_kind
                && to == self.to
                && self.from.is_none_or(|sender| sender == from)
                && (is_ping || port == self.port)
        };
        if is(source, destination, ports.map(|(_, to)| to)) {
            Some(false)
        } else if is(destination, source, ports.map(|(from, _)| from)) {
            Some(true)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_belong_to_a_traffic_by_their_ends_and_its_port() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let tcp = Packets { kind: TrafficKind::Http, from: Some(ip(1)), to: ip(2), port: Some(80) };
        for (protocol, from, to, ports, expected) in [
            ("tcp", 1, 2, (4000, 80), Some(false)),
            ("tcp", 2, 1, (80, 4000), Some(true)),
            ("tcp", 2, 1, (4000, 80), None),
            ("tcp", 1, 2, (4000, 81), None),
            ("udp", 1, 2, (4000, 80), None),
            ("tcp", 3, 2, (4000, 80), None),
        ] {
            assert_eq!(tcp.find(protocol, ip(from), ip(to), Some(ports)), expected, "{protocol} {from} {to}");
        }
        let ping = Packets { kind: TrafficKind::Ping, from: None, to: ip(2), port: None };
        assert_eq!(ping.find("icmp", ip(9), ip(2), None), Some(false));
        assert_eq!(ping.find("icmp", ip(2), ip(9), None), Some(true));
        assert_eq!(ping.find("icmp", ip(9), ip(3), None), None);
    }

    #[test]
    fn identities_are_told_by_their_range() {
        for (number, word) in
            [(0, "unknown"), (2, "reserved 2"), (300, "pod"), (0x0100_0001, "cidr"), (0x0200_0001, "node")]
        {
            assert_eq!(party(number), word);
        }
    }
}
