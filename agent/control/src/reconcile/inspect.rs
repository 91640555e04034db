//! The inspection: from time to time nothing is taken for granted that others can change.
//!
//! Base links are made sure of and routes are read again in one go. The tables are read in slices, one in each reconcile, so that
//! requests do not wait for a large one: an inspection costs one look at each row, and one comparison with what is believed of it.
//! A row that was changed or added shows itself. One that was removed shows by the number of rows; then, and only then, the whole
//! table is read at once to find it.

use std::collections::BTreeMap;

use dataplane_abi::config::NodeConfig;
use tracing::warn;
use zerocopy::FromBytes as _;

use super::Run;
use crate::agent::Agent;
use crate::controllers;
use crate::ports::{Cursor, PortError, Row, Table};
use crate::time::Now;
use crate::tracked::Tracked;

/// A table that the agent itself changed between two slices may seem to lack rows; it is read again, so often at most.
const ATTEMPTS: u32 = 3;

/// Where the inspection is.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// When links, routes and tables were last compared with what is believed of them.
    last: Option<Now>,
    pass: Option<Pass>,
}

/// One table under inspection.
#[derive(Debug)]
struct Pass {
    table: Table,
    cursor: Option<Cursor>,
    /// Rows seen that are ours by their form.
    seen: usize,
    /// Of these the ones that were not as believed.
    foreign: usize,
    /// Changes that the agent had made to the table when the pass began.
    changes: u64,
    attempt: u32,
}

impl Inspection {
    /// When there is something to do; a time in the past: now.
    pub(crate) fn due(&self, interval: std::time::Duration) -> Option<Now> {
        if self.pass.is_some() { Some(Now::default()) } else { self.last.map(|at| at.plus(interval)) }
    }
}

impl Agent {
    /// Begins an inspection if it is time for one, or goes on with the one that is under way.
    pub(super) fn inspect(&mut self, run: &mut Run<'_>) {
        let last = *self.inspection.last.get_or_insert(run.now);
        if run.now.since(last) >= self.config.inspect_interval {
            self.inspection.last = Some(run.now);
            self.base_applied = None;
            self.reread_routes(run);
            self.inspect_config(run);
            self.begin_pass(Table::Endpoints, 1);
        }
        if let Some(pass) = self.inspection.pass.take()
            && let Err(error) = self.inspect_slice(run, pass)
        {
            // The next inspection comes soon enough.
            run.report.errors.push(error);
        }
    }

    fn reread_routes(&mut self, run: &mut Run<'_>) {
        match run.node.list_routes() {
            Ok(found) => self.outside.routes.read_back(found.into_iter().map(|route| (route.dst, route))),
            Err(error) => run.report.errors.push(error),
        }
    }

    fn inspect_config(&mut self, run: &mut Run<'_>) {
        let Some(believed) = self.outside.config else { return };
        match run.maps.dump(Table::Config) {
            Ok(rows) => {
                let found = rows.first().and_then(|row| NodeConfig::read_from_bytes(&row.value).ok());
                if found != Some(believed) {
                    warn!("CONFIG was changed by another program; it is written again");
                    // With a revision after the one that was believed: what was judged since then is judged again.
                    self.outside.moved = true;
                }
            }
            Err(error) => run.report.errors.push(error),
        }
    }

    fn begin_pass(&mut self, table: Table, attempt: u32) {
        let changes = self.changes(table);
        self.inspection.pass = Some(Pass { table, cursor: None, seen: 0, foreign: 0, changes, attempt });
    }

    fn changes(&self, table: Table) -> u64 {
        match table {
            Table::Endpoints => self.outside.endpoints.changes(),
            _ => self.outside.ipcache.changes(),
        }
    }

    fn believed(&self, table: Table) -> usize {
        match table {
            Table::Endpoints => self.outside.endpoints.len(),
            _ => self.outside.ipcache.len(),
        }
    }

    fn inspect_slice(&mut self, run: &mut Run<'_>, mut pass: Pass) -> Result<(), PortError> {
        let limit = self.config.ct_gc.slice_rows.max(2);
        let slice = run.maps.scan(pass.table, pass.cursor.as_ref(), limit)?;
        for row in slice.rows {
            let parsed = match pass.table {
                Table::Endpoints => controllers::endpoints::parse(&row)
                    .map(|(key, value)| self.outside.endpoints.found(key, Some(value))),
                _ => controllers::ipcache::parse(&row)
                    .map(|(key, value)| self.outside.ipcache.found(key, Some(value))),
            };
            match parsed {
                Some(foreign) => {
                    pass.seen += 1;
                    pass.foreign += usize::from(foreign);
                }
                None => drop(self.outside.garbage.insert((pass.table, row.key))),
            }
        }
        // What was found is believed now; so this is not a change that makes the count doubtful.
        pass.changes += pass.foreign as u64;
        let foreign = std::mem::take(&mut pass.foreign);
        if foreign > 0 {
            warn!(table = pass.table.name(), rows = foreign, "rows were changed by another program");
        }
        let believed = self.believed(pass.table);
        // A scan that starts over again and again might never end.
        pass.cursor = slice.next.filter(|_| pass.seen <= believed.saturating_mul(2).saturating_add(limit));
        if pass.cursor.is_some() {
            self.inspection.pass = Some(pass);
            return Ok(());
        }
        if pass.seen != believed {
            if pass.changes != self.changes(pass.table) && pass.attempt < ATTEMPTS {
                self.begin_pass(pass.table, pass.attempt + 1);
                return Ok(());
            }
            self.find_missing(run, pass.table)?;
        }
        if pass.table == Table::Endpoints {
            self.begin_pass(Table::Ipcache, 1);
        }
        Ok(())
    }

    /// Reads a whole table to find which of its rows are gone.
    fn find_missing(&mut self, run: &mut Run<'_>, table: Table) -> Result<(), PortError> {
        let rows = run.maps.dump(table)?;
        let missing = match table {
            Table::Endpoints => miss(&mut self.outside.endpoints, &rows, controllers::endpoints::parse),
            _ => miss(&mut self.outside.ipcache, &rows, controllers::ipcache::parse),
        };
        if missing > 0 {
            warn!(table = table.name(), rows = missing, "rows were removed by another program");
        }
        Ok(())
    }
}

/// Takes note of the rows that are believed to be there and are not; returns how many.
fn miss<K: Ord + Clone, V: Eq + Clone>(
    tracked: &mut Tracked<K, V>,
    rows: &[Row],
    parse: fn(&Row) -> Option<(K, V)>,
) -> usize {
    let there: BTreeMap<K, V> = rows.iter().filter_map(parse).collect();
    let missing: Vec<K> = tracked.keys().filter(|key| !there.contains_key(key)).cloned().collect();
    missing.into_iter().filter(|key| tracked.found(key.clone(), None)).count()
}
