//! What Prometheus reads: counters that the process keeps, and figures that are read from the tables at each scrape.
//!
//! Names and labels follow what dashboards know from Cilium, with our prefix; docs/metrics.md lists them all.

mod histogram;
mod scrape;
mod text;

pub(crate) use scrape::CONTENT_TYPE;
pub use scrape::{Figures, render};

use agent_control::ReconcileReport;
use histogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets for a CNI request, in seconds.
const CNI_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Upper bounds of the buckets for a reconcile, in seconds.
const RECONCILE_BUCKETS: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Counters of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    counted: Mutex<Counted>,
    /// Events read from the ring buffer.
    pub events: AtomicU64,
    /// Events that readers of the monitor were too slow for.
    pub reader_lost: AtomicU64,
    /// Events of Node objects that the watch delivered.
    pub node_events: AtomicU64,
    /// Events of other objects that the watches delivered.
    pub object_events: AtomicU64,
    /// Failures of the watch.
    pub watch_failures: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    /// By command and code (`0` for success).
    cni: BTreeMap<(&'static str, u32), Histogram>,
    reconcile: Histogram,
    reconcile_failed: u64,
    reconcile_errors: u64,
    pending: usize,
    /// By table and operation.
    map_ops: BTreeMap<(&'static str, &'static str), u64>,
    node_changes: u64,
}

/// Adds one to a counter whose exact moment does not matter to anybody.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// A CNI request was answered; `code` is that of its error.
    pub fn cni(&self, command: &'static str, code: Option<u32>, took: Duration) {
        let mut counted = self.counted();
        let histogram =
            counted.cni.entry((command, code.unwrap_or(0))).or_insert_with(|| Histogram::new(CNI_BUCKETS));
        histogram.observe(took.as_secs_f64());
    }

    /// A reconcile ended.
    pub fn reconcile(&self, report: &ReconcileReport, took: Duration) {
        let mut counted = self.counted();
        if counted.reconcile.is_unset() {
            counted.reconcile = Histogram::new(RECONCILE_BUCKETS);
        }
        counted.reconcile.observe(took.as_secs_f64());
        counted.reconcile_errors += report.errors.len() as u64;
        counted.reconcile_failed += u64::from(!report.errors.is_empty());
        counted.pending = report.pending;
        counted.node_changes += report.node_changes as u64;
        for (operation, rows) in [("update", &report.rows_written), ("delete", &report.rows_removed)] {
            for (table, &rows) in rows {
                *counted.map_ops.entry((table.name(), operation)).or_default() += rows as u64;
            }
        }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        // Counters stay usable whatever happened to another thread.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
