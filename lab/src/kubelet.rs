//! Stand-ins for the kubelets of all nodes: pods become processes, their state becomes the objects' status.
//!
//! [`Kubelets`] watches the pods and hands each to a worker ([`pod`]) of its node; it also is the way from the API server to
//! containers ([`NodeRuntime`]). What differs from a real kubelet: containers are processes of the host's file system behind
//! built-in images, resources are not limited, hooks and probes over gRPC or HTTPS are reduced to connecting.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use sim_api::object::{name, namespace, str_at, uid};
use sim_api::resource::PODS;
use sim_api::runtime::{
    Duplex, ExecRequest, ExecStreams, ExitStatus, LogLine, LogRequest, PodRef, RuntimeError,
};
use sim_api::store::{Change, ChangeKind};
use sim_api::{NodeRuntime, Store};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::ns::NsSet;
use crate::state::ProcessId;

mod cni;
mod cni_fault;
mod container;
mod context;
mod dns;
mod environment;
mod exec;
mod log;
mod node;
mod pod;
mod probe;
mod pty;
mod sandbox;
mod spec;
mod state;

pub use cni_fault::{CniFault, GcError};
pub(crate) use dns::FixedNames;

use context::NodeContext;
use pod::{Pod, Update};
use state::{ContainerState, Phase};

/// What a kubelet needs to know about its node.
#[derive(Debug)]
pub struct NodeSetup {
    /// Name of the Node object.
    pub name: String,
    /// InternalIPs.
    pub addresses: Vec<IpAddr>,
    /// Namespaces.
    pub ns: Arc<NsSet>,
    /// First process.
    pub pid: u32,
    /// cgroup on the host.
    pub cgroup: PathBuf,
    /// Directory for logs on the host.
    pub logs: PathBuf,
    /// Text of /etc/hosts.
    pub hosts: String,
}

/// `namespace/name`.
pub(crate) fn full_name(object: &Value) -> String {
    format!("{}/{}", namespace(object), name(object))
}

/// All kubelets; clones share them. They end when the last clone is dropped.
#[derive(Clone)]
pub struct Kubelets(Arc<Inner>);

struct Inner {
    nodes: BTreeMap<String, Arc<NodeContext>>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    dns: watch::Sender<Vec<IpAddr>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl std::fmt::Debug for Kubelets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelets")
            .field("nodes", &self.0.nodes.len())
            .field("pods", &self.pods().len())
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Kubelets {
    /// Kubelets of these nodes, which do nothing yet. `program` is `bristle-lab` on the host.
    pub fn new(nodes: Vec<NodeSetup>, program: &std::path::Path) -> Self {
        let dns = watch::Sender::new(Vec::new());
        let nodes = nodes.into_iter().map(|n| {
            let context = NodeContext {
                name: n.name.clone(),
                addresses: n.addresses,
                ns: n.ns,
                pid: n.pid,
                cgroup: n.cgroup,
                logs: n.logs,
                program: program.to_owned(),
                hosts: n.hosts,
                sandboxes: Semaphore::new(context::PARALLEL_SANDBOXES),
                network: watch::Sender::new(Err("cni plugin not initialized".to_owned())),
                dns: dns.subscribe(),
                add_times: Mutex::default(),
                faults: Mutex::default(),
                attachments: Mutex::default(),
            };
            (n.name, Arc::new(context))
        });
        Self(Arc::new(Inner { nodes: nodes.collect(), pods: Mutex::default(), dns, tasks: Mutex::default() }))
    }

    /// Registers the nodes and starts working; must be called within a tokio runtime. `share` is the directory that all machines
    /// see, `fixed` are names for the DNS beside those of the cluster.
    pub(crate) fn start(&self, store: &Store, share: PathBuf, fixed: FixedNames) {
        let mut tasks = Vec::new();
        for node in self.0.nodes.values() {
            tasks.push(tokio::spawn(node::keep(store.clone(), Arc::clone(node))).abort_handle());
        }
        tasks.push(tokio::spawn(dns::keep(store.clone(), share, fixed, self.0.dns.clone())).abort_handle());
        // Weak: the tasks must not keep alive what ends them.
        tasks.push(tokio::spawn(dispatch(store.clone(), Arc::downgrade(&self.0))).abort_handle());
        tasks.push(tokio::spawn(follow_dns(self.0.dns.subscribe(), Arc::downgrade(&self.0))).abort_handle());
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    /// Stops working on pods and nodes; what runs is left to its node. Tasks may still be at their last step when this returns.
    pub fn stop(&self) {
        self.0.abort();
    }

    /// Durations of all successful ADD calls on a node.
    pub fn add_times(&self, node: &str) -> Vec<Duration> {
        self.0
            .nodes
            .get(node)
            .map(|n| n.add_times.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    /// Whether the node's CNI can attach pods.
    pub fn is_network_ready(&self, node: &str) -> bool {
        self.0.nodes.get(node).is_some_and(|n| n.network.borrow().is_ok())
    }

    /// Process that holds the namespaces of a container (the first running one without a name), and its cgroup on the host.
    pub fn container_process(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
    ) -> Option<(ProcessId, PathBuf)> {
        let pod = self
            .pods()
            .values()
            .find(|p| full_name(&p.object.borrow()) == format!("{namespace}/{name}"))
            .cloned()?;
        let state = pod.state.lock();
        let shim =
            pod.spec.containers.iter().filter(|c| container.is_none_or(|n| n == c.name)).find_map(|c| {
                match state.containers.get(&c.name)?.phase {
                    Phase::Running { shim, .. } => Some(shim),
                    _ => None,
                }
            })?;
        Some((shim, sandbox::host_cgroup(&pod.node, uid(&pod.object.borrow()))))
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.0.pods()
    }

    fn find(&self, pod: &PodRef, container: &str) -> Result<(Arc<Pod>, ContainerState), RuntimeError> {
        let not_running = || RuntimeError::NotRunning {
            pod: format!("{}/{}", pod.namespace, pod.name),
            container: container.to_owned(),
        };
        let found = self.pods().get(&pod.uid).cloned().ok_or_else(not_running)?;
        let state = found.state.lock().containers.get(container).cloned().ok_or_else(not_running)?;
        Ok((found, state))
    }
}

impl Inner {
    fn abort(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a state of a pod's object to its worker, starting one if there is none.
    fn take(self: &Arc<Self>, store: &Store, object: &Arc<Value>, gone: bool, workers: &mut JoinSet<String>) {
        let id = uid(object).to_owned();
        let mut pods = self.pods();
        if let Some(pod) = pods.get(&id) {
            let update = if gone { Update::Gone } else { Update::Object(Arc::clone(object)) };
            // A worker that has just ended needs no news.
            let _ = pod.updates.send(update);
            return;
        }
        let Some(node) = self.nodes.get(str_at(object, &["spec", "nodeName"])) else { return };
        if gone {
            return;
        }
        let (pod, task) = Pod::start(store.clone(), Arc::clone(node), Arc::clone(object));
        pods.insert(id.clone(), pod);
        workers.spawn(async move {
            let abort = AbortOnDrop(task.abort_handle());
            let _ = task.await;
            drop(abort);
            id
        });
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the pods and keeps their workers.
async fn dispatch(store: Store, inner: std::sync::Weak<Inner>) {
    let mut workers = JoinSet::new();
    let mut revisions = store.subscribe();
    let mut seen = None;
    loop {
        revisions.mark_unchanged();
        {
            let Some(inner) = inner.upgrade() else { return };
            let changes = seen.map(|after| store.changes(after));
            match changes {
                Some(Ok(changes)) => {
                    for Change { revision, resource, kind, object, .. } in changes {
                        seen = Some(revision);
                        if resource == PODS {
                            inner.take(&store, &object, kind == ChangeKind::Deleted, &mut workers);
                        }
                    }
                }
                // At the start, and when the log was cut before it was read: what is there, and what is no longer there.
                _ => {
                    seen = Some(store.revision());
                    let all = store.list(&PODS, "");
                    for object in &all {
                        inner.take(&store, object, false, &mut workers);
                    }
                    for (id, pod) in inner.pods().iter() {
                        if !all.iter().any(|object| uid(object) == id) {
                            let _ = pod.updates.send(Update::Gone);
                        }
                    }
                }
            }
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            Some(ended) = workers.join_next() => {
                let Some(inner) = inner.upgrade() else { return };
                if let Ok(id) = ended {
                    inner.pods().remove(&id);
                }
            }
        }
    }
}

/// Rewrites the pods' resolver configuration when the cluster DNS moves.
async fn follow_dns(mut dns: watch::Receiver<Vec<IpAddr>>, inner: std::sync::Weak<Inner>) {
    while dns.changed().await.is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        for pod in inner.pods().values() {
            if pod.sandbox.borrow().is_some() {
                let object = pod.object.borrow().clone();
                if let Err(e) = environment::write_resolv_conf(&pod.node, &object, &pod.spec) {
                    tracing::debug!(pod = full_name(&object), error = %e, "cannot rewrite resolv.conf");
                }
            }
        }
    }
}

impl NodeRuntime for Kubelets {
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        let this = self.clone();
        Box::pin(async move {
            let (found, state) = this.find(&pod, &request.container)?;
            let Phase::Running { shim, .. } = state.phase else {
                return Err(RuntimeError::NotRunning {
                    pod: format!("{}/{}", pod.namespace, pod.name),
                    container: request.container,
                });
            };
            let object = found.object.borrow().clone();
            let container = found
                .spec
                .containers
                .iter()
                .chain(&found.spec.init_containers)
                .find(|c| c.name == request.container)
                .cloned()
                .unwrap_or_default();
            let hostname = environment::hostname(&object, &found.spec, &found.node);
            let ips = found.state.lock().ips.clone();
            let target = exec::ExecTarget {
                shim,
                cgroup: Some(sandbox::host_cgroup(&found.node, &pod.uid)),
                env: environment::variables(&found.store, &found.node, &object, &hostname, &container, &ips)
                    .unwrap_or_else(|_| environment::default_env(&hostname)),
                working_dir: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            };
            exec::exec(Arc::clone(&found.node), target, request, streams).await
        })
    }

    fn attach(
        &self,
        pod: PodRef,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        let this = self.clone();
        Box::pin(async move {
            let log = LogRequest {
                container: request.container.clone(),
                follow: true,
                tail_lines: Some(0),
                ..LogRequest::default()
            };
            let mut lines = this.logs(pod.clone(), log).await?;
            if let Some(mut out) = streams.stdout {
                while let Some(line) = lines.next().await {
                    if out.write_all(&line.text).await.is_err() {
                        break;
                    }
                }
            }
            let (_, state) = this.find(&pod, &request.container)?;
            Ok(ExitStatus { code: if let Phase::Ended(ended) = state.phase { ended.code } else { 0 } })
        })
    }

    fn logs(
        &self,
        pod: PodRef,
        request: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>> {
        let this = self.clone();
        Box::pin(async move {
            let (_, state) = this.find(&pod, &request.container)?;
            let [current, previous] = state.logs;
            let log = if request.previous {
                previous.ok_or_else(|| RuntimeError::NoPrevious {
                    pod: pod.name.clone(),
                    container: request.container.clone(),
                })?
            } else {
                current.ok_or_else(|| RuntimeError::NotRunning {
                    pod: format!("{}/{}", pod.namespace, pod.name),
                    container: request.container.clone(),
                })?
            };
            Ok(log.read(&request))
        })
    }

    fn port_forward(
        &self,
        pod: PodRef,
        port: u16,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>> {
        let this = self.clone();
        Box::pin(async move {
            let full = format!("{}/{}", pod.namespace, pod.name);
            let found = this.pods().get(&pod.uid).cloned();
            let sandbox = found.as_ref().and_then(|p| p.sandbox.borrow().clone());
            let (Some(found), Some(sandbox)) = (found, sandbox) else {
                return Err(RuntimeError::NotRunning { pod: full, container: String::new() });
            };
            let stream = exec::connect_loopback(&found.node, sandbox.netns.as_deref(), port).await;
            let stream = stream.map_err(|source| RuntimeError::Connect { pod: full, port, source })?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}
