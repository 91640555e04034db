//! Clusters for people and tests: several nodes on one machine that look real from inside and through the Kubernetes API.
//!
//! Nodes are sets of namespaces ([`machine`]) joined by a bridge ([`fabric`]). In each runs the real agent ([`agent`]), and a
//! stand-in for the kubelet ([`kubelet`]) calls the real CNI plugin and runs pods. API server, scheduler and controllers come from
//! `sim-api` and `sim-controllers` and run in the supervising process; so does the web [`outside`] the cluster.
//!
//! What it must not know: packets, eBPF, the agent's mind. It sees of the agent what an administrator sees.
//!
//! Start reading at [`Cluster::builder`].

#![forbid(unsafe_code)]

pub mod agent;
pub mod arm;
pub mod bins;
pub mod cgroup;
pub mod cluster;
pub mod container;
pub mod fabric;
pub mod image;
pub mod machine;
pub mod ns;
pub mod outside;
pub mod plan;
pub mod preflight;
pub mod state;

pub use cluster::{Cluster, ClusterBuilder};
