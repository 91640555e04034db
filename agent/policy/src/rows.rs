//! What is written for the dataplane, in this crate's own terms: decisions by policy, direction and identity.

use std::net::IpAddr;

use dataplane_abi::Identity;
use ipnet::IpNet;

/// Which of an endpoint's connections: those that it takes, or those that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connections to the endpoint.
    Ingress,
    /// Connections from the endpoint.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As lists show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The row that holds for every identity without a row of its own.
pub const EVERYBODY: Identity = Identity::UNKNOWN;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It may pass.
    Allow,
    /// A rule denies it.
    Deny,
    /// Nothing allows it, and something has to.
    NoRule,
    /// It may pass by way of a proxy. There is none yet, so it does not pass.
    Redirect,
}

impl Outcome {
    /// Whether packets pass.
    pub const fn passes(self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// What staged policies would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Staged {
    /// Nothing.
    #[default]
    Nothing,
    /// They would allow it.
    WouldAllow,
    /// They would deny it.
    WouldDeny,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// What was decided.
    pub outcome: Outcome,
    /// Stands for the origins of the decision; 0: there are none.
    pub cookie: u32,
    /// What staged policies would change.
    pub staged: Staged,
    /// Stands for the origins of the decision with them; 0 if they change nothing.
    pub staged_cookie: u32,
}

/// A prefix of protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4Prefix {
    /// IP protocol; `None`: every protocol and port.
    pub proto: Option<u8>,
    /// Leading bits of `port` that count, 0 to 16.
    pub bits: u8,
    /// Port, or type of ICMP; bits that do not count are zero.
    pub port: u16,
}

impl L4Prefix {
    /// Every protocol and port.
    pub const ANY: Self = Self { proto: None, bits: 0, port: 0 };

    /// Whether it covers the port.
    pub const fn covers(&self, proto: u8, port: u16) -> bool {
        match self.proto {
            None => true,
            Some(own) => own == proto && (self.bits == 0 || (self.port ^ port) >> (16 - self.bits) == 0),
        }
    }

    /// Longer prefixes decide before shorter ones.
    pub const fn length(&self) -> u8 {
        match self.proto {
            None => 0,
            Some(_) => 1 + self.bits,
        }
    }
}

/// Decisions by protocol and port, sorted. Never changed: other content is another set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4Set(pub Vec<(L4Prefix, Verdict)>);

impl L4Set {
    /// The decision, as the dataplane looks it up: the longest prefix that covers it.
    pub fn look_up(&self, proto: u8, port: u16) -> Option<Verdict> {
        self.0
            .iter()
            .filter(|(prefix, _)| prefix.covers(proto, port))
            .max_by_key(|(prefix, _)| prefix.length())
            .map(|(_, verdict)| *verdict)
    }
}

/// What a row of an identity says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// One decision for every protocol and port.
    All(Verdict),
    /// The set with this number decides.
    Set(u32),
    /// For pods the blocks decide, for everybody else the set.
    Blocks {
        /// Number of the set.
        set: u32,
        /// Number of the blocks.
        blocks: u32,
    },
}

/// Decisions by address, for pods whose identity does not tell enough: some rules name blocks of addresses.
///
/// Sorted. Each row is the whole decision for addresses in the block, and [`Row::All`] or [`Row::Set`]. Every address is in
/// some block: that of all addresses of the family says what holds outside of those that rules name.
/// Never changed: other content is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub Vec<(IpNet, Row)>);

impl Blocks {
    /// The row, as the dataplane looks it up: that of the longest block that has the address.
    pub fn look_up(&self, address: IpAddr) -> Option<Row> {
        let has = self.0.iter().filter(|(block, _)| block.contains(&address));
        has.max_by_key(|(block, _)| block.prefix_len()).map(|(_, row)| *row)
    }
}

/// Key of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Number of the policy, not 0.
    pub policy: u32,
    /// The direction.
    pub direction: Direction,
    /// The peer, or [`EVERYBODY`].
    pub identity: Identity,
}

/// What an endpoint's row says of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EndpointPolicy {
    /// Number of its policy; 0: nothing is enforced.
    pub number: u32,
    /// Connections to it are judged.
    pub ingress: bool,
    /// Connections from it are judged.
    pub egress: bool,
    /// What policy would drop passes, and is told of.
    pub audit: bool,
}
