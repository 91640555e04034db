//! The dataplane's host in memory: the same programs on frames and tables of one process.
//!
//! Tests, the differential test and the simulator run packets here. Tables have the kernel's semantics as far as a
//! program or the agent can tell (capacities, eviction, longest prefix, a ring that runs over); time is virtual.
//! It must not know who writes the tables or where packets go after a verdict.
//!
//! Start at [`Native`]: load rows, [`Native::run`] a program on a [`Frame`], read the tables back.
#![forbid(unsafe_code)]

mod adapter;
pub mod craft;
pub mod frame;
pub mod tables;

use std::cell::{Cell, RefCell};

use dataplane_abi::Table as Spec;
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::events::Event;
use dataplane_abi::metrics::{self, Direction, MetricsEntry};
use dataplane_abi::program::Program;
use dataplane_core::Verdict;

pub use frame::{Frame, Tunnel};
pub use tables::{Tables, UpdateError};

/// A node's packet path in memory.
#[derive(Debug, Default)]
pub struct Native {
    tables: Tables,
    clock: Cell<ClockEntry>,
}

impl Native {
    /// A node with tables of the sizes that the ABI says, all empty, at tick zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node with the given tables.
    pub fn with_tables(tables: Tables) -> Self {
        Self { tables, clock: Cell::default() }
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
        let verdict = dataplane_core::run(program, adapter::Handle { node: self, frame: &packet });
        *frame = packet.into_inner();
        verdict
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
