//! CiliumCIDRGroup, cilium.io/v2: CIDRs under one name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::ObjectMeta;
use crate::object::object;

/// CIDRs under one name, for rules to refer to by name or by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CiliumCIDRGroup {
    /// Metadata. Its labels are those that a `cidrGroupSelector` reads.
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The CIDRs.
    pub spec: CiliumCIDRGroupSpec,
}

object!(CiliumCIDRGroup, "cilium.io", "v2", "ciliumcidrgroups", namespaced: false);

/// What a CiliumCIDRGroup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CiliumCIDRGroupSpec {
    /// CIDRs outside of the cluster.
    #[serde(rename = "externalCIDRs")]
    #[schemars(extend("items" = {"type": "string", "format": "cidr"}))]
    pub external_cidrs: Vec<String>,
}
