//! `bristle-lab supervise`: the process that runs a lab after `up` has returned.
//!
//! It is a session of its own. While the cluster starts it writes [`Message`]s to its standard output, which `up` reads; later it
//! is silent but for its log.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::control;
use crate::plan::{Family, LabName, Routing};
use crate::state::{LabDir, OwnerKind, STATE_ROOT};

/// What `up` was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct UpSpec {
    /// Name of the lab.
    pub name: LabName,
    /// Nodes.
    pub nodes: u8,
    /// Address families.
    pub family: Family,
    /// Routing mode.
    pub routing: Routing,
    /// Names outside.
    pub outside_names: [String; 2],
    /// Binaries.
    pub bin_dir: Option<PathBuf>,
    /// Whether to start pods to play with.
    pub demo: bool,
    /// Further arguments of agents.
    pub agent_args: Vec<String>,
    /// See [`crate::ClusterBuilder::kube_proxy_replacement`].
    #[serde(default)]
    pub kube_proxy_replacement: bool,
    /// Whether pods have identities and policies are enforced.
    pub policy: bool,
    /// MTU of links in bytes.
    pub mtu: u16,
    /// Prefix length of a node's IPv4 pod CIDR.
    pub pod_cidr_bits: u8,
    /// Whether the router has routes to pod CIDRs.
    pub pod_routes: bool,
    /// Seed of the software fabric, if there shall be one.
    pub software_fabric: Option<u64>,
    /// For how long agents' states are remembered, if they are.
    pub record_state: Option<Duration>,
}

/// A line for `up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// A step.
    Progress(String),
    /// The cluster works.
    Ready,
    /// It did not come up; nothing of it is left.
    Failed(String),
}

fn tell(message: &Message) {
    if let Ok(line) = serde_json::to_string(message) {
        let mut out = std::io::stdout().lock();
        // `up` may have been interrupted; the lab goes on.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Log of a supervisor before its lab has a directory.
pub fn early_log(name: &LabName) -> PathBuf {
    PathBuf::from(STATE_ROOT).join(format!("{name}.log"))
}

/// Runs a lab until SIGTERM or SIGINT.
pub fn main(spec: UpSpec) -> anyhow::Result<()> {
    // Fails only for a process that leads a group already; then there is no terminal to get away from.
    let _ = nix::unistd::setsid();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        match run(spec).await {
            Ok(()) => Ok(()),
            Err(e) => {
                let text = format!("{e:#}");
                tell(&Message::Failed(text.clone()));
                Err(anyhow::anyhow!(text))
            }
        }
    })
}

async fn run(spec: UpSpec) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let mut told_log = false;
    let dir = LabDir::of(&spec.name);
    let (early, late) = (early_log(&spec.name), dir.supervisor_log());
    let mut move_log = move || {
        if !told_log && late.parent().is_some_and(std::path::Path::exists) {
            told_log = fs::rename(&early, &late).is_ok();
        }
    };
    let mut builder = Cluster::builder()
        .name(spec.name.clone())
        .nodes(spec.nodes)
        .family(spec.family)
        .routing(spec.routing)
        .outside_names(spec.outside_names)
        .bin_dir(spec.bin_dir)
        .demo(spec.demo)
        .agent_args(spec.agent_args)
        .kube_proxy_replacement(spec.kube_proxy_replacement)
        .policy(spec.policy)
        .mtu(spec.mtu)
        .pod_cidr_bits(spec.pod_cidr_bits)
        .pod_routes(spec.pod_routes)
        .owner_kind(OwnerKind::Supervisor)
        .progress(|step| {
            tracing::info!("{}", step.0);
            tell(&Message::Progress(step.0));
        });
    if let Some(seed) = spec.software_fabric {
        builder = builder.software_fabric(seed);
    }
    if let Some(keep) = spec.record_state {
        builder = builder.record_state(keep);
    }
    let building = builder.build();
    let cluster = tokio::select! {
        built = building => built?,
        _ = terminate.recv() => anyhow::bail!("it was told to end while it started"),
        _ = interrupt.recv() => anyhow::bail!("it was interrupted while it started"),
    };
    move_log();
    let listener = UnixListener::bind(cluster.dir().control_socket()).context("make the control socket")?;
    tell(&Message::Ready);
    tokio::select! {
        result = control::serve(listener, &cluster) => result.context("serve the control socket")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("lab ends");
    drop(cluster);
    Ok(())
}
