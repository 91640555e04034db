//! Mistakes in the peers of an entry.

use std::net::IpAddr;

use agent_crd::rule::{CidrRule, Entity, Peers};
use ipnet::IpNet;

use super::selector;

/// How the names of the fields begin.
#[derive(Clone, Copy)]
pub(super) enum Side {
    From,
    To,
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }
}

pub(super) fn check(peers: &Peers<'_>, side: Side, place: &str, found: &mut Vec<String>) {
    let word = side.word();
    let kinds: Vec<String> = peers.kinds().into_iter().map(|kind| format!("{word}{kind}")).collect();
    if kinds.len() > 1 {
        found.push(format!("{place}: {} exclude each other", kinds.join(" and ")));
    }
    if peers.requires.is_some_and(|requires| !requires.is_empty()) {
        found.push(format!("{place}: {word}Requires is not supported any more"));
    }
    for (name, selectors) in [("Endpoints", peers.endpoints), ("Nodes", peers.nodes)] {
        for (index, one) in selectors.into_iter().flatten().enumerate() {
            selector(one, &format!("{place}.{word}{name}[{index}]"), found);
        }
    }
    for entity in peers.entities.into_iter().flatten() {
        if let Entity::Other(name) = entity {
            found.push(format!("{place}: there is no entity `{name}`"));
        }
    }
    for text in peers.cidrs.into_iter().flatten() {
        if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
            found.push(format!("{place}: `{text}` is no CIDR"));
        }
    }
    for rule in peers.cidr_sets.into_iter().flatten() {
        cidr(rule, &format!("{place}.{word}CIDRSet"), found);
    }
    for fqdn in peers.fqdns.into_iter().flatten() {
        if fqdn.match_name.is_some() == fqdn.match_pattern.is_some() {
            found.push(format!("{place}: a DNS name needs exactly one of matchName, matchPattern"));
        }
    }
    for service in peers.services.into_iter().flatten() {
        if service.k8s_service.is_some() == service.k8s_service_selector.is_some() {
            found.push(format!("{place}: a service needs exactly one of k8sService, k8sServiceSelector"));
        }
    }
}

fn cidr(rule: &CidrRule, place: &str, found: &mut Vec<String>) {
    let given = [rule.cidr.is_some(), rule.cidr_group_ref.is_some(), rule.cidr_group_selector.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        found.push(format!("{place} needs exactly one of cidr, cidrGroupRef, cidrGroupSelector"));
    }
    if let Some(groups) = &rule.cidr_group_selector {
        selector(groups, &format!("{place}.cidrGroupSelector"), found);
    }
    let whole = rule.cidr.as_ref().map(|text| (text, text.parse::<IpNet>()));
    if let Some((text, Err(_))) = &whole {
        found.push(format!("{place}: `{text}` is no CIDR"));
    }
    for text in &rule.except {
        match (text.parse::<IpNet>(), &whole) {
            (Err(_), _) => found.push(format!("{place}: `{text}` is no CIDR")),
            (Ok(except), Some((_, Ok(whole)))) if !whole.contains(&except) => {
                found.push(format!("{place}: `{text}` is not inside of {whole}"));
            }
            _ => {}
        }
    }
}
