//! [`MapStore`] over pinned BPF maps.

use super::later;
use agent_control::ports::{CtClock, Cursor, PortErrorKind, Row, Scan, Table};
use agent_control::{MapStore, PortError};
use dataplane_loader::table::ScanPosition;
use dataplane_loader::{self as loader, Clock, Object, TableError};
use std::collections::BTreeMap;

/// The node's tables.
#[derive(Debug)]
pub struct KernelMaps {
    tables: BTreeMap<&'static str, loader::Table>,
    clock: Clock,
}

impl KernelMaps {
    /// Handles on the tables of a loaded object.
    ///
    /// # Errors
    /// When the object lacks a table, or no descriptor is left.
    pub fn new(object: &Object, clock: Clock) -> Result<Self, TableError> {
        let mut tables = BTreeMap::new();
        for spec in dataplane_abi::TABLES {
            tables.insert(spec.name, object.table(spec.name)?.try_clone()?);
        }
        Ok(Self { tables, clock })
    }

    /// All tables, in the order of their names.
    pub fn tables(&self) -> impl Iterator<Item = &loader::Table> {
        self.tables.values()
    }

    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<&loader::Table> {
        self.tables.get(name)
    }

    /// The clock that conntrack entries are stamped with.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    fn raw(&self, table: Table) -> &loader::Table {
        // `new` has opened every table of the abi, and `Table` names a subset of them (tested below).
        self.tables.get(table.name()).expect("every table of the abi is open")
    }
}

impl MapStore for KernelMaps {
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError> {
        let of = self.raw(table);
        let rows = of.rows().map_err(|error| later(format!("read {}", table.name()), &error))?;
        let sum = |value: Vec<u8>| if of.info().kind.is_per_cpu() { sum(of, &value) } else { value };
        Ok(rows.into_iter().map(|(key, value)| Row { key, value: sum(value) }).collect())
    }

    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError> {
        self.raw(table).upsert(key, value).map_err(|error| {
            let kind = if matches!(error, TableError::Full { .. }) {
                PortErrorKind::Full
            } else {
                PortErrorKind::Other
            };
            let operation = format!("upsert {}", table.name());
            match error {
                // Sizes come from the abi, which the object was built from: another object than ours. Waiting mends nothing.
                TableError::Size { .. } => PortError::terminal(operation, error),
                error => later(operation, &error),
            }
            .with_kind(kind)
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError> {
        self.raw(table)
            .delete(key)
            .map(drop)
            .map_err(|error| later(format!("delete {}", table.name()), &error))
    }

    fn scan(&mut self, table: Table, cursor: Option<&Cursor>, limit: usize) -> Result<Scan, PortError> {
        let from = cursor.map(|cursor| ScanPosition::from_bytes(&cursor.0));
        let (rows, next) = self
            .raw(table)
            .scan(from.as_ref(), limit)
            .map_err(|error| later(format!("scan {}", table.name()), &error))?;
        Ok(Scan {
            rows: rows.into_iter().map(|(key, value)| Row { key, value }).collect(),
            next: next.map(|next| Cursor(next.as_bytes().to_vec())),
        })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        Ok(CtClock { ticks: self.clock.now(), ticks_per_s: self.clock.ticks_per_s() })
    }
}

/// A count, all CPUs together. Other tables of the agent are not counted by CPU.
fn sum(table: &loader::Table, value: &[u8]) -> Vec<u8> {
    let cpus = table.split_per_cpu(value);
    let counts = cpus.iter().filter_map(|cpu| Some(u64::from_ne_bytes(cpu.as_slice().try_into().ok()?)));
    counts.fold(0, u64::wrapping_add).to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use agent_control::ports::Table;

    #[test]
    fn every_table_of_the_agent_is_one_of_the_abi() {
        for table in Table::ALL {
            assert!(dataplane_abi::table::by_name(table.name()).is_some(), "{}", table.name());
        }
    }
}
