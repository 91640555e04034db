//! The Kubernetes objects that policy and identity come from, as types: what is written in them, and nothing of what
//! it means.
//!
//! It must not know kube, I/O, or the dataplane; whoever reads objects decides what follows from them.
//! The types take everything that the schemas of the objects take. What a schema does not know is skipped, and
//! [`schema::unknown_fields`] names it; words that this version does not know are kept as `Other`.
//! Manifests of the CustomResourceDefinitions are made from the types: see [`crd`].
//!
//! Start reading at [`object::Object`], then one file for each kind.

#![forbid(unsafe_code)]

pub mod object;

pub mod cilium_cidr_group;
pub mod cilium_clusterwide_network_policy;
pub mod cilium_endpoint;
pub mod cilium_identity;
pub mod cilium_network_policy;
pub mod cluster_network_policy;
pub mod network_policy;
pub mod node_policy_status;

pub mod crd;
pub mod icmp;
pub mod identity_labels;
mod label_filter;
pub mod meta;
pub mod rule;
pub mod schema;
mod words;

pub use cilium_cidr_group::CiliumCIDRGroup;
pub use cilium_clusterwide_network_policy::CiliumClusterwideNetworkPolicy;
pub use cilium_endpoint::CiliumEndpoint;
pub use cilium_identity::CiliumIdentity;
pub use cilium_network_policy::CiliumNetworkPolicy;
pub use cluster_network_policy::ClusterNetworkPolicy;
pub use identity_labels::IdentityLabels;
pub use label_filter::{LabelFilter, LabelFilterError};
pub use meta::{IntOrString, LabelSelector, LabelSelectorRequirement, ObjectMeta, SelectorOperator};
pub use network_policy::NetworkPolicy;
pub use node_policy_status::NodePolicyStatus;
pub use object::{Object, ReadError};
