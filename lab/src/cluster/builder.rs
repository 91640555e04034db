//! Making a cluster, step by step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use sim_api::object::{list_at, name};
use sim_api::resource::{CUSTOMRESOURCEDEFINITIONS, NODES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{Faults, ServerConfig, Store, SystemClock, WriteOptions, server, write_kubeconfig};
use sim_controllers::{ControllerOptions, Controllers};
use tokio::task::JoinSet;

use super::{BlockingCluster, Cluster, ClusterError, Node, OPERATOR, workloads};
use crate::agent::{Agent, AgentCommand};
use crate::bins::BinDir;
use crate::cgroup::{self, NoCgroup2Error};
use crate::fabric::{self, FABRIC, OUTSIDE, WiringError};
use crate::fault::{Desk, NodeParts};
use crate::kubelet::{Kubelets, NodeSetup};
use crate::machine::init::{InitConfig, OBJECT_PATH, RootConfig, SHARE_DIR};
use crate::machine::{Machine, StartMachineError};
use crate::outside;
use crate::plan::{
    API_PORT, DEFAULT_MTU, DEFAULT_POD_CIDR_BITS, Family, LabName, MAX_NODES, Plan, Routing,
    default_outside_names,
};
use crate::preflight::{self, PreflightError};
use crate::snapshot::Recorder;
use crate::state::{LabDir, LabRecord, OwnerKind, ProcessId, StateError};

/// A step on the way to a running cluster, for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress(pub String);

/// Why a cluster could not be made. What was made of it is removed again.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// More or fewer nodes than possible.
    #[error("a lab has 1 to {MAX_NODES} nodes, not {0}")]
    Nodes(u8),
    /// Pod CIDRs that do not fit.
    #[error(
        "{nodes} nodes with /{bits} each do not fit into the cluster's /{CLUSTER_CIDR_BITS}, or /{bits} is no room for pods (30 at most)"
    )]
    PodCidr {
        /// Prefix length.
        bits: u8,
        /// Nodes.
        nodes: u8,
    },
    /// An MTU that links cannot have.
    #[error("links have an MTU from {LEAST_MTU} to {MOST_MTU}, not {0}")]
    Mtu(u16),
    /// The machine is not fit.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The lab's files.
    #[error(transparent)]
    State(#[from] StateError),
    /// A machine.
    #[error(transparent)]
    Machine(#[from] StartMachineError),
    /// Links and addresses.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// No cgroup2.
    #[error(transparent)]
    Cgroup(#[from] NoCgroup2Error),
    /// The cluster did not get ready.
    #[error("{problem}{hint}")]
    NotReady {
        /// What is missing.
        problem: ClusterError,
        /// Last lines of the log that tell most.
        hint: String,
    },
    /// Anything else that the kernel refused.
    #[error("{step}")]
    Io {
        /// What was tried.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn io_at(step: impl Into<String>) -> impl FnOnce(io::Error) -> BuildError {
    let step = step.into();
    move |source| BuildError::Io { step, source }
}

/// Describes a cluster; [`ClusterBuilder::build`] makes it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ClusterBuilder {
    name: Option<LabName>,
    nodes: u8,
    family: Family,
    routing: Routing,
    outside_names: [String; 2],
    bin_dir: Option<PathBuf>,
    owner_kind: OwnerKind,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
    demo: bool,
    dns: bool,
    faults: Faults,
    agent_args: Vec<String>,
    kube_proxy_replacement: bool,
    policy: bool,
    patience: Duration,
    mtu: u16,
    pod_cidr_bits: u8,
    service_cidrs: Vec<IpNet>,
    objects: Vec<Value>,
    router: Router,
    switch_seed: Option<u64>,
    record_state: Option<Duration>,
}

/// Where the router to the outside knows the way to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Router {
    KnowsNodes,
    KnowsPods,
}

/// Directory of the agents' state.
const STATE_DIR: &str = "/run/bristle/state";
/// Name of the agents' kubeconfig in the shared directory.
const AGENT_KUBECONFIG: &str = "agent.kubeconfig";

/// An agent that was started this often without getting ready has failed.
const MAX_STARTS: u64 = 4;

/// Prefix length of the cluster's IPv4 pod block.
const CLUSTER_CIDR_BITS: u8 = 16;
/// Least MTU of IPv6 (RFC 8200, section 5) and most of what jumbo frames have.
const LEAST_MTU: u16 = 1280;
const MOST_MTU: u16 = 9000;

/// Makes names of clusters in one process differ.
static COUNTER: AtomicU32 = AtomicU32::new(1);

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            name: None,
            nodes: 1,
            family: Family::Dual,
            routing: Routing::Vxlan,
            outside_names: default_outside_names(),
            bin_dir: None,
            owner_kind: OwnerKind::Library,
            progress: Arc::new(|step| tracing::info!("{}", step.0)),
            demo: false,
            dns: true,
            faults: Faults::default(),
            agent_args: Vec::new(),
            kube_proxy_replacement: false,
            policy: true,
            patience: Duration::from_secs(60),
            mtu: DEFAULT_MTU,
            pod_cidr_bits: DEFAULT_POD_CIDR_BITS,
            service_cidrs: Vec::new(),
            objects: Vec::new(),
            router: Router::KnowsNodes,
            switch_seed: None,
            record_state: None,
        }
    }

    /// Its name; without one it gets a free one.
    #[must_use]
    pub fn name(mut self, name: LabName) -> Self {
        self.name = Some(name);
        self
    }

    /// How many nodes (default 1).
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Address families (default both).
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// Routing mode (default VXLAN).
    #[must_use]
    pub fn routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Names of the two servers outside.
    #[must_use]
    pub fn outside_names(mut self, names: [String; 2]) -> Self {
        self.outside_names = names;
        self
    }

    /// Directory of the binaries (default: see [`BinDir::find`]).
    #[must_use]
    pub fn bin_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.bin_dir = dir;
        self
    }

    /// Who runs it (default: a program that uses this library).
    #[must_use]
    pub fn owner_kind(mut self, kind: OwnerKind) -> Self {
        self.owner_kind = kind;
        self
    }

    /// Where steps are reported (default: the log).
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// Whether to start pods to play with (default not).
    #[must_use]
    pub fn demo(mut self, demo: bool) -> Self {
        self.demo = demo;
        self
    }

    /// Whether to start the cluster DNS (default yes), which is a pod on one of the nodes.
    #[must_use]
    pub fn dns(mut self, dns: bool) -> Self {
        self.dns = dns;
        self
    }

    /// Anomalies of the API server on demand; keep a clone to switch them.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Agents send calls of their node's pods and processes to services to their endpoints. Without it nobody translates services.
    #[must_use]
    pub fn kube_proxy_replacement(mut self, replacement: bool) -> Self {
        self.kube_proxy_replacement = replacement;
        self
    }

    /// Further arguments of all agents.
    #[must_use]
    pub fn agent_args(mut self, args: impl IntoIterator<Item = String>) -> Self {
        self.agent_args.extend(args);
        self
    }

    /// Whether pods have identities and policies are enforced (default yes): then there are the definitions of their objects
    /// and an operator.
    #[must_use]
    pub fn policy(mut self, policy: bool) -> Self {
        self.policy = policy;
        self
    }

    /// How long to wait for nodes and pods (default 60 s each).
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// MTU of all links between machines in bytes (default 1500).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Prefix length of a node's IPv4 pod CIDR, out of a /16 for the cluster (default 24).
    #[must_use]
    pub fn pod_cidr_bits(mut self, bits: u8) -> Self {
        self.pod_cidr_bits = bits;
        self
    }

    /// Blocks of services' addresses, one of each family at most, the primary one first (default: one with room for 254 services
    /// in each family of the cluster).
    #[must_use]
    pub fn service_cidrs(mut self, cidrs: impl IntoIterator<Item = IpNet>) -> Self {
        self.service_cidrs = cidrs.into_iter().collect();
        self
    }

    /// Objects that are there before anybody looks. Thousands of them are made much faster so than one by one in a cluster that
    /// runs, where controllers look at all of them after each.
    #[must_use]
    pub fn objects(mut self, objects: impl IntoIterator<Item = Value>) -> Self {
        self.objects.extend(objects);
        self
    }

    /// Whether the router knows which node has which pod CIDRs (default not), as from BGP or a cloud's route controller: the world
    /// outside then answers pods, whose addresses nobody has to translate.
    #[must_use]
    pub fn pod_routes(mut self, pod_routes: bool) -> Self {
        self.router = if pod_routes { Router::KnowsPods } else { Router::KnowsNodes };
        self
    }

    /// Joins the nodes by a switch of our own instead of the kernel's bridge, so that links can be broken
    /// ([`Cluster::fault`]). The seed decides about chances. Slower than the bridge.
    #[must_use]
    pub fn software_fabric(mut self, seed: u64) -> Self {
        self.switch_seed = Some(seed);
        self
    }

    /// Remembers the states of the agents' directories for so long, so that an agent can find an older one when it is started again.
    #[must_use]
    pub fn record_state(mut self, keep: Duration) -> Self {
        self.record_state = Some(keep);
        self
    }

    /// Makes the cluster with a runtime of its own.
    ///
    /// # Errors
    /// As [`ClusterBuilder::build`].
    pub fn blocking(self) -> Result<BlockingCluster, BuildError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(io_at("start a runtime"))?;
        let cluster = runtime.block_on(self.build())?;
        Ok(BlockingCluster::new(cluster, runtime))
    }

    fn say(&self, text: impl Into<String>) {
        (self.progress)(Progress(text.into()));
    }

    /// Makes the cluster and waits until it works; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`]; nothing is left behind then.
    pub async fn build(self) -> Result<Cluster, BuildError> {
        if self.nodes == 0 || self.nodes > MAX_NODES {
            return Err(BuildError::Nodes(self.nodes));
        }
        let room = |bits: u8| 1_u32 << (bits - CLUSTER_CIDR_BITS);
        if !(CLUSTER_CIDR_BITS..=30).contains(&self.pod_cidr_bits)
            || room(self.pod_cidr_bits) < u32::from(self.nodes)
        {
            return Err(BuildError::PodCidr { bits: self.pod_cidr_bits, nodes: self.nodes });
        }
        if !(LEAST_MTU..=MOST_MTU).contains(&self.mtu) {
            return Err(BuildError::Mtu(self.mtu));
        }
        preflight::machine()?;
        let bins = BinDir::find(self.bin_dir.clone())?;
        preflight::raise_file_limit();
        let free_name = || format!("lib-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let name =
            self.name.clone().unwrap_or_else(|| free_name().parse().expect("made of allowed characters"));
        let plan = Plan {
            name,
            index: 0,
            nodes: self.nodes,
            family: self.family,
            routing: self.routing,
            outside_names: self.outside_names.clone(),
            mtu: self.mtu,
            pod_cidr_bits: self.pod_cidr_bits,
        };
        let (dir, record) = LabDir::create(plan, self.owner_kind)?;
        let built = self.build_in(&dir, record, bins).await;
        if built.is_err() {
            // The machines went with the failed attempt; what is left is files and groups.
            let _ = dir.sweep();
        }
        built
    }

    async fn build_in(
        &self,
        dir: &LabDir,
        mut record: LabRecord,
        bins: BinDir,
    ) -> Result<Cluster, BuildError> {
        let plan = record.plan.clone();
        let plain = |name: &str| InitConfig { hostname: name.to_owned(), root: None, forwarding: true };
        let fabric = Machine::start(&bins.lab(), &plain(FABRIC))?;
        let outside = Machine::start(&bins.lab(), &plain(OUTSIDE))?;
        record.machines.extend([&fabric, &outside].into_iter().filter_map(|m| ProcessId::of(m.pid())));
        dir.write_record(&record)?;
        let switch =
            self.switch_seed.map(|seed| fabric::switch_netns().map(|netns| (netns, seed))).transpose()?;
        let netns = switch.as_ref().map(|(netns, _)| netns);
        fabric::set_up(&plan, &fabric, &outside, netns)?;
        let outside_servers =
            outside::serve(&plan, &outside, &dir.share()).map_err(io_at("serve outside the cluster"))?;
        self.say("outside world: ready");

        let mut nodes = Vec::new();
        for number in 1..=plan.nodes {
            let machine = Machine::start(&bins.lab(), &node_config(dir, &plan, number, &bins)?)?;
            record.machines.extend(ProcessId::of(machine.pid()));
            dir.write_record(&record)?;
            fabric::join(&plan, &fabric, netns, number, &machine)?;
            nodes.push(Node { number, addresses: plan.node_addresses(number), agent: None, machine });
        }
        let switch = switch.map(|(netns, seed)| fabric::start_switch(&plan, netns, seed)).transpose()?;
        self.say(format!("nodes: {} created", nodes.len()));

        let store = Store::new(store_options(&plan, &self.service_cidrs));
        let kubelets = Kubelets::new(kubelet_setups(dir, &plan, &nodes)?, &bins.lab());
        let server = self.start_server(dir, &plan, &fabric, &store, &kubelets)?;
        for object in &self.objects {
            super::apply(&store, super::MANAGER, object.clone())
                .map_err(|e| BuildError::NotReady { problem: e, hint: String::new() })?;
        }
        let controllers = start_controllers(&plan, &store);
        kubelets.start(&store, dir.share(), fixed_names(&plan));
        let operator = if self.policy { Some(start_operator(dir, &store, &fabric, &bins)?) } else { None };
        for node in &mut nodes {
            let command = self.agent_command(dir, &plan, node.name());
            node.agent = Some(Agent::start(node.name(), Arc::clone(node.machine.ns()), command));
        }
        self.say(format!("API server: {}", server.url()));
        let parts = nodes.iter().map(|node| (node.name().to_owned(), self.parts(node))).collect();
        let desk = Desk::new(parts, switch, self.faults.clone(), kubelets.clone());
        let cluster = Cluster {
            desk,
            server,
            controllers,
            kubelets,
            operator,
            nodes,
            outside_servers,
            outside,
            fabric,
            store,
            bins,
            record,
            dir: dir.clone(),
        };
        self.wait_ready(&cluster).await?;
        Ok(cluster)
    }

    fn start_server(
        &self,
        dir: &LabDir,
        plan: &Plan,
        fabric: &Machine,
        store: &Store,
        kubelets: &Kubelets,
    ) -> Result<server::ServerHandle, BuildError> {
        let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_at("listen on 127.0.0.1"))?;
        let mut config = ServerConfig::new(local);
        config.listeners.extend(fabric::api_listeners(plan, fabric)?);
        config.runtime = Arc::new(kubelets.clone());
        config.faults = self.faults.clone();
        let server = server::start(store.clone(), config).map_err(io_at("start the API server"))?;
        let addresses: Vec<_> = plan.api_addresses().iter().map(IpNet::addr).collect();
        store
            .set_api_endpoints(&addresses, API_PORT)
            .map_err(|e| BuildError::NotReady { problem: e.into(), hint: String::new() })?;
        write_kubeconfig(&dir.kubeconfig(), &format!("bristle-{}", plan.name), &server.url())
            .map_err(io_at("write the kubeconfig"))?;
        write_kubeconfig(&dir.share().join(AGENT_KUBECONFIG), "bristle", &plan.api_url())
            .map_err(io_at("write the agents' kubeconfig"))?;
        Ok(server)
    }

    fn parts(&self, node: &Node) -> NodeParts {
        let record = |keep| Recorder::start(node.file(STATE_DIR), keep);
        NodeParts {
            addresses: node.addresses(),
            agent: node.agent().control(),
            recorder: self.record_state.map(record),
        }
    }

    fn agent_command(&self, dir: &LabDir, plan: &Plan, node: &str) -> AgentCommand {
        let mut args: Vec<String> = [
            ("--node-name", node.to_owned()),
            ("--kubeconfig", format!("{SHARE_DIR}/{AGENT_KUBECONFIG}")),
            ("--routing", plan.routing.to_string()),
            ("--bpf-object", OBJECT_PATH.to_owned()),
            ("--policy", if self.policy { "on" } else { "off" }.to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        if self.kube_proxy_replacement {
            args.push("--kube-proxy-replacement".to_owned());
        }
        args.extend(self.agent_args.iter().cloned());
        AgentCommand::new(args, dir.agent_log(node))
    }

    async fn wait_ready(&self, cluster: &Cluster) -> Result<(), BuildError> {
        let total = cluster.nodes.len();
        let mut said = (usize::MAX, usize::MAX);
        let waited = cluster.wait_for("all nodes ready", self.patience, |store| {
            let agents = cluster.nodes.iter().filter(|n| cluster.kubelets.is_network_ready(n.name())).count();
            let ready = store.list(&NODES, "").iter().filter(|n| workloads::is_ready(n)).count();
            if said != (agents, ready) {
                said = (agents, ready);
                self.say(format!("agents: {agents} of {total} ready, nodes: {ready} of {total} Ready"));
            }
            // An agent that ends again and again will not get better by waiting.
            let failing = cluster
                .nodes
                .iter()
                .find(|n| n.agent().starts() > MAX_STARTS && !cluster.kubelets.is_network_ready(n.name()));
            match failing {
                Some(node) => Ok(Err(ClusterError::AgentFails(node.name().to_owned()))),
                None if ready == total => Ok(Ok(())),
                None => Err(format!("{ready} of {total} are")),
            }
        });
        let ready = waited.await.and_then(|ready| ready);
        ready.map_err(|problem| BuildError::NotReady { problem, hint: agents_hint(cluster) })?;
        if self.router == Router::KnowsPods {
            fabric::route_pods(&cluster.fabric, &pod_networks(cluster))?;
        }

        let mut objects = if self.dns { workloads::cluster_dns() } else { Vec::new() };
        if self.demo {
            objects.extend(workloads::demo());
        }
        let wanted = objects.iter().map(|o| match o["kind"].as_str() {
            Some("Pod") => 1,
            Some("Deployment") => o["spec"]["replicas"].as_u64().unwrap_or(1),
            _ => 0,
        });
        let wanted = usize::try_from(wanted.sum::<u64>()).unwrap_or(usize::MAX);
        for object in objects {
            cluster
                .apply_object(object)
                .map_err(|problem| BuildError::NotReady { problem, hint: String::new() })?;
        }
        let mut said = usize::MAX;
        let waited = cluster.wait_for("all pods ready", self.patience, |store| {
            let pods: Vec<_> = store.list(&PODS, "").into_iter().filter(|p| workloads::is_ours(p)).collect();
            let ready = pods.iter().filter(|p| workloads::is_ready(p)).count();
            if said != ready {
                said = ready;
                self.say(format!("pods: {ready} of {wanted} Running"));
            }
            if ready >= wanted {
                return Ok(());
            }
            let why = |p: &Value| format!("{}: {}", name(p), p["status"]["containerStatuses"][0]["state"]);
            let unready: Vec<String> =
                pods.iter().filter(|p| !workloads::is_ready(p)).map(|p| why(p)).collect();
            Err(format!("{ready} of {wanted} are; {}", unready.join(", ")))
        });
        waited.await.map_err(|problem| BuildError::NotReady { problem, hint: agents_hint(cluster) })
    }
}

/// The pod CIDRs and the addresses of each node. CIDRs never change, so they need not be watched.
fn pod_networks(cluster: &Cluster) -> Vec<(Vec<IpNet>, Vec<IpAddr>)> {
    let objects = cluster.store.list(&NODES, "");
    let of_node = |node: &Node| {
        let object = objects.iter().find(|object| name(object) == node.name());
        let cidrs = object.map(|object| list_at(object, &["spec", "podCIDRs"])).unwrap_or_default();
        let cidrs = cidrs.iter().filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
        (cidrs, node.addresses())
    };
    cluster.nodes.iter().map(of_node).collect()
}

/// The operator runs where the API server listens, and ends with that machine.
///
/// Definitions are there before any agent looks for them, so that none has to wait for the operator.
fn start_operator(dir: &LabDir, store: &Store, fabric: &Machine, bins: &BinDir) -> Result<Agent, BuildError> {
    let definitions = agent_crd::crd::needed().into_iter().chain([agent_crd::crd::cluster_network_policy()]);
    for definition in definitions {
        store
            .create(&CUSTOMRESOURCEDEFINITIONS, "", definition, &WriteOptions::default())
            .map_err(|e| BuildError::NotReady { problem: e.into(), hint: String::new() })?;
    }
    let kubeconfig = dir.share().join(AGENT_KUBECONFIG).display().to_string();
    let args = ["--kubeconfig", &kubeconfig, "--listen", "off"].map(str::to_owned).to_vec();
    let command = AgentCommand::operator(bins.path.join("bristle-operator"), args, dir.operator_log());
    Ok(Agent::start(OPERATOR, Arc::clone(fabric.ns()), command))
}

/// The last lines of the first agent's log that is not ready, or of the first at all.
fn agents_hint(cluster: &Cluster) -> String {
    let node =
        cluster.nodes.iter().find(|n| !cluster.kubelets.is_network_ready(n.name())).or(cluster.nodes.first());
    let Some(node) = node else { return String::new() };
    let log = fs::read_to_string(cluster.dir.agent_log(node.name())).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
    format!("\nagent of {} (started {} times) said last:\n  {tail}", node.name(), node.agent().starts())
}

fn store_options(plan: &Plan, service_cidrs: &[IpNet]) -> StoreOptions {
    let mut service_cidrs = service_cidrs.to_vec();
    let index = plan.index;
    if service_cidrs.is_empty() {
        if plan.family.has_v4() {
            service_cidrs.extend(format!("10.9.{index}.0/24").parse::<IpNet>());
        }
        if plan.family.has_v6() {
            service_cidrs.extend(format!("fd00:9:{index}::/112").parse::<IpNet>());
        }
    }
    StoreOptions {
        clock: Arc::new(SystemClock),
        service_cidrs,
        node_ports: (30000, 32767),
        log_capacity: 10_000,
        seed: u64::from(index),
    }
}

fn start_controllers(plan: &Plan, store: &Store) -> JoinSet<()> {
    let mut controllers = Controllers::new(
        store.clone(),
        ControllerOptions { pod_cidrs: plan.cluster_cidrs(), node_grace_s: 40 },
    );
    let store = store.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut revisions = store.subscribe();
        loop {
            revisions.mark_unchanged();
            // Bounded, so that two controllers that disagree cannot keep the thread for ever.
            controllers.settle(100);
            let wait = controllers.next_deadline().map_or(Duration::from_secs(60), |at| {
                let ms = at.as_millisecond() - store.now().as_millisecond();
                Duration::from_millis(u64::try_from(ms).unwrap_or(0).clamp(10, 60_000))
            });
            if let Ok(Err(_)) = tokio::time::timeout(wait, revisions.changed()).await {
                return;
            }
        }
    });
    tasks
}

fn kubelet_setups(dir: &LabDir, plan: &Plan, nodes: &[Node]) -> Result<Vec<NodeSetup>, BuildError> {
    let cgroups = cgroup::lab_path(dir.name())?;
    let setup = |node: &Node| NodeSetup {
        name: node.name().to_owned(),
        addresses: node.addresses(),
        ns: Arc::clone(node.machine.ns()),
        pid: node.machine.pid(),
        cgroup: cgroups.join(node.name()),
        logs: dir.node(node.name()).join("pods"),
        hosts: plan.hosts_file(),
    };
    Ok(nodes.iter().map(setup).collect())
}

/// Names that the cluster DNS knows besides the cluster's own: nodes and the outside.
fn fixed_names(plan: &Plan) -> BTreeMap<String, Vec<IpAddr>> {
    let nodes = (1..=plan.nodes)
        .map(|n| (Plan::node_name(n), plan.node_addresses(n).iter().map(IpNet::addr).collect()));
    let outside = plan.outside_names.iter().cloned().zip(plan.outside_servers());
    nodes.chain(outside).collect()
}

fn node_config(dir: &LabDir, plan: &Plan, number: u8, bins: &BinDir) -> Result<InitConfig, BuildError> {
    let name = Plan::node_name(number);
    let cgroup = cgroup::lab_path(dir.name())?.join(&name);
    for path in [dir.node(&name).join("pods"), dir.machine_base(&name), cgroup.clone()] {
        fs::create_dir_all(&path).map_err(io_at(format!("make {}", path.display())))?;
    }
    Ok(InitConfig {
        hostname: name.clone(),
        forwarding: false,
        root: Some(RootConfig {
            base: dir.machine_base(&name),
            cgroup,
            bin_dir: bins.path.clone(),
            object: bins.object.clone(),
            share: dir.share(),
            hosts: plan.hosts_file(),
            // Nodes know the names they need from /etc/hosts; a resolver that nobody answers would only slow failures down.
            resolv_conf: "# names are in /etc/hosts\n".to_owned(),
        }),
    })
}
