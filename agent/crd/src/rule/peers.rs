//! Kinds of peers in rules.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::LabelSelector;
use crate::words::words;

/// A CIDR or groups of CIDRs: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = [
    {"required": ["cidr"]},
    {"required": ["cidrGroupRef"]},
    {"required": ["cidrGroupSelector"]},
]))]
pub struct CidrRule {
    /// A CIDR.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// The CIDRs of a CiliumCIDRGroup by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        extend("pattern" = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub cidr_group_ref: Option<String>,
    /// The CIDRs of CiliumCIDRGroups by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr_group_selector: Option<LabelSelector>,
    /// CIDRs inside of those that are not meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = {"type": "string", "format": "cidr"}))]
    pub except: Vec<String>,
}

words! {
    /// A kind of peers.
    pub enum Entity {
        /// Everybody.
        All = "all",
        /// Whoever is outside of the cluster.
        World = "world",
        /// Everybody in the cluster.
        Cluster = "cluster",
        /// The endpoint's own node.
        Host = "host",
        /// Endpoints whose labels are not known yet.
        Init = "init",
        /// The ingress proxies.
        Ingress = "ingress",
        /// Pods that have no endpoint here.
        Unmanaged = "unmanaged",
        /// Other nodes.
        RemoteNode = "remote-node",
        /// The health checks.
        Health = "health",
        /// Nobody.
        None = "none",
        /// The API servers.
        KubeApiServer = "kube-apiserver",
    }
}

/// Peers of a cloud provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Group {
    /// AWS instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsGroup>,
}

/// AWS instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsGroup {
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Security groups by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups_ids: Vec<String>,
    /// Security groups by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups_names: Vec<String>,
    /// Region.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
}

/// The pods or addresses behind Kubernetes services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// One service by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_service: Option<K8sService>,
    /// Services by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_service_selector: Option<K8sServiceSelector>,
}

/// A service by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct K8sService {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// Its namespace; empty: that of the policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Services by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8sServiceSelector {
    /// Their labels.
    pub selector: LabelSelector,
    /// Their namespace; empty: that of the policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// DNS names: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = [{"required": ["matchName"]}, {"required": ["matchPattern"]}]))]
pub struct FqdnSelector {
    /// This name; case and a dot at the end do not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("pattern" = r"^([-a-zA-Z0-9_]+[.]?)+$"))]
    pub match_name: Option<String>,
    /// Names of this form: `*` is any number of characters of one label, `**.` in front one or more labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("pattern" = r"^([-a-zA-Z0-9_*]+[.]?)+$"))]
    pub match_pattern: Option<String>,
}
