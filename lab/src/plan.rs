//! Names and addresses of a lab: everything that follows from its name, index and size.
//!
//! Every lab has its own network namespaces, so the blocks of two labs never meet; they still differ, so that captures and
//! logs of several labs can be told apart.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Highest lab index: the pod block's second octet is 10 + index.
pub const MAX_INDEX: u8 = 200;
/// Most nodes in one lab (host part of the node network, below the API server's and the router's address).
pub const MAX_NODES: u8 = 200;
/// TCP port of the API server inside the lab's fabric.
pub const API_PORT: u16 = 6443;

/// Address families that nodes and pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

impl Family {
    /// Whether nodes and pods have IPv4 addresses.
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }

    /// Whether nodes and pods have IPv6 addresses.
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Dual => "dual",
        })
    }
}

/// How packets to pods of other nodes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// In a VXLAN tunnel between nodes.
    Vxlan,
    /// As they are; nodes route to each other's pod CIDRs.
    Native,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::Native => "native",
        })
    }
}

/// A lab name: a DNS label of at most 32 characters, because it becomes part of paths and host names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

/// Why a text is no lab name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no lab name: use 1 to 32 lower-case letters, digits and '-', starting and ending with a letter or digit"
)]
pub struct LabNameError(String);

impl LabName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = LabNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge_ok = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let ok = text.len() <= 32
            && edge_ok(text.chars().next())
            && edge_ok(text.chars().last())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if ok { Ok(Self(text.to_owned())) } else { Err(LabNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for LabName {
    type Error = LabNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the user asked for, with the index that sets the addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the lab.
    pub name: LabName,
    /// Number of the lab on this machine, 1 to [`MAX_INDEX`].
    pub index: u8,
    /// How many nodes.
    pub nodes: u8,
    /// Address families.
    pub family: Family,
    /// Routing mode of the agents.
    pub routing: Routing,
    /// Names of the two servers outside the cluster.
    pub outside_names: [String; 2],
    /// MTU of every link between machines in bytes.
    pub mtu: u16,
    /// Prefix length of a node's IPv4 pod CIDR.
    pub pod_cidr_bits: u8,
}

/// MTU of a lab's links unless it is asked for another one, in bytes.
pub const DEFAULT_MTU: u16 = 1500;
/// Prefix length of a node's IPv4 pod CIDR unless another one is asked for.
pub const DEFAULT_POD_CIDR_BITS: u8 = 24;

/// The default names of the two servers outside the cluster.
pub fn default_outside_names() -> [String; 2] {
    ["one.outside.test".to_owned(), "two.outside.test".to_owned()]
}

impl Plan {
    /// Name of the `n`th node, counted from 1.
    pub fn node_name(n: u8) -> String {
        format!("node-{n}")
    }

    fn v4(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, host)
    }

    /// `fd00:30:<lab>::<host>`, where lab is written in decimal digits as in the IPv4 address.
    fn v6(&self, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x30, decimal_as_hex(self.index), 0, 0, 0, 0, host)
    }

    fn nets(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<IpNet> {
        let v4 = IpNet::from(Ipv4Net::new(v4, 24).expect("24 is a prefix length"));
        let v6 = IpNet::from(Ipv6Net::new(v6, 64).expect("64 is a prefix length"));
        match self.family {
            Family::V4 => vec![v4],
            Family::V6 => vec![v6],
            Family::Dual => vec![v4, v6],
        }
    }

    /// Addresses of the `n`th node (from 1) with the node network's prefix length; IPv4 first.
    pub fn node_addresses(&self, n: u8) -> Vec<IpNet> {
        self.nets(self.v4(n), self.v6(decimal_as_hex(n)))
    }

    /// Addresses of the API server in the fabric.
    pub fn api_addresses(&self) -> Vec<IpNet> {
        self.nets(self.v4(254), self.v6(0xfe))
    }

    /// Addresses of the fabric's router, the nodes' default gateway.
    pub fn router_addresses(&self) -> Vec<IpNet> {
        self.nets(self.v4(253), self.v6(0xfd))
    }

    /// URL of the API server as nodes see it.
    pub fn api_url(&self) -> String {
        match self.api_addresses()[0].addr() {
            IpAddr::V4(ip) => format!("http://{ip}:{API_PORT}"),
            IpAddr::V6(ip) => format!("http://[{ip}]:{API_PORT}"),
        }
    }

    /// Blocks from which nodes get their pod CIDRs, one per family, with the prefix length of a node's share.
    pub fn cluster_cidrs(&self) -> Vec<(IpNet, u8)> {
        let v4 = Ipv4Net::new(Ipv4Addr::new(10, 10 + self.index, 0, 0), 16).expect("16 is a prefix length");
        let v6 = Ipv6Net::new(Ipv6Addr::new(0xfd00, 0x10, decimal_as_hex(self.index), 0, 0, 0, 0, 0), 96)
            .expect("96 is a prefix length");
        let mut cidrs = Vec::new();
        if self.family.has_v4() {
            cidrs.push((v4.into(), self.pod_cidr_bits));
        }
        if self.family.has_v6() {
            cidrs.push((v6.into(), 112));
        }
        cidrs
    }

    /// Link network between the fabric's router (.1) and the outside (.2).
    pub fn outside_link(&self, host: u8) -> Vec<IpNet> {
        self.nets(
            Ipv4Addr::new(172, 31, self.index, host),
            Ipv6Addr::new(0xfd00, 0x31, decimal_as_hex(self.index), 0, 0, 0, 0, host.into()),
        )
    }

    /// Addresses of the two servers outside: TEST-NET-2 and TEST-NET-3 of RFC 5737, and the documentation block of RFC 3849.
    pub fn outside_servers(&self) -> [Vec<IpAddr>; 2] {
        let pick = |v4: Ipv4Addr, v6: Ipv6Addr| {
            let mut list = Vec::new();
            if self.family.has_v4() {
                list.push(IpAddr::V4(v4));
            }
            if self.family.has_v6() {
                list.push(IpAddr::V6(v6));
            }
            list
        };
        [
            pick(Ipv4Addr::new(198, 51, 100, 10), Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10)),
            pick(Ipv4Addr::new(203, 0, 113, 20), Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x20)),
        ]
    }

    /// `/etc/hosts` of a machine in the lab: itself, the nodes and the servers outside.
    pub fn hosts_file(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        for n in 1..=self.nodes {
            for net in self.node_addresses(n) {
                let _ = writeln!(text, "{} {}", net.addr(), Self::node_name(n));
            }
        }
        for (name, addrs) in self.outside_names.iter().zip(self.outside_servers()) {
            for addr in addrs {
                let _ = writeln!(text, "{addr} {name}");
            }
        }
        text
    }
}

/// 42 → 0x42: makes a decimal number readable in an IPv6 address.
fn decimal_as_hex(n: u8) -> u16 {
    let n = u16::from(n);
    ((n / 100) << 8) | ((n / 10 % 10) << 4) | (n % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(family: Family) -> Plan {
        Plan {
            name: "t".parse().expect("a name"),
            index: 42,
            nodes: 3,
            family,
            routing: Routing::Vxlan,
            outside_names: default_outside_names(),
            mtu: DEFAULT_MTU,
            pod_cidr_bits: DEFAULT_POD_CIDR_BITS,
        }
    }

    #[test]
    fn addresses_carry_index_and_node_readably() {
        let plan = plan(Family::Dual);
        let text: Vec<String> = plan.node_addresses(12).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["172.30.42.12/24", "fd00:30:42::12/64"]);
        assert_eq!(plan.api_url(), "http://172.30.42.254:6443");
        assert_eq!(plan.cluster_cidrs()[0].0.to_string(), "10.52.0.0/16");
        assert_eq!(plan.cluster_cidrs()[1].0.to_string(), "fd00:10:42::/96");
    }

    #[test]
    fn a_family_left_out_has_no_addresses() {
        assert_eq!(plan(Family::V6).api_url(), "http://[fd00:30:42::fe]:6443");
        assert!(plan(Family::V4).outside_servers().concat().iter().all(IpAddr::is_ipv4));
        assert_eq!(plan(Family::V6).cluster_cidrs().len(), 1);
    }

    #[test]
    fn no_two_machines_share_an_address() {
        let plan = Plan { nodes: MAX_NODES, ..plan(Family::Dual) };
        let mut all: Vec<IpAddr> =
            (1..=plan.nodes).flat_map(|n| plan.node_addresses(n)).map(|n| n.addr()).collect();
        all.extend(plan.api_addresses().iter().chain(&plan.router_addresses()).map(IpNet::addr));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "-a", "a-", "A", "a/b", "a.b", "a_b", &"x".repeat(33)] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
        assert!("my-lab-2".parse::<LabName>().is_ok());
    }
}
