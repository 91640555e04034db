//! Which set of labels has which number; who is given one, and what is collected.

mod assign;
mod collect;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent_crd::CiliumIdentity;
use agent_crd::identity_labels::IdentityLabels;

use super::event::Outcome;
use super::pods::Pods;
use super::table::{Change, Listing, Place, Table};
use assign::Assignment;
use collect::Deletion;

#[derive(Debug, Default)]
pub(super) struct Identities {
    objects: Table<CiliumIdentity>,
    /// Numbers by labels. More than one is a mistake of somebody else; the lowest counts.
    numbers: BTreeMap<Arc<IdentityLabels>, BTreeSet<u32>>,
    labels: BTreeMap<u32, Arc<IdentityLabels>>,
    /// How many endpoints have the number.
    in_endpoints: BTreeMap<u32, usize>,
    /// Sets of labels about which something may have to be done.
    look: BTreeSet<Arc<IdentityLabels>>,
    assigned: BTreeMap<Arc<IdentityLabels>, Assignment>,
    assigned_numbers: BTreeSet<u32>,
    /// Numbers of labels whose object has vanished while they were in use: they shall get the same one again.
    last: BTreeMap<Arc<IdentityLabels>, u32>,
    unused_since: BTreeMap<u32, Duration>,
    /// Commands under way: to create for these labels, to delete this number.
    creates: BTreeMap<u64, Arc<IdentityLabels>>,
    deletes: BTreeMap<u64, u32>,
    deleting: BTreeMap<u32, Deletion>,
    /// No number below is free.
    lowest: u32,
    exhausted: bool,
}

fn place(name: &str) -> Place {
    (String::new(), name.to_owned())
}

impl Identities {
    pub(super) const fn listing(&self) -> Listing {
        self.objects.listing()
    }

    pub(super) fn count(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn count_unused(&self) -> usize {
        self.unused_since.len()
    }

    pub(super) fn count_waiting(&self) -> usize {
        self.assigned.len() + if self.exhausted { self.look.len() } else { 0 }
    }

    pub(super) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    pub(super) fn in_flight(&self) -> usize {
        self.creates.len() + self.deletes.len()
    }

    /// True if nobody waits for a number that can be given.
    pub(super) fn is_settled(&self) -> bool {
        self.assigned.is_empty() && (self.look.is_empty() || self.exhausted) && self.deleting.is_empty()
    }

    pub(super) fn next_retry(&self) -> Option<Duration> {
        let creates = self.assigned.values().filter_map(|a| a.attempt.next());
        creates.chain(self.deleting.values().filter_map(|d| d.attempt.next())).min()
    }

    /// Since when the identity has been unused that has been so for longest and is not being deleted.
    pub(super) fn first_unused(&self) -> Option<Duration> {
        let waiting = self.unused_since.iter().filter(|(number, _)| !self.deleting.contains_key(number));
        waiting.map(|(_, since)| *since).min()
    }

    pub(super) fn doubt(&mut self) {
        self.objects.doubt();
        self.assigned.clear();
        self.assigned_numbers.clear();
        self.deleting.clear();
        self.creates.clear();
        self.deletes.clear();
        self.unused_since.clear();
        self.last.clear();
        self.lowest = 0;
        self.look.extend(self.numbers.keys().cloned());
    }

    pub(super) fn list_started(&mut self) {
        self.objects.start();
    }

    pub(super) fn list_synced(&mut self) {
        for gone in self.objects.sync() {
            self.forget(&gone);
        }
    }

    pub(super) fn look_at(&mut self, labels: Arc<IdentityLabels>) {
        self.look.insert(labels);
    }

    pub(super) fn upsert(&mut self, identity: &CiliumIdentity) {
        let change = self.objects.upsert(place(&identity.metadata.name), identity.clone());
        if let Change::Replaced(old) = &change {
            if old.security_labels == identity.security_labels {
                return;
            }
            self.forget(old);
        }
        let Some(number) = identity.number() else { return };
        let labels = Arc::new(identity.labels());
        self.numbers.entry(Arc::clone(&labels)).or_default().insert(number);
        self.labels.insert(number, Arc::clone(&labels));
        self.look.insert(labels);
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some(old) = self.objects.delete(&place(name)) {
            self.forget(&old);
        }
    }

    /// Forgets what followed from an object that is gone.
    fn forget(&mut self, identity: &CiliumIdentity) {
        let Some(number) = identity.number() else { return };
        self.unused_since.remove(&number);
        self.lowest = self.lowest.min(number);
        let Some(labels) = self.labels.remove(&number) else { return };
        if let Some(numbers) = self.numbers.get_mut(&labels) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.numbers.remove(&labels);
                self.last.insert(Arc::clone(&labels), number);
            }
        }
        self.look.insert(labels);
    }

    pub(super) fn endpoint_added(&mut self, number: Option<u32>) {
        let Some(number) = number else { return };
        *self.in_endpoints.entry(number).or_default() += 1;
        self.look_at_number(number);
    }

    pub(super) fn endpoint_removed(&mut self, number: Option<u32>) {
        let Some(number) = number else { return };
        if let Some(count) = self.in_endpoints.get_mut(&number) {
            *count -= 1;
            if *count == 0 {
                self.in_endpoints.remove(&number);
                self.look_at_number(number);
            }
        }
    }

    fn look_at_number(&mut self, number: u32) {
        if let Some(labels) = self.labels.get(&number) {
            self.look.insert(Arc::clone(labels));
        }
    }

    /// Decides about all sets of labels that something has happened to: who gets a number, and what is unused.
    /// Only with `complete` knowledge something can be called unused.
    pub(super) fn settle(&mut self, now: Duration, pods: &Pods, complete: bool) {
        self.exhausted = false;
        for labels in std::mem::take(&mut self.look) {
            let needed = pods.use_labels(&labels);
            if !needed {
                self.last.remove(&labels);
            }
            let numbers = self.numbers.get(&labels).cloned().unwrap_or_default();
            if needed && numbers.is_empty() {
                self.assign(labels);
                continue;
            }
            self.unassign(&labels);
            for number in &numbers {
                let counts = needed && numbers.first() == Some(number);
                if counts || self.in_endpoints.contains_key(number) {
                    self.unused_since.remove(number);
                } else if complete {
                    self.unused_since.entry(*number).or_insert(now);
                } else {
                    self.look.insert(Arc::clone(&labels));
                }
            }
        }
    }

    /// Takes note of an outcome; false if the command was none of ours.
    pub(super) fn outcome(&mut self, now: Duration, id: u64, outcome: &Outcome) -> bool {
        if let Some(labels) = self.creates.remove(&id) {
            self.create_outcome(now, &labels, outcome);
            return true;
        }
        if let Some(number) = self.deletes.remove(&id) {
            self.delete_outcome(now, number, outcome);
            return true;
        }
        false
    }
}
