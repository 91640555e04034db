//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: rules and their entries.

use std::sync::Arc;

use agent_crd::rule::{
    Authentication, AuthenticationMode, IcmpRule, Peers as RawPeers, PortDenyRule, PortRule, Rule as RawRule,
};

use super::labels::{Keys, in_namespace, requirements};
use super::{Reader, place};
use crate::error::{InvalidPolicy, Problem};
use crate::label::{NAMESPACE, source};
use crate::ports::Ports;
use crate::rule::{Action, Rule, Section, Spec, Tier};
use crate::selector::{Requirement, Selector};

/// What the entries of a rule have in common.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The policy's namespace, if it has one.
    pub(super) namespace: Option<&'a str>,
    /// The rule is for nodes.
    pub(super) host: bool,
    /// The rule is for pods whose labels are not known yet. They are in no namespace that one could know.
    pub(super) init: bool,
}

/// The ports of an entry.
#[derive(Clone, Copy)]
pub(super) enum RawPorts<'a> {
    Allow(&'a [PortRule]),
    Deny(&'a [PortDenyRule]),
}

impl RawPorts<'_> {
    fn is_empty(self) -> bool {
        match self {
            Self::Allow(rules) => rules.is_empty(),
            Self::Deny(rules) => rules.is_empty(),
        }
    }
}

/// An entry of any of the four lists.
struct RawEntry<'a> {
    section: Section,
    index: usize,
    peers: RawPeers<'a>,
    ports: RawPorts<'a>,
    icmps: &'a [IcmpRule],
    authentication: Option<&'a Authentication>,
}

impl Reader<'_> {
    pub(super) fn cilium(
        &mut self,
        spec: Option<&RawRule>,
        specs: &[RawRule],
        namespace: Option<&str>,
    ) -> Result<Vec<Spec>, InvalidPolicy> {
        if spec.is_none() && specs.is_empty() {
            return Err(Problem::OneOf("spec, specs").of("spec"));
        }
        if specs.len() >= usize::from(u16::MAX) {
            return Err(Problem::TooMany(usize::from(u16::MAX)).of("specs"));
        }
        let named = spec.map(|rule| ("spec".to_owned(), rule)).into_iter();
        let listed = specs.iter().enumerate().map(|(at, rule)| (format!("specs[{at}]"), rule));
        let mut read = Vec::new();
        for (index, (field, rule)) in named.chain(listed).enumerate() {
            let spec = self.cilium_rule(place(index), &field, rule, namespace);
            read.extend(self.taken(spec, &field));
        }
        Ok(read)
    }

    fn cilium_rule(
        &mut self,
        index: u16,
        field: &str,
        rule: &RawRule,
        namespace: Option<&str>,
    ) -> Result<Spec, InvalidPolicy> {
        let host = rule.node_selector.is_some();
        let subject = self.taken(subject(rule, namespace), field).unwrap_or_default();
        if rule.ingress.is_empty()
            && rule.ingress_deny.is_empty()
            && rule.egress.is_empty()
            && rule.egress_deny.is_empty()
        {
            return Err(Problem::NoEntries.of(""));
        }
        if let Some(log) = &rule.log
            && (log.value.chars().count() > 32 || log.value.chars().any(char::is_control))
        {
            return Err(Problem::Text(32).of("log.value"));
        }
        let init = subject.iter().any(|r| r.source == source::RESERVED && r.key == "init");
        let scope = Scope { namespace, host, init };
        let mut rules = Vec::new();
        for entry in entries(rule) {
            let path = format!("{field}.{}[{}]", entry.section.name(), entry.index);
            let read = self.entry(&entry, scope, &path);
            rules.extend(self.taken(read, &path).into_iter().flatten());
        }
        Ok(Spec {
            object: Arc::clone(&self.object),
            index,
            tier: Tier::Network,
            priority: 0,
            staged: self.staged,
            host,
            subject: Arc::new(self.subject(subject, namespace, field)),
            isolates_ingress: rule.isolates_ingress(),
            isolates_egress: rule.isolates_egress(),
            rules: rules.into(),
        })
    }

    /// A policy of a namespace is for pods of that namespace, whatever its selector says of others.
    fn subject(&mut self, own: Vec<Requirement>, namespace: Option<&str>, field: &str) -> Selector {
        let Some(namespace) = namespace else { return Selector::labels(own) };
        let about_namespace =
            |r: &Requirement| r.key == NAMESPACE && matches!(r.source.as_str(), source::K8S | source::ANY);
        let all = own.len();
        let kept: Vec<Requirement> =
            own.into_iter().filter(|r| !(about_namespace(r) && r.op != in_namespace(namespace).op)).collect();
        if kept.len() < all {
            self.warn(
                &format!("{field}.endpointSelector"),
                "it names another namespace; the policy is for its own namespace only",
            );
        }
        Selector::labels(kept.into_iter().chain([in_namespace(namespace)]))
    }

    fn entry(
        &mut self,
        entry: &RawEntry<'_>,
        scope: Scope<'_>,
        path: &str,
    ) -> Result<Vec<Rule>, InvalidPolicy> {
        let deny = matches!(entry.section, Section::IngressDeny | Section::EgressDeny);
        if !entry.ports.is_empty() && !entry.icmps.is_empty() {
            return Err(Problem::Exclude("toPorts", "icmps").of(""));
        }
        let with_ports = !entry.ports.is_empty() || !entry.icmps.is_empty();
        let Some(peers) = self.peers(entry.section, &entry.peers, with_ports, scope, path)? else {
            return Ok(Vec::new());
        };
        let proven = match entry.authentication.map(|authentication| &authentication.mode) {
            None | Some(AuthenticationMode::Disabled) => false,
            Some(mode @ (AuthenticationMode::Required | AuthenticationMode::TestAlwaysFail)) => {
                self.not_enforced(path, &format!("authentication `{mode}` is not there yet: nothing passes"));
                true
            }
            Some(AuthenticationMode::Other(word)) => {
                return Err(Problem::Unknown(word.clone()).of("authentication.mode"));
            }
        };
        let plain = if deny { Action::Deny } else { Action::Allow };
        let (plain_ports, proxy_ports) = if !entry.icmps.is_empty() {
            (Some(self.icmp_types(entry.icmps)?), None)
        } else if entry.ports.is_empty() {
            (Some(Ports::All), None)
        } else {
            self.ports(entry.section, entry.ports, scope, path)?
        };
        let peers = Arc::new(peers);
        let rule = |action, ports: Ports| Rule {
            section: entry.section,
            index: place(entry.index),
            action: if proven { Action::Proxy } else { action },
            peers: Arc::clone(&peers),
            ports: Arc::new(ports),
        };
        Ok(plain_ports
            .map(|ports| rule(plain, ports))
            .into_iter()
            .chain(proxy_ports.map(|ports| rule(Action::Proxy, ports)))
            .collect())
    }
}

/// Whom a rule is for.
fn subject(rule: &RawRule, namespace: Option<&str>) -> Result<Vec<Requirement>, InvalidPolicy> {
    let (selector, field) = match (&rule.endpoint_selector, &rule.node_selector) {
        (Some(_), Some(_)) => return Err(Problem::Exclude("endpointSelector", "nodeSelector").of("")),
        (None, None) => return Err(Problem::OneOf("endpointSelector, nodeSelector").of("")),
        (None, Some(_)) if namespace.is_some() => {
            return Err(Problem::NotHere("nodes are in no namespace").of("nodeSelector"));
        }
        (Some(selector), None) => (selector, "endpointSelector"),
        (None, Some(selector)) => (selector, "nodeSelector"),
    };
    requirements(selector, Keys::WithSource(source::ANY)).map_err(|error| error.within(field))
}

/// The entries of a rule, list by list.
fn entries(rule: &RawRule) -> Vec<RawEntry<'_>> {
    let ingress = rule.ingress.iter().enumerate().map(|(index, entry)| RawEntry {
        section: Section::Ingress,
        index,
        peers: entry.peers(),
        ports: RawPorts::Allow(&entry.to_ports),
        icmps: &entry.icmps,
        authentication: entry.authentication.as_ref(),
    });
    let ingress_deny = rule.ingress_deny.iter().enumerate().map(|(index, entry)| RawEntry {
        section: Section::IngressDeny,
        index,
        peers: entry.peers(),
        ports: RawPorts::Deny(&entry.to_ports),
        icmps: &entry.icmps,
        authentication: None,
    });
    let egress = rule.egress.iter().enumerate().map(|(index, entry)| RawEntry {
        section: Section::Egress,
        index,
        peers: entry.peers(),
        ports: RawPorts::Allow(&entry.to_ports),
        icmps: &entry.icmps,
        authentication: entry.authentication.as_ref(),
    });
    let egress_deny = rule.egress_deny.iter().enumerate().map(|(index, entry)| RawEntry {
        section: Section::EgressDeny,
        index,
        peers: entry.peers(),
        ports: RawPorts::Deny(&entry.to_ports),
        icmps: &entry.icmps,
        authentication: None,
    });
    ingress.chain(ingress_deny).chain(egress).chain(egress_deny).collect()
}
