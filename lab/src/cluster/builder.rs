//! Making a cluster, step by step.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cluster, Node};
use crate::bins::BinDir;
use crate::cgroup::{self, NoCgroup2Error};
use crate::fabric::{self, FABRIC, OUTSIDE, WiringError};
use crate::machine::init::{InitConfig, RootConfig};
use crate::machine::{Machine, StartMachineError};
use crate::outside;
use crate::plan::{Family, LabName, MAX_NODES, Plan, Routing, default_outside_names};
use crate::preflight::{self, PreflightError};
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
pub struct ClusterBuilder {
    name: Option<LabName>,
    nodes: u8,
    family: Family,
    routing: Routing,
    outside_names: [String; 2],
    bin_dir: Option<PathBuf>,
    owner_kind: OwnerKind,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

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
        preflight::machine()?;
        let bins = BinDir::find(self.bin_dir.clone())?;
        preflight::raise_file_limit();
        let free_name = || format!("lib-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let name = self.name.clone().unwrap_or_else(|| free_name().parse().expect("made of allowed characters"));
        let plan = Plan {
            name,
            index: 0,
            nodes: self.nodes,
            family: self.family,
            routing: self.routing,
            outside_names: self.outside_names.clone(),
        };
        let (dir, record) = LabDir::create(plan, self.owner_kind)?;
        let built = self.build_in(&dir, record, bins).await;
        if built.is_err() {
            // The machines went with the failed attempt; what is left is files and groups.
            let _ = dir.sweep();
        }
        built
    }

    async fn build_in(&self, dir: &LabDir, mut record: LabRecord, bins: BinDir) -> Result<Cluster, BuildError> {
        let plan = record.plan.clone();
        let plain = |name: &str| InitConfig { hostname: name.to_owned(), root: None, forwarding: true };
        let fabric = Machine::start(&bins.lab(), &plain(FABRIC))?;
        let outside = Machine::start(&bins.lab(), &plain(OUTSIDE))?;
        record.machines.extend([&fabric, &outside].into_iter().filter_map(|m| ProcessId::of(m.pid())));
        dir.write_record(&record)?;
        fabric::set_up(&plan, &fabric, &outside)?;
        let outside_servers = outside::serve(&plan, &outside).map_err(io_at("serve outside the cluster"))?;
        self.say("outside world: ready");

        let mut nodes = Vec::new();
        for number in 1..=plan.nodes {
            let machine = Machine::start(&bins.lab(), &self.node_config(dir, &plan, number, &bins)?)?;
            record.machines.extend(ProcessId::of(machine.pid()));
            dir.write_record(&record)?;
            fabric::join(&plan, &fabric, number, &machine)?;
            nodes.push(Node { number, addresses: plan.node_addresses(number), machine });
        }
        self.say(format!("nodes: {} created", nodes.len()));
        Ok(Cluster { nodes, _outside_servers: outside_servers, outside, fabric, bins, record, dir: dir.clone() })
    }

    fn node_config(&self, dir: &LabDir, plan: &Plan, number: u8, bins: &BinDir) -> Result<InitConfig, BuildError> {
        let name = Plan::node_name(number);
        let cgroup = cgroup::lab_path(dir.name())?.join(&name);
        for path in [dir.node(&name), dir.machine_base(&name), cgroup.clone()] {
            fs::create_dir_all(&path).map_err(io_at(format!("make {}", path.display())))?;
        }
        Ok(InitConfig {
            hostname: name.clone(),
            forwarding: false,
            root: Some(RootConfig {
                base: dir.machine_base(&name),
                cgroup,
                bin_dir: bins.path.clone(),
                share: dir.share(),
                hosts: plan.hosts_file(),
                // Nodes know the names they need from /etc/hosts; a resolver that nobody answers would only slow failures down.
                resolv_conf: "# names are in /etc/hosts\n".to_owned(),
            }),
        })
    }
}
