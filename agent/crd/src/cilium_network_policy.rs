//! CiliumNetworkPolicy, cilium.io/v2: rules for the endpoints of a namespace.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::{Condition, ObjectMeta};
use crate::object::object;
use crate::rule::Rule;

/// Rules for endpoints of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = some_rule()))]
pub struct CiliumNetworkPolicy {
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

object!(CiliumNetworkPolicy, "cilium.io", "v2", "ciliumnetworkpolicies", namespaced: true);

impl CiliumNetworkPolicy {
    /// All rules: that of `spec`, then those of `specs`.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.spec.iter().chain(&self.specs)
    }
}

/// Rules stand in `spec` or in `specs`. At the root of a kind whose status is written by itself the API server takes this as a rule
/// in its own language alone, and refuses `anyOf`.
pub(crate) fn some_rule() -> serde_json::Value {
    serde_json::json!([{"rule": "has(self.spec) || has(self.specs)", "message": "spec or specs is needed"}])
}

/// What became of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// Among them `Valid`, which the operator writes: whether the policy could be understood, and what is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Policies that were made from this one, and how each is enforced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub derivative_policies: BTreeMap<String, DerivativePolicy>,
}

impl PolicyStatus {
    /// True if nothing has been said.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.derivative_policies.is_empty()
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// How a policy that was made from another one is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DerivativePolicy {
    /// Annotations of the policy that this is about.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// True if it is in force everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing: Option<bool>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When this was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_updated: Option<String>,
    /// The node's own count of policy changes at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_policy_revision: Option<i64>,
    /// True if it could be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
}
