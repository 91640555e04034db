//! Clusters for people and tests: several nodes on one machine that look real from inside and through the Kubernetes API.
//!
//! Nodes are sets of namespaces ([`machine`]) joined by a bridge ([`fabric`]) or by a [`switch`] that can break links. In each runs the real agent ([`agent`]), and a
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
pub mod control;
pub mod fabric;
pub mod fault;
pub mod image;
pub mod kubelet;
pub mod machine;
pub mod ns;
pub mod outside;
pub mod plan;
pub mod preflight;
pub mod probe;
pub mod sctp;
pub mod snapshot;
pub mod state;
pub mod supervisor;
pub mod switch;
pub mod traffic;

pub use cluster::{BlockingCluster, Cluster, ClusterBuilder};

/// An error with all its causes in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
