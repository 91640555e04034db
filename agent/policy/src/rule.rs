//! Rules in their normal form: what all kinds of policy objects come to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::ports::Ports;
use crate::rows::Direction;
use crate::selector::{Requirement, Selector, Selectors};

/// Kinds of policy objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// cilium.io/v2 CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// cilium.io/v2 CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl Kind {
    /// As the API names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// A policy object by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind.name(), self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind.name(), self.name),
        }
    }
}

/// Lists of entries in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `ingress`.
    Ingress,
    /// `ingressDeny`.
    IngressDeny,
    /// `egress`.
    Egress,
    /// `egressDeny`.
    EgressDeny,
}

impl Section {
    /// As the field is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::IngressDeny => "ingressDeny",
            Self::Egress => "egress",
            Self::EgressDeny => "egressDeny",
        }
    }

    /// The direction that it is about.
    pub const fn direction(self) -> Direction {
        match self {
            Self::Ingress | Self::IngressDeny => Direction::Ingress,
            Self::Egress | Self::EgressDeny => Direction::Egress,
        }
    }
}

/// Where a decision comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The object.
    pub object: Arc<ObjectRef>,
    /// Which of its rules (`spec`, then `specs`), from 0.
    pub spec: u16,
    /// Which entry; `None`: the rule isolates, and no entry matched.
    pub entry: Option<(Section, u16)>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if self.spec > 0 {
            write!(f, " rule {}", self.spec)?;
        }
        match self.entry {
            Some((section, index)) => write!(f, " {}[{index}]", section.name()),
            None => write!(f, " isolates"),
        }
    }
}

/// In which order policies decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// ClusterNetworkPolicy of tier Admin: before all others, the first match decides.
    Admin,
    /// NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy: deny over allow over isolation.
    Network,
    /// ClusterNetworkPolicy of tier Baseline: where the others say nothing, the first match decides.
    Baseline,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is allowed.
    Allow,
    /// It is allowed as far as a proxy finds nothing wrong with it.
    Proxy,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Peers that are known by way of other objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerRef {
    /// The CIDRs of a CiliumCIDRGroup.
    Group {
        /// Its name.
        name: String,
        /// Parts that are not meant.
        except: Vec<IpNet>,
    },
    /// The CIDRs of the groups with such labels.
    Groups {
        /// What is demanded of the labels of a group.
        selector: Vec<Requirement>,
        /// Parts that are not meant.
        except: Vec<IpNet>,
    },
    /// The pods of a service.
    Service {
        /// Its namespace; `None`: each that has such a service.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// The pods of the services with such labels.
    Services {
        /// Their namespace; `None`: any.
        namespace: Option<String>,
        /// What is demanded of the labels of a service.
        selector: Vec<Requirement>,
    },
}

/// The peers of a rule: those that any of the three selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Peers {
    /// Everybody.
    pub everybody: bool,
    /// By labels or CIDR.
    pub selectors: Selectors,
    /// By way of other objects.
    pub refs: BTreeSet<PeerRef>,
}

impl Peers {
    /// Everybody.
    pub fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }
}

/// One entry of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub section: Section,
    /// Its place there, from 0.
    pub index: u16,
    /// What it does.
    pub action: Action,
    /// Whom it is about.
    pub peers: Arc<Peers>,
    /// Which ports it is about.
    pub ports: Arc<Ports>,
}

/// One rule of an object: whom it is for, and its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Spec {
    /// The object.
    pub object: Arc<ObjectRef>,
    /// Which of its rules, from 0.
    pub index: u16,
    /// Where it stands among policies.
    pub tier: Tier,
    /// Place in an ordered tier, lower first. Zero in the network tier.
    pub priority: u16,
    /// Not in force: only what would be different with it is told.
    pub staged: bool,
    /// It is for nodes, and not for pods.
    pub host: bool,
    /// The endpoints that it is for.
    pub subject: Arc<Selector>,
    /// Whether ingress of those endpoints is isolated.
    pub isolates_ingress: bool,
    /// Whether egress of those endpoints is isolated.
    pub isolates_egress: bool,
    /// The entries, in order of sections and places.
    pub rules: Box<[Rule]>,
}

impl Spec {
    /// Whether it isolates in the direction.
    pub const fn isolates(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.isolates_ingress,
            Direction::Egress => self.isolates_egress,
        }
    }

    /// Its entries for the direction.
    pub fn rules(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.section.direction() == direction)
    }

    /// The blocks of addresses of an entry: they select pods too, by their addresses. So the kinds of Kubernetes mean it;
    /// CIDRs of Cilium's kinds are about addresses outside of the cluster.
    pub fn blocks<'a>(&self, rule: &'a Rule) -> impl Iterator<Item = &'a Selector> + use<'a> {
        let has_blocks = matches!(self.object.kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy);
        let selectors = has_blocks.then(|| rule.peers.selectors.iter()).into_iter().flatten();
        selectors.map(Arc::as_ref).filter(|selector| matches!(selector, Selector::Cidr { .. }))
    }

    /// Where a decision of this rule comes from.
    pub fn origin(&self, rule: Option<&Rule>) -> Origin {
        Origin {
            object: Arc::clone(&self.object),
            spec: self.index,
            entry: rule.map(|rule| (rule.section, rule.index)),
        }
    }

    /// Place in the order of evaluation.
    pub(crate) fn order(&self) -> (Tier, u16, &ObjectRef, u16) {
        (self.tier, self.priority, &self.object, self.index)
    }
}
