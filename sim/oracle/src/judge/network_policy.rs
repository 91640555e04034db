//! NetworkPolicy.

use ipnet::IpNet;

use super::{Case, policy_name, port_matches, rule_name};
use crate::attempt::{Attempt, ObjectName};
use crate::cluster::Cluster;
use crate::objects::policy::{Peer, PortRule, Rule};
use crate::party::Party;
use crate::verdict::{PolicyKind, PolicyName, RuleName};

impl Cluster {
    /// A pod is isolated in a direction if any policy selects it and affects that direction.
    pub(super) fn isolating_network_policies(&self, case: &Case<'_>) -> Vec<PolicyName> {
        self.selecting(case).map(|(name, _)| policy_name(PolicyKind::NetworkPolicy, name)).collect()
    }

    /// Policies do not conflict but add up: one rule of one policy is enough.
    pub(super) fn network_policy_rule(&self, case: &Case<'_>) -> Option<RuleName> {
        self.selecting(case).find_map(|(name, rules)| {
            let index = rules.iter().position(|rule| self.rule_allows(rule, &name.namespace, case))?;
            Some(rule_name(PolicyKind::NetworkPolicy, name, 0, index))
        })
    }

    /// The policies that select the subject and affect the direction, with their rules for it. Only pods with an address of their own can be selected,
    /// and only by policies of their namespace.
    fn selecting<'a>(&'a self, case: &Case<'a>) -> impl Iterator<Item = (&'a ObjectName, &'a [Rule])> {
        let (direction, staged) = (case.direction, case.staged);
        let subject = match case.subject {
            Party::Pod { key, pod, .. } => Some((key, pod)),
            Party::Node { .. } | Party::Outside(_) | Party::Nobody => None,
        };
        subject.into_iter().flat_map(move |(key, pod)| {
            self.policies
                .iter()
                .filter(move |(name, policy)| {
                    name.namespace == key.namespace
                        && (staged || !policy.staged)
                        && policy.pods.matches_by(|label| self.visible_label(pod, label))
                })
                .filter_map(move |(name, policy)| Some((name, policy.rules(direction)?)))
        })
    }

    /// A rule allows traffic that matches both its peers and its ports.
    fn rule_allows(&self, rule: &Rule, namespace: &str, case: &Case<'_>) -> bool {
        self.peers_match(&rule.peers, namespace, case) && ports_match(&rule.ports, case.attempt, case.to)
    }

    /// Missing or empty peers match every source or destination; otherwise one of them must match.
    fn peers_match(&self, peers: &[Peer], namespace: &str, case: &Case<'_>) -> bool {
        peers.is_empty() || peers.iter().any(|peer| self.peer_matches(peer, namespace, case))
    }

    /// `namespace` is the policy's.
    fn peer_matches(&self, peer: &Peer, namespace: &str, case: &Case<'_>) -> bool {
        match (peer, case.other) {
            (Peer::Pods { namespaces, pods }, other @ Party::Pod { key, pod, .. }) => {
                // Without a namespaceSelector the pods are those of the policy's own namespace.
                let is_there = match namespaces {
                    None => key.namespace == namespace,
                    Some(selector) => selector.matches_by(|label| other.namespace_label(label)),
                };
                // Without a podSelector they are all pods of the selected namespaces.
                is_there
                    && pods
                        .as_ref()
                        .is_none_or(|selector| selector.matches_by(|label| self.visible_label(pod, label)))
            }
            // Selectors select pods alone.
            (Peer::Pods { .. }, Party::Node { .. } | Party::Outside(_) | Party::Nobody) => false,
            (Peer::Block { cidr, except }, _) => self.block_matches(cidr, except, case),
        }
    }

    /// A block matches the addresses of its CIDR without those of its exceptions.
    pub(super) fn block_matches(&self, cidr: &IpNet, except: &[IpNet], case: &Case<'_>) -> bool {
        let may_match = match case.other {
            Party::Pod { .. } => self.options.blocks_match_pods,
            Party::Node { .. } => self.options.blocks_match_nodes,
            Party::Outside(_) => true,
            Party::Nobody => false,
        };
        may_match
            && case.other.any_address(case.family(), |address| {
                cidr.contains(&address) && !except.iter().any(|except| except.contains(&address))
            })
    }
}

/// Missing or empty ports match all traffic, of every protocol; otherwise one of them must match. So ICMP, which has no ports, is never allowed by a rule with ports.
fn ports_match(ports: &[PortRule], attempt: &Attempt, to: Party<'_>) -> bool {
    ports.is_empty()
        || attempt.port.is_some_and(|port| {
            ports.iter().any(|entry| {
                entry.protocol == attempt.protocol && port_matches(&entry.port, attempt.protocol, port, to)
            })
        })
}
