//! Protocols, ports and ICMP types of rules, and ranges of ports as prefixes.

use std::collections::BTreeSet;

/// Numbers of IP protocols.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// What `ANY` stands for in a rule.
    pub const ANY: [u8; 3] = [TCP, UDP, SCTP];

    /// Name of a protocol, for people.
    pub const fn name(number: u8) -> Option<&'static str> {
        Some(match number {
            ICMP => "ICMP",
            2 => "IGMP",
            4 => "IPIP",
            TCP => "TCP",
            UDP => "UDP",
            41 => "IPV6",
            47 => "GRE",
            50 => "ESP",
            51 => "AH",
            ICMPV6 => "ICMPv6",
            112 => "VRRP",
            SCTP => "SCTP",
            _ => return None,
        })
    }
}

/// Ports of one protocol; for ICMP and ICMPv6 they are types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// IP protocol.
    pub proto: u8,
    /// First port.
    pub first: u16,
    /// Last port, not before the first.
    pub last: u16,
}

impl PortRange {
    /// Every port of a protocol.
    pub const fn all(proto: u8) -> Self {
        Self { proto, first: 0, last: u16::MAX }
    }

    /// One port.
    pub const fn one(proto: u8, port: u16) -> Self {
        Self { proto, first: port, last: port }
    }

    /// Whether the port is in it.
    pub const fn has(&self, proto: u8, port: u16) -> bool {
        self.proto == proto && self.first <= port && port <= self.last
    }
}

/// A port that a pod has given a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name, in lower case.
    pub name: String,
    /// IP protocol.
    pub proto: u8,
    /// Its number.
    pub port: u16,
}

/// A port that a rule names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The name, in lower case.
    pub name: String,
    /// IP protocol; `None`: TCP, UDP or SCTP.
    pub proto: Option<u8>,
}

impl PortName {
    /// Whether this is the port that is meant.
    pub fn means(&self, port: &NamedPort) -> bool {
        self.name == port.name
            && self.proto.map_or_else(|| proto::ANY.contains(&port.proto), |proto| proto == port.proto)
    }
}

/// The ports that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every protocol and port.
    All,
    /// These only.
    Some {
        /// By number.
        ranges: BTreeSet<PortRange>,
        /// By name.
        names: BTreeSet<PortName>,
    },
}

impl Ports {
    /// Names in it.
    pub fn names(&self) -> impl Iterator<Item = &PortName> {
        match self {
            Self::All => None,
            Self::Some { names, .. } => Some(names),
        }
        .into_iter()
        .flatten()
    }

    /// By number, with names replaced by what they mean among these ports. `None`: every protocol and port.
    pub fn resolve(&self, named: &[NamedPort]) -> Option<Vec<PortRange>> {
        match self {
            Self::All => None,
            Self::Some { ranges, names } => {
                let by_name = named
                    .iter()
                    .filter(|port| names.iter().any(|name| name.means(port)))
                    .map(|port| PortRange::one(port.proto, port.port));
                Some(ranges.iter().copied().chain(by_name).collect())
            }
        }
    }
}

/// A range as the fewest prefixes (first port, number of leading bits), in order.
pub fn prefixes(first: u16, last: u16) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        // The largest block that begins here and does not reach beyond the end.
        let mut bits = at.trailing_zeros().min(16);
        while at + (1 << bits) > end {
            bits -= 1;
        }
        // Both fit: `at` is below 65536 and `bits` at most 16.
        #[expect(clippy::cast_possible_truncation, reason = "at most 65535 and 16")]
        found.push((at as u16, (16 - bits) as u8));
        at += 1 << bits;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 65535, &[(0, 0)])]
    #[case(80, 80, &[(80, 16)])]
    #[case(1, 3, &[(1, 16), (2, 15)])]
    #[case(32768, 65535, &[(32768, 1)])]
    #[case(8080, 8087, &[(8080, 13)])]
    fn ranges(#[case] first: u16, #[case] last: u16, #[case] expected: &[(u16, u8)]) {
        assert_eq!(prefixes(first, last), expected);
    }

    #[test]
    fn a_name_means_every_port_that_has_it() {
        let port = |name: &str, proto, port| NamedPort { name: name.into(), proto, port };
        let named = [
            port("dns", proto::TCP, 53),
            port("dns", proto::UDP, 53),
            port("dns", proto::ICMP, 8),
            port("web", proto::TCP, 80),
        ];
        let ports = |proto| Ports::Some {
            ranges: BTreeSet::from([PortRange::one(6, 1)]),
            names: BTreeSet::from([PortName { name: "dns".into(), proto }]),
        };
        assert_eq!(ports(Some(proto::UDP)).resolve(&named).unwrap().len(), 2);
        assert_eq!(ports(None).resolve(&named).unwrap().len(), 3);
        assert_eq!(ports(None).resolve(&[]).unwrap(), [PortRange::one(6, 1)]);
        assert_eq!(Ports::All.resolve(&named), None);
    }

    proptest! {
        #[test]
        fn prefixes_cover_the_range_and_nothing_else(a in any::<u16>(), b in any::<u16>(), port in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            let found = prefixes(first, last);
            let covered = |port: u16| {
                found.iter().filter(|(at, bits)| *bits == 0 || (port ^ at) >> (16 - bits) == 0).count()
            };
            prop_assert!(found.len() <= 30);
            for probe in [port, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                prop_assert_eq!(covered(probe), usize::from((first..=last).contains(&probe)));
            }
        }
    }
}
