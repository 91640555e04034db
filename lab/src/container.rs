//! Containers: a shim outside, a process 1 inside.
//!
//! The kubelet stand-in starts a [`shim`] in the node's PID namespace. It joins the pod's cgroup and network namespace, makes the
//! container's own mount, UTS, IPC and PID namespaces, and starts [`init`] in them. Neither is more than a hundred lines, because
//! a node may run hundreds of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod attach;
pub mod init;
pub mod shim;

/// Exit code for a program that could not be started, as container runtimes give it.
pub const CANNOT_START: u8 = 128;

/// What a shim answers once the container's program runs.
pub const RUNNING: &str = "running\n";

/// What the kubelet tells a shim, as one line of JSON on its standard input. Paths are those of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Host name inside.
    pub hostname: String,
    /// The pod's network namespace; `None`: the node's own.
    pub netns: Option<PathBuf>,
    /// The pod's cgroup.
    pub cgroup: Option<PathBuf>,
    /// Directory for the container's private layer.
    pub base: PathBuf,
    /// The pod's /etc/hosts, /etc/resolv.conf and /etc/hostname: file on the node → path inside; also volumes.
    pub mounts: Vec<Mount>,
    /// What runs.
    pub program: Program,
    /// Environment, complete.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub working_dir: String,
}

/// A file or directory of the node shown in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// On the node.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// What process 1 of a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Runs a program of the host as its child.
    Command(Vec<String>),
    /// Is a built-in server, with these arguments.
    Builtin(Vec<String>),
}
