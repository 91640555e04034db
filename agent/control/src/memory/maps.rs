//! Tables in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use dataplane_abi::table::by_name;

use super::Faults;
use crate::ports::{CtClock, Cursor, MapStore, PortError, PortErrorKind, Row, Scan, Table};

/// The tables of one node. They outlive its agents, as pinned maps do.
#[derive(Debug, Clone)]
pub struct MemoryMaps {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    capacity: BTreeMap<Table, usize>,
    /// What conntrack entries are stamped with.
    pub clock: CtClock,
    faults: Faults,
}

impl MemoryMaps {
    /// Empty tables with the capacities of `dataplane-abi`.
    pub fn new(faults: Faults) -> Self {
        let capacity = |table: Table| {
            by_name(table.name())
                .map_or(usize::MAX, |spec| usize::try_from(spec.max_entries).unwrap_or(usize::MAX))
        };
        Self {
            tables: Table::ALL.iter().map(|table| (*table, BTreeMap::new())).collect(),
            capacity: Table::ALL.iter().map(|table| (*table, capacity(*table))).collect(),
            clock: CtClock { ticks: 1_000_000, ticks_per_s: 250 },
            faults,
        }
    }

    /// Changes the capacity of a table.
    pub fn set_capacity(&mut self, table: Table, rows: usize) {
        self.capacity.insert(table, rows);
    }

    /// The rows of a table.
    pub fn rows(&self, table: Table) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        // Every table is there from the beginning.
        &self.tables[&table]
    }

    /// Writes a row as the dataplane (conntrack) or another program would: not counted, never refused.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.tables.entry(table).or_default().insert(key.to_vec(), value.to_vec());
    }

    /// Takes a row away as another program would: not counted, never refused.
    pub fn take(&mut self, table: Table, key: &[u8]) {
        self.tables.entry(table).or_default().remove(key);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

impl MapStore for MemoryMaps {
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError> {
        self.faults.call(format!("dump {}", table.name()), |_| {
            let row = |(key, value): (&Vec<u8>, &Vec<u8>)| Row { key: key.clone(), value: value.clone() };
            Ok(self.tables[&table].iter().map(row).collect())
        })
    }

    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError> {
        let (tables, capacity) = (&mut self.tables, self.capacity[&table]);
        self.faults.call(format!("upsert {} {}", table.name(), hex(key)), |operation| {
            let rows = tables.entry(table).or_default();
            if rows.len() >= capacity && !rows.contains_key(key) {
                let message = format!("all {capacity} rows are in use");
                return Err(PortError::retryable(operation, message).with_kind(PortErrorKind::Full));
            }
            rows.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError> {
        let tables = &mut self.tables;
        self.faults.call(format!("delete {} {}", table.name(), hex(key)), |_| {
            tables.entry(table).or_default().remove(key);
            Ok(())
        })
    }

    fn scan(&mut self, table: Table, cursor: Option<&Cursor>, limit: usize) -> Result<Scan, PortError> {
        self.faults.call(format!("scan {}", table.name()), |_| {
            let rows = &self.tables[&table];
            // As the kernel does: without the row at the cursor the scan starts over.
            let after = cursor.filter(|cursor| rows.contains_key(&cursor.0));
            let from = after.map_or(Bound::Unbounded, |cursor| Bound::Excluded(cursor.0.clone()));
            let slice: Vec<Row> = rows
                .range((from, Bound::Unbounded))
                .take(limit)
                .map(|(key, value)| Row { key: key.clone(), value: value.clone() })
                .collect();
            let next =
                (slice.len() == limit).then(|| slice.last().map(|row| Cursor(row.key.clone()))).flatten();
            Ok(Scan { rows: slice, next })
        })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        let clock = self.clock;
        self.faults.call("read the clock".to_owned(), |_| Ok(clock))
    }
}
