//! A node of a running cluster.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use ipnet::IpNet;

use crate::agent::Agent;
use crate::machine::Machine;

/// A node: a machine joined to the fabric, with an agent.
#[derive(Debug)]
pub struct Node {
    pub(super) number: u8,
    pub(super) addresses: Vec<IpNet>,
    pub(super) agent: Option<Agent>,
    pub(super) machine: Machine,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }

    /// Its namespaces and first process.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its agent.
    ///
    /// # Panics
    /// Never: a cluster is handed out only with agents.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("a built cluster's nodes have agents")
    }

    /// A file of the node, as the root namespace reaches it; also the agent's socket. `path` is absolute.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.machine.pid()))
    }

    /// Runs a program of the host inside the node and waits for its output.
    ///
    /// # Errors
    /// When the node cannot be entered or the program not be started.
    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<Output> {
        self.machine
            .ns()
            .run_blocking(|| Command::new(program).args(args).current_dir("/").output())
            .map_err(io::Error::other)?
    }

    pub(super) fn stop(&mut self) {
        self.agent = None;
        self.machine.stop();
    }
}
