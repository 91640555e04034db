//! What is said about an attempt.

use std::fmt;

/// Whether policies allow an attempt. Without policies everything is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it gets through. It does if both directions allow it, and in [audit mode](crate::Options::audit) always.
    pub allowed: bool,
    /// Whether it gets through only because of audit mode.
    pub audited: bool,
    /// Why: first egress at the end that opens, then ingress at the one that answers.
    pub why: Vec<Because>,
}

/// What one end's policies say to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// The direction, seen from the end that is judged.
    pub direction: Direction,
    /// Policies that put this end into default deny in this direction, in the order of [`PolicyName`].
    pub isolated_by: Vec<PolicyName>,
    /// Rules that passed the attempt on to the next tier, in the order of the tiers.
    pub passed_by: Vec<RuleName>,
    /// What decides.
    pub reason: Reason,
}

/// Direction, seen from a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `cilium.io/v2`, of a namespace.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, of the cluster.
    CiliumClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for kinds of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyName,
    /// Which of the policy's specs it is in: 0 is `spec` if there is one, `specs` follow. Always 0 for kinds of Kubernetes.
    pub spec: usize,
    /// Place of the rule in the spec's list for the direction, from 0. Cilium's kinds have lists of their own for what denies.
    pub index: usize,
}

/// What decides about an attempt in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Allowed: no rule says anything, and nothing isolates this end in this direction.
    NotIsolated,
    /// Allowed: the enforcement mode is [`Never`](crate::Enforcement::Never).
    NotEnforced,
    /// Allowed: a pod cannot block access to itself.
    Itself,
    /// Allowed: the other end is the node on which the pod runs.
    OwnNode,
    /// Allowed by a rule.
    Rule(RuleName),
    /// Forbidden by a rule that denies.
    Denied(RuleName),
    /// Forbidden: the end is isolated and no rule allows the attempt.
    NoRule,
}

impl Reason {
    /// Whether this reason allows the attempt.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_) | Self::NoRule)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spec > 0 {
            write!(f, "rule {} in spec {} of {}", self.index, self.spec, self.policy)
        } else {
            write!(f, "rule {} of {}", self.index, self.policy)
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.allowed, self.audited) {
            (_, true) => "audited",
            (true, false) => "allowed",
            (false, false) => "forbidden",
        })?;
        self.why.iter().try_for_each(|because| write!(f, "; {because}"))
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        for rule in &self.passed_by {
            write!(f, "{direction} {rule} passes it on; ")?;
        }
        match &self.reason {
            Reason::NotIsolated => write!(f, "{direction} is not isolated"),
            Reason::NotEnforced => write!(f, "{direction}: no policy is enforced"),
            Reason::Itself => write!(f, "{direction}: a pod reaches itself"),
            Reason::OwnNode => write!(f, "{direction}: it is the pod's own node"),
            Reason::Rule(rule) => write!(f, "{direction} {rule} allows it"),
            Reason::Denied(rule) => write!(f, "{direction} {rule} denies it"),
            Reason::NoRule if self.isolated_by.is_empty() => {
                write!(f, "{direction} is always isolated and no rule allows it")
            }
            Reason::NoRule => {
                let policies: Vec<String> = self.isolated_by.iter().map(ToString::to_string).collect();
                write!(f, "{direction} is isolated by {} and no rule allows it", policies.join(", "))
            }
        }
    }
}
