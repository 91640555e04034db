//! `CT4`, `CT6`, `NAT4`, `NAT6`: connections that are over are removed, and so are their ports. The dataplane writes these tables, the
//! agent only expires.
//!
//! A pass goes through the tables in slices, one slice in each reconcile, so that requests do not wait for a large table.
//! The pause between passes follows how much the last one found: halved or less when over a quarter of a table was dead,
//! longer by half when it was less than a twentieth.

use std::time::Duration;

use dataplane_abi::conntrack::{Ct4, Ct6, CtEntry, CtEntry6};
use dataplane_abi::nat::{Nat4, Nat6, NatEntry};
use dataplane_abi::table::Table as _;
use zerocopy::FromBytes as _;

use super::Run;
use crate::agent::Agent;
use crate::backoff::Failure;
use crate::config::CtGcConfig;
use crate::ports::{CtClock, Cursor, PortError, Row, Table};
use crate::time::Now;

/// Above this share of a table's capacity the next pass comes sooner.
const MANY_PERCENT: u64 = 25;
/// Below this share it comes later.
const FEW_PERCENT: u64 = 5;

/// Where the collection is.
#[derive(Debug)]
pub(crate) struct CtGc {
    next: Now,
    interval: Duration,
    pass: Option<CtPass>,
    failure: Option<Failure>,
    /// The first call sets the time of the first pass: before, no time is known.
    started: bool,
    /// Connections that the last complete pass left, of both families.
    entries: u64,
}

/// A pass that is under way.
#[derive(Debug)]
struct CtPass {
    table: Table,
    clock: CtClock,
    cursor: Option<Cursor>,
    /// The last row of the last slice, if it is dead: it marks the place until the next slice is read.
    held: Option<Vec<u8>>,
    seen: u64,
    /// Deleted in the present table.
    deleted: u64,
    left: u64,
    /// The greatest share of a table that was dead, in percent of its capacity.
    most_percent: u64,
}

impl CtGc {
    pub(crate) fn new(config: &CtGcConfig) -> Self {
        Self {
            next: Now::default(),
            interval: config.start,
            pass: None,
            failure: None,
            started: false,
            entries: 0,
        }
    }

    /// When there is something to do; a time in the past: now.
    pub(crate) fn due(&self) -> Now {
        match (&self.failure, &self.pass) {
            (Some(failure), _) => failure.retry_at,
            (None, Some(_)) => Now::default(),
            (None, None) => self.next,
        }
    }

    /// The next pass begins at once.
    pub(crate) fn start_now(&mut self, now: Now) {
        self.started = true;
        self.next = now;
        self.failure = None;
    }

    /// The last failure.
    pub(crate) fn failure(&self) -> Option<&PortError> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// Connections that the last complete pass left, of both families.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }
}

/// Rows that a table has room for.
fn capacity(table: Table) -> u64 {
    u64::from(match table {
        Table::Ct6 => Ct6::SPEC.max_entries,
        Table::Nat4 => Nat4::SPEC.max_entries,
        Table::Nat6 => Nat6::SPEC.max_entries,
        _ => Ct4::SPEC.max_entries,
    })
}

/// The table after one in a pass.
fn next_table(table: Table) -> Option<Table> {
    match table {
        Table::Ct4 => Some(Table::Ct6),
        Table::Ct6 => Some(Table::Nat4),
        Table::Nat4 => Some(Table::Nat6),
        _ => None,
    }
}

/// Whether the row's connection is over. A row that cannot be read is.
fn is_over(table: Table, row: &Row, clock: CtClock) -> bool {
    if matches!(table, Table::Nat4 | Table::Nat6) {
        return is_free(row, clock);
    }
    let entry = match table {
        Table::Ct6 => CtEntry6::read_from_bytes(&row.value).ok().map(|value| value.entry),
        _ => CtEntry::read_from_bytes(&row.value).ok(),
    };
    // Rows carry the low 32 bits of the ticks.
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is meant")]
    let now = clock.ticks as u32;
    entry.is_none_or(|entry| entry.is_expired(now, clock.ticks_per_s))
}

/// Whether nobody has the row's port any more.
fn is_free(row: &Row, clock: CtClock) -> bool {
    let port = NatEntry::read_from_bytes(&row.value).ok();
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what is meant")]
    let now = clock.ticks as u32;
    port.is_none_or(|port| port.is_expired(now, clock.ticks_per_s))
}

impl Agent {
    /// One slice of a pass, if one is due.
    pub(super) fn collect_connections(&mut self, run: &mut Run<'_>) {
        if !self.ct_gc.started {
            self.ct_gc.started = true;
            self.ct_gc.next = run.now.plus(self.ct_gc.interval);
        }
        if self.ct_gc.due() > run.now {
            return;
        }
        let result = self.collect_slice(run);
        let mut slot = self.ct_gc.failure.take();
        if !run.note(&mut slot, result) {
            // A pass that broke off begins anew.
            self.ct_gc.pass = None;
        }
        self.ct_gc.failure = slot;
    }

    fn collect_slice(&mut self, run: &mut Run<'_>) -> Result<(), PortError> {
        let gc = &mut self.ct_gc;
        let mut pass = match gc.pass.take() {
            Some(pass) => pass,
            None => CtPass {
                table: Table::Ct4,
                clock: run.maps.ct_clock()?,
                cursor: None,
                held: None,
                seen: 0,
                deleted: 0,
                left: 0,
                most_percent: 0,
            },
        };
        let table = pass.table;
        let limit = self.config.ct_gc.slice_rows.max(2);
        let slice = run.maps.scan(table, pass.cursor.as_ref(), limit)?;
        let mut dead: Vec<Vec<u8>> = pass.held.take().into_iter().collect();
        pass.seen += slice.rows.len() as u64;
        for row in slice.rows.iter().filter(|row| is_over(table, row, pass.clock)) {
            dead.push(row.key.clone());
        }
        if slice.next.is_some()
            && dead.last().is_some_and(|key| slice.rows.last().is_some_and(|row| row.key == *key))
        {
            pass.held = dead.pop();
        }
        for key in dead {
            run.maps.delete(table, &key)?;
            pass.deleted += 1;
            *run.report.rows_removed.entry(table).or_default() += 1;
        }
        // A table that changes all the while might never end.
        let endless = pass.seen > capacity(table).saturating_mul(2);
        pass.cursor = slice.next.filter(|_| !endless);
        if pass.cursor.is_some() {
            gc.pass = Some(pass);
            return Ok(());
        }
        if let Some(key) = pass.held.take() {
            run.maps.delete(table, &key)?;
            pass.deleted += 1;
            *run.report.rows_removed.entry(table).or_default() += 1;
        }
        if matches!(table, Table::Ct4 | Table::Ct6) {
            pass.left += pass.seen.saturating_sub(pass.deleted);
        }
        pass.most_percent = pass.most_percent.max(pass.deleted.saturating_mul(100) / capacity(table).max(1));
        if let Some(table) = next_table(table) {
            gc.pass = Some(CtPass { table, seen: 0, deleted: 0, ..pass });
            return Ok(());
        }
        gc.entries = pass.left;
        gc.interval = next_interval(gc.interval, pass.most_percent, &self.config.ct_gc);
        gc.next = run.now.plus(gc.interval);
        Ok(())
    }
}

/// The pause after a pass in which `percent` of a table was dead.
fn next_interval(interval: Duration, percent: u64, config: &CtGcConfig) -> Duration {
    let next = if percent > MANY_PERCENT {
        interval.mul_f64(f64::from(u32::try_from(100_u64.saturating_sub(percent)).unwrap_or(0)) / 200.0)
    } else if percent < FEW_PERCENT {
        interval.saturating_mul(3) / 2
    } else {
        interval
    };
    next.clamp(config.min, config.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_follows_what_was_found() {
        let config = CtGcConfig::default();
        let five_minutes = Duration::from_mins(5);
        assert_eq!(next_interval(five_minutes, 0, &config), Duration::from_secs(450));
        assert_eq!(next_interval(five_minutes, 10, &config), five_minutes);
        assert_eq!(next_interval(five_minutes, 50, &config), Duration::from_secs(75));
        assert_eq!(next_interval(five_minutes, 100, &config), config.min);
        assert_eq!(next_interval(config.max, 0, &config), config.max);
    }
}
