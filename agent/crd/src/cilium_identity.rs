//! CiliumIdentity, cilium.io/v2: the number of a set of labels.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity_labels::IdentityLabels;
use crate::meta::ObjectMeta;
use crate::object::object;

/// A set of labels that has the number which is the object's name. Numbers go from [`CiliumIdentity::MIN`] to
/// [`CiliumIdentity::MAX`]; the operator gives them out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CiliumIdentity {
    /// Metadata; the name is the number.
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The labels, as `source:key` with their values. They never change.
    pub security_labels: BTreeMap<String, String>,
}

object!(CiliumIdentity, "cilium.io", "v2", "ciliumidentities", namespaced: false);

impl CiliumIdentity {
    /// First number that is given out.
    pub const MIN: u32 = 256;
    /// Last number that is given out.
    pub const MAX: u32 = 65535;

    /// How long after its last sign of life the operator that gives out numbers may be followed by another one.
    /// Unless it is told otherwise.
    pub const LEASE_DURATION: Duration = Duration::from_secs(15);
    /// How long a new pod waits for its number unless the agent is told otherwise: the lease of an operator that died runs
    /// out, another one notices, reads all there is, and gives the number out.
    pub const WAIT: Duration = Duration::from_secs(2 * Self::LEASE_DURATION.as_secs());

    /// How long a number is known before a pod that had another one takes it, unless the agent is told otherwise.
    pub const CHANGE_GRACE: Duration = Duration::from_secs(5);

    /// The object for a set of labels. Its metadata repeat the labels from Kubernetes, so that it can be selected by them.
    pub fn new(number: u32, labels: &IdentityLabels) -> Self {
        let mut metadata = ObjectMeta::named(number.to_string());
        metadata.labels = labels.object_labels();
        Self { metadata, security_labels: labels.to_map() }
    }

    /// The number, unless the name is none of those that are given out.
    pub fn number(&self) -> Option<u32> {
        let name = &self.metadata.name;
        let number: u32 = name.parse().ok()?;
        // One number has one name.
        (number.to_string() == *name && (Self::MIN..=Self::MAX).contains(&number)).then_some(number)
    }

    /// The labels.
    pub fn labels(&self) -> IdentityLabels {
        IdentityLabels::from_map(&self.security_labels)
    }
}
