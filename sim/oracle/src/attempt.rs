//! A connection attempt, and what is said about it.

use std::fmt;
use std::net::IpAddr;

/// An end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A pod. One with `hostNetwork` is the same as its node.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A process in the network namespace of a node.
    Node {
        /// The node's name.
        name: String,
    },
    /// Anything outside the cluster.
    Outside(IpAddr),
}

/// IP family of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP or ICMPv6, by the family. No object can name it.
    Icmp,
}

/// An attempt to connect to the final destination: a service's address has been translated before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Who opens the connection.
    pub from: End,
    /// Who is to answer.
    pub to: End,
    /// IP family of the packets.
    pub family: Family,
    /// Protocol of the packets.
    pub protocol: Protocol,
    /// Destination port; none with ICMP.
    pub port: Option<u16>,
}

/// A namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Whether policies allow an attempt. Without policies everything is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is allowed, which takes both directions.
    pub allowed: bool,
    /// Why: first egress at the end that opens, then ingress at the one that answers.
    pub why: Vec<Because>,
}

/// What one end's policies say to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// The direction, seen from the end that is judged.
    pub direction: Direction,
    /// Policies that select this end in this direction, by namespace and name; they isolate it.
    pub isolated_by: Vec<ObjectName>,
    /// What decides.
    pub reason: Reason,
}

/// Direction, seen from a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// What decides about an attempt in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Allowed: nothing isolates this end in this direction.
    NotIsolated,
    /// Allowed: a pod cannot block access to itself.
    Itself,
    /// Allowed: the other end is the node on which the pod runs.
    OwnNode,
    /// Allowed by a rule.
    Rule {
        /// The policy.
        policy: ObjectName,
        /// Place of the rule in the policy's list for this direction, from 0.
        index: usize,
    },
    /// Forbidden: the end is isolated and no rule allows the attempt.
    NoRule,
}

impl Reason {
    /// Whether this reason allows the attempt.
    pub fn allows(&self) -> bool {
        *self != Self::NoRule
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Node { name } => write!(f, "node {name}"),
            Self::Outside(address) => write!(f, "outside {address}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{} to {} by {} over {family}", self.from, self.to, self.protocol)?;
        self.port.map_or(Ok(()), |port| write!(f, ", port {port}"))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allowed { "allowed" } else { "forbidden" })?;
        self.why.iter().try_for_each(|because| write!(f, "; {because}"))
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        match &self.reason {
            Reason::NotIsolated => write!(f, "{direction} is not isolated"),
            Reason::Itself => write!(f, "{direction}: a pod reaches itself"),
            Reason::OwnNode => write!(f, "{direction}: it is the pod's own node"),
            Reason::Rule { policy, index } => write!(f, "{direction} rule {index} of {policy} allows it"),
            Reason::NoRule => {
                let policies: Vec<String> = self.isolated_by.iter().map(ToString::to_string).collect();
                write!(f, "{direction} is isolated by {} and no rule allows it", policies.join(", "))
            }
        }
    }
}
