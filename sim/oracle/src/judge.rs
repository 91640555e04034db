//! Whether policies allow an attempt. Each function is a sentence of the documentation.
//!
//! Three tiers are asked one after the other: ClusterNetworkPolicies of tier Admin, then NetworkPolicies together with Cilium's policies, then
//! ClusterNetworkPolicies of tier Baseline. What none of them decides is allowed.

mod cilium;
mod cluster_policy;
mod network_policy;

use crate::attempt::{Attempt, Family, ObjectName, Protocol};
use crate::cluster::Cluster;
use crate::objects::cluster_policy::{Action, Tier};
use crate::objects::pod::Pod;
use crate::objects::policy::PortMatch;
use crate::options::{Enforcement, OwnNode};
use crate::party::Party;
use crate::verdict::{Because, Direction, PolicyKind, PolicyName, Reason, RuleName, Verdict};

/// An attempt with its ends looked up, for one direction.
#[derive(Clone, Copy)]
struct Case<'a> {
    attempt: &'a Attempt,
    direction: Direction,
    /// The end that the policies are about.
    subject: Party<'a>,
    /// The end that the rules are about.
    other: Party<'a>,
    /// The end that answers.
    to: Party<'a>,
    /// Whether staged policies are in force, too.
    staged: bool,
}

impl Case<'_> {
    fn family(&self) -> Family {
        self.attempt.family
    }
}

impl Cluster {
    /// For a connection to be allowed, both the egress policies of the pod that opens it and the ingress policies of the pod that answers must allow it.
    ///
    /// Staged policies (annotation `bristle.io/staged: "true"`) are not in force.
    pub fn judge(&self, attempt: &Attempt) -> Verdict {
        self.judge_case(attempt, false)
    }

    /// The same if staged policies were in force.
    pub fn judge_with_staged(&self, attempt: &Attempt) -> Verdict {
        self.judge_case(attempt, true)
    }

    fn judge_case(&self, attempt: &Attempt, staged: bool) -> Verdict {
        let from = self.party(&attempt.from, attempt.family);
        let to = self.party(&attempt.to, attempt.family);
        let egress = Case { attempt, direction: Direction::Egress, subject: from, other: to, to, staged };
        let ingress = Case { direction: Direction::Ingress, subject: to, other: from, ..egress };
        let why = vec![self.because(&egress), self.because(&ingress)];
        let is_allowed = why.iter().all(|because| because.reason.allows());
        let audited = self.options.audit && !is_allowed;
        Verdict { allowed: is_allowed || audited, audited, why }
    }

    /// The two directions are decided independently of each other.
    fn because(&self, case: &Case<'_>) -> Because {
        let mut because = Because {
            direction: case.direction,
            isolated_by: Vec::new(),
            passed_by: Vec::new(),
            reason: Reason::NotIsolated,
        };
        if self.options.enforcement == Enforcement::Never {
            because.reason = Reason::NotEnforced;
        } else if self.is_judged(case.subject) {
            because.isolated_by = self.isolating(case);
            because.reason = self.reason(case, &mut because);
        }
        because
    }

    /// Pods with an address of their own are judged, and nodes if host policies are in force.
    fn is_judged(&self, subject: Party<'_>) -> bool {
        match subject {
            Party::Pod { .. } => true,
            Party::Node { .. } => self.options.host_policies,
            Party::Outside(_) | Party::Nobody => false,
        }
    }

    fn reason(&self, case: &Case<'_>, because: &mut Because) -> Reason {
        if case.subject.is_same(case.other) {
            return Reason::Itself;
        }
        if self.is_own_node(case) {
            return Reason::OwnNode;
        }
        self.cluster_tier(case, Tier::Admin, because)
            .or_else(|| self.cilium_rule(case, true).map(Reason::Denied))
            .or_else(|| self.network_policy_rule(case).map(Reason::Rule))
            .or_else(|| self.cilium_rule(case, false).map(Reason::Rule))
            .or_else(|| self.only_by_proxy(case).then_some(Reason::NoRule))
            .or_else(|| self.default_deny(case, because))
            .or_else(|| self.cluster_tier(case, Tier::Baseline, because))
            .unwrap_or(Reason::NotIsolated)
    }

    /// Traffic between a pod and the node where it runs, whatever the addresses, as far as the option says.
    fn is_own_node(&self, case: &Case<'_>) -> bool {
        let is_always_allowed = match self.options.own_node {
            OwnNode::Both => true,
            OwnNode::ToPod => case.direction == Direction::Ingress,
            OwnNode::Judged => false,
        };
        is_always_allowed
            && matches!(case.subject, Party::Pod { .. })
            && case.subject.has_own_node(case.other)
    }

    /// What is isolated reaches and is reached by nobody whom no rule allows. In the mode Always every pod is isolated.
    fn default_deny(&self, case: &Case<'_>, because: &Because) -> Option<Reason> {
        let always =
            self.options.enforcement == Enforcement::Always && matches!(case.subject, Party::Pod { .. });
        (always || !because.isolated_by.is_empty()).then_some(Reason::NoRule)
    }

    /// In a tier the first rule that matches decides, by priority of the policies (lower first), their names, and the order of rules in a policy.
    /// A rule with Pass leaves it to the next tier; so does a tier without a rule that matches.
    fn cluster_tier(&self, case: &Case<'_>, tier: Tier, because: &mut Because) -> Option<Reason> {
        let (action, rule) = self.cluster_policy_rule(case, tier)?;
        match action {
            Action::Accept => Some(Reason::Rule(rule)),
            Action::Deny => Some(Reason::Denied(rule)),
            Action::Pass => {
                because.passed_by.push(rule);
                None
            }
        }
    }

    /// Policies that put the subject into default deny.
    fn isolating(&self, case: &Case<'_>) -> Vec<PolicyName> {
        let mut names = self.isolating_network_policies(case);
        names.extend(self.isolating_cilium_policies(case));
        names.sort();
        names
    }

    /// A label of a pod, as selectors of the kinds of Kubernetes see it.
    fn visible_label<'a>(&self, pod: &'a Pod, key: &str) -> Option<&'a str> {
        let labels = if self.options.identity_labels_alone { &pod.identity_labels } else { &pod.labels };
        labels.get(key).map(String::as_str)
    }
}

fn policy_name(kind: PolicyKind, name: &ObjectName) -> PolicyName {
    PolicyName { kind, namespace: name.namespace.clone(), name: name.name.clone() }
}

fn rule_name(kind: PolicyKind, name: &ObjectName, spec: usize, index: usize) -> RuleName {
    RuleName { policy: policy_name(kind, name), spec, index }
}

/// All ports, the numbers of a range, or the port of a name at the destination.
fn port_matches(wanted: &PortMatch, protocol: Protocol, port: u16, to: Party<'_>) -> bool {
    match wanted {
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
