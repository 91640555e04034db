//! The kernel's tick clock, in which conntrack entries are stamped.
//!
//! Packet programs read `jiffies64`, which costs nothing; user space cannot read it and does not know how many ticks a
//! second has. The program `clock_probe`, run without a packet, tells both.

use std::time::Duration;

use dataplane_abi::clock::{Clock as ClockTable, ClockEntry};
use dataplane_abi::program::CLOCK_PROBE;
use thiserror::Error;

use crate::object::Object;
use crate::table::{TableError, TypedTable};
use crate::test_run::{TestRun, TestRunError};

/// Tick rates that kernels are built with (`CONFIG_HZ` of the architectures that have a BPF JIT).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// Why the clock could not be read.
#[derive(Debug, Error)]
pub enum ClockError {
    /// The probe did not run.
    #[error("run the clock probe")]
    Run(#[from] TestRunError),
    /// Its table cannot be read.
    #[error("read the clock probe's table")]
    Table(#[from] TableError),
    /// Two readings do not fit any known tick rate.
    #[error("the kernel's ticks make no sense: {ticks} in {elapsed:?}")]
    Rate {
        /// Ticks between two readings.
        ticks: u64,
        /// Time between them.
        elapsed: Duration,
    },
}

/// The tick clock: its rate, and a way to read it.
#[derive(Debug)]
pub struct Clock {
    table: TypedTable<ClockTable>,
    ticks_per_s: u32,
    /// One reading, from which later ones are derived by the monotonic clock.
    at: ClockEntry,
}

impl Clock {
    /// Finds the tick rate by two readings about 60 ms apart.
    pub fn calibrate(object: &Object) -> Result<Self, ClockError> {
        let table = object.table(<ClockTable as dataplane_abi::Table>::SPEC.name)?.try_clone()?.typed()?;
        let read = |table: &TypedTable<ClockTable>| -> Result<ClockEntry, ClockError> {
            object.test_run(CLOCK_PROBE, &TestRun::new(&PROBE_FRAME))?;
            Ok(table.get(&0)?.unwrap_or_default())
        };
        let mut span = Duration::from_millis(60);
        let first = read(&table)?;
        loop {
            std::thread::sleep(span);
            let last = read(&table)?;
            let ticks = last.ticks.saturating_sub(first.ticks);
            let elapsed = Duration::from_nanos(last.ktime_ns.saturating_sub(first.ktime_ns));
            if let Some(ticks_per_s) = rate(ticks, elapsed) {
                return Ok(Self { table, ticks_per_s, at: last });
            }
            // A tick more or less at either end blurs a short span; a longer one decides.
            if elapsed > Duration::from_secs(2) {
                return Err(ClockError::Rate { ticks, elapsed });
            }
            span *= 3;
        }
    }

    /// Ticks per second.
    pub fn ticks_per_s(&self) -> u32 {
        self.ticks_per_s
    }

    /// The tick count now, read from the kernel.
    pub fn read(&mut self, object: &Object) -> Result<u64, ClockError> {
        object.test_run(CLOCK_PROBE, &TestRun::new(&PROBE_FRAME))?;
        self.at = self.table.get(&0)?.unwrap_or_default();
        Ok(self.at.ticks)
    }

    /// The tick count now, derived from the last reading and the monotonic clock without a call into the kernel's BPF.
    /// At most one tick off.
    pub fn now(&self) -> u64 {
        let elapsed = monotonic_ns().saturating_sub(self.at.ktime_ns);
        self.at.ticks.saturating_add(ticks_in(elapsed, self.ticks_per_s))
    }

    /// How long ago a tick count was; zero for one in the future.
    pub fn age(&self, ticks: u64) -> Duration {
        let past = self.now().saturating_sub(ticks);
        Duration::from_nanos(
            u64::try_from(u128::from(past) * 1_000_000_000 / u128::from(self.ticks_per_s.max(1)))
                .unwrap_or(u64::MAX),
        )
    }
}

/// A frame for a program that looks at none: an Ethernet header without a known protocol, padded.
const PROBE_FRAME: [u8; 64] = [0; 64];

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads too.
pub fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX))
}

fn ticks_in(nanoseconds: u64, ticks_per_s: u32) -> u64 {
    u64::try_from(u128::from(nanoseconds) * u128::from(ticks_per_s) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The one known rate under which `ticks` fit into the time, give or take one at either end; `None` when none or more
/// than one does.
fn rate(ticks: u64, elapsed: Duration) -> Option<u32> {
    let nanoseconds = u64::try_from(elapsed.as_nanos()).ok()?;
    let mut fitting = RATES.into_iter().filter(|&rate| ticks_in(nanoseconds, rate).abs_diff(ticks) <= 1);
    let found = fitting.next()?;
    fitting.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_apart() {
        let check = |ticks, ms, expect| {
            assert_eq!(rate(ticks, Duration::from_millis(ms)), expect, "{ticks} in {ms} ms");
        };
        check(15, 60, Some(250));
        check(60, 60, Some(1000));
        check(6, 60, Some(100));
        check(18, 61, Some(300));
        // 250 and 300 cannot be told apart in 20 ms.
        check(5, 20, None);
        check(500, 60, None);
        check(0, 0, None);
    }
}
