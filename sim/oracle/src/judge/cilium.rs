//! Policies of Cilium's kinds.

use ipnet::IpNet;

use super::{Case, policy_name, port_matches, rule_name};
use crate::attempt::{ObjectName, Protocol};
use crate::cluster::Cluster;
use crate::objects::cilium::entry::{Entry, Peers};
use crate::objects::cilium::peer::{CidrSource, Cidrs, Entity, Peer, ServiceRef, WhichService};
use crate::objects::cilium::port::{Port, Protocols, Traffic};
use crate::objects::cilium::selector;
use crate::objects::cilium::{Rules, Subject};
use crate::objects::service::ServiceRole;
use crate::party::Party;
use crate::verdict::{PolicyKind, PolicyName, RuleName};

impl Cluster {
    /// An end is in default deny in a direction as soon as one spec that selects it has default deny for it.
    pub(super) fn isolating_cilium_policies(&self, case: &Case<'_>) -> Vec<PolicyName> {
        let mut names: Vec<PolicyName> = self
            .selecting_specs(case)
            .filter(|(_, _, rules)| rules.isolates)
            .map(|(name, _, _)| policy_name(kind(name), name))
            .collect();
        // Several specs of one policy stand one after the other.
        names.dedup();
        names
    }

    /// The first rule that matches, of those that deny or of those that allow.
    pub(super) fn cilium_rule(&self, case: &Case<'_>, denies: bool) -> Option<RuleName> {
        self.selecting_specs(case).find_map(|(name, spec, rules)| {
            let entries = if denies { &rules.deny } else { &rules.allow };
            let index = entries.iter().position(|entry| self.entry_matches(entry, case, false))?;
            Some(rule_name(kind(name), name, spec, index))
        })
    }

    /// A rule allows the traffic by way of a proxy alone. Whether its spec isolates does not matter: rules about HTTP, DNS and the like
    /// are not subject to `enableDefaultDeny`.
    pub(super) fn only_by_proxy(&self, case: &Case<'_>) -> bool {
        self.selecting_specs(case)
            .any(|(_, _, rules)| rules.allow.iter().any(|entry| self.entry_matches(entry, case, true)))
    }

    /// The specs that select the subject, with their places and their rules for the direction.
    fn selecting_specs<'a>(
        &'a self,
        case: &Case<'a>,
    ) -> impl Iterator<Item = (&'a ObjectName, usize, &'a Rules)> {
        let (direction, staged, subject) = (case.direction, case.staged, case.subject);
        self.cilium_policies
            .iter()
            .filter(move |(_, policy)| staged || !policy.staged)
            .flat_map(|(name, policy)| {
                policy.specs.iter().enumerate().map(move |(place, spec)| (name, place, spec))
            })
            .filter(move |(_, _, spec)| self.is_subject(&spec.subject, subject))
            .map(move |(name, place, spec)| (name, place, spec.rules(direction)))
    }

    /// An endpointSelector selects pods, a nodeSelector nodes by their labels.
    fn is_subject(&self, wanted: &Subject, party: Party<'_>) -> bool {
        match (wanted, party) {
            (Subject::Endpoints(selector), Party::Pod { .. }) => {
                self.label_selector_matches(selector, party, party)
            }
            (Subject::Nodes(selector), Party::Node { node, .. }) => {
                self.options.host_policies && crate::identity::node_matches(selector, node)
            }
            _ => false,
        }
    }

    /// `by_proxy`: by what a proxy would have to look at, or by the rest.
    fn entry_matches(&self, entry: &Entry, case: &Case<'_>, by_proxy: bool) -> bool {
        let is_peer = match &entry.peers {
            Peers::All => true,
            Peers::These(peers) => peers.iter().any(|peer| self.cilium_peer_matches(peer, case)),
        };
        is_peer
            && if entry.needs_proxy {
                by_proxy && [false, true].into_iter().any(|by| traffic_matches(&entry.traffic, case, by))
            } else {
                traffic_matches(&entry.traffic, case, by_proxy)
            }
    }

    fn cilium_peer_matches(&self, peer: &Peer, case: &Case<'_>) -> bool {
        match peer {
            Peer::Labels(selector) => self.label_selector_matches(selector, case.subject, case.other),
            Peer::Cidr(cidrs) => self.cidrs_match(cidrs, case),
            Peer::Entity(entity) => self.is_entity(*entity, case),
            Peer::Service(wanted) => self.is_behind(wanted, case),
        }
    }

    /// CIDR rules do not match pods, nor nodes unless an option says so: these are known by their labels.
    fn address_matches(&self, case: &Case<'_>, is_it: impl Fn(std::net::IpAddr) -> bool) -> bool {
        let may_match = match case.other {
            Party::Outside(_) => true,
            Party::Node { .. } => self.options.cidrs_match_nodes,
            Party::Pod { .. } | Party::Nobody => false,
        };
        may_match && case.other.any_address(case.family(), is_it)
    }

    /// The addresses of a CIDR, or of groups of them, without the exceptions. A group that is not there has none.
    fn cidrs_match(&self, cidrs: &Cidrs, case: &Case<'_>) -> bool {
        let in_any = |nets: &[IpNet]| {
            self.address_matches(case, |address| {
                nets.iter().any(|net| net.contains(&address))
                    && !cidrs.except.iter().any(|except| except.contains(&address))
            })
        };
        match &cidrs.of {
            CidrSource::Net(net) => in_any(&[*net]),
            CidrSource::Group(name) => self.cidr_groups.get(name).is_some_and(|group| in_any(&group.cidrs)),
            CidrSource::Groups(selector) => {
                self.cidr_groups.values().any(|group| selector.matches(&group.labels) && in_any(&group.cidrs))
            }
        }
    }

    fn is_entity(&self, entity: Entity, case: &Case<'_>) -> bool {
        let is_own = || case.subject.has_own_node(case.other);
        match (entity, case.other) {
            (Entity::All, _) => true,
            (Entity::World, Party::Outside(_)) => true,
            (Entity::Cluster, Party::Pod { .. } | Party::Node { .. }) => true,
            (Entity::Host, Party::Node { .. }) => is_own(),
            (Entity::RemoteNode, Party::Node { .. }) => !is_own(),
            // The API server is of the cluster wherever it runs.
            (Entity::Cluster | Entity::KubeApiserver, Party::Outside(_) | Party::Node { .. }) => {
                self.is_api_server(case.other)
            }
            _ => false,
        }
    }

    /// With a selector, a service stands for the pods that it selects; without one, for the addresses of its endpoints, as CIDRs.
    fn is_behind(&self, wanted: &ServiceRef, case: &Case<'_>) -> bool {
        self.service_roles.iter().filter(|(name, role)| is_meant(wanted, name, role)).any(|(name, role)| {
            if role.selector.is_empty() {
                return self.slices.iter().any(|(key, slice)| {
                    key.namespace == name.namespace
                        && slice.service.as_deref() == Some(name.name.as_str())
                        && slice
                            .endpoints
                            .iter()
                            .any(|endpoint| self.address_matches(case, |address| address == endpoint.address))
                });
            }
            let selector = selector::of_pairs(&role.selector, &name.namespace);
            self.label_selector_matches(&selector, case.subject, case.other)
        })
    }
}

/// By name or by labels; without a namespace in any.
fn is_meant(wanted: &ServiceRef, name: &ObjectName, role: &ServiceRole) -> bool {
    wanted.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace)
        && match &wanted.which {
            WhichService::Named(wanted) => *wanted == name.name,
            WhichService::Labelled(selector) => selector.matches(&role.labels),
        }
}

/// Policies of the cluster have no namespace.
fn kind(name: &ObjectName) -> PolicyKind {
    if name.namespace.is_empty() {
        PolicyKind::CiliumClusterwideNetworkPolicy
    } else {
        PolicyKind::CiliumNetworkPolicy
    }
}

fn traffic_matches(traffic: &Traffic, case: &Case<'_>, by_proxy: bool) -> bool {
    match (traffic, case.attempt.port) {
        (Traffic::All, _) => !by_proxy,
        (Traffic::Ports(ports), Some(port)) => ports
            .iter()
            .filter(|wanted| wanted.needs_proxy == by_proxy)
            .any(|wanted| cilium_port_matches(wanted, port, case)),
        (Traffic::Icmp(types), Some(number)) => {
            !by_proxy
                && case.attempt.protocol == Protocol::Icmp
                && types.iter().any(|icmp| icmp.family == case.family() && icmp.number == number)
        }
        (Traffic::Ports(_) | Traffic::Icmp(_), None) => false,
    }
}

fn cilium_port_matches(wanted: &Port, port: u16, case: &Case<'_>) -> bool {
    let protocol = case.attempt.protocol;
    let is_protocol = match wanted.protocol {
        Protocols::Any => protocol != Protocol::Icmp,
        Protocols::One(wanted) => wanted == protocol,
        Protocols::Unseen => false,
    };
    is_protocol && port_matches(&wanted.number, protocol, port, case.to)
}
