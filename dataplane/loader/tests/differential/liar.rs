//! The test of the test: a host that lies about one thing must be caught, whatever the thing.

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::events::EventKind;
use dataplane_abi::policy::{PolicyEntry, PolicyKey};

use crate::host::{Dump, Host, Outcome};
use crate::native::Native;
use crate::scenario::Input;
use crate::world::World;

/// What is told wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// None: the liar is the native host.
    None,
    /// A verdict.
    Verdict,
    /// One bit of a frame.
    Frame,
    /// The mark.
    Mark,
    /// An event is missing.
    Event,
    /// An event has another identity.
    Identity,
    /// Policy decided by other rules.
    Cookie,
    /// A connection has counted a packet too many.
    Connection,
    /// A connection's time is off by more than the slack.
    Time,
    /// A row is missing.
    Row,
    /// A counter is one too high.
    Counter,
}

impl Lie {
    pub(crate) const ALL: [Self; 10] = [
        Self::Verdict,
        Self::Frame,
        Self::Mark,
        Self::Event,
        Self::Identity,
        Self::Cookie,
        Self::Connection,
        Self::Time,
        Self::Row,
        Self::Counter,
    ];
}

/// The native host, but for one lie at the packet with this number (or at the end, about rows).
pub(crate) struct Liar {
    native: Native,
    lie: Lie,
    packets: usize,
}

impl Liar {
    pub(crate) fn new(lie: Lie) -> Self {
        Self { native: Native::new(), lie, packets: 0 }
    }
}

impl Host for Liar {
    fn reset(&mut self, world: &World) {
        self.packets = 0;
        self.native.reset(world);
    }

    fn packet(&mut self, input: &Input, ticks: u64) -> Option<Outcome> {
        let mut outcome = self.native.packet(input, ticks)?;
        self.packets += 1;
        if self.packets < 20 {
            return Some(outcome);
        }
        match self.lie {
            Lie::Verdict => outcome.verdict = 1,
            Lie::Frame => outcome.frame[13] ^= 1,
            Lie::Mark => outcome.mark ^= 1,
            Lie::Event => {
                outcome.events.pop();
            }
            Lie::Identity => {
                if let Some(event) = outcome.events.first_mut() {
                    event.header.src_identity.0 ^= 1;
                }
            }
            Lie::Cookie => {
                let verdict = EventKind::PolicyVerdict as u8;
                if let Some(event) = outcome.events.iter_mut().find(|event| event.header.kind == verdict) {
                    event.header.arg ^= 1;
                }
            }
            _ => {}
        }
        Some(outcome)
    }

    fn age(&mut self, ticks: u32) {
        self.native.age(ticks);
    }

    fn configure(&mut self, config: &NodeConfig) {
        self.native.configure(config);
    }

    fn endpoint(&mut self, key: &EndpointKey, entry: Option<&EndpointEntry>) {
        self.native.endpoint(key, entry);
    }

    fn policy(&mut self, key: &PolicyKey, entry: Option<&PolicyEntry>) {
        self.native.policy(key, entry);
    }

    fn backend(&mut self, number: u32, entry: Option<&BackendEntry>) {
        self.native.backend(number, entry);
    }

    fn dump(&mut self) -> Dump {
        let mut dump = self.native.dump();
        let mut in_first_row = |table: &str, at: usize, add: u8| {
            if let Some(row) = dump.get_mut(table).and_then(|rows| rows.values_mut().next()) {
                row[at] = row[at].wrapping_add(add);
            }
        };
        match self.lie {
            // Places in the row: `dataplane_abi::conntrack::CtEntry`.
            Lie::Connection => in_first_row("CT4", 32, 1),
            Lie::Time => in_first_row("CT4", 2, 1),
            Lie::Counter => in_first_row("METRICS", 0, 1),
            Lie::Row => {
                dump.get_mut("FRAGS4").and_then(std::collections::BTreeMap::pop_first);
            }
            _ => {}
        }
        dump
    }
}
