//! Peers of entries in Cilium's policies.

use agent_crd::LabelSelector;
use agent_crd::rule::{CidrRule, Entity as RawEntity, Peers as RawPeers, Service};

use super::cilium::Scope;
use super::labels::{Keys, any_pod, in_namespace, requirements};
use super::{Reader, block, cidr, exceptions};
use crate::error::{InvalidPolicy, Problem};
use crate::label::{NAMESPACE, NAMESPACE_LABELS, source};
use crate::peers::Entity;
use crate::rows::Direction;
use crate::rule::{PeerRef, Peers, Section};
use crate::selector::{Requirement, Selector};

/// Names of the fields in a direction.
struct Names {
    endpoints: &'static str,
    requires: &'static str,
    cidrs: &'static str,
    cidr_sets: &'static str,
    entities: &'static str,
    groups: &'static str,
    nodes: &'static str,
}

const FROM: Names = Names {
    endpoints: "fromEndpoints",
    requires: "fromRequires",
    cidrs: "fromCIDR",
    cidr_sets: "fromCIDRSet",
    entities: "fromEntities",
    groups: "fromGroups",
    nodes: "fromNodes",
};

const TO: Names = Names {
    endpoints: "toEndpoints",
    requires: "toRequires",
    cidrs: "toCIDR",
    cidr_sets: "toCIDRSet",
    entities: "toEntities",
    groups: "toGroups",
    nodes: "toNodes",
};

impl Reader<'_> {
    /// The peers of an entry; `None`: the entry says nothing.
    pub(super) fn peers(
        &mut self,
        section: Section,
        raw: &RawPeers<'_>,
        with_ports: bool,
        scope: Scope<'_>,
        path: &str,
    ) -> Result<Option<Peers>, InvalidPolicy> {
        let names = if section.direction() == Direction::Ingress { &FROM } else { &TO };
        if raw.requires.is_some_and(|requires| !requires.is_empty()) {
            return Err(Problem::MustBeEmpty.of(names.requires));
        }
        one_kind(raw, names)?;
        if (RawPeers { requires: None, ..*raw }).is_empty() {
            return Ok(with_ports.then(Peers::everybody));
        }
        let mut peers = Peers::default();
        for (at, selector) in raw.endpoints.unwrap_or_default().iter().enumerate() {
            let found = endpoints(selector, scope)
                .map_err(|error| error.within(format_args!("{}[{at}]", names.endpoints)))?;
            peers.selectors.insert(found);
        }
        for (at, text) in raw.cidrs.unwrap_or_default().iter().enumerate() {
            let net = cidr(text).map_err(|problem| problem.of(format!("{}[{at}]", names.cidrs)))?;
            peers.selectors.insert(Selector::cidr(net, []));
        }
        for (at, rule) in raw.cidr_sets.unwrap_or_default().iter().enumerate() {
            let within = |error: InvalidPolicy| error.within(format_args!("{}[{at}]", names.cidr_sets));
            cidr_rule(rule, &mut peers).map_err(within)?;
        }
        for (at, word) in raw.entities.unwrap_or_default().iter().enumerate() {
            let found = entity(word).map_err(|problem| problem.of(format!("{}[{at}]", names.entities)))?;
            match found.selectors(self.cluster) {
                Some(selectors) => peers.selectors.extend(selectors),
                None => peers.everybody = true,
            }
        }
        for (at, selector) in raw.nodes.unwrap_or_default().iter().enumerate() {
            let own = requirements(selector, Keys::WithSource(source::NODE))
                .map_err(|error| error.within(format_args!("{}[{at}]", names.nodes)))?;
            let remote = Requirement::exists(source::RESERVED, "remote-node");
            peers.selectors.insert(Selector::labels(own.into_iter().chain([remote])));
        }
        for (at, service) in raw.services.unwrap_or_default().iter().enumerate() {
            let found =
                service_ref(service).map_err(|error| error.within(format_args!("toServices[{at}]")))?;
            peers.refs.insert(found);
        }
        if raw.groups.is_some_and(|groups| !groups.is_empty()) {
            self.not_enforced(path, &format!("{} is not supported: it selects nobody", names.groups));
        }
        for (at, name) in raw.fqdns.unwrap_or_default().iter().enumerate() {
            if name.match_name.is_some() == name.match_pattern.is_some() {
                return Err(Problem::OneOf("matchName, matchPattern").of(format!("toFQDNs[{at}]")));
            }
        }
        if raw.fqdns.is_some_and(|fqdns| !fqdns.is_empty()) {
            self.not_enforced(path, "toFQDNs needs the DNS proxy, which is not there yet: it selects nobody");
        }
        Ok(Some(peers))
    }
}

/// At most one kind of peers has members.
fn one_kind(raw: &RawPeers<'_>, names: &Names) -> Result<(), InvalidPolicy> {
    let filled = [
        (names.endpoints, raw.endpoints.map_or(0, <[_]>::len)),
        (names.cidrs, raw.cidrs.map_or(0, <[_]>::len)),
        (names.cidr_sets, raw.cidr_sets.map_or(0, <[_]>::len)),
        (names.entities, raw.entities.map_or(0, <[_]>::len)),
        (names.groups, raw.groups.map_or(0, <[_]>::len)),
        (names.nodes, raw.nodes.map_or(0, <[_]>::len)),
        ("toServices", raw.services.map_or(0, <[_]>::len)),
        ("toFQDNs", raw.fqdns.map_or(0, <[_]>::len)),
    ];
    let mut there = filled.into_iter().filter(|(_, len)| *len > 0).map(|(name, _)| name);
    match (there.next(), there.next()) {
        (Some(one), Some(other)) => Err(Problem::Exclude(one, other).of("")),
        _ => Ok(()),
    }
}

/// Endpoints by labels. What does not say otherwise means pods: of the policy's namespace, or of any.
fn endpoints(selector: &LabelSelector, scope: Scope<'_>) -> Result<Selector, InvalidPolicy> {
    let own = requirements(selector, Keys::WithSource(source::ANY))?;
    // Reserved labels belong to no namespace, in policies of the cluster as in those of one.
    if scope.init || own.iter().any(|r| r.source == source::RESERVED) {
        return Ok(Selector::labels(own));
    }
    let about_namespace = |r: &Requirement| {
        matches!(r.source.as_str(), source::K8S | source::ANY)
            && (r.key == NAMESPACE || r.key.starts_with(NAMESPACE_LABELS))
    };
    let added = match scope.namespace {
        // Whoever speaks of namespaces is taken by the word: that a label be absent or another is true of nodes and addresses too.
        _ if own.iter().any(about_namespace) => None,
        Some(namespace) => Some(in_namespace(namespace)),
        None => Some(any_pod()),
    };
    Ok(Selector::labels(own.into_iter().chain(added)))
}

fn cidr_rule(rule: &CidrRule, peers: &mut Peers) -> Result<(), InvalidPolicy> {
    match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
        (Some(text), None, None) => {
            let net = block(text).map_err(|problem| problem.of("cidr"))?;
            peers.selectors.insert(Selector::cidr(net, exceptions(Some(&net), &rule.except)?));
        }
        (None, Some(name), None) => {
            if name.len() > 253 {
                return Err(Problem::Text(253).of("cidrGroupRef"));
            }
            let except = exceptions(None, &rule.except)?;
            peers.refs.insert(PeerRef::Group { name: name.clone(), except });
        }
        (None, None, Some(selector)) => {
            let selector = requirements(selector, Keys::WithSource(source::CIDR_GROUP))
                .map_err(|error| error.within("cidrGroupSelector"))?;
            peers.refs.insert(PeerRef::Groups { selector, except: exceptions(None, &rule.except)? });
        }
        _ => return Err(Problem::OneOf("cidr, cidrGroupRef, cidrGroupSelector").of("")),
    }
    Ok(())
}

fn entity(word: &RawEntity) -> Result<Entity, Problem> {
    Ok(match word {
        RawEntity::All => Entity::All,
        RawEntity::World => Entity::World,
        RawEntity::Cluster => Entity::Cluster,
        RawEntity::Host => Entity::Host,
        RawEntity::Init => Entity::Init,
        RawEntity::Ingress => Entity::Ingress,
        RawEntity::Unmanaged => Entity::Unmanaged,
        RawEntity::RemoteNode => Entity::RemoteNode,
        RawEntity::Health => Entity::Health,
        RawEntity::None => Entity::None,
        RawEntity::KubeApiServer => Entity::KubeApiServer,
        RawEntity::Other(word) => match word.as_str() {
            "world-ipv4" => Entity::WorldIpv4,
            "world-ipv6" => Entity::WorldIpv6,
            _ => return Err(Problem::Unknown(word.clone())),
        },
    })
}

/// Services by name or by labels; without a namespace those of every one, whatever the policy's own.
fn service_ref(service: &Service) -> Result<PeerRef, InvalidPolicy> {
    let namespace = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    match (&service.k8s_service, &service.k8s_service_selector) {
        (Some(named), None) => {
            Ok(PeerRef::Service { namespace: namespace(&named.namespace), name: named.service_name.clone() })
        }
        (None, Some(selected)) => Ok(PeerRef::Services {
            namespace: namespace(&selected.namespace),
            selector: requirements(&selected.selector, Keys::WithSource(source::K8S))
                .map_err(|error| error.within("k8sServiceSelector.selector"))?,
        }),
        _ => Err(Problem::OneOf("k8sService, k8sServiceSelector").of("")),
    }
}
