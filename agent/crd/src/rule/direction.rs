//! Entries of rules, one type for each direction and effect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peers::{CidrRule, Entity, FqdnSelector, Group, Service};
use super::ports::{IcmpRule, PortDenyRule, PortRule};
use crate::meta::LabelSelector;
use crate::words::words;

/// The peers of an entry, the same for both directions. At most one of the fields should be set; none set is every
/// peer if there are ports or ICMP types, and no peer otherwise. A list that is there but empty matches no peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peers<'a> {
    /// Endpoints by labels; an empty selector is every endpoint in scope.
    pub endpoints: Option<&'a [LabelSelector]>,
    /// Labels that peers must have besides; not supported any more, so it must be empty.
    pub requires: Option<&'a [LabelSelector]>,
    /// CIDRs.
    pub cidrs: Option<&'a [String]>,
    /// CIDRs with exceptions, and groups of CIDRs.
    pub cidr_sets: Option<&'a [CidrRule]>,
    /// Kinds of peers.
    pub entities: Option<&'a [Entity]>,
    /// Groups of a cloud provider.
    pub groups: Option<&'a [Group]>,
    /// Nodes by labels.
    pub nodes: Option<&'a [LabelSelector]>,
    /// Services; egress only.
    pub services: Option<&'a [Service]>,
    /// DNS names; egress only.
    pub fqdns: Option<&'a [FqdnSelector]>,
}

impl Peers<'_> {
    /// Names of the kinds of peers that are there, without the direction; more than one is a mistake in the policy.
    pub fn kinds(&self) -> Vec<&'static str> {
        [
            ("Endpoints", self.endpoints.is_some()),
            ("Requires", self.requires.is_some()),
            ("CIDR", self.cidrs.is_some()),
            ("CIDRSet", self.cidr_sets.is_some()),
            ("Entities", self.entities.is_some()),
            ("Groups", self.groups.is_some()),
            ("Nodes", self.nodes.is_some()),
            ("Services", self.services.is_some()),
            ("FQDNs", self.fqdns.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }

    /// True if no kind of peers is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Allows what comes in from one of the peers to one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRule {
    /// Endpoints by labels; an empty selector: all (of the namespace, in a CiliumNetworkPolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_endpoints: Option<Vec<LabelSelector>>,
    /// Not supported any more: must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub from_requires: Option<Vec<LabelSelector>>,
    /// CIDRs; no pods and no nodes.
    #[serde(rename = "fromCIDR", skip_serializing_if = "Option::is_none")]
    pub from_cidr: Option<Vec<String>>,
    /// CIDRs with exceptions and groups of CIDRs; no pods and no nodes.
    #[serde(rename = "fromCIDRSet", skip_serializing_if = "Option::is_none")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    /// Kinds of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_entities: Option<Vec<Entity>>,
    /// Groups of a cloud provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_nodes: Option<Vec<LabelSelector>>,
    /// Ports of the selected endpoints; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_ports: Vec<PortRule>,
    /// ICMP types; not together with ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmps: Vec<IcmpRule>,
    /// What peers must prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

impl IngressRule {
    /// The peers.
    pub fn peers(&self) -> Peers<'_> {
        Peers {
            endpoints: self.from_endpoints.as_deref(),
            requires: self.from_requires.as_deref(),
            cidrs: self.from_cidr.as_deref(),
            cidr_sets: self.from_cidr_set.as_deref(),
            entities: self.from_entities.as_deref(),
            groups: self.from_groups.as_deref(),
            nodes: self.from_nodes.as_deref(),
            ..Peers::default()
        }
    }
}

/// Denies what comes in from one of the peers to one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressDenyRule {
    /// Endpoints by labels; an empty selector: all (of the namespace, in a CiliumNetworkPolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_endpoints: Option<Vec<LabelSelector>>,
    /// Not supported any more: must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub from_requires: Option<Vec<LabelSelector>>,
    /// CIDRs; no pods and no nodes.
    #[serde(rename = "fromCIDR", skip_serializing_if = "Option::is_none")]
    pub from_cidr: Option<Vec<String>>,
    /// CIDRs with exceptions and groups of CIDRs; no pods and no nodes.
    #[serde(rename = "fromCIDRSet", skip_serializing_if = "Option::is_none")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    /// Kinds of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_entities: Option<Vec<Entity>>,
    /// Groups of a cloud provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_nodes: Option<Vec<LabelSelector>>,
    /// Ports of the selected endpoints; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_ports: Vec<PortDenyRule>,
    /// ICMP types; not together with ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmps: Vec<IcmpRule>,
}

impl IngressDenyRule {
    /// The peers.
    pub fn peers(&self) -> Peers<'_> {
        Peers {
            endpoints: self.from_endpoints.as_deref(),
            requires: self.from_requires.as_deref(),
            cidrs: self.from_cidr.as_deref(),
            cidr_sets: self.from_cidr_set.as_deref(),
            entities: self.from_entities.as_deref(),
            groups: self.from_groups.as_deref(),
            nodes: self.from_nodes.as_deref(),
            ..Peers::default()
        }
    }
}

/// Allows what goes out to one of the peers on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressRule {
    /// Endpoints by labels; an empty selector: all (of the namespace, in a CiliumNetworkPolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_endpoints: Option<Vec<LabelSelector>>,
    /// Not supported any more: must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub to_requires: Option<Vec<LabelSelector>>,
    /// CIDRs; no pods and no nodes.
    #[serde(rename = "toCIDR", skip_serializing_if = "Option::is_none")]
    pub to_cidr: Option<Vec<String>>,
    /// CIDRs with exceptions and groups of CIDRs; no pods and no nodes.
    #[serde(rename = "toCIDRSet", skip_serializing_if = "Option::is_none")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    /// Kinds of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_entities: Option<Vec<Entity>>,
    /// Groups of a cloud provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_nodes: Option<Vec<LabelSelector>>,
    /// The pods or addresses behind services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_services: Option<Vec<Service>>,
    /// What DNS names lead to.
    #[serde(rename = "toFQDNs", skip_serializing_if = "Option::is_none")]
    pub to_fqdns: Option<Vec<FqdnSelector>>,
    /// Ports of the peers; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_ports: Vec<PortRule>,
    /// ICMP types; not together with ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmps: Vec<IcmpRule>,
    /// What peers must prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

impl EgressRule {
    /// The peers.
    pub fn peers(&self) -> Peers<'_> {
        Peers {
            endpoints: self.to_endpoints.as_deref(),
            requires: self.to_requires.as_deref(),
            cidrs: self.to_cidr.as_deref(),
            cidr_sets: self.to_cidr_set.as_deref(),
            entities: self.to_entities.as_deref(),
            groups: self.to_groups.as_deref(),
            nodes: self.to_nodes.as_deref(),
            services: self.to_services.as_deref(),
            fqdns: self.to_fqdns.as_deref(),
        }
    }
}

/// Denies what goes out to one of the peers on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressDenyRule {
    /// Endpoints by labels; an empty selector: all (of the namespace, in a CiliumNetworkPolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_endpoints: Option<Vec<LabelSelector>>,
    /// Not supported any more: must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub to_requires: Option<Vec<LabelSelector>>,
    /// CIDRs; no pods and no nodes.
    #[serde(rename = "toCIDR", skip_serializing_if = "Option::is_none")]
    pub to_cidr: Option<Vec<String>>,
    /// CIDRs with exceptions and groups of CIDRs; no pods and no nodes.
    #[serde(rename = "toCIDRSet", skip_serializing_if = "Option::is_none")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    /// Kinds of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_entities: Option<Vec<Entity>>,
    /// Groups of a cloud provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_nodes: Option<Vec<LabelSelector>>,
    /// The pods or addresses behind services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_services: Option<Vec<Service>>,
    /// Ports of the peers; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_ports: Vec<PortDenyRule>,
    /// ICMP types; not together with ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmps: Vec<IcmpRule>,
}

impl EgressDenyRule {
    /// The peers.
    pub fn peers(&self) -> Peers<'_> {
        Peers {
            endpoints: self.to_endpoints.as_deref(),
            requires: self.to_requires.as_deref(),
            cidrs: self.to_cidr.as_deref(),
            cidr_sets: self.to_cidr_set.as_deref(),
            entities: self.to_entities.as_deref(),
            groups: self.to_groups.as_deref(),
            nodes: self.to_nodes.as_deref(),
            services: self.to_services.as_deref(),
            fqdns: None,
        }
    }
}

/// What peers must prove before they may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Authentication {
    /// How.
    pub mode: AuthenticationMode,
}

words! {
    /// How peers prove who they are.
    pub enum AuthenticationMode {
        /// Not at all.
        Disabled = "disabled",
        /// By mutual authentication.
        Required = "required",
        /// For tests: nobody can.
        TestAlwaysFail = "test-always-fail",
    }
}
