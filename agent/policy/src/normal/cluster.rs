//! ClusterNetworkPolicy, policy.networking.k8s.io/v1alpha2.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_crd::cluster_network_policy::{
    EgressPeer, IngressPeer, NamespacedPod, Port, PortsOf, ProtocolMatch, RuleAction, Tier as RawTier,
};
use agent_crd::{ClusterNetworkPolicy, LabelSelector};

use super::labels::{Keys, any_pod, requirements};
use super::{Reader, cidr, place, port_name};
use crate::error::{InvalidPolicy, Problem};
use crate::label::source;
use crate::ports::{PortName, PortRange, Ports, proto};
use crate::rule::{Action, Peers, Rule, Section, Spec, Tier};
use crate::selector::{Requirement, Selector};

/// Peers and ports that are not known: what is of a newer version.
#[derive(Default)]
struct Newer(Vec<&'static str>);

impl Reader<'_> {
    pub(super) fn cluster_network_policy(
        &mut self,
        policy: &ClusterNetworkPolicy,
    ) -> Result<Vec<Spec>, InvalidPolicy> {
        self.cluster_spec(policy).map(|spec| vec![spec]).map_err(|error| error.within("spec"))
    }

    fn cluster_spec(&mut self, policy: &ClusterNetworkPolicy) -> Result<Spec, InvalidPolicy> {
        let raw = &policy.spec;
        let tier = match &raw.tier {
            RawTier::Admin => Tier::Admin,
            RawTier::Baseline => Tier::Baseline,
            RawTier::Other(word) => return Err(Problem::Unknown(word.clone()).of("tier")),
        };
        let priority = u16::try_from(raw.priority)
            .ok()
            .filter(|priority| *priority <= 1000)
            .ok_or_else(|| Problem::NotBetween(raw.priority.into(), 0, 1000).of("priority"))?;
        let subject = match (&raw.subject.namespaces, &raw.subject.pods) {
            (Some(namespaces), None) => in_namespaces(namespaces, "namespaces"),
            (None, Some(pods)) => pods_in(pods, "pods"),
            _ => Err(Problem::OneOf("namespaces, pods").of("")),
        }
        .map_err(|error| error.within("subject"))?;
        let mut rules = Vec::new();
        for (at, entry) in raw.ingress.iter().enumerate() {
            let field = format!("ingress[{at}]");
            if entry.from.is_empty() {
                return Err(Problem::Empty.of(format!("{field}.from")));
            }
            let mut newer = Newer::default();
            let peers = all_ingress_peers(&entry.from, &mut newer).map_err(|error| error.within(&field))?;
            let ports = ports(&entry.protocols, &mut newer).map_err(|error| error.within(&field))?;
            rules.push(self.cluster_rule(Section::Ingress, at, &entry.action, peers, ports, &newer));
        }
        for (at, entry) in raw.egress.iter().enumerate() {
            let field = format!("egress[{at}]");
            if entry.to.is_empty() {
                return Err(Problem::Empty.of(format!("{field}.to")));
            }
            let mut newer = Newer::default();
            let peers = self
                .egress_peers(&entry.to, &entry.action, &format!("spec.{field}"), &mut newer)
                .map_err(|error| error.within(&field))?;
            let ports = ports(&entry.protocols, &mut newer).map_err(|error| error.within(&field))?;
            rules.push(self.cluster_rule(Section::Egress, at, &entry.action, peers, ports, &newer));
        }
        Ok(Spec {
            object: Arc::clone(&self.object),
            index: 0,
            tier,
            priority,
            staged: self.staged,
            host: false,
            subject: Arc::new(subject),
            isolates_ingress: false,
            isolates_egress: false,
            rules: rules.into(),
        })
    }

    /// What is not known must not open anything: a rule that accepts matches only what is known of it, any other one denies
    /// everything.
    fn cluster_rule(
        &mut self,
        section: Section,
        at: usize,
        action: &RuleAction,
        peers: Peers,
        ports: Ports,
        newer: &Newer,
    ) -> Rule {
        let field = format!("spec.{}[{at}]", section.name());
        let known = match action {
            RuleAction::Accept => Some(Action::Allow),
            RuleAction::Deny => Some(Action::Deny),
            RuleAction::Pass => Some(Action::Pass),
            RuleAction::Other(word) => {
                self.not_enforced(&field, &format!("action `{word}` is not known: it denies everything"));
                None
            }
        };
        for what in &newer.0 {
            let then = if known == Some(Action::Allow) { "is left out" } else { "makes it deny everything" };
            self.not_enforced(&field, &format!("{what} that is not known {then}"));
        }
        let (action, peers, ports) = match known {
            Some(action) if newer.0.is_empty() || action == Action::Allow => (action, peers, ports),
            _ => (Action::Deny, Peers::everybody(), Ports::All),
        };
        Rule { section, index: place(at), action, peers: Arc::new(peers), ports: Arc::new(ports) }
    }

    fn egress_peers(
        &mut self,
        raw: &[EgressPeer],
        action: &RuleAction,
        path: &str,
        newer: &mut Newer,
    ) -> Result<Peers, InvalidPolicy> {
        let mut peers = Peers::default();
        for (at, peer) in raw.iter().enumerate() {
            let within = |error: InvalidPolicy| error.within(format_args!("to[{at}]"));
            let there = [
                peer.namespaces.is_some(),
                peer.pods.is_some(),
                peer.nodes.is_some(),
                peer.networks.is_some(),
                peer.domain_names.is_some(),
            ];
            match there.iter().filter(|there| **there).count() {
                0 => newer.0.push("a peer"),
                1 => {}
                _ => {
                    return Err(within(
                        Problem::OneOf("namespaces, pods, nodes, networks, domainNames").of(""),
                    ));
                }
            }
            if let Some(namespaces) = &peer.namespaces {
                peers.selectors.insert(in_namespaces(namespaces, "namespaces").map_err(within)?);
            }
            if let Some(pods) = &peer.pods {
                peers.selectors.insert(pods_in(pods, "pods").map_err(within)?);
            }
            if let Some(nodes) = &peer.nodes {
                peers.selectors.extend(nodes_by(nodes).map_err(within)?);
            }
            for (index, text) in peer.networks.iter().flatten().enumerate() {
                let net = cidr(text).map_err(|p| within(p.of(format!("networks[{index}]"))))?;
                peers.selectors.insert(Selector::cidr(net, []));
            }
            if peer.domain_names.is_some() {
                if *action != RuleAction::Accept {
                    return Err(within(
                        Problem::NotHere("only rules that accept know names").of("domainNames"),
                    ));
                }
                let message = "domainNames needs the DNS proxy, which is not there yet: it selects nobody";
                self.not_enforced(&format!("{path}.to[{at}]"), message);
            }
        }
        Ok(peers)
    }
}

fn all_ingress_peers(raw: &[IngressPeer], newer: &mut Newer) -> Result<Peers, InvalidPolicy> {
    let mut peers = Peers::default();
    for (at, peer) in raw.iter().enumerate() {
        let within = |error: InvalidPolicy| error.within(format_args!("from[{at}]"));
        match (&peer.namespaces, &peer.pods) {
            (None, None) => newer.0.push("a peer"),
            (Some(_), Some(_)) => return Err(within(Problem::OneOf("namespaces, pods").of(""))),
            (Some(namespaces), None) => {
                peers.selectors.insert(in_namespaces(namespaces, "namespaces").map_err(within)?);
            }
            (None, Some(pods)) => {
                peers.selectors.insert(pods_in(pods, "pods").map_err(within)?);
            }
        }
    }
    Ok(peers)
}

fn in_namespaces(namespaces: &LabelSelector, field: &str) -> Result<Selector, InvalidPolicy> {
    let own = requirements(namespaces, Keys::Namespace).map_err(|error| error.within(field))?;
    Ok(Selector::labels(own.into_iter().chain([any_pod()])))
}

fn pods_in(pods: &NamespacedPod, field: &str) -> Result<Selector, InvalidPolicy> {
    let namespaces = requirements(&pods.namespace_selector, Keys::Namespace)
        .map_err(|error| error.within("namespaceSelector").within(field))?;
    let own = requirements(&pods.pod_selector, Keys::Plain)
        .map_err(|error| error.within("podSelector").within(field))?;
    Ok(Selector::labels(namespaces.into_iter().chain(own).chain([any_pod()])))
}

/// Nodes by labels: the own one and others.
fn nodes_by(nodes: &LabelSelector) -> Result<Vec<Selector>, InvalidPolicy> {
    let own = requirements(nodes, Keys::WithSource(source::NODE)).map_err(|error| error.within("nodes"))?;
    Ok(["host", "remote-node"]
        .into_iter()
        .map(|kind| {
            Selector::labels(own.iter().cloned().chain([Requirement::exists(source::RESERVED, kind)]))
        })
        .collect())
}

fn ports(raw: &[ProtocolMatch], newer: &mut Newer) -> Result<Ports, InvalidPolicy> {
    if raw.is_empty() {
        return Ok(Ports::All);
    }
    let (mut ranges, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, protocol) in raw.iter().enumerate() {
        let within = |error: InvalidPolicy| error.within(format_args!("protocols[{at}]"));
        let by_number = [
            (proto::TCP, "tcp", &protocol.tcp),
            (proto::UDP, "udp", &protocol.udp),
            (proto::SCTP, "sctp", &protocol.sctp),
        ];
        let there = by_number.iter().filter(|(_, _, ports)| ports.is_some()).count()
            + usize::from(protocol.destination_named_port.is_some());
        match there {
            0 => newer.0.push("a protocol"),
            1 => {}
            _ => return Err(within(Problem::OneOf("tcp, udp, sctp, destinationNamedPort").of(""))),
        }
        for (proto, field, ports) in by_number {
            if let Some(ports) = ports {
                match ports_of(proto, ports).map_err(|error| within(error.within(field)))? {
                    Some(range) => {
                        ranges.insert(range);
                    }
                    None => newer.0.push("a port"),
                }
            }
        }
        if let Some(name) = &protocol.destination_named_port {
            let name = port_name(name).map_err(|problem| within(problem.of("destinationNamedPort")))?;
            names.insert(PortName { name, proto: None });
        }
    }
    Ok(Ports::Some { ranges, names })
}

/// `None`: it is of a newer version.
fn ports_of(proto: u8, ports: &PortsOf) -> Result<Option<PortRange>, InvalidPolicy> {
    let Some(Port { number, range }) = &ports.destination_port else {
        return Ok(Some(PortRange::all(proto)));
    };
    let (first, last) = match (number, range) {
        (Some(number), None) => (*number, *number),
        (None, Some(range)) => (range.start, range.end),
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Problem::OneOf("number, range").of("destinationPort")),
    };
    let port = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
    match port(first).zip(port(last)).filter(|(first, last)| first <= last) {
        Some((first, last)) => Ok(Some(PortRange { proto, first, last })),
        None => Err(Problem::Range(first.to_string(), last.into()).of("destinationPort")),
    }
}
