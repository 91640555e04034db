//! Ports and ICMP types of entries in Cilium's policies.

use std::collections::BTreeSet;

use agent_crd::icmp::icmp_type;
use agent_crd::rule::{IcmpFamily, IcmpRule, MAX_ICMP_FIELDS, MAX_PORTS, PortProtocol, PortRule, Protocol};

use super::cilium::{RawPorts, Scope};
use super::{Reader, port_name};
use crate::error::{InvalidPolicy, Problem};
use crate::ports::{PortName, PortRange, Ports, proto};
use crate::rows::Direction;
use crate::rule::Section;

/// Ports by number and by name.
#[derive(Default)]
struct Collected {
    ranges: BTreeSet<PortRange>,
    names: BTreeSet<PortName>,
    all: bool,
    any: bool,
}

impl Collected {
    fn ports(self) -> Option<Ports> {
        if self.all {
            return Some(Ports::All);
        }
        self.any.then_some(Ports::Some { ranges: self.ranges, names: self.names })
    }
}

impl Reader<'_> {
    /// The ports that are allowed or denied, and those that are allowed by way of a proxy.
    pub(super) fn ports(
        &mut self,
        section: Section,
        raw: RawPorts<'_>,
        scope: Scope<'_>,
        path: &str,
    ) -> Result<(Option<Ports>, Option<Ports>), InvalidPolicy> {
        let (mut plain, mut proxy) = (Collected::default(), Collected::default());
        match raw {
            RawPorts::Allow(rules) => {
                for (at, rule) in rules.iter().enumerate() {
                    let field = format!("toPorts[{at}]");
                    layer7(section, rule, scope).map_err(|error| error.within(&field))?;
                    if rule.ports.is_empty() {
                        self.warn(&format!("{path}.{field}"), "it names no port: it allows nothing");
                    }
                    let into = if rule.needs_proxy() { &mut proxy } else { &mut plain };
                    into.any = true;
                    collect(&rule.ports, into).map_err(|error| error.within(&field))?;
                    if rule.needs_proxy() {
                        self.not_enforced(
                            &format!("{path}.{field}"),
                            "it needs a proxy, which is not there yet: what it would allow does not pass",
                        );
                    }
                }
            }
            RawPorts::Deny(rules) => {
                for (at, rule) in rules.iter().enumerate() {
                    let field = format!("toPorts[{at}]");
                    plain.any = true;
                    if rule.ports.is_empty() {
                        plain.all = true;
                        self.warn(&format!("{path}.{field}"), "it names no port: it denies every one");
                    }
                    collect(&rule.ports, &mut plain).map_err(|error| error.within(&field))?;
                }
            }
        }
        Ok((plain.ports(), proxy.ports()))
    }

    #[expect(clippy::unused_self, reason = "as the other parts of an entry")]
    pub(super) fn icmp_types(&self, rules: &[IcmpRule]) -> Result<Ports, InvalidPolicy> {
        let mut ranges = BTreeSet::new();
        for (at, rule) in rules.iter().enumerate() {
            if rule.fields.len() > MAX_ICMP_FIELDS {
                return Err(Problem::TooMany(MAX_ICMP_FIELDS).of(format!("icmps[{at}].fields")));
            }
            for (index, field) in rule.fields.iter().enumerate() {
                let path = |name: &str| format!("icmps[{at}].fields[{index}].{name}");
                let (v6, family, proto) = match field.family.as_ref().unwrap_or(&IcmpFamily::Ipv4) {
                    IcmpFamily::Ipv4 => (false, "ICMP", proto::ICMP),
                    IcmpFamily::Ipv6 => (true, "ICMPv6", proto::ICMPV6),
                    IcmpFamily::Other(word) => return Err(Problem::Unknown(word.clone()).of(path("family"))),
                };
                let text = field.kind.to_string();
                let kind =
                    icmp_type(v6, &text).ok_or_else(|| Problem::IcmpType(text, family).of(path("type")))?;
                ranges.insert(PortRange::one(proto, kind.into()));
            }
        }
        Ok(Ports::Some { ranges, names: BTreeSet::new() })
    }
}

fn collect(ports: &[PortProtocol], into: &mut Collected) -> Result<(), InvalidPolicy> {
    if ports.len() > MAX_PORTS {
        return Err(Problem::TooMany(MAX_PORTS).of("ports"));
    }
    for (at, port) in ports.iter().enumerate() {
        let path = |name: &str| format!("ports[{at}].{name}");
        let protocol = port.protocol.as_ref().unwrap_or(&Protocol::Any);
        let numbers = protocols(protocol).map_err(|problem| problem.of(path("protocol")))?;
        let with_ports = numbers.iter().all(|number| proto::ANY.contains(number));
        let digits = !port.port.is_empty() && port.port.chars().all(|c| c.is_ascii_digit());
        if digits || port.port.is_empty() {
            let first = if digits { port.port.parse().ok() } else { Some(0) };
            let first: u16 = first.ok_or_else(|| Problem::Port(port.port.clone()).of(path("port")))?;
            if let Some(last) = port.end_port.filter(|last| !digits && *last != 0) {
                return Err(Problem::Range(String::new(), last.into()).of(path("endPort")));
            }
            let last = match (first, port.end_port.unwrap_or(0)) {
                (0, 0) => u16::MAX,
                (first, 0) => first,
                (first, last) => u16::try_from(last)
                    .ok()
                    .filter(|last| first <= *last)
                    .ok_or_else(|| Problem::Range(port.port.clone(), last.into()).of(path("endPort")))?,
            };
            if !with_ports && (first, last) != (0, u16::MAX) {
                return Err(Problem::NotHere("the protocol has no ports").of(path("port")));
            }
            into.ranges.extend(numbers.iter().map(|proto| PortRange { proto: *proto, first, last }));
        } else {
            if let Some(last) = port.end_port.filter(|last| *last != 0) {
                return Err(Problem::Range(port.port.clone(), last.into()).of(path("endPort")));
            }
            if !with_ports {
                return Err(Problem::NotHere("the protocol has no ports").of(path("port")));
            }
            let name = port_name(&port.port).map_err(|problem| problem.of(path("port")))?;
            let proto = (numbers.len() == 1).then(|| numbers[0]);
            into.names.insert(PortName { name, proto });
        }
    }
    Ok(())
}

fn protocols(protocol: &Protocol) -> Result<Vec<u8>, Problem> {
    Ok(match protocol {
        Protocol::Any => proto::ANY.to_vec(),
        Protocol::Tcp => vec![proto::TCP],
        Protocol::Udp => vec![proto::UDP],
        Protocol::Sctp => vec![proto::SCTP],
        Protocol::Igmp => vec![2],
        Protocol::Ipip => vec![4],
        Protocol::Ipv6 => vec![41],
        Protocol::Gre => vec![47],
        Protocol::Esp => vec![50],
        Protocol::Ah => vec![51],
        Protocol::Vrrp => vec![112],
        Protocol::Other(word) => return Err(Problem::Unknown(word.clone())),
    })
}

/// What may be asked of a proxy, and where.
fn layer7(section: Section, rule: &PortRule, scope: Scope<'_>) -> Result<(), InvalidPolicy> {
    let ingress = section.direction() == Direction::Ingress;
    let kinds = rule.rules.as_ref().map(agent_crd::rule::L7Rules::kinds).unwrap_or_default();
    if rule.listener.is_some() && ingress {
        return Err(Problem::NotHere("a listener is for egress").of("listener"));
    }
    if let Some(priority) = rule.listener.as_ref().and_then(|listener| listener.priority)
        && !(1..=100).contains(&priority)
    {
        return Err(Problem::NotBetween(priority.into(), 1, 100).of("listener.priority"));
    }
    let Some(kind) = kinds.first().copied() else { return Ok(()) };
    if kinds.len() > 1 {
        return Err(Problem::OneOf("http, kafka, dns, l7").of("rules"));
    }
    if rule.listener.is_some() {
        return Err(Problem::Exclude("listener", "rules").of(""));
    }
    if !rule.server_names.is_empty() && rule.terminating_tls.is_none() {
        return Err(Problem::NotHere("with rules it needs terminatingTLS").of("serverNames"));
    }
    let dns = kind == "dns";
    if dns && ingress {
        return Err(Problem::NotHere("dns is for egress").of("rules.dns"));
    }
    if scope.host && (ingress || !dns) {
        return Err(Problem::NotHere("for nodes there is only dns, on egress").of("rules"));
    }
    for (at, port) in rule.ports.iter().enumerate() {
        let path = |name: &str| format!("ports[{at}].{name}");
        if port.port.is_empty() || port.port.parse() == Ok(0) {
            return Err(Problem::NotHere("rules need a port").of(path("port")));
        }
        if dns && port.end_port.is_some_and(|last| last != 0) {
            return Err(Problem::NotHere("dns needs single ports").of(path("endPort")));
        }
        let protocol = port.protocol.as_ref().unwrap_or(&Protocol::Any);
        let fits = match protocol {
            Protocol::Tcp => true,
            Protocol::Udp | Protocol::Any => dns,
            _ => false,
        };
        if !fits {
            return Err(Problem::NotHere("rules do not go with this protocol").of(path("protocol")));
        }
    }
    Ok(())
}
