//! NetworkPolicy: whether policies allow an attempt. Each function is a sentence of the documentation.

use ipnet::IpNet;

use crate::attempt::{Attempt, Because, Direction, Family, ObjectName, Protocol, Reason, Verdict};
use crate::cluster::{Cluster, Party};
use crate::objects::pod::Pod;
use crate::objects::policy::{Peer, PortMatch, PortRule, Rule};

/// An attempt with its ends looked up.
struct Case<'a> {
    attempt: &'a Attempt,
    from: Party<'a>,
    to: Party<'a>,
}

impl<'a> Case<'a> {
    /// The end that the policies of a direction are about.
    fn subject(&self, direction: Direction) -> Party<'a> {
        match direction {
            Direction::Ingress => self.to,
            Direction::Egress => self.from,
        }
    }

    /// The end that the rules of a direction are about.
    fn other(&self, direction: Direction) -> Party<'a> {
        match direction {
            Direction::Ingress => self.from,
            Direction::Egress => self.to,
        }
    }
}

impl Cluster {
    /// For a connection to be allowed, both the egress policies of the pod that opens it and the ingress policies of the pod that answers must allow it.
    pub fn judge(&self, attempt: &Attempt) -> Verdict {
        let case = Case {
            attempt,
            from: self.party(&attempt.from, attempt.family),
            to: self.party(&attempt.to, attempt.family),
        };
        let why = vec![self.because(&case, Direction::Egress), self.because(&case, Direction::Ingress)];
        Verdict { allowed: why.iter().all(|because| because.reason.allows()), why }
    }

    /// The two directions are decided independently of each other.
    fn because(&self, case: &Case<'_>, direction: Direction) -> Because {
        let policies = self.isolating(case.subject(direction), direction);
        let reason = self.reason(case, direction, &policies);
        let isolated_by = policies.into_iter().map(|(name, _)| name.clone()).collect();
        Because { direction, isolated_by, reason }
    }

    /// A pod is isolated in a direction if any policy selects it and affects that direction; then only what a rule of any of them allows is allowed.
    fn reason(&self, case: &Case<'_>, direction: Direction, policies: &[Isolating<'_>]) -> Reason {
        if policies.is_empty() {
            return Reason::NotIsolated;
        }
        if is_same_pod(case.from, case.to) {
            return Reason::Itself;
        }
        if self.options.own_node_allowed && is_own_node(case.subject(direction), case.other(direction)) {
            return Reason::OwnNode;
        }
        self.allowing_rule(case, direction, policies).unwrap_or(Reason::NoRule)
    }

    /// The policies that select an end and affect a direction. Only pods with an address of their own can be selected, and only by policies of their namespace.
    fn isolating(&self, subject: Party<'_>, direction: Direction) -> Vec<Isolating<'_>> {
        let Party::Pod { key, pod, .. } = subject else {
            return Vec::new();
        };
        self.policies
            .iter()
            .filter(|(name, policy)| name.namespace == key.namespace && policy.pods.matches(&pod.labels))
            .filter_map(|(name, policy)| Some((name, policy.rules(direction)?)))
            .collect()
    }

    /// Policies do not conflict but add up: one rule of one policy is enough.
    fn allowing_rule(
        &self,
        case: &Case<'_>,
        direction: Direction,
        policies: &[Isolating<'_>],
    ) -> Option<Reason> {
        policies.iter().find_map(|(name, rules)| {
            let index =
                rules.iter().position(|rule| self.rule_allows(rule, &name.namespace, case, direction))?;
            Some(Reason::Rule { policy: (*name).clone(), index })
        })
    }

    /// A rule allows traffic that matches both its peers and its ports.
    fn rule_allows(&self, rule: &Rule, namespace: &str, case: &Case<'_>, direction: Direction) -> bool {
        self.peers_match(&rule.peers, namespace, case.other(direction), case.attempt.family)
            && ports_match(&rule.ports, case.attempt, case.to)
    }

    /// Missing or empty peers match every source or destination; otherwise one of them must match.
    fn peers_match(&self, peers: &[Peer], namespace: &str, other: Party<'_>, family: Family) -> bool {
        peers.is_empty() || peers.iter().any(|peer| self.peer_matches(peer, namespace, other, family))
    }

    /// `namespace` is the policy's.
    fn peer_matches(&self, peer: &Peer, namespace: &str, other: Party<'_>, family: Family) -> bool {
        match (peer, other) {
            (Peer::Pods { namespaces, pods }, Party::Pod { key, pod, .. }) => {
                // Without a namespaceSelector the pods are those of the policy's own namespace.
                let is_there = match namespaces {
                    None => key.namespace == namespace,
                    Some(selector) => selector.matches(&self.namespace_labels(&key.namespace)),
                };
                // Without a podSelector they are all pods of the selected namespaces.
                is_there && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
            }
            // Selectors select pods alone.
            (Peer::Pods { .. }, Party::Node { .. } | Party::Outside(_) | Party::Nobody) => false,
            (Peer::Block { cidr, except }, other) => self.block_matches(cidr, except, other, family),
        }
    }

    /// A block matches the addresses of its CIDR without those of its exceptions. Of a node any address may be seen in packets.
    fn block_matches(&self, cidr: &IpNet, except: &[IpNet], other: Party<'_>, family: Family) -> bool {
        let matches =
            |address| cidr.contains(&address) && !except.iter().any(|except| except.contains(&address));
        match other {
            Party::Pod { address, .. } => self.options.blocks_match_pods && matches(address),
            Party::Node { addresses, .. } => {
                let mut addresses =
                    addresses.iter().copied().filter(|address| Family::of(*address) == family);
                self.options.blocks_match_nodes && addresses.any(matches)
            }
            Party::Outside(address) => matches(address),
            Party::Nobody => false,
        }
    }
}

/// A policy that isolates an end, with its rules for the direction.
type Isolating<'a> = (&'a ObjectName, &'a [Rule]);

/// A pod cannot block access to itself.
fn is_same_pod(from: Party<'_>, to: Party<'_>) -> bool {
    matches!((from, to), (Party::Pod { key: from, .. }, Party::Pod { key: to, .. }) if from == to)
}

/// Traffic to and from the node where a pod runs is always allowed, whatever the addresses.
fn is_own_node(subject: Party<'_>, other: Party<'_>) -> bool {
    matches!((subject, other), (Party::Pod { pod, .. }, Party::Node { name, .. }) if pod.node.as_deref() == Some(name))
}

/// Missing or empty ports match all traffic, of every protocol; otherwise one of them must match. So ICMP, which has no ports, is never allowed by a rule with ports.
fn ports_match(ports: &[PortRule], attempt: &Attempt, to: Party<'_>) -> bool {
    ports.is_empty()
        || attempt
            .port
            .is_some_and(|port| ports.iter().any(|entry| port_matches(entry, attempt.protocol, port, to)))
}

/// An entry matches its protocol, and all ports of it if it names none, the numbers of its range, or the port of its name at the destination.
fn port_matches(entry: &PortRule, protocol: Protocol, port: u16, to: Party<'_>) -> bool {
    entry.protocol == protocol
        && match &entry.port {
            PortMatch::Any => true,
            PortMatch::Range(first, last) => (*first..=*last).contains(&port),
            PortMatch::Named(name) => {
                matches!(to, Party::Pod { pod, .. } if has_named_port(pod, name, protocol, port))
            }
        }
}

/// A named port is what a container of the destination pod calls so, with this protocol; each pod may have another number for it, or none.
fn has_named_port(pod: &Pod, name: &str, protocol: Protocol, port: u16) -> bool {
    pod.ports.iter().any(|named| named.name == name && named.protocol == protocol && named.number == port)
}
