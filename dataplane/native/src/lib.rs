//! The dataplane's host in memory: the same programs on frames and tables of one process.
//!
//! Tests, the differential test and the simulator run packets here. Tables have the kernel's semantics as far as a
//! program or the agent can tell (capacities, eviction, longest prefix, a ring that runs over); time is virtual.
//! It must not know who writes the tables or where packets go after a verdict.
//!
//! Start at [`Native`]: load rows, [`Native::run`] a program on a [`Frame`] or [`Native::run_socket`] on a [`SocketCall`], read
//! the tables back.
#![forbid(unsafe_code)]

/// Tells a host who is where: every program asks the same tables.
macro_rules! places {
    ($host:ty) => {
        impl dataplane_core::Places for $host {
            fn config(&self) -> Option<&dataplane_abi::config::NodeConfig> {
                self.node.tables.config.get(0)
            }

            fn endpoint(
                &self,
                key: &dataplane_abi::endpoints::EndpointKey,
            ) -> Option<&dataplane_abi::endpoints::EndpointEntry> {
                self.node.tables.endpoints.get(key)
            }

            fn ipcache(
                &self,
                key: &dataplane_abi::ipcache::IpCacheKey,
            ) -> Option<&dataplane_abi::ipcache::IpCacheEntry> {
                self.node.tables.ipcache.get(key)
            }
        }
    };
}

/// Tells a host what services there are, and gives it chance.
macro_rules! services {
    ($host:ty) => {
        impl dataplane_core::socket::ServiceMaps for $host {
            fn service(
                &self,
                key: &dataplane_abi::services::ServiceKey,
            ) -> Option<&dataplane_abi::services::ServiceEntry> {
                self.node.tables.services.get(key)
            }

            fn backend(&self, number: u32) -> Option<&dataplane_abi::backends::BackendEntry> {
                self.node.tables.backends.get(&number)
            }

            fn affinity<R>(
                self,
                key: &dataplane_abi::affinity::AffinityKey,
                f: impl FnOnce(&mut dataplane_abi::affinity::AffinityEntry) -> R,
            ) -> Option<R> {
                self.node.tables.affinity.borrow_mut().get_mut(key).map(f)
            }

            fn set_affinity(
                self,
                key: &dataplane_abi::affinity::AffinityKey,
                entry: &dataplane_abi::affinity::AffinityEntry,
            ) {
                self.node.tables.affinity.borrow_mut().insert(*key, *entry);
            }

            fn count_call(self, index: u32) {
                self.node.add(index, 0);
            }
        }

        impl dataplane_core::socket::Random for $host {
            fn random(self) -> u32 {
                self.node.draw()
            }
        }
    };
}

mod adapter;
pub mod craft;
pub mod frame;
mod socket;
pub mod tables;

use std::cell::{Cell, RefCell};

use dataplane_abi::Table as Spec;
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::events::Event;
use dataplane_abi::metrics::{self, Direction, MetricsEntry};
use dataplane_abi::program::{Program, SocketProgram};
use dataplane_core::calls::Calling;
use dataplane_core::closer::Room;
use dataplane_core::{SocketVerdict, Verdict};

pub use frame::{Frame, Tunnel};
pub use socket::SocketCall;
pub use tables::{Tables, UpdateError};

/// A node's packet path in memory.
#[derive(Debug, Default)]
pub struct Native {
    tables: Tables,
    clock: Cell<ClockEntry>,
    chance: Cell<u64>,
    protected_netns: Cell<u64>,
}

impl Native {
    /// A node with tables of the sizes that the ABI says, all empty, at tick zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node with the given tables.
    pub fn with_tables(tables: Tables) -> Self {
        Self { tables, ..Self::default() }
    }

    /// The tables.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, to write rows.
    pub const fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// What the clocks say.
    pub const fn clock(&self) -> ClockEntry {
        self.clock.get()
    }

    /// Sets the clocks.
    pub fn set_clock(&self, clock: ClockEntry) {
        self.clock.set(clock);
    }

    /// Sets the number of the network namespace whose processes may not bind ports of services, as the kernel's loader does;
    /// zero: all may.
    pub fn set_protected_netns(&self, netns: u64) {
        self.protected_netns.set(netns);
    }

    /// Lets time pass; `ticks_per_s` says how nanoseconds become ticks (as in the node's configuration).
    pub fn advance(&self, ns: u64, ticks_per_s: u32) {
        let mut clock = self.clock.get();
        let at = |ns: u64| {
            u64::try_from(u128::from(ns) * u128::from(ticks_per_s) / 1_000_000_000).unwrap_or(u64::MAX)
        };
        let before = at(clock.ktime_ns);
        clock.ktime_ns = clock.ktime_ns.saturating_add(ns);
        clock.ticks = clock.ticks.saturating_add(at(clock.ktime_ns).saturating_sub(before));
        self.clock.set(clock);
    }

    /// Runs a program on a frame. The frame is changed as the program changes it; the verdict says where it goes.
    pub fn run(&self, program: Program, frame: &mut Frame) -> Verdict {
        let packet = RefCell::new(std::mem::take(frame));
        let calling = Cell::new(Calling::NONE);
        let rooms = (Cell::new(Room::EMPTY), Cell::new(Room::EMPTY));
        let verdict = dataplane_core::run(
            program,
            adapter::Handle { node: self, frame: &packet, calling: &calling, rooms: &rooms },
        );
        *frame = packet.into_inner();
        verdict
    }

    /// Runs a program on a call of a socket. The call is changed as the program changes it. One of the other family the program
    /// does not see.
    pub fn run_socket(&self, program: SocketProgram, call: &mut SocketCall) -> SocketVerdict {
        if !call.is_for(program) {
            return SocketVerdict::Pass;
        }
        let cell = Cell::new(*call);
        let verdict = dataplane_core::run_socket(program, socket::Handle { node: self, call: &cell });
        *call = cell.into_inner();
        verdict
    }

    /// Says what chance will be; without it is the same in every run.
    pub fn set_seed(&self, seed: u64) {
        self.chance.set(seed);
    }

    /// The next of the numbers that chance gives (SplitMix64).
    fn draw(&self) -> u32 {
        let state = self.chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.chance.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(mixed >> 32).unwrap_or(u32::MAX)
    }

    /// Adds one packet or call to a row of the counters.
    fn add(&self, index: u32, bytes: u64) {
        if let Some(row) = self.tables.metrics.borrow_mut().get_mut(index) {
            row.packets = row.packets.wrapping_add(1);
            row.bytes = row.bytes.wrapping_add(bytes);
        }
    }

    /// What the program `clock_probe` does: writes the clocks into their table.
    pub fn run_clock_probe(&self) {
        self.tables.clock.borrow_mut().set(0, self.clock.get());
    }

    /// Packets and bytes counted for a reason and a direction.
    pub fn counted(&self, reason: u8, direction: Direction) -> MetricsEntry {
        self.tables.metrics.borrow().get(metrics::index(reason, direction)).copied().unwrap_or_default()
    }

    /// Every counter that is not zero: reason, direction, packets.
    pub fn counters(&self) -> Vec<(u8, Direction, u64)> {
        let rows = self.tables.metrics.borrow();
        (0..metrics::Metrics::SPEC.max_entries)
            .filter_map(|index| {
                let row = rows.get(index)?;
                let (reason, direction) = metrics::from_index(index);
                (row.packets != 0).then_some((reason, direction?, row.packets))
            })
            .collect()
    }

    /// Takes the records out of the ring.
    pub fn drain_events(&self) -> Vec<Event> {
        self.tables.events.borrow_mut().drain()
    }
}
