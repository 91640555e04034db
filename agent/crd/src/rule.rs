//! A rule of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

mod direction;
mod l7;
mod peers;
mod ports;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LabelSelector;

pub use direction::{
    Authentication, AuthenticationMode, EgressDenyRule, EgressRule, IngressDenyRule, IngressRule, Peers,
};
pub use l7::{
    HeaderMatch, HttpRule, KafkaRole, KafkaRule, L7Rules, Listener, ListenerKind, ListenerRef,
    MismatchAction, SecretRef, TlsContext,
};
pub use peers::{AwsGroup, CidrRule, Entity, FqdnSelector, Group, K8sService, K8sServiceSelector, Service};
pub use ports::{
    IcmpFamily, IcmpField, IcmpRule, MAX_ICMP_FIELDS, MAX_PORTS, PortDenyRule, PortProtocol, PortRule,
    Protocol,
};

/// What is allowed and denied to some endpoints, or to some nodes.
///
/// A direction is isolated for them as soon as a rule has entries for it, unless `enableDefaultDeny` says otherwise.
/// An entry that denies beats all that allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "oneOf" = [{"required": ["endpointSelector"]}, {"required": ["nodeSelector"]}],
    "anyOf" = [
        {"required": ["ingress"]},
        {"required": ["ingressDeny"]},
        {"required": ["egress"]},
        {"required": ["egressDeny"]},
    ],
))]
pub struct Rule {
    /// The endpoints that it is about; an empty selector: all (of the namespace, in a CiliumNetworkPolicy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<LabelSelector>,
    /// The nodes that it is about; in a CiliumClusterwideNetworkPolicy only, and not together with `endpointSelector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// What may come in. An empty list says nothing; a list with one empty entry allows nothing and isolates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// What may not come in, whatever else is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_deny: Vec<IngressDenyRule>,
    /// What may go out. An empty list says nothing; a list with one empty entry allows nothing and isolates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// What may not go out, whatever else is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_deny: Vec<EgressDenyRule>,
    /// Labels of the rule itself; they tell where it is from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<RuleLabel>,
    /// Whether the endpoints are isolated by this rule.
    #[serde(rename = "enableDefaultDeny", skip_serializing_if = "DefaultDeny::is_unset")]
    pub default_deny: DefaultDeny,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A word that flows carry which this rule has decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<RuleLog>,
}

impl Rule {
    /// Whether the rule isolates for ingress.
    pub fn isolates_ingress(&self) -> bool {
        self.default_deny.ingress.unwrap_or(!(self.ingress.is_empty() && self.ingress_deny.is_empty()))
    }

    /// Whether the rule isolates for egress.
    pub fn isolates_egress(&self) -> bool {
        self.default_deny.egress.unwrap_or(!(self.egress.is_empty() && self.egress_deny.is_empty()))
    }
}

/// A label of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleLabel {
    /// Key.
    pub key: String,
    /// Where the label comes from, for example `k8s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Whether a rule isolates. Not set: if the rule has entries for the direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DefaultDeny {
    /// For ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// For egress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<bool>,
}

impl DefaultDeny {
    /// True if both directions are left to the entries.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// What flows carry that a rule has decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuleLog {
    /// Up to 32 printable characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32), extend("pattern" = r"^\PC*$"))]
    pub value: String,
}
