//! A running cluster.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize as _;
use serde_json::Value;
use sim_api::error::ApiError;
use sim_api::object::{name, namespace, str_at, uid};
use sim_api::options::{Patch, Sub, WriteOptions};
use sim_api::resource::PODS;
use sim_api::runtime::{ExecRequest, ExecStreams, PodRef, RuntimeError};
use sim_api::{NodeRuntime as _, ServerHandle, Store};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::bins::BinDir;
use crate::fault::{ActiveFault, Desk, Fault, FaultError};
use crate::kubelet::Kubelets;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::state::{LabDir, LabRecord};
use crate::switch::LinkCounters;

pub mod blocking;
pub mod builder;
pub mod node;
pub mod workloads;

pub use blocking::BlockingCluster;
pub use builder::{BuildError, ClusterBuilder, Progress};
pub use node::Node;

/// The field manager of what a lab makes itself.
const MANAGER: &str = "lab";

/// Name of the operator among nodes' agents.
pub const OPERATOR: &str = "operator";

/// A cluster with everything it consists of; all of it is removed when this is dropped, also by a panic.
///
/// The supervising parts (API server, controllers, kubelets) are tasks of the runtime in which it was built.
#[derive(Debug)]
pub struct Cluster {
    // The order of the fields is the order in which they go.
    desk: Desk,
    server: ServerHandle,
    controllers: JoinSet<()>,
    kubelets: Kubelets,
    operator: Option<Agent>,
    nodes: Vec<Node>,
    outside_servers: JoinSet<()>,
    outside: Machine,
    fabric: Machine,
    store: Store,
    bins: BinDir,
    record: LabRecord,
    dir: LabDir,
}

/// What a program in a pod printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code, 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl ExecOutput {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// A call about the cluster's objects that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The manifest is no YAML, or a document in it is no object.
    #[error("manifest: {0}")]
    Manifest(String),
    /// It did not happen in time.
    #[error("{what} did not happen within {patience:?}: {now}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
        /// How things are instead.
        now: String,
    },
    /// A program in a pod could not be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An agent ends whenever it is started.
    #[error("the agent of {0} ends again and again")]
    AgentFails(String),
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(String),
}

impl Cluster {
    /// Starts describing a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// Shape and addresses.
    pub fn plan(&self) -> &Plan {
        &self.record.plan
    }

    /// Files of the lab.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// Kubeconfig for programs of this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.kubeconfig()
    }

    /// URL of the API server on this machine.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The cluster's objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The kubelets.
    pub fn kubelets(&self) -> &Kubelets {
        &self.kubelets
    }

    /// The nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node, ClusterError> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| ClusterError::NoNode(name.to_owned()))
    }

    /// The operator, unless the cluster is without policy.
    pub fn operator(&self) -> Option<&Agent> {
        self.operator.as_ref()
    }

    /// The machine with bridge and router.
    pub fn fabric(&self) -> &Machine {
        &self.fabric
    }

    /// The machine outside the cluster.
    pub fn outside(&self) -> &Machine {
        &self.outside
    }

    /// The binaries in use.
    pub fn bins(&self) -> &BinDir {
        &self.bins
    }

    /// Kills a node's agent with SIGKILL; it is started again at once. False if none runs.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn kill_agent(&self, node: &str) -> Result<bool, ClusterError> {
        Ok(self.node(node)?.agent().kill(Signal::SIGKILL))
    }

    /// Applies the objects of a YAML text (server-side, as field manager `lab`).
    ///
    /// # Errors
    /// At the first object that the API server refuses; earlier ones stay.
    pub fn apply(&self, yaml: &str) -> Result<(), ClusterError> {
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document).map_err(|e| ClusterError::Manifest(e.to_string()))?;
            if !object.is_null() {
                self.apply_object(object)?;
            }
        }
        Ok(())
    }

    /// Applies one object.
    ///
    /// # Errors
    /// When the API server refuses it or does not know its kind.
    pub fn apply_object(&self, object: Value) -> Result<(), ClusterError> {
        self.apply_object_as(MANAGER, object)
    }

    /// The same in the name of another field manager: what others have set and this object does not name stays.
    ///
    /// # Errors
    /// As [`Self::apply_object`].
    pub fn apply_object_as(&self, manager: &str, object: Value) -> Result<(), ClusterError> {
        apply(&self.store, manager, object)
    }

    /// Waits until a condition on the cluster's objects holds; looked at after every change.
    ///
    /// # Errors
    /// [`ClusterError::Timeout`] with what `check` said last.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut check: impl FnMut(&Store) -> Result<T, String>,
    ) -> Result<T, ClusterError> {
        let mut revisions = self.store.subscribe();
        let mut now = String::new();
        let wait = async {
            loop {
                revisions.mark_unchanged();
                match check(&self.store) {
                    Ok(value) => return value,
                    Err(why) => now = why,
                }
                // Not everything that is waited for is an object.
                let _ = timeout(Duration::from_millis(100), revisions.changed()).await;
            }
        };
        let result = timeout(patience, wait).await;
        result.map_err(|_| ClusterError::Timeout { what: what.to_owned(), patience, now })
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// [`ClusterError::Timeout`] with the pod's status.
    pub async fn wait_running(
        &self,
        namespace: &str,
        pod: &str,
        patience: Duration,
    ) -> Result<(), ClusterError> {
        self.wait_for(&format!("pod {namespace}/{pod} ready"), patience, |store| {
            let object = store.get(&PODS, namespace, pod).map_err(|e| e.to_string())?;
            if workloads::is_ready(&object) { Ok(()) } else { Err(object["status"].to_string()) }
        })
        .await
    }

    /// The pod as the runtime knows it.
    ///
    /// # Errors
    /// 404.
    pub fn pod_ref(&self, namespace: &str, pod: &str) -> Result<PodRef, ClusterError> {
        let object = self.store.get(&PODS, namespace, pod)?;
        Ok(PodRef {
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
            uid: uid(&object).to_owned(),
            node: str_at(&object, &["spec", "nodeName"]).to_owned(),
        })
    }

    /// Runs a program in a pod's first container and waits for its output.
    ///
    /// # Errors
    /// When the pod does not run or the program cannot be started.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        command: &[&str],
    ) -> Result<ExecOutput, ClusterError> {
        let object = self.store.get(&PODS, namespace, pod)?;
        let container = str_at(&object["spec"]["containers"][0], &["name"]).to_owned();
        let request =
            ExecRequest { container, command: command.iter().map(|w| (*w).to_owned()).collect(), tty: false };
        let (out_end, out) = tokio::io::duplex(64 * 1024);
        let (err_end, err) = tokio::io::duplex(64 * 1024);
        let (_keep, resize) = mpsc::channel(1);
        let streams = ExecStreams {
            stdin: None,
            stdout: Some(Box::new(out_end)),
            stderr: Some(Box::new(err_end)),
            resize,
        };
        let run = self.kubelets.exec(self.pod_ref(namespace, pod)?, request, streams);
        let (status, stdout, stderr) = tokio::join!(run, read_all(out), read_all(err));
        Ok(ExecOutput { code: status?.code, stdout, stderr })
    }

    /// Breaks something; see [`crate::fault`].
    ///
    /// # Errors
    /// [`FaultError`]; nothing is broken then.
    pub async fn fault(&self, fault: &Fault) -> Result<(), FaultError> {
        self.desk.fault(fault).await
    }

    /// Ends every fault that lasts, on one node or on all.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn heal(&self, node: Option<&str>) -> Result<(), FaultError> {
        self.desk.heal(node)
    }

    /// The faults that last.
    pub fn active_faults(&self) -> Vec<ActiveFault> {
        self.desk.active()
    }

    /// What happened on a node's link so far; `None` for a lab without a software fabric and for unknown nodes.
    pub fn link_counters(&self, node: &str) -> Option<LinkCounters> {
        self.desk.switch()?.counters(node)
    }

    /// Cuts a node from the network, or joins it again.
    ///
    /// # Errors
    /// When there is no such node or the kernel refuses.
    pub fn set_connected(&self, node: &str, connected: bool) -> io::Result<()> {
        let node = self.node(node).map_err(io::Error::other)?;
        if let Some(switch) = self.desk.switch() {
            switch.set_connected(node.name(), connected);
            return Ok(());
        }
        crate::fabric::set_connected(&self.fabric, node.name(), connected).map_err(io::Error::other)
    }
}

fn apply(store: &Store, manager: &str, mut object: Value) -> Result<(), ClusterError> {
    let (version, kind) = (str_at(&object, &["apiVersion"]), str_at(&object, &["kind"]));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let unknown = || ClusterError::Manifest(format!("no resource is of kind {kind} in {version}"));
    let resource = store.resource_of_kind(group, kind).ok_or_else(unknown)?;
    let ns = match (resource.namespaced, namespace(&object)) {
        (false, _) => String::new(),
        (true, "") => "default".to_owned(),
        (true, ns) => ns.to_owned(),
    };
    if resource.namespaced {
        object["metadata"]["namespace"] = Value::from(ns.as_str());
    }
    let object_name = name(&object).to_owned();
    let options =
        WriteOptions { field_manager: Some(manager.to_owned()), force: true, ..WriteOptions::default() };
    store.patch(&resource.gr, &ns, &object_name, Sub::Main, &Patch::Apply(object), &options)?;
    Ok(())
}

async fn read_all(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First, so that what ends now is not started again.
        self.kubelets.stop();
        self.controllers.abort_all();
        self.outside_servers.abort_all();
        self.operator = None;
        for node in &mut self.nodes {
            node.stop();
        }
        self.outside.stop();
        self.fabric.stop();
        if let Err(e) = self.dir.sweep() {
            tracing::error!(lab = %self.dir.name(), error = %e, "cannot remove the lab's files");
        }
    }
}
