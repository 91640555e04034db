//! What both hosts must be able to do, and what is seen of them.

use std::collections::BTreeMap;

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtEntry, CtEntry6};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::events::Event;
use dataplane_abi::nat::NatEntry;
use dataplane_abi::policy::{PolicyEntry, PolicyKey};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::scenario::Input;
use crate::world::World;

/// What comes of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `TC_ACT_…`, as the kernel returns it.
    pub(crate) verdict: i32,
    /// The frame afterwards.
    pub(crate) frame: Vec<u8>,
    /// The mark afterwards.
    pub(crate) mark: u32,
    /// Events, with what is left to the host made equal: see [`normalise`].
    pub(crate) events: Vec<Event>,
}

/// Rows as bytes, by table and key.
pub(crate) type Dump = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The tables that programs write, and those that they must leave alone.
pub(crate) const DUMPED: [&str; 17] = [
    "CT4",
    "CT6",
    "FRAGS4",
    "FRAGS6",
    "NAT4",
    "NAT6",
    "METRICS",
    "STAGED",
    "CONFIG",
    "ENDPOINTS",
    "IPCACHE",
    "POLICY",
    "POLICY_BLOCKS",
    "POLICY_L4",
    "NO_MASQUERADE",
    "SERVICES",
    "BACKENDS",
];

/// Those whose rows have times.
pub(crate) const TIMED: [&str; 4] = ["CT4", "CT6", "NAT4", "NAT6"];

/// A host of the dataplane.
pub(crate) trait Host {
    /// Empties the tables and fills them with the rows of a world.
    fn reset(&mut self, world: &World);
    /// Runs a packet at a tick count; `None` when the host cannot make such a packet.
    fn packet(&mut self, input: &Input, ticks: u64) -> Option<Outcome>;
    /// Makes every connection so many ticks older.
    fn age(&mut self, ticks: u32);
    /// Writes the configuration.
    fn configure(&mut self, config: &NodeConfig);
    /// Writes or removes an endpoint.
    fn endpoint(&mut self, key: &EndpointKey, entry: Option<&EndpointEntry>);
    /// Writes or removes a row of a policy; there need not be one.
    fn policy(&mut self, key: &PolicyKey, entry: Option<&PolicyEntry>);
    /// Writes or removes a backend; there need not be one.
    fn backend(&mut self, number: u32, entry: Option<&BackendEntry>);
    /// Every row. Counters are those since the last reset.
    fn dump(&mut self) -> Dump;
}

/// Makes equal what an event has from its host: the time, and the kernel's own hash of the flow.
pub(crate) fn normalise(mut event: Event) -> Event {
    event.header.time_ns = 0;
    event.header.hash = 0;
    event
}

/// A row of conntrack (of either family) or of a port that is so many ticks older.
pub(crate) fn aged(row: &[u8], ticks: u32) -> Vec<u8> {
    let older = |entry: &mut CtEntry| {
        entry.last_seen = entry.last_seen.wrapping_sub(ticks);
        entry.created = entry.created.wrapping_sub(ticks);
        for half in &mut entry.dirs {
            half.reported = half.reported.wrapping_sub(ticks);
        }
    };
    if let Ok(mut entry) = CtEntry::read_from_bytes(row) {
        older(&mut entry);
        entry.as_bytes().to_vec()
    } else if let Ok(mut entry) = NatEntry::read_from_bytes(row) {
        entry.last_seen = entry.last_seen.wrapping_sub(ticks);
        entry.created = entry.created.wrapping_sub(ticks);
        entry.as_bytes().to_vec()
    } else {
        let mut entry = CtEntry6::read_from_bytes(row).expect("a conntrack row");
        older(&mut entry.entry);
        entry.as_bytes().to_vec()
    }
}

/// The times of a row of conntrack or of a port, and the row without them.
pub(crate) fn split_times(row: &[u8]) -> (Vec<u32>, Vec<u8>) {
    let take = |entry: &mut CtEntry| {
        let [first, second] = &mut entry.dirs;
        [&mut entry.last_seen, &mut entry.created, &mut first.reported, &mut second.reported]
            .map(std::mem::take)
            .to_vec()
    };
    if let Ok(mut entry) = CtEntry::read_from_bytes(row) {
        (take(&mut entry), entry.as_bytes().to_vec())
    } else if let Ok(mut entry) = NatEntry::read_from_bytes(row) {
        let times = [&mut entry.last_seen, &mut entry.created].map(std::mem::take).to_vec();
        (times, entry.as_bytes().to_vec())
    } else {
        let mut entry = CtEntry6::read_from_bytes(row).expect("a conntrack row");
        (take(&mut entry.entry), entry.as_bytes().to_vec())
    }
}
