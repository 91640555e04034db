//! `CLOCK`: one row in which the program `clock_probe` writes the kernel's clocks when the agent runs it.
//! Conntrack stamps are ticks (`jiffies`), whose number per second no program can learn: two runs of the probe tell it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::table;

table! {
    /// The table.
    Clock = "CLOCK": Array<u32, ClockEntry>[1], flags 0, writer Programs
}

/// The kernel's clocks, read one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClockEntry {
    /// `bpf_jiffies64`: ticks since shortly before boot.
    pub ticks: u64,
    /// `bpf_ktime_get_ns`: nanoseconds since boot without suspend (`CLOCK_MONOTONIC`).
    pub ktime_ns: u64,
}

const _: () = assert!(size_of::<ClockEntry>() == 16);
