//! Verdicts of real agents and the real packet path on random clusters and policies, beside the oracle's.
//!
//! Each case is a cluster at rest: its objects go into one agent for each node, pods are added, the agents' endpoints are told to
//! the others, and then single packets that open connections are sent. What differs from the oracle's word is a difference;
//! [`shrink`] makes its case smaller.

mod cluster;
mod packets;
mod standing;

use std::fmt;

use agent_control::Routing;
use dataplane_abi::DropReason;
use sim_oracle::{Attempt, Enforcement, Options, Protocol, Verdict};
use sim_policy::{Feature, Plan, PolicyCase};
use sim_scenario::rng::Rng;

use cluster::Cluster;
pub use standing::Standing;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived, or left the node for an end that policies do not guard.
    Arrived,
    /// A program dropped it.
    Dropped(DropReason),
}

/// A packet with another fate than the oracle says.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The seed of its case.
    pub seed: u64,
    /// What was tried.
    pub attempt: Attempt,
    /// What the oracle says.
    pub expected: Verdict,
    /// What became of the packet.
    pub found: Outcome,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.found {
            Outcome::Arrived => "it arrived".to_owned(),
            Outcome::Dropped(reason) => format!("it was dropped: {}", reason.text()),
        };
        write!(f, "seed {}: {}: {found}, but the oracle says {}", self.seed, self.attempt, self.expected)
    }
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Clusters.
    pub cases: u64,
    /// Packets sent.
    pub verdicts: u64,
    /// Of these, those that were to arrive.
    pub allowed: u64,
    /// Attempts that no single packet can make: messages of ICMP that open nothing.
    pub left_out: u64,
}

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {message}")]
pub struct VerdictError {
    /// The seed of the case.
    pub seed: u64,
    /// What is in the way.
    pub message: String,
}

/// The case of a seed, with policies for nodes.
///
/// Pods of one identity give a name to the same port: rules about pods elsewhere go by identities, which know one set of names.
pub fn case(seed: u64, attempts: usize) -> PolicyCase {
    let plan = Plan { attempts, ..Plan::default() }.with(Feature::HostPolicies);
    let mut case = sim_policy::generate(seed, &plan);
    cluster::share_names_of_ports(&mut case);
    case
}

/// How policies are enforced in the cluster of a seed. Mostly they say who is isolated, and what they deny does not pass.
fn options(seed: u64) -> Options {
    let mut rng = Rng::stream(seed, "modes", 0);
    let enforcement = match rng.range(0..=19) {
        0 => Enforcement::Never,
        1..=3 => Enforcement::Always,
        _ => Enforcement::Default,
    };
    let audit = rng.chance(0.1);
    Options { host_policies: true, enforcement, audit, ..Options::by_identity() }
}

/// Compares every attempt of a case.
///
/// # Errors
/// When an agent does not take the cluster, which is a defect too.
pub fn compare(seed: u64, case: &PolicyCase, tally: &mut Tally) -> Result<Vec<Difference>, VerdictError> {
    let routing = if seed.is_multiple_of(2) { Routing::Vxlan } else { Routing::Native };
    let options = options(seed);
    let mut cluster =
        Cluster::new(routing, options, case).map_err(|message| VerdictError { seed, message })?;
    let mut oracle = sim_oracle::Cluster::with_options(options);
    for object in cluster.objects() {
        // An object that is to be refused leaves its last good version in force, with the oracle as with agents.
        let _: Result<(), sim_oracle::OracleError> = oracle.set(&object);
    }
    tally.cases += 1;
    let mut differences = Vec::new();
    for (index, attempt) in case.attempts.iter().enumerate() {
        let opens = attempt.protocol != Protocol::Icmp || matches!(attempt.port, Some(8 | 128));
        if !opens {
            tally.left_out += 1;
            continue;
        }
        let found = cluster.send(index, attempt).map_err(|message| VerdictError { seed, message })?;
        let expected = oracle.judge(attempt);
        tally.verdicts += 1;
        tally.allowed += u64::from(expected.allowed);
        if expected.allowed != (found == Outcome::Arrived) {
            differences.push(Difference { seed, attempt: attempt.clone(), expected, found });
        }
    }
    Ok(differences)
}

/// A smaller case that still differs.
pub fn shrink(seed: u64, case: PolicyCase) -> PolicyCase {
    sim_policy::shrink(case, &mut |smaller| {
        compare(seed, smaller, &mut Tally::default()).is_ok_and(|differences| !differences.is_empty())
    })
}
