//! Endpoints: what policy has to know of them.

use dataplane_abi::Identity;

use crate::config::{Config, Enforcement};
use crate::label::LabelSet;
use crate::ports::NamedPort;

/// Number of an endpoint, unique on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

/// An endpoint of this node: a pod, or the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, for findings.
    pub name: String,
    /// Its identity.
    pub identity: Identity,
    /// Labels by which rules select it: those of its identity; for the node also its own, with source `k8s`.
    pub labels: LabelSet,
    /// Ports that it has given names.
    pub named_ports: Vec<NamedPort>,
    /// It is the node: rules with a node selector are for it, and no others.
    pub host: bool,
    /// Enforcement, if it is not that of the node.
    pub enforcement: Option<Enforcement>,
    /// What is dropped by its policy passes, and is told of, or not; if that is not as for the node.
    pub audit: Option<bool>,
}

impl Endpoint {
    /// Enforcement for it.
    pub(crate) fn mode(&self, config: &Config) -> Enforcement {
        self.enforcement.unwrap_or(config.enforcement)
    }

    /// Whether it is isolated in both directions, whatever policies say.
    pub(crate) fn closed(&self, config: &Config) -> bool {
        !self.host && config.isolates(self.mode(config), self.identity)
    }
}
