//! The arm `netns`: a scenario on a lab of its own, in real time, with real agents, real CNI calls and real eBPF.
//!
//! It reports the same [`Outcome`] as the simulator. What this arm cannot do is refused before anything starts ([`refuse`]).
//! Start reading at [`run`], then [`steps`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lab::Cluster;
use lab::plan::{Family, Routing};
use sim_scenario::Outcome;
use sim_scenario::model::{
    Action, Enforcement, Families, FaultKind, Kill, Routing as Routed, Scenario, Step, Until, Wait,
};

use crate::cluster;
use crate::netns::{masquerade_args, translation_args};

pub mod refuse;
pub mod report;

mod agents;
mod end;
mod fault;
mod flows;
mod objects;
mod steps;
mod traffic;

/// How a scenario is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory of the programs and the eBPF object; without one beside this program.
    pub bin_dir: Option<PathBuf>,
    /// Decides about the chances of broken links, and which agent is killed where the scenario names none.
    pub seed: u64,
}

/// What this arm is called in outcomes.
pub const ARM: &str = "netns";

/// Reads and judges a scenario's file.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn load(file: &std::path::Path) -> anyhow::Result<Scenario> {
    // The lab's API server is the simulator's.
    Ok(Scenario::load_valid(file, &sim_native::known())?)
}

/// A lab that is ready for a scenario.
pub struct Arm {
    /// The lab; removed when dropped.
    pub cluster: Cluster,
    client: kube::Client,
    seed: u64,
    /// Addresses that services had when they were last called, by `namespace/name`.
    services: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    /// Number of changes made only to be seen.
    touches: AtomicU64,
}

/// Makes the lab that a scenario begins with.
///
/// # Errors
/// Steps that this arm cannot carry out, all of them; and those of the lab.
pub async fn up(
    scenario: &Scenario,
    options: &Options,
    progress: impl Fn(&str) + Send + Sync + 'static,
) -> anyhow::Result<Arm> {
    let refused = refuse::all(scenario);
    if !refused.is_empty() {
        bail!("the arm {ARM} cannot run this scenario:\n  {}", refused.join("\n  "));
    }
    let cluster = &scenario.cluster;
    let mut builder = Cluster::builder()
        .nodes(u8::try_from(cluster.nodes).context("count the nodes")?)
        .family(match cluster.family {
            Families::V4 => Family::V4,
            Families::V6 => Family::V6,
            Families::Dual => Family::Dual,
        })
        .routing(match cluster.routing {
            Routed::Vxlan => Routing::Vxlan,
            Routed::Native => Routing::Native,
        })
        .mtu(cluster.mtu)
        .pod_cidr_bits(cluster.pod_cidr_bits)
        .kube_proxy_replacement(cluster.kube_proxy_replacement)
        .agent_args(modes(cluster))
        .agent_args(translation_args(cluster.service_translation))
        .agent_args(masquerade_args(cluster.masquerade))
        // Its pod would have an address and an endpoint that the scenario knows nothing of.
        .dns(false)
        .bin_dir(options.bin_dir.clone())
        .progress(move |step| progress(&format!("lab: {}", step.0)));
    let breaks = |what: fn(&FaultKind) -> bool| {
        scenario.steps.iter().any(|step| matches!(&step.action, Action::Fault(fault) if what(&fault.kind)))
    };
    if breaks(|kind| matches!(kind, FaultKind::Link(_) | FaultKind::Partition)) {
        builder = builder.software_fabric(options.seed);
    }
    if let Some(oldest) = oldest_snapshot(scenario) {
        builder = builder.record_state(oldest + Duration::from_secs(10));
    }
    let cluster = builder.build().await.context("bring up the lab")?;
    let client = cluster::connect(Some(&cluster.kubeconfig())).await?;
    let (services, touches) = (Mutex::default(), AtomicU64::default());
    Ok(Arm { cluster, client, seed: options.seed, services, touches })
}

impl Arm {
    /// The way to the lab's API server.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }
}

/// Takes away what a scenario has left behind, so that another can follow on the same lab; what stays all the same.
///
/// # Errors
/// When the lab itself fails.
pub async fn clear(arm: &Arm, scenario: &Scenario) -> anyhow::Result<Vec<String>> {
    objects::delete_all(&arm.client).await?;
    let wait = |until| Step { at: None, action: Action::Wait(Wait::new(until)) };
    let steps = vec![wait(Until::Ready), wait(Until::Rest)];
    let waiting = Scenario { steps, ..scenario.clone() };
    Ok(run(arm, &waiting, |_| {}).await?.failures)
}

/// Flags of the agents for what the scenario says of policies.
fn modes(cluster: &sim_scenario::model::Cluster) -> Vec<String> {
    let mut flags = Vec::new();
    if !cluster.policy {
        flags.push("--policy=off".to_owned());
    }
    if cluster.host_firewall {
        flags.push("--host-firewall".to_owned());
    }
    match cluster.enforcement {
        Enforcement::Default => {}
        Enforcement::Always => flags.push("--enable-policy=always".to_owned()),
        Enforcement::Never => flags.push("--enable-policy=never".to_owned()),
    }
    if cluster.audit {
        flags.push("--policy-audit-mode".to_owned());
    }
    flags
}

/// The age of the oldest state that an agent shall find.
fn oldest_snapshot(scenario: &Scenario) -> Option<Duration> {
    let ages = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::Fault(fault) => match &fault.kind {
            FaultKind::Kill(Kill { snapshot_age, .. }) => Some(*snapshot_age),
            _ => None,
        },
        _ => None,
    });
    ages.max().filter(|age| !age.is_zero())
}

/// Carries the steps out and reports what came of them. The lab stays for whoever wants to look at it.
///
/// # Errors
/// When the lab itself fails: what is not as the scenario says is in the outcome.
pub async fn run(arm: &Arm, scenario: &Scenario, progress: impl Fn(&str)) -> anyhow::Result<Outcome> {
    let mut run = steps::Run::begin(arm, scenario, &progress).await?;
    run.steps().await?;
    run.finish().await
}
