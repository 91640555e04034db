//! Makes what is outside equal to what the state asks for, in an order that is safe after every single step:
//!
//! 1. base links;
//! 2. interfaces of pods that go are removed (their traffic ends here);
//! 3. interfaces of new pods are made, each announced in the state directory before;
//! 4. rows are written: policy (see `policy.rs`), prefixes without masquerade, endpoints, then ipcache;
//! 5. programs and routes that are no longer wanted go, then rows: ipcache, then endpoints;
//! 6. `CONFIG` is written, its revision raised if any row has changed: from here on known connections look again;
//! 7. programs are attached, routes are set: traffic begins to use the rows;
//! 8. rows of services (see `services.rs`), so that a new pod finds them;
//! 9. new endpoints are noted as ready and their ADD is answered; gone ones release their addresses and their DEL is answered.
//!
//! A process that dies between two steps leaves what its successor can finish: half made endpoints have a document that says so, and
//! rows without a raised revision are noticed by their digest in `CONFIG`.

pub(crate) mod conntrack;
mod identities;
pub(crate) mod inspect;
mod pods;
pub(crate) mod policy;
mod read_back;
mod rows;
mod services;
pub(crate) mod staged;

use crate::agent::{Agent, ReconcileReport};
use crate::backoff::Failure;
use crate::ports::{MapStore, NodeOps, PortError, Table};
use crate::time::Now;
use crate::tracked::{Knowledge, Pass};

/// One reconcile: the ports, and what it has done so far.
pub(crate) struct Run<'a> {
    pub(crate) now: Now,
    pub(crate) maps: &'a mut dyn MapStore,
    pub(crate) node: &'a mut dyn NodeOps,
    pub(crate) report: ReconcileReport,
}

impl Run<'_> {
    fn wrote(&mut self, table: Table, pass: Pass) {
        if pass.done > 0 {
            *self.report.rows_written.entry(table).or_default() += pass.done;
        }
        self.report.errors.extend(pass.errors);
    }

    fn removed(&mut self, table: Table, pass: Pass) {
        if pass.done > 0 {
            *self.report.rows_removed.entry(table).or_default() += pass.done;
        }
        self.report.errors.extend(pass.errors);
    }

    fn changed(&mut self, pass: Pass) {
        self.report.node_changes += pass.done;
        self.report.errors.extend(pass.errors);
    }

    /// Keeps the outcome of one step: the failure, or that there is none any more. Returns whether it succeeded.
    fn note(&mut self, slot: &mut Option<Failure>, result: Result<(), PortError>) -> bool {
        match result {
            Ok(()) => {
                *slot = None;
                true
            }
            Err(error) => {
                self.report.errors.push(error.clone());
                *slot = Some(Failure::again(slot.as_ref(), self.now, error));
                false
            }
        }
    }
}

/// Whether something that failed is due again, or never failed.
fn due(slot: Option<&Failure>, now: Now) -> bool {
    slot.is_none_or(|failure| failure.retry_at <= now)
}

impl Agent {
    /// Makes maps and node equal to what the state asks for, as far as it can now. Cheap when nothing changed.
    /// The first call reads back what is there. Call it after each batch of events: what is waiting is done together.
    pub fn reconcile(
        &mut self,
        now: Now,
        maps: &mut dyn MapStore,
        node: &mut dyn NodeOps,
    ) -> ReconcileReport {
        let mut run = Run { now, maps, node, report: ReconcileReport::default() };
        let known = self.known || (due(self.failures.read_back.as_ref(), now) && self.read_back(&mut run));
        if !known {
            self.refuse_waiting(&mut run);
            run.report.pending = self.pending();
            return run.report;
        }
        self.wake(now);
        self.follow_plan();
        self.inspect(&mut run);
        self.base_links(&mut run);

        self.remove_interfaces(&mut run);
        self.make_interfaces(&mut run);
        // Endpoints that came or went may have changed which router is in use.
        self.follow_plan();

        self.commit_policy(&run);
        run.report.endpoints_touched = self.dirty.all || !self.dirty.endpoints.is_empty();
        run.report.recomputed = self.recompute();
        let known = self.state.nodes.synced() && self.state.policy.synced();
        let knowledge = if known { Knowledge::Full } else { Knowledge::Partial };
        let unwritten = self.write_policy(&mut run);
        self.write_no_masquerade(&mut run);
        self.write_rows(&mut run, knowledge, &unwritten);
        self.remove_rows(&mut run, knowledge, &unwritten);
        self.write_config(&mut run);
        self.remove_policy(&mut run);
        self.attach_and_route(&mut run, knowledge);
        self.remove_no_masquerade(&mut run);
        self.commit_services();
        self.write_services(&mut run);

        self.finish_adds(&mut run);
        self.save_ipam(&mut run);
        self.finish_leaving(&mut run);
        self.finish_gc(&mut run);
        self.check_interfaces(&mut run);
        self.save_documents(&mut run);
        self.collect_connections(&mut run);
        self.count_staged(&mut run);
        // Endpoints that went may have been the last to use a router; then there is more to do at once.
        self.follow_plan();
        run.report.pending = self.pending();
        run.report.changing = self.state.policy.changing();
        run.report
    }

    fn wake(&mut self, now: Now) {
        let outside = &mut self.outside;
        outside.endpoints.wake(now);
        outside.ipcache.wake(now);
        outside.policy.wake(now);
        outside.policy_blocks.wake(now);
        outside.policy_l4.wake(now);
        outside.services.wake(now);
        outside.backends.wake(now);
        outside.no_masquerade.wake(now);
        outside.routes.wake(now);
        outside.programs.wake(now);
    }

    fn pending(&self) -> usize {
        let outside = &self.outside;
        outside.endpoints.pending()
            + outside.ipcache.pending()
            + outside.policy.pending()
            + outside.policy_blocks.pending()
            + outside.policy_l4.pending()
            + outside.services.pending()
            + outside.backends.pending()
            + outside.no_masquerade.pending()
            + outside.routes.pending()
            + outside.programs.pending()
            + self.failures.iter().count()
    }

    /// Makes or mends the base links when the plan asks for others than there are.
    fn base_links(&mut self, run: &mut Run<'_>) {
        let Some(spec) = self.plan.base_spec() else { return };
        if self.base_applied.as_ref() == Some(&spec) || !due(self.failures.base.as_ref(), run.now) {
            return;
        }
        match run.node.ensure_base(&spec) {
            Ok(facts) => {
                self.failures.base = None;
                self.base_applied = Some(spec);
                self.state.base = Some(facts);
                self.follow_plan();
            }
            Err(error) => {
                let mut slot = self.failures.base.take();
                run.note(&mut slot, Err(error));
                self.failures.base = slot;
            }
        }
    }
}
