//! Clusters in network namespaces, with the real agent, plugin and eBPF. Needs root and the built programs.

#[path = "netns/cluster.rs"]
mod cluster;
#[path = "netns/commands.rs"]
mod commands;
#[path = "netns/common.rs"]
mod common;
#[path = "netns/faults.rs"]
mod faults;
#[path = "netns/pods.rs"]
mod pods;
