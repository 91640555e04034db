//! CiliumClusterwideNetworkPolicy, cilium.io/v2: rules for endpoints of all namespaces, and for nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cilium_network_policy::{PolicyStatus, some_rule};
use crate::meta::ObjectMeta;
use crate::object::object;
use crate::rule::Rule;

/// Rules for endpoints of all namespaces, or for nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = some_rule()))]
pub struct CiliumClusterwideNetworkPolicy {
    /// Metadata.
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// One rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Rule>,
    /// More rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub specs: Vec<Rule>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "PolicyStatus::is_empty")]
    pub status: PolicyStatus,
}

object!(
    CiliumClusterwideNetworkPolicy,
    "cilium.io",
    "v2",
    "ciliumclusterwidenetworkpolicies",
    namespaced: false
);

impl CiliumClusterwideNetworkPolicy {
    /// All rules: that of `spec`, then those of `specs`.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.spec.iter().chain(&self.specs)
    }
}
