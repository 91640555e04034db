//! The tables as the local API and the metrics read them: by handles of their own, so that a long list never keeps the
//! control thread from its work.

mod connections;
mod nat;
mod rows;
mod services;

use agent_api::{CtEntry, LbFrontend, MapDump, MapInfo, NatEntry};
use dataplane_abi::Table as _;
use dataplane_abi::backends::Backends;
use dataplane_abi::metrics::{Direction, EVENTS_LOST, Metrics, MetricsEntry, from_index};
use dataplane_abi::services::Services;
use dataplane_abi::table::Writer;
use dataplane_loader::{Object, Table, TableError, TableInfo, TableKind, TypedTable};
use std::collections::BTreeMap;

/// Read handles on all tables.
#[derive(Debug)]
pub struct Tables {
    all: BTreeMap<String, Table>,
    counters: TypedTable<Metrics>,
    clock: connections::Ticks,
}

impl Tables {
    /// Handles on the tables of a loaded object; `ticks_per_s` of the clock that it stamps connections with.
    ///
    /// # Errors
    /// When a table is missing or no descriptor is left.
    pub fn new(object: &Object, clock: &dataplane_loader::Clock) -> Result<Self, TableError> {
        let mut tables = BTreeMap::new();
        for table in object.tables() {
            tables.insert(table.info().name.clone(), table.try_clone()?);
        }
        let counters = object.table(<Metrics as dataplane_abi::Table>::SPEC.name)?.try_clone()?.typed()?;
        Ok(Self { all: tables, counters, clock: connections::Ticks::new(clock) })
    }

    /// Counters by reason and direction, all CPUs together; rows at zero are left out.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn packet_counters(&self) -> Result<BTreeMap<(u8, Direction), MetricsEntry>, TableError> {
        let mut sums = BTreeMap::new();
        for (index, cpus) in self.counters.rows_each_cpu()? {
            let (reason, Some(direction)) = from_index(index) else { continue };
            let sum = sum(&cpus);
            if sum.packets > 0 {
                sums.insert((reason, direction), sum);
            }
        }
        Ok(sums)
    }

    /// Events that found the ring buffer full since the tables were made; 0 if the table cannot be read.
    pub fn events_lost(&self) -> u64 {
        let cpus = self.counters.get_each_cpu(&EVENTS_LOST).ok().flatten().unwrap_or_default();
        sum(&cpus).packets
    }

    /// Name, rows and room of each table whose rows can be counted.
    pub fn sizes(&self) -> Vec<(&str, u64, u32)> {
        let countable = self.all.values().filter(|table| is_countable(table.info().kind));
        countable
            .filter_map(|table| {
                let entries = table.count().ok()?;
                Some((table.info().name.as_str(), entries as u64, table.info().max_entries))
            })
            .collect()
    }

    /// Connections tracked now, and room for them.
    pub fn connections_count(&self) -> (u64, u64) {
        let all = self.all.values().filter(|table| matches!(table.info().name.as_str(), "CT4" | "CT6"));
        all.fold((0, 0), |(entries, room), table| {
            (entries + table.count().unwrap_or(0) as u64, room + u64::from(table.info().max_entries))
        })
    }

    /// Every table.
    pub fn list(&self) -> Vec<MapInfo> {
        self.all.values().map(describe).collect()
    }

    /// One table with at most `limit` rows; `None` if there is none of this name.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn dump(&self, name: &str, limit: usize) -> Result<Option<MapDump>, TableError> {
        let Some(table) = self.all.get(name) else { return Ok(None) };
        let mut dump = MapDump { info: describe(table), ..MapDump::default() };
        if table.info().kind != TableKind::RingBuf {
            table.for_each(|key, value| {
                if dump.rows.len() < limit {
                    dump.rows.extend(rows::describe(table, key, value));
                } else {
                    dump.truncated = true;
                }
            })?;
        }
        Ok(Some(dump))
    }

    /// Frontends of services with what is in their slots.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn frontends(&self) -> Result<Vec<LbFrontend>, TableError> {
        let rows = |name: &str| self.all.get(name).map_or_else(|| Ok(Vec::new()), Table::rows);
        Ok(services::frontends(&rows(Services::SPEC.name)?, &rows(Backends::SPEC.name)?))
    }

    /// Hands every connection to `each` until it has had enough (false). A slice at a time: a full table in words would
    /// be more memory than the agent has otherwise.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn connections(&self, each: impl FnMut(CtEntry) -> bool) -> Result<(), TableError> {
        self.each_row(&["CT4", "CT6"], connections::describe, each)
    }

    /// Hands every port of the node that is in use to `each`, likewise.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn ports(&self, each: impl FnMut(NatEntry) -> bool) -> Result<(), TableError> {
        self.each_row(&["NAT4", "NAT6"], nat::describe, each)
    }

    fn each_row<T>(
        &self,
        tables: &[&str],
        describe: fn(&[u8], &[u8], connections::TickNow) -> Option<T>,
        mut each: impl FnMut(T) -> bool,
    ) -> Result<(), TableError> {
        const SLICE: usize = 1024;
        let now = self.clock.now();
        for table in tables.iter().filter_map(|name| self.all.get(*name)) {
            let mut position = None;
            loop {
                let (rows, next) = table.scan(position.as_ref(), SLICE)?;
                for (key, value) in rows {
                    if !describe(&key, &value, now).is_none_or(&mut each) {
                        return Ok(());
                    }
                }
                position = next;
                if position.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn sum(cpus: &[MetricsEntry]) -> MetricsEntry {
    cpus.iter().fold(MetricsEntry::default(), |sum, cpu| MetricsEntry {
        packets: sum.packets.wrapping_add(cpu.packets),
        bytes: sum.bytes.wrapping_add(cpu.bytes),
    })
}

const fn is_countable(kind: TableKind) -> bool {
    matches!(
        kind,
        TableKind::Hash
            | TableKind::PerCpuHash
            | TableKind::LruHash
            | TableKind::LpmTrie
            | TableKind::HashOfMaps
    )
}

fn describe(table: &Table) -> MapInfo {
    let TableInfo { name, kind, key_size, value_size, max_entries, .. } = table.info();
    let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let writer = dataplane_abi::table::by_name(name).map(|spec| match spec.writer {
        Writer::Agent => "agent",
        Writer::Programs => "dataplane",
    });
    MapInfo {
        name: name.clone(),
        kind: kind.to_string(),
        key_bytes: bytes(*key_size),
        value_bytes: bytes(*value_size),
        max_entries: *max_entries,
        entries: is_countable(*kind).then(|| table.count().ok().map(|count| count as u64)).flatten(),
        writer: writer.unwrap_or_default().to_owned(),
    }
}
