//! The supervisor's control socket: what the commands ask a running lab that is not in the Kubernetes API.
//!
//! One line of JSON each way per connection.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::agent::Agent;
use crate::cluster::{Cluster, ClusterError, OPERATOR};
use crate::fault::{ActiveFault, Fault, FaultError};
use crate::plan::Plan;
use crate::switch::LinkCounters;
use nix::sys::signal::Signal;
use serde_json::Value;
use sim_api::object::{list_at, name, namespace, str_at};
use sim_api::resource::{NODES, PODS};

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// How is everything?
    Status,
    /// Where is this node, or the container of this pod?
    Find {
        /// Node, pod in `default`, or `namespace/pod`.
        target: String,
    },
    /// Do something to an agent.
    Agent {
        /// Node.
        node: String,
        /// What.
        action: AgentAction,
    },
    /// Break something.
    Fault(Fault),
    /// Mend what is broken.
    Heal {
        /// Node; without one: everywhere.
        node: Option<String>,
    },
    /// What is broken?
    Faults,
}

/// What can be done to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AgentAction {
    /// SIGKILL; it is started again at once.
    Kill,
    /// End it and leave it down.
    Stop,
    /// Start it again.
    Start,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Find`].
    Found(Place),
    /// To [`Request::Faults`]: what lasts, and what happened on each node's link so far.
    Faults {
        /// What lasts.
        active: Vec<ActiveFault>,
        /// By node; empty in a lab without a software fabric.
        links: BTreeMap<String, LinkCounters>,
    },
    /// Done.
    Done,
    /// Not done; for people.
    Error {
        /// Why.
        message: String,
    },
}

/// Where a node or pod is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    /// Process whose namespaces it is.
    pub pid: u32,
    /// Its cgroup on the host.
    pub cgroup: Option<PathBuf>,
    /// Whether it is a node.
    pub is_node: bool,
}

/// State of a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Shape and addresses.
    pub plan: Plan,
    /// API server on this machine.
    pub url: String,
    /// The operator, unless the lab is without policy.
    pub operator: Option<OperatorStatus>,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
    /// Pods.
    pub pods: Vec<PodStatus>,
}

/// State of the operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// Its PID in the root namespace, if it runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u64,
}

/// State of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name.
    pub name: String,
    /// Condition Ready.
    pub ready: bool,
    /// InternalIPs.
    pub addresses: Vec<String>,
    /// Pod CIDRs.
    pub pod_cidrs: Vec<String>,
    /// PID of the agent in the root namespace, if it runs.
    pub agent_pid: Option<u32>,
    /// How often the agent was started.
    pub agent_starts: u64,
    /// Successful CNI ADD calls; median and 99th percentile of their duration in milliseconds.
    pub adds: Option<(usize, f64, f64)>,
}

/// State of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Node.
    pub node: String,
    /// Phase.
    pub phase: String,
    /// Condition Ready.
    pub ready: bool,
    /// Addresses.
    pub ips: Vec<String>,
}

/// Answers until the listener fails.
pub async fn serve(listener: UnixListener, cluster: &Cluster) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // One after the other: the answers take microseconds, and a client that does not ask is left waiting only so long.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), serve_one(stream, cluster)).await;
    }
}

async fn serve_one(stream: UnixStream, cluster: &Cluster) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let response = match serde_json::from_str(&line) {
        Ok(request) => answer(request, cluster).await,
        Err(e) => Response::Error { message: e.to_string() },
    };
    let mut text = serde_json::to_string(&response).map_err(io::Error::other)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await
}

async fn answer(request: Request, cluster: &Cluster) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(status(cluster))),
        Request::Find { target } => {
            find(cluster, &target).map_or_else(|message| Response::Error { message }, Response::Found)
        }
        Request::Fault(fault) => done(cluster.fault(&fault).await),
        Request::Heal { node } => done(cluster.heal(node.as_deref())),
        Request::Faults => {
            let counters = |node: &crate::cluster::Node| {
                Some((node.name().to_owned(), cluster.link_counters(node.name())?))
            };
            let links = cluster.nodes().iter().filter_map(counters).collect();
            Response::Faults { active: cluster.active_faults(), links }
        }
        Request::Agent { node, action } => match agent(cluster, &node) {
            Err(e) => Response::Error { message: e.to_string() },
            Ok(agent) => {
                match action {
                    AgentAction::Kill => drop(agent.kill(Signal::SIGKILL)),
                    AgentAction::Stop => agent.stop().await,
                    AgentAction::Start => agent.resume(),
                }
                Response::Done
            }
        },
    }
}

/// The agent of a node, or the operator by its name.
fn agent<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Agent, ClusterError> {
    match cluster.operator() {
        Some(operator) if name == OPERATOR => Ok(operator),
        _ => Ok(cluster.node(name)?.agent()),
    }
}

fn done(result: Result<(), FaultError>) -> Response {
    result.map_or_else(|e| Response::Error { message: e.to_string() }, |()| Response::Done)
}

fn find(cluster: &Cluster, target: &str) -> Result<Place, String> {
    if let Ok(node) = cluster.node(target) {
        let machine = node.machine();
        let cgroup = machine.cgroup().map(Path::to_owned);
        return Ok(Place { pid: machine.pid(), cgroup, is_node: true });
    }
    for machine in [cluster.fabric(), cluster.outside()] {
        if machine.name() == target {
            return Ok(Place { pid: machine.pid(), cgroup: None, is_node: true });
        }
    }
    let (namespace, pod) = target.split_once('/').unwrap_or(("default", target));
    if let Some((process, cgroup)) = cluster.kubelets().container_process(namespace, pod, None) {
        return Ok(Place { pid: process.pid, cgroup: Some(cgroup), is_node: false });
    }
    match cluster.store().get(&PODS, namespace, pod) {
        Ok(object) => Err(format!(
            "pod {namespace}/{pod} does not run: it is {}",
            str_at(&object, &["status", "phase"])
        )),
        Err(_) => Err(format!(
            "there is no node and no pod in namespace {namespace} called {pod}: see `lab status`, and write pods of other namespaces as namespace/pod"
        )),
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn add_times(mut times: Vec<std::time::Duration>) -> Option<(usize, f64, f64)> {
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    Some((times.len(), at(50)?.as_secs_f64() * 1e3, at(99)?.as_secs_f64() * 1e3))
}

fn status(cluster: &Cluster) -> Status {
    let objects = cluster.store().list(&NODES, "");
    let node_status = |node: &crate::cluster::Node| {
        let object = objects.iter().find(|o| name(o) == node.name());
        NodeStatus {
            name: node.name().to_owned(),
            ready: object.is_some_and(|o| crate::cluster::workloads::is_ready(o)),
            addresses: node.addresses().iter().map(ToString::to_string).collect(),
            pod_cidrs: object.map(|o| texts(list_at(o, &["spec", "podCIDRs"]))).unwrap_or_default(),
            agent_pid: node.agent().process().map(|p| p.pid),
            agent_starts: node.agent().starts(),
            adds: add_times(cluster.kubelets().add_times(node.name())),
        }
    };
    let pod_status = |pod: &sim_api::Object| PodStatus {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        node: str_at(pod, &["spec", "nodeName"]).to_owned(),
        phase: str_at(pod, &["status", "phase"]).to_owned(),
        ready: crate::cluster::workloads::is_ready(pod),
        ips: list_at(pod, &["status", "podIPs"]).iter().map(|ip| str_at(ip, &["ip"]).to_owned()).collect(),
    };
    Status {
        plan: cluster.plan().clone(),
        url: cluster.url(),
        operator: cluster.operator().map(|operator| OperatorStatus {
            pid: operator.process().map(|process| process.pid),
            starts: operator.starts(),
        }),
        nodes: cluster.nodes().iter().map(node_status).collect(),
        pods: cluster.store().list(&PODS, "").iter().map(pod_status).collect(),
    }
}

/// Asks a lab's supervisor; for commands, so it blocks.
///
/// # Errors
/// When nobody answers, or with the supervisor's own words.
pub fn ask(socket: &Path, request: &Request) -> io::Result<Response> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    writeln!(stream, "{}", serde_json::to_string(request).map_err(io::Error::other)?)?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).map_err(io::Error::other)? {
        Response::Error { message } => Err(io::Error::other(message)),
        response => Ok(response),
    }
}
