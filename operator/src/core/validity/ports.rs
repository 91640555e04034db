//! Mistakes in the ports of an entry, and in what is demanded of connections to them.

use agent_crd::IntOrString;
use agent_crd::icmp::icmp_type;
use agent_crd::rule::{
    IcmpFamily, IcmpRule, L7Rules, MAX_ICMP_FIELDS, MAX_PORTS, PortDenyRule, PortProtocol, PortRule, Protocol,
};

/// Direction of an entry, and whether it is about nodes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Ingress { of_nodes: bool },
    Egress { of_nodes: bool },
}

pub(super) fn check(
    rules: &[PortRule],
    icmps: &[IcmpRule],
    direction: Direction,
    place: &str,
    found: &mut Vec<String>,
) {
    both(rules.is_empty(), icmps, place, found);
    for (index, rule) in rules.iter().enumerate() {
        let place = format!("{place}.toPorts[{index}]");
        ports(&rule.ports, &place, found);
        let l7 = rule.rules.as_ref().filter(|l7| !l7.is_empty());
        if let Some(l7) = l7 {
            requests(l7, &rule.ports, direction, &place, found);
        }
        if !rule.server_names.is_empty() && l7.is_some() && rule.terminating_tls.is_none() {
            found.push(format!("{place}: serverNames with rules needs terminatingTLS"));
        }
        if rule.listener.is_some() && l7.is_some() {
            found.push(format!("{place}: listener and rules exclude each other"));
        }
        if rule.listener.is_some() && matches!(direction, Direction::Ingress { .. }) {
            found.push(format!("{place}: listener is for egress only"));
        }
    }
}

pub(super) fn check_deny(rules: &[PortDenyRule], icmps: &[IcmpRule], place: &str, found: &mut Vec<String>) {
    both(rules.is_empty(), icmps, place, found);
    for (index, rule) in rules.iter().enumerate() {
        ports(&rule.ports, &format!("{place}.toPorts[{index}]"), found);
    }
}

fn both(no_ports: bool, icmps: &[IcmpRule], place: &str, found: &mut Vec<String>) {
    if !no_ports && !icmps.is_empty() {
        found.push(format!("{place}: toPorts and icmps exclude each other"));
    }
    for rule in icmps {
        if rule.fields.len() > MAX_ICMP_FIELDS {
            found.push(format!("{place}: more than {MAX_ICMP_FIELDS} ICMP types"));
        }
        for field in &rule.fields {
            match &field.family {
                Some(IcmpFamily::Other(word)) => found.push(format!("{place}: there is no family `{word}`")),
                family => {
                    let known = match &field.kind {
                        IntOrString::Int(number) => (0..=255).contains(number),
                        IntOrString::String(name) => {
                            icmp_type(*family == Some(IcmpFamily::Ipv6), name).is_some()
                        }
                    };
                    if !known {
                        found.push(format!("{place}: there is no ICMP type {}", field.kind));
                    }
                }
            }
        }
    }
}

fn ports(ports: &[PortProtocol], place: &str, found: &mut Vec<String>) {
    if ports.len() > MAX_PORTS {
        found.push(format!("{place}: more than {MAX_PORTS} ports"));
    }
    for one in ports {
        if let Some(Protocol::Other(word)) = &one.protocol {
            found.push(format!("{place}: there is no protocol `{word}`"));
        }
        let number = one.port.parse::<u16>();
        let is_name = !one.port.is_empty() && one.port.contains(|c: char| c.is_ascii_alphabetic());
        if number.is_err() && !is_name && !one.port.is_empty() {
            found.push(format!("{place}: `{}` is no port", one.port));
        }
        match (one.end_port, number) {
            (Some(end), Ok(first)) if end != 0 && end < i32::from(first) => {
                found.push(format!("{place}: endPort {end} is less than port {first}"));
            }
            (Some(end), _) if !(0..=65535).contains(&end) => {
                found.push(format!("{place}: `{end}` is no port"));
            }
            (Some(end), Err(_)) if end != 0 => found.push(format!("{place}: endPort needs a port number")),
            _ => {}
        }
    }
}

/// Mistakes in what may be said on connections.
fn requests(
    l7: &L7Rules,
    ports: &[PortProtocol],
    direction: Direction,
    place: &str,
    found: &mut Vec<String>,
) {
    let kinds = l7.kinds();
    if kinds.len() > 1 {
        found.push(format!("{place}: {} exclude each other", kinds.join(" and ")));
    }
    for kind in kinds {
        match (direction, kind) {
            (Direction::Ingress { of_nodes: true }, _) => {
                found.push(format!("{place}: for ingress, rules are not for nodes"));
            }
            (Direction::Ingress { .. }, "dns") => found.push(format!("{place}: dns is for egress only")),
            (Direction::Egress { of_nodes: true }, kind) if kind != "dns" => {
                found.push(format!("{place}: {kind} is not for nodes"));
            }
            _ => {}
        }
        for port in ports {
            let tcp = port.protocol == Some(Protocol::Tcp);
            let any = matches!(port.protocol, None | Some(Protocol::Any | Protocol::Udp));
            if !(tcp || kind == "dns" && any) {
                let wanted = if kind == "dns" { "TCP, UDP or ANY" } else { "TCP" };
                found.push(format!("{place}: {kind} needs protocol {wanted}"));
            }
            if matches!(port.port.as_str(), "" | "0") {
                found.push(format!("{place}: {kind} needs a port"));
            }
            if kind == "dns" && port.end_port.is_some_and(|end| end != 0) {
                found.push(format!("{place}: dns takes no range of ports"));
            }
        }
    }
}
