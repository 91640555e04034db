//! Identities that nobody has had: before somebody is given one, policies have to take him for what he was or for what he shall be.

use std::collections::{BTreeMap, BTreeSet};

use agent_policy::{EVERYBODY, Row as Decision, RowKey};
use dataplane_abi::Identity;

use super::Run;
use crate::agent::Agent;
use crate::ports::PortErrorKind;

impl Agent {
    /// Sees to identities that somebody is about to be given for the first time. Returns those that have to wait.
    pub(super) fn hold_fresh_identities(&mut self, run: &mut Run<'_>) -> BTreeSet<Identity> {
        let mut changes = self.fresh_identities();
        if changes.is_empty() {
            return BTreeSet::new();
        }
        let (old, waiting) = (self.old_rows_of_everybody(), self.waiting_rows_of_everybody());
        if old.is_empty() && waiting.is_empty() {
            return BTreeSet::new();
        }
        // Who has it already is met as before.
        for (_, entry) in self.outside.endpoints.all_present(..) {
            changes.remove(&entry.identity);
        }
        for (_, entry) in self.outside.ipcache.all_present(..) {
            changes.remove(&entry.identity);
        }
        let mut held = self.unknown_yet(&waiting, &changes);
        held.extend(self.keep_old_policies(run, &old, changes));
        held
    }

    /// Identities that nothing has been known of until now and somebody is about to be given, with the one that he has been.
    fn fresh_identities(&self) -> BTreeMap<Identity, Identity> {
        let (endpoints, ipcache) = (&self.outside.endpoints, &self.outside.ipcache);
        let of_endpoints = endpoints.open().filter_map(|address| {
            Some((endpoints.wanted(address)?.identity, endpoints.present(address)?.identity))
        });
        let of_others = ipcache
            .open()
            .filter_map(|prefix| Some((ipcache.wanted(prefix)?.identity, ipcache.present(prefix)?.identity)));
        of_endpoints
            .chain(of_others)
            .filter(|(will, is)| will != is && self.state.policy.is_fresh(*will))
            .collect()
    }

    /// Rows of everybody that are there and still to be written. One for which there is no room holds nobody for ever.
    fn waiting_rows_of_everybody(&self) -> Vec<RowKey> {
        let rows = &self.outside.policy;
        let is_full = |key: &RowKey| rows.failure(key).is_some_and(|error| error.kind == PortErrorKind::Full);
        let waits = |key: &&RowKey| {
            let is_there = rows.wanted(key).is_some() && rows.present(key).is_some();
            key.identity == EVERYBODY && is_there && !is_full(key)
        };
        rows.open().filter(waits).copied().collect()
    }

    /// Rows of everybody in policies that somebody still has, or is bound by in a direction, and of which nothing shall be there any more.
    fn old_rows_of_everybody(&self) -> Vec<RowKey> {
        let (endpoints, rows) = (&self.outside.endpoints, &self.outside.policy);
        let in_use: BTreeSet<u32> =
            endpoints.open().filter_map(|address| Some(endpoints.present(address)?.policy)).collect();
        let is_old = |key: &&RowKey| {
            key.identity == EVERYBODY
                && in_use.contains(&key.policy)
                && rows.wanted(key).is_none()
                && rows.present(key).is_some()
        };
        rows.open().filter(is_old).copied().collect()
    }

    /// Those of these identities that a policy would take for somebody else: the row of everybody, which is theirs there, waits, and what
    /// it is now is not what holds for whom they have been.
    fn unknown_yet(&self, waiting: &[RowKey], changes: &BTreeMap<Identity, Identity>) -> BTreeSet<Identity> {
        let rows = &self.outside.policy;
        let holds = |key: &RowKey, identity: Identity| {
            rows.present(&RowKey { identity, ..*key }).or_else(|| rows.present(key))
        };
        let is_other = |will, is| waiting.iter().any(|key| holds(key, will) != holds(key, is));
        changes.iter().filter(|(will, is)| is_other(**will, **is)).map(|(will, _)| *will).collect()
    }

    /// Who still has an old policy meets those whose identity is about to change as whom they have been: their new ones get these rows
    /// there. Returns those of which that is not so.
    fn keep_old_policies(
        &mut self,
        run: &mut Run<'_>,
        old: &[RowKey],
        changes: BTreeMap<Identity, Identity>,
    ) -> BTreeSet<Identity> {
        let mut missing = BTreeSet::new();
        for (will, is) in changes {
            let rows = &self.outside.policy;
            let note = |key: &RowKey| {
                let will = RowKey { identity: will, ..*key };
                let is = rows.present(&RowKey { identity: is, ..*key })?;
                rows.present(&will).is_none().then_some((will, Some(*is)))
            };
            let notes: Vec<(RowKey, Option<Decision>)> = old.iter().filter_map(note).collect();
            let keys: Vec<RowKey> = notes.iter().map(|(key, _)| *key).collect();
            let is_noted = self.set_rows_aside(run, notes);
            let failures = keys.iter().filter_map(|key| self.outside.policy.failure(key));
            // Room comes only when the old policy has been left, which must not wait for this.
            let is_full = failures.map(|error| error.kind).any(|kind| kind == PortErrorKind::Full);
            if !is_noted && !is_full {
                missing.insert(will);
            }
        }
        missing
    }
}
