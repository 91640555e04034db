//! A path that is measured: where its two ends are, and the server that runs at one of them.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::netns::Netns;
use crate::traffic::{Metric, PORT, Sample};

/// The two ends of a path.
#[derive(Debug)]
pub struct Topology {
    /// Network namespace of the client.
    pub client: PathBuf,
    /// Control group that the client joins; none: it stays where it is.
    pub client_cgroup: Option<PathBuf>,
    /// Network namespace of the server.
    pub server: PathBuf,
    /// What the client calls.
    pub target: SocketAddr,
    /// Namespaces that go with the contender.
    pub owned: Vec<Netns>,
}

/// A path with its server running.
#[derive(Debug)]
pub struct Contender {
    name: &'static str,
    topology: Topology,
    /// None where that of another contender answers.
    server: Option<Child>,
    cpu: usize,
}

impl Contender {
    /// Starts the server.
    pub fn start(name: &'static str, topology: Topology, cpu: usize) -> anyhow::Result<Self> {
        let mut server = traffic(&topology.server, cpu)?
            .args(["server", "--port", &PORT.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the traffic server")?;
        let mut line = String::new();
        if let Some(stdout) = server.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("wait for the traffic server")?;
        }
        let contender = Self { name, topology, server: Some(server), cpu };
        if line.trim() != "ready" {
            bail!("{name}: the traffic server did not come up");
        }
        Ok(contender)
    }

    /// Another way to a server that runs already.
    pub const fn beside(name: &'static str, topology: Topology, cpu: usize) -> Self {
        Self { name, topology, server: None, cpu }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Tries until traffic passes: neighbours, routes and programs may need a moment.
    pub fn settle(&self) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..30 {
            match self.measure(Metric::Rr, Duration::from_millis(20)) {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not tried")))
            .with_context(|| format!("{}: no traffic passes", self.name))
    }

    /// One measurement, in a process of its own.
    pub fn measure(&self, metric: Metric, length: Duration) -> anyhow::Result<Sample> {
        let target = self.topology.target.to_string();
        let seconds = length.as_secs_f64().to_string();
        let mut client = traffic(&self.topology.client, self.cpu)?;
        if let Some(cgroup) = &self.topology.client_cgroup {
            client.arg("--cgroup").arg(cgroup);
        }
        let output = client
            .args(["client", "--target", &target, "--metric", metric.word(), "--seconds", &seconds])
            .stdin(Stdio::null())
            .output()
            .context("run the traffic client")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("read the traffic client's sample")
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // `kill` fails only where the server has ended by itself.
        if let Some(mut server) = self.server.take() {
            let _: std::io::Result<()> = server.kill();
            let _: std::io::Result<std::process::ExitStatus> = server.wait();
        }
    }
}

/// This program as traffic generator in a namespace, pinned and preferred to what else the machine does.
fn traffic(netns: &Path, cpu: usize) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("nice");
    command
        .args(["-n", "-15"])
        .arg(program)
        .arg("traffic")
        .arg("--netns")
        .arg(netns)
        .arg("--cpu")
        .arg(cpu.to_string());
    Ok(command)
}
