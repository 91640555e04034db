//! One run of a scenario, from outside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use sim_api::{Store, StoreOptions};
use sim_net::{Frame, PacketId, pcap};
use sim_scenario::model::{Action, FaultKind};
use sim_scenario::replay::{Replay, RunOptions};
use sim_scenario::{Known, Outcome, Scenario};

use crate::caught::caught;
use crate::check::Violation;
use crate::sim::Sim;
use crate::steps::Runner;
use crate::world::{Stats, World};

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Decides every order and delay.
    pub seed: u64,
    /// How long agents keep an address back, if not as long as usual.
    pub quarantine: Option<Duration>,
    /// Nodes have two IPv4 pod CIDRs, and a small IPv6 one where those are small.
    pub odd_cidrs: bool,
    /// Pods send what they are told to and nothing else: no copies from another's address, no headers in unusual dress.
    /// Then the flows of traffic are noted.
    pub plain_pods: bool,
    /// Pods (`namespace/name`) and nodes (`name`) whose frames are captured: of a pod those that go into and out of it,
    /// of a node those that its own stack makes and takes.
    pub taps: Vec<String>,
}

impl Options {
    /// For a random scenario: some give addresses out again soon, where no wire holds a packet back for that long.
    pub fn of_generated(seed: u64, profile: &str) -> Self {
        let soon = seed % 2 == 1 && !matches!(profile, "net" | "mixed");
        Self {
            seed,
            quarantine: soon.then_some(Duration::from_secs(2)),
            odd_cidrs: seed % 4 < 2,
            ..Self::default()
        }
    }

    /// As the run of a replay file was made.
    pub fn of_replay(replay: &Replay) -> Self {
        let seed = replay.seed;
        match (replay.options, &replay.profile) {
            (Some(RunOptions { quarantine, odd_cidrs, plain_pods }), _) => {
                Self { seed, quarantine, odd_cidrs, plain_pods, ..Self::default() }
            }
            (None, Some(profile)) => Self::of_generated(seed, profile),
            (None, None) => Self { seed, ..Self::default() },
        }
    }

    /// What of them a replay file has to say beside the seed.
    pub const fn for_replay(&self) -> RunOptions {
        let Self { quarantine, odd_cidrs, plain_pods, .. } = *self;
        RunOptions { quarantine, odd_cidrs, plain_pods }
    }
}

/// A frame and the moment at which it was seen.
pub type Seen = (Duration, Vec<u8>);

/// Where a policy is in force, as the operator said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at: Duration,
    /// `namespace/name`.
    pub policy: String,
    /// Status, reason and message of the condition `Enforced`.
    pub condition: (String, String, String),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The outcome in terms of all arms.
    pub outcome: Outcome,
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// Digest of everything that happened: equal for equal runs.
    pub trace_hash: String,
    /// Numbers.
    pub stats: Stats,
    /// Virtual time that went by.
    pub virtual_time: Duration,
    /// Why nobody could look at what must hold at rest in the end: who still had something to do. Empty: it was looked at, or the run
    /// has failed before.
    pub unrested: String,
    /// Faults that were made, by [`sim_scenario::model::Fault::words`], with how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// The last frames that were seen, oldest first.
    pub frames: Vec<Seen>,
    /// Frames of the taps.
    pub taps: BTreeMap<String, Vec<Seen>>,
    /// The latest version of a policy that is in force on each node at the end.
    pub policy_revisions: BTreeMap<String, u64>,
    /// The latest version of the policies that are there at the end, 0 without any.
    pub policy_version: u64,
    /// Where policies are in force, as the operator said it, in order.
    pub said: Vec<Said>,
    /// Addresses at the end, of pods that run (`namespace/name`) and of nodes (`name`).
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
}

/// Whether the simulated API server has objects of that kind from the beginning, as in `cilium.io`, `CiliumNetworkPolicy`.
pub fn knows_kind(group: &str, kind: &str) -> bool {
    let of_ours = |definition: &serde_json::Value| {
        let spec = &definition["spec"];
        spec["group"] == group && spec["names"]["kind"] == kind
    };
    crate::kinds::DEFINITIONS.iter().any(of_ours)
        || Store::new(StoreOptions::default()).resource_of_kind(group, kind).is_some()
}

/// The words of scenarios that the simulator knows, kinds of objects among them.
pub fn known() -> Known<'static> {
    Known { kinds: Some(knows_kind), ..Known::default() }
}

/// Writes frames as a capture that tcpdump and tshark read.
///
/// # Errors
/// What the file system says.
pub fn write_capture(path: &Path, frames: &[Seen]) -> io::Result<()> {
    let mut writer = pcap::Writer::new(BufWriter::new(File::create(path)?))?;
    for (at, bytes) in frames {
        writer.write(*at, &Frame { id: PacketId::default(), bytes: bytes.clone() })?;
    }
    writer.finish().map(drop)
}

/// Runs a scenario. The same scenario and seed give the same report.
///
/// A panic ends the run like a broken invariant, and is told as the invariant `panic`.
pub fn run(scenario: &Scenario, options: &Options) -> Report {
    run_with(scenario, options, |runner| runner.run(scenario))
}

fn run_with(scenario: &Scenario, options: &Options, steps: impl FnOnce(&mut Runner<'_>)) -> Report {
    let mut world = World::new(&scenario.cluster, options.seed, false);
    world.cluster_faults.snapshots = scenario.steps.iter().any(|step| match &step.action {
        Action::Fault(fault) => {
            matches!(&fault.kind, FaultKind::Kill(kill) if !kill.snapshot_age.is_zero())
        }
        _ => false,
    });
    for tap in &options.taps {
        world.trace.taps.insert(tap.clone(), Vec::new());
    }
    if options.plain_pods {
        world.odd = None;
    }
    if options.odd_cidrs {
        world.use_odd_cidrs();
    }
    if let Some(quarantine) = options.quarantine {
        world.quarantine = quarantine;
    }
    let sim = Sim::new(world);
    let mut runner = Runner::new(&sim);
    let result = caught(|| {
        sim.world().boot();
        steps(&mut runner);
    });
    let failures = runner.failures;
    let mut world = sim.into_world();
    if let Err(panic) = result {
        world.violate_with("panic", panic.message, panic.backtrace);
    }
    report(scenario, options, failures, &world)
}

fn report(scenario: &Scenario, options: &Options, mut failures: Vec<String>, world: &World) -> Report {
    if let Some(violation) = &world.violation
        && violation.invariant != "expectation"
    {
        failures.push(format!("{}: {}", violation.invariant, violation.message));
    }
    let outcome = Outcome {
        scenario: scenario.name.clone(),
        arm: "native".to_owned(),
        seed: Some(options.seed),
        traffic: world.traffic.iter().map(|(id, state)| (id.clone(), state.outcome())).collect(),
        drops: world.check.drops.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
        end: world.end_state(),
        failures,
    };
    let seen = |frame: &crate::trace::Captured| (frame.at, frame.bytes.clone());
    Report {
        outcome,
        violation: world.violation.clone(),
        trace_hash: world.trace.hash(),
        stats: world.stats,
        virtual_time: world.now,
        unrested: world.unrested.clone(),
        faults: world.cluster_faults.begun.clone(),
        frames: world.trace.frames().map(seen).collect(),
        taps: world
            .trace
            .taps
            .iter()
            .map(|(place, frames)| (place.clone(), frames.iter().map(seen).collect()))
            .collect(),
        policy_revisions: world.policy_revisions(),
        policy_version: world.policy_version(),
        said: world.said.clone(),
        addresses: world.addresses(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_broken_invariant_with_its_moment_and_what_was_seen_before() {
        let scenario = Scenario::builder("two").nodes(2).build().expect("it can be carried out");
        let options = Options { seed: 7, ..Options::default() };
        let panicking = || {
            run_with(&scenario, &options, |runner| {
                runner.run(&scenario);
                panic!("on purpose");
            })
        };
        let report = panicking();
        let violation = report.violation.as_ref().expect("a violation");
        assert_eq!(violation.invariant, "panic");
        assert!(violation.message.starts_with("on purpose ("), "{}", violation.message);
        assert_eq!(violation.at, report.virtual_time);
        assert!(!violation.at.is_zero());
        assert_eq!(report.outcome.failures, [format!("panic: {}", violation.message)]);
        assert_eq!(report, panicking(), "it can be repeated");
        assert_eq!(run(&scenario, &options).violation, None);
    }

    #[test]
    fn a_replay_file_gives_back_the_options_of_a_random_run() {
        let scenario = Scenario::builder("cni-5").build().expect("it can be carried out");
        let violation = sim_scenario::replay::Violation {
            invariant: "drop".to_owned(),
            at: Duration::from_secs(1),
            message: "a packet".to_owned(),
        };
        let as_of = |replay: &Replay| Options::of_replay(replay).for_replay();
        let options = Options::of_generated(5, "cni");
        let mut replay = Replay::new(5, scenario, violation, "00");
        assert_eq!(as_of(&replay), RunOptions::default());
        replay.profile = Some("cni".to_owned());
        assert_eq!(as_of(&replay), options.for_replay(), "an older file has the profile alone");
        assert_eq!(
            options.for_replay(),
            RunOptions { quarantine: Some(Duration::from_secs(2)), odd_cidrs: true, plain_pods: false }
        );
        replay.options = Some(options.for_replay());
        (replay.profile, replay.seed) = (None, 6);
        assert_eq!(as_of(&replay), options.for_replay(), "whatever profile and seed");
        assert_eq!(Options::of_replay(&replay).seed, 6);
    }
}
