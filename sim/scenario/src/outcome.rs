//! What came of a scenario, in terms that every arm can tell.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::flows::Flow;

/// What an arm reports of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: String,
    /// `native` or `netns`.
    pub arm: String,
    /// The seed of the run, where it has one.
    pub seed: Option<u64>,
    /// What came of each traffic, by its id.
    pub traffic: BTreeMap<String, TrafficOutcome>,
    /// Names of the drop reasons that were counted for packets to and from pods, by traffic or other, with the number of packets.
    pub drops: BTreeMap<String, u64>,
    /// The state at the end.
    pub end: EndState,
    /// What was not as the scenario says, one sentence each; empty: it passed.
    pub failures: Vec<String>,
}

/// What came of one traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrafficOutcome {
    /// Requests, echo requests, datagrams or segments that were sent.
    pub sent: u32,
    /// How many of them were answered.
    pub answered: u32,
    /// Connections that were reset or refused.
    pub resets: u32,
    /// One word for how it ended: `ok` (all answered), `lost` (some), `silent` (none, nothing came back), `refused` (a reset or an ICMP error came back).
    pub verdict: String,
    /// What the nodes' programs told of its packets; `None`: not all of that is known (events were lost, or a service chose whom it goes to).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<BTreeSet<Flow>>,
}

/// The cluster at the end of a scenario, by names that are the same on every arm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndState {
    /// Ready pods as `namespace/name`, by node.
    pub pods: BTreeMap<String, BTreeSet<String>>,
    /// Endpoints of each node's agent as `namespace/name`.
    pub endpoints: BTreeMap<String, BTreeSet<String>>,
    /// For each node, the nodes behind which its ipcache has prefixes, with the number of prefixes.
    pub ipcache: BTreeMap<String, BTreeMap<String, u32>>,
}
