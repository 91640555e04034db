//! Labs for benchmarks: brought up through the lab library, used through their Kubernetes API.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lab::plan::{Family, Routing};
use lab::{Cluster, ClusterBuilder};
use serde_json::{Value, json};

use crate::api::Api;

const NAMESPACE: &str = "default";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const IMAGE: &str = "bristle/client";

/// A lab and its API.
pub struct Lab {
    /// The lab; dropping it removes it.
    pub cluster: Cluster,
    /// Its API server.
    pub api: Api,
}

/// A running pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPod {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Lab {
    /// Brings one up; returns when the lab says that it works.
    pub async fn up(
        purpose: &str,
        nodes: u8,
        routing: Routing,
        bin_dir: Option<&PathBuf>,
    ) -> anyhow::Result<Self> {
        Self::build(purpose, bin_dir, |builder| builder.nodes(nodes).routing(routing)).await
    }

    /// Brings one up that differs from others; returns when the lab says that it works.
    pub async fn build(
        purpose: &str,
        bin_dir: Option<&PathBuf>,
        how: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
    ) -> anyhow::Result<Self> {
        let name = format!("bench-{purpose}-{}", std::process::id()).parse().context("name the lab")?;
        let cluster = how(Cluster::builder())
            .name(name)
            .family(Family::Dual)
            .bin_dir(bin_dir.cloned())
            .progress(|_| ())
            .build()
            .await
            .context("bring up a lab")?;
        let api = Api::of_kubeconfig(&cluster.dir().kubeconfig())?;
        Ok(Self { cluster, api })
    }

    /// Creates a pod on a node that sleeps; with `command` it runs that instead.
    pub fn create_pod(&self, name: &str, node: &str, command: &[&str]) -> anyhow::Result<()> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": pod_spec(node, command),
        });
        self.api.create(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod)?;
        Ok(())
    }

    /// Creates a Deployment of sleeping pods on one node.
    pub fn create_deployment(&self, name: &str, node: &str, replicas: usize) -> anyhow::Result<()> {
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(node, &[])},
            },
        });
        self.api.create(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"), &deployment)?;
        Ok(())
    }

    /// Pods with this `app` label that are running and have an address.
    pub fn running(&self, app: &str) -> anyhow::Result<Vec<RunningPod>> {
        let list = self.api.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{app}"))?;
        Ok(list["items"].as_array().into_iter().flatten().filter_map(running_pod).collect())
    }

    /// Waits until so many of them run.
    pub fn wait_running(&self, app: &str, count: usize, limit: Duration) -> anyhow::Result<Vec<RunningPod>> {
        let deadline = Instant::now() + limit;
        loop {
            crate::go_on()?;
            let pods = self.running(app)?;
            if pods.len() >= count {
                return Ok(pods);
            }
            if Instant::now() >= deadline {
                bail!("{} of {count} pods of {app} run after {} s", pods.len(), limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(if count > 20 { 200 } else { 25 }));
        }
    }

    /// Number of nodes that are Ready.
    pub fn ready_nodes(&self) -> anyhow::Result<usize> {
        let list = self.api.get("/api/v1/nodes")?;
        let ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        Ok(list["items"].as_array().into_iter().flatten().filter(ready).count())
    }

    /// How often setting up a sandbox failed, by the events that say so.
    pub fn refused(&self) -> anyhow::Result<u64> {
        let list = self.api.get(&format!("/api/v1/namespaces/{NAMESPACE}/events"))?;
        let failed = |event: &&Value| event["reason"] == "FailedCreatePodSandBox";
        let events = list["items"].as_array().into_iter().flatten().filter(failed);
        Ok(events.map(|event| event["count"].as_u64().unwrap_or(1)).sum())
    }

    /// Name of the `n`th node, from 0.
    pub fn node(&self, n: usize) -> anyhow::Result<String> {
        Ok(self.cluster.nodes().get(n).context("the lab has fewer nodes")?.name().to_owned())
    }

    /// The agent's process on the `n`th node: the one that is named so and lives in the node's network namespace.
    pub fn agent(&self, n: usize) -> anyhow::Result<u32> {
        let machine = self.cluster.nodes().get(n).context("the lab has fewer nodes")?.machine().pid();
        let netns = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/net")).ok();
        let ours = netns(&machine.to_string());
        let is_agent = |pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "bristle-agent" && netns(&pid.to_string()) == ours
        };
        processes().into_iter().find(is_agent).with_context(|| format!("no agent runs on node {n}"))
    }
}

/// The process that was started with exactly this command line (the program with or without its path). A pod may be
/// reported as running a moment before its program is.
pub fn process_of_command(command: &[&str], limit: Duration) -> anyhow::Result<u32> {
    let bare = command.join("\0") + "\0";
    let with_path = format!("/{bare}");
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == bare.as_bytes() || line.ends_with(with_path.as_bytes())
    };
    let deadline = Instant::now() + limit;
    loop {
        if let Some(pid) = processes().into_iter().find(is_it) {
            return Ok(pid);
        }
        if Instant::now() >= deadline {
            bail!("no process {}", command.join(" "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the status")?;
    let kib: u32 =
        line.split_whitespace().next().unwrap_or_default().parse().context("VmRSS is not a number")?;
    Ok(f64::from(kib) / 1024.0)
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn pod_spec(node: &str, command: &[&str]) -> Value {
    let mut container = json!({"name": "main", "image": IMAGE});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({
        "nodeSelector": {HOSTNAME_LABEL: node},
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    })
}

fn running_pod(pod: &Value) -> Option<RunningPod> {
    let status = &pod["status"];
    let addresses: Vec<IpAddr> = status["podIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address["ip"].as_str()?.parse().ok())
        .collect();
    (status["phase"] == "Running" && !addresses.is_empty()).then(|| RunningPod {
        name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_counts_when_it_runs_and_has_addresses() {
        let pod = |phase, ips: &[&str]| {
            let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            running_pod(&json!({"metadata": {"name": "p"}, "status": {"phase": phase, "podIPs": ips}}))
        };
        assert_eq!(pod("Running", &["10.0.0.1", "fd00::1"]).expect("runs").addresses.len(), 2);
        assert_eq!(pod("Running", &[]), None);
        assert_eq!(pod("Pending", &["10.0.0.1"]), None);
    }

    #[test]
    fn a_process_is_found_by_its_command_line_and_measured() {
        let seconds = format!("77.{}", std::process::id());
        let mut child = std::process::Command::new("sleep").arg(&seconds).spawn().expect("sleep runs");
        let found = process_of_command(&["sleep", &seconds], Duration::from_secs(5));
        let memory = resident_mib(child.id());
        child.kill().expect("can be killed");
        child.wait().expect("ends");
        assert_eq!(found.expect("is found"), child.id());
        assert!(memory.expect("is measured") > 0.0);
        assert!(process_of_command(&["sleep", "no such process"], Duration::ZERO).is_err());
    }
}
