//! ClusterNetworkPolicy.

use super::{Case, port_matches};
use crate::cluster::Cluster;
use crate::objects::cluster_policy::{Action, ClusterPeer, ClusterProtocol, ClusterRule, Pods, Scope, Tier};
use crate::party::Party;
use crate::verdict::{PolicyKind, PolicyName, RuleName};

impl Cluster {
    /// The first rule of a tier that matches.
    pub(super) fn cluster_policy_rule(&self, case: &Case<'_>, tier: Tier) -> Option<(Action, RuleName)> {
        self.tiers
            .iter()
            .filter(|((of, ..), policy)| {
                *of == tier && (case.staged || !policy.staged) && self.is_of(&policy.subject, case.subject)
            })
            .find_map(|((.., name), policy)| {
                let rules = policy.rules(case.direction);
                let index = rules.iter().position(|rule| self.cluster_rule_matches(rule, case))?;
                let policy = PolicyName {
                    kind: PolicyKind::ClusterNetworkPolicy,
                    namespace: String::new(),
                    name: name.clone(),
                };
                Some((rules.get(index)?.action, RuleName { policy, spec: 0, index }))
            })
    }

    /// Pods of the host's network are no pods to such policies, neither as subjects nor as peers.
    fn is_of(&self, pods: &Pods, party: Party<'_>) -> bool {
        let Party::Pod { pod, .. } = party else {
            return false;
        };
        pods.namespaces.matches_by(|label| party.namespace_label(label))
            && pods
                .pods
                .as_ref()
                .is_none_or(|selector| selector.matches_by(|label| self.visible_label(pod, label)))
    }

    /// One of the peers and one of the protocols must match; without protocols all traffic of the peers does.
    fn cluster_rule_matches(&self, rule: &ClusterRule, case: &Case<'_>) -> bool {
        match &rule.scope {
            Scope::Nothing => false,
            Scope::Everything => true,
            Scope::Traffic { peers, protocols } => {
                peers.iter().any(|peer| self.cluster_peer_matches(peer, case))
                    && (protocols.is_empty()
                        || protocols.iter().any(|protocol| protocol_matches(protocol, case)))
            }
        }
    }

    fn cluster_peer_matches(&self, peer: &ClusterPeer, case: &Case<'_>) -> bool {
        match (peer, case.other) {
            (ClusterPeer::Pods(pods), other) => self.is_of(pods, other),
            (ClusterPeer::Nodes(selector), Party::Node { node: Some(node), .. }) => {
                // It is the node's addresses that are meant.
                selector.matches(&node.labels) && case.other.any_address(case.family(), |_| true)
            }
            (ClusterPeer::Nodes(_) | ClusterPeer::Unknown, _) => false,
            (ClusterPeer::Networks(nets), _) => nets.iter().any(|net| self.block_matches(net, &[], case)),
        }
    }
}

/// A named port has the protocol that the container gives it.
fn protocol_matches(wanted: &ClusterProtocol, case: &Case<'_>) -> bool {
    let protocol = case.attempt.protocol;
    wanted.protocol.is_none_or(|wanted| wanted == protocol)
        && case.attempt.port.is_some_and(|port| port_matches(&wanted.port, protocol, port, case.to))
}
