//! A node of a running cluster.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::machine::Machine;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// Asks the agent's local API (paths are in [`agent_api::paths`]); blocks for at most some seconds.
    ///
    /// # Errors
    /// When the agent does not answer, or not with success.
    pub fn ask_agent<T: DeserializeOwned>(&self, path: &str) -> io::Result<T> {
        let body = self.ask_agent_text(path)?;
        serde_json::from_str(&body).map_err(io::Error::from)
    }

    /// As [`Node::ask_agent`], for what is no JSON ([`agent_api::paths::METRICS`]).
    ///
    /// # Errors
    /// When the agent does not answer, or not with success.
    pub fn ask_agent_text(&self, path: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.file(agent_api::paths::API_SOCKET))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // In version 1.0 there are no pieces to put together.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let first = head.lines().next().unwrap_or_default();
        if first.split(' ').nth(1) == Some("200") {
            Ok(body.to_owned())
        } else {
            Err(io::Error::other(format!("the agent of {} said `{first}` to {path}", self.name())))
        }
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
