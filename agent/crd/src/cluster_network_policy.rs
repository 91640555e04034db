//! ClusterNetworkPolicy, policy.networking.k8s.io/v1alpha2: what administrators demand before and after everybody else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::{Condition, LabelSelector, ObjectMeta};
use crate::object::object;
use crate::words::words;

/// Ordered rules for pods of the whole cluster, before (Admin) or after (Baseline) the policies of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNetworkPolicy {
    /// Metadata.
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ClusterNetworkPolicySpec,
    /// What became of it.
    #[serde(default, skip_serializing_if = "ClusterNetworkPolicyStatus::is_empty")]
    pub status: ClusterNetworkPolicyStatus,
}

object!(
    ClusterNetworkPolicy,
    "policy.networking.k8s.io",
    "v1alpha2",
    "clusternetworkpolicies",
    namespaced: false
);

/// What a ClusterNetworkPolicy demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNetworkPolicySpec {
    /// Whether it comes before or after the policies of namespaces.
    pub tier: Tier,
    /// Within the tier lower numbers come first.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// The pods that it is about. Pods in the network of their node are never among them.
    pub subject: Subject,
    /// What happens to what comes in; the first rule that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub ingress: Vec<ClusterNetworkPolicyIngressRule>,
    /// What happens to what goes out; the first rule that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<ClusterNetworkPolicyEgressRule>,
}

words! {
    /// When a policy is looked at.
    pub enum Tier {
        /// Before the policies of namespaces.
        Admin = "Admin",
        /// After the policies of namespaces, if none of them decides.
        Baseline = "Baseline",
    }
}

/// Pods that a policy is about: exactly one of the fields. One with no field that is known is of a newer version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Subject {
    /// All pods of namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods by their labels in namespaces by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces; empty: all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// The pods; empty: all.
    pub pod_selector: LabelSelector,
}

/// What happens to what comes in from some peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNetworkPolicyIngressRule {
    /// Name, to be found in reports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 100))]
    pub name: String,
    /// What happens.
    pub action: RuleAction,
    /// Sources; one of them must match.
    #[schemars(length(min = 1, max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<IngressPeer>,
    /// Protocols and ports; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub protocols: Vec<ProtocolMatch>,
}

/// What happens to what goes out to some peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": NAMED_PORT_RULE, "message": "nodes, networks and domainNames have no named ports"},
    {"rule": DOMAIN_NAME_RULE, "message": "domainNames are for rules that accept only"},
]))]
pub struct ClusterNetworkPolicyEgressRule {
    /// Name, to be found in reports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 100))]
    pub name: String,
    /// What happens.
    pub action: RuleAction,
    /// Destinations; one of them must match.
    #[schemars(length(min = 1, max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<EgressPeer>,
    /// Protocols and ports; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 25), extend("x-kubernetes-list-type" = "atomic"))]
    pub protocols: Vec<ProtocolMatch>,
}

words! {
    /// What a rule does with what it matches.
    pub enum RuleAction {
        /// It is let through; nothing else is asked.
        Accept = "Accept",
        /// It is dropped; nothing else is asked.
        Deny = "Deny",
        /// The rest of the tier is skipped; the next tier is asked.
        Pass = "Pass",
    }
}

/// Sources: exactly one of the fields. One with no field that is known is of a newer version; then a rule that
/// accepts matches nothing, and any other one denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct IngressPeer {
    /// All pods of namespaces, but not those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces, but not those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Destinations: exactly one of the fields. One with no field that is known is of a newer version; then a rule that
/// accepts matches nothing, and any other one denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct EgressPeer {
    /// All pods of namespaces, but not those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces, but not those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Addresses of nodes by labels; empty: of all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// CIDRs. They match addresses inside of the cluster too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 25),
        extend("items" = {"type": "string", "format": "cidr", "maxLength": 43}, "x-kubernetes-list-type" = "set")
    )]
    pub networks: Option<Vec<String>>,
    /// DNS names, `*.` in front for one or more labels; in rules that accept only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 25),
        extend("items" = {"type": "string", "pattern": DOMAIN_NAME_PATTERN}, "x-kubernetes-list-type" = "set")
    )]
    pub domain_names: Option<Vec<String>>,
}

/// CEL; its cost is bounded since both lists are.
const NAMED_PORT_RULE: &str = "!has(self.protocols) || !self.protocols.exists(p, has(p.destinationNamedPort)) \
    || !self.to.exists(p, has(p.nodes) || has(p.networks) || has(p.domainNames))";

/// CEL; its cost is bounded since the list is.
const DOMAIN_NAME_RULE: &str = "self.action == 'Accept' || !self.to.exists(p, has(p.domainNames))";

/// Names of at least two labels, with an optional `*.` in front and an optional dot at the end.
const DOMAIN_NAME_PATTERN: &str = concat!(
    r"^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+",
    r"[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$"
);

/// A protocol with its ports: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ProtocolMatch {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<PortsOf>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<PortsOf>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<PortsOf>,
    /// Name of a container port of the pod that is connected to; there is none at nodes, networks and domain names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("minProperties" = 1))]
pub struct PortsOf {
    /// Ports that are connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// A port or a range of ports: exactly one of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Port {
    /// One port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub number: Option<i32>,
    /// All from one port to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self.start < self.end", "message": "start must be less than end"}]))]
pub struct PortRange {
    /// The first one.
    #[schemars(range(min = 1, max = 65535))]
    pub start: i32,
    /// The last one, which is greater.
    #[schemars(range(min = 1, max = 65535))]
    pub end: i32,
}

/// What became of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNetworkPolicyStatus {
    /// Aspects of its state.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl ClusterNetworkPolicyStatus {
    /// True if nothing has been said.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }
}
