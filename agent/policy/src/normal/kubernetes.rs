//! NetworkPolicy, networking.k8s.io/v1.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_crd::network_policy::{
    IpBlock, NetworkPolicyPeer, NetworkPolicyPort, PolicyType, TransportProtocol,
};
use agent_crd::{IntOrString, NetworkPolicy};

use super::labels::{Keys, any_pod, in_namespace, requirements};
use super::{Reader, cidr, exceptions, place, port_name};
use crate::error::{InvalidPolicy, Problem};
use crate::ports::{PortName, PortRange, Ports, proto};
use crate::rule::{Action, Peers, Rule, Section, Spec, Tier};
use crate::selector::{Selector, Selectors};

impl Reader<'_> {
    pub(super) fn network_policy(&mut self, policy: &NetworkPolicy) -> Result<Vec<Spec>, InvalidPolicy> {
        let namespace = policy.metadata.namespace.as_str();
        let spec = &policy.spec;
        let own = requirements(&spec.pod_selector, Keys::Plain)
            .map_err(|error| error.within("podSelector").within("spec"))?;
        for (at, kind) in spec.policy_types.iter().enumerate() {
            if let PolicyType::Other(word) = kind {
                return Err(Problem::Unknown(word.clone()).of(format!("spec.policyTypes[{at}]")));
            }
        }
        let mut rules = Vec::new();
        let isolates_ingress = spec.isolates_ingress();
        let isolates_egress = spec.isolates_egress();
        for (at, entry) in spec.ingress.iter().enumerate().filter(|_| isolates_ingress) {
            let within = |error: InvalidPolicy| error.within(format_args!("spec.ingress[{at}]"));
            let peers = peers(namespace, &entry.from, "from").map_err(within)?;
            let ports = self.ports_of_pods(&entry.ports).map_err(within)?;
            rules.push(allow(Section::Ingress, at, peers, ports));
        }
        for (at, entry) in spec.egress.iter().enumerate().filter(|_| isolates_egress) {
            let within = |error: InvalidPolicy| error.within(format_args!("spec.egress[{at}]"));
            let peers = peers(namespace, &entry.to, "to").map_err(within)?;
            let ports = self.ports_of_pods(&entry.ports).map_err(within)?;
            rules.push(allow(Section::Egress, at, peers, ports));
        }
        Ok(vec![Spec {
            object: Arc::clone(&self.object),
            index: 0,
            tier: Tier::Network,
            priority: 0,
            staged: self.staged,
            host: false,
            subject: Arc::new(Selector::labels(own.into_iter().chain([in_namespace(namespace)]))),
            isolates_ingress,
            isolates_egress,
            rules: rules.into(),
        }])
    }

    fn ports_of_pods(&mut self, ports: &[NetworkPolicyPort]) -> Result<Ports, InvalidPolicy> {
        if ports.is_empty() {
            return Ok(Ports::All);
        }
        let (mut ranges, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (at, port) in ports.iter().enumerate() {
            let field = |name: &str| format!("ports[{at}].{name}");
            let proto = match port.protocol.as_ref().unwrap_or(&TransportProtocol::Tcp) {
                TransportProtocol::Tcp => proto::TCP,
                TransportProtocol::Udp => proto::UDP,
                TransportProtocol::Sctp => proto::SCTP,
                TransportProtocol::Other(word) => {
                    // The rule allows less than it says, which is the safe side.
                    self.not_enforced(
                        &field("protocol"),
                        &format!("`{word}` is not known: it allows nothing"),
                    );
                    continue;
                }
            };
            match (&port.port, port.end_port) {
                (None, None) => {
                    ranges.insert(PortRange::all(proto));
                }
                (Some(IntOrString::String(name)), None) => {
                    let name = port_name(name).map_err(|problem| problem.of(field("port")))?;
                    names.insert(PortName { name, proto: Some(proto) });
                }
                (Some(IntOrString::Int(first)), last) => {
                    let (first, last) = (*first, last.unwrap_or(*first));
                    let number = |value: i32| u16::try_from(value).ok().filter(|value| *value > 0);
                    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
                    let Some((first, last)) = range else {
                        return Err(Problem::Range(first.to_string(), last.into()).of(field("port")));
                    };
                    ranges.insert(PortRange { proto, first, last });
                }
                (port, Some(last)) => {
                    let first = port.as_ref().map_or_else(String::new, ToString::to_string);
                    return Err(Problem::Range(first, last.into()).of(field("endPort")));
                }
            }
        }
        Ok(Ports::Some { ranges, names })
    }
}

fn allow(section: Section, at: usize, peers: Peers, ports: Ports) -> Rule {
    Rule { section, index: place(at), action: Action::Allow, peers: Arc::new(peers), ports: Arc::new(ports) }
}

fn peers(namespace: &str, peers: &[NetworkPolicyPeer], list: &str) -> Result<Peers, InvalidPolicy> {
    if peers.is_empty() {
        return Ok(Peers::everybody());
    }
    let mut selectors = Selectors::default();
    for (at, peer) in peers.iter().enumerate() {
        let within = |error: InvalidPolicy| error.within(format_args!("{list}[{at}]"));
        selectors.extend(selector(namespace, peer).map_err(within)?);
    }
    Ok(Peers { selectors, ..Peers::default() })
}

fn selector(namespace: &str, peer: &NetworkPolicyPeer) -> Result<Option<Selector>, InvalidPolicy> {
    let pods = match &peer.pod_selector {
        Some(pods) => Some(requirements(pods, Keys::Plain).map_err(|error| error.within("podSelector"))?),
        None => None,
    };
    let namespaces = match &peer.namespace_selector {
        Some(namespaces) => Some(
            requirements(namespaces, Keys::Namespace).map_err(|error| error.within("namespaceSelector"))?,
        ),
        None => None,
    };
    match (&peer.ip_block, pods, namespaces) {
        (Some(_), Some(_), _) => Err(Problem::Exclude("ipBlock", "podSelector").of("")),
        (Some(_), _, Some(_)) => Err(Problem::Exclude("ipBlock", "namespaceSelector").of("")),
        (Some(block), None, None) => ip_block(block).map(Some).map_err(|error| error.within("ipBlock")),
        // Nothing is named, so nobody is meant.
        (None, None, None) => Ok(None),
        (None, Some(pods), None) => {
            Ok(Some(Selector::labels(pods.into_iter().chain([in_namespace(namespace)]))))
        }
        (None, pods, Some(namespaces)) => {
            let all = pods.into_iter().flatten().chain(namespaces).chain([any_pod()]);
            Ok(Some(Selector::labels(all)))
        }
    }
}

fn ip_block(block: &IpBlock) -> Result<Selector, InvalidPolicy> {
    let net = cidr(&block.cidr).map_err(|problem| problem.of("cidr"))?;
    Ok(Selector::cidr(net, exceptions(Some(&net), &block.except)?))
}
