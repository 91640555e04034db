//! Policies: whether they could be understood, and whether their status says so.

use std::time::Duration;

use agent_crd::meta::Condition;

use super::event::{Action, Command, Key, Kind, Outcome, Policy};
use super::retry::{Attempt, CommandIds};
use super::table::{Listing, Table};

/// The condition that the operator writes.
const VALID: &str = "Valid";

/// What it says of a policy without mistakes.
const SUCCESS: &str = "Policy validation succeeded";

/// A policy, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: Kind,
    resource_version: String,
    valid: bool,
    /// All conditions as they should be, unless the object has them already.
    wanted: Option<Vec<Condition>>,
    attempt: Attempt,
}

#[derive(Debug, Default)]
pub(super) struct Policies {
    namespaced: Table<Row>,
    clusterwide: Table<Row>,
}

impl Policies {
    const fn table(&self, kind: Kind) -> &Table<Row> {
        if matches!(kind, Kind::NamespacedPolicy) { &self.namespaced } else { &self.clusterwide }
    }

    const fn table_mut(&mut self, kind: Kind) -> &mut Table<Row> {
        if matches!(kind, Kind::NamespacedPolicy) { &mut self.namespaced } else { &mut self.clusterwide }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.namespaced.rows().values().chain(self.clusterwide.rows().values())
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = ((&String, &String), &mut Row)> {
        let rows = self.namespaced.rows_mut().chain(self.clusterwide.rows_mut());
        rows.map(|((namespace, name), row)| ((namespace, name), row))
    }

    pub(super) const fn listing(&self, kind: Kind) -> Listing {
        self.table(kind).listing()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let valid = self.rows().filter(|row| row.valid).count();
        (valid, self.rows().count() - valid)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.rows().filter(|row| row.attempt.is_in_flight()).count()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.rows().all(|row| row.wanted.is_none())
    }

    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.rows().filter(|row| row.wanted.is_some()).filter_map(|row| row.attempt.next()).min()
    }

    pub(super) fn doubt(&mut self) {
        self.namespaced.doubt();
        self.clusterwide.doubt();
        self.rows_mut().for_each(|(_, row)| row.attempt = Attempt::default());
    }

    pub(super) fn list_started(&mut self, kind: Kind) {
        self.table_mut(kind).start();
    }

    pub(super) fn list_synced(&mut self, kind: Kind) {
        self.table_mut(kind).sync();
    }

    pub(super) fn upsert(&mut self, policy: Policy) {
        let row = Row {
            kind: policy.kind,
            resource_version: policy.metadata.resource_version,
            valid: policy.mistakes.is_empty(),
            wanted: conditions(&policy.mistakes, policy.status.conditions),
            attempt: Attempt::default(),
        };
        let place = (policy.metadata.namespace, policy.metadata.name);
        let table = self.table_mut(policy.kind);
        // The same version again is nothing new, and what is under way goes on.
        let known = table.rows().get(&place).filter(|known| known.resource_version == row.resource_version);
        let row = match known {
            Some(known) => Row { attempt: known.attempt, ..row },
            None => row,
        };
        table.upsert(place, row);
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.table_mut(key.kind).delete(&(key.namespace.clone(), key.name.clone()));
    }

    /// Commands to write conditions, up to `room` together with those in `commands`.
    pub(super) fn write(
        &mut self,
        now: Duration,
        room: usize,
        ids: &mut CommandIds,
        commands: &mut Vec<Command>,
    ) {
        for ((namespace, name), row) in self.rows_mut() {
            if commands.len() >= room {
                return;
            }
            let Some(conditions) = row.wanted.clone().filter(|_| row.attempt.is_due(now)) else { continue };
            let id = ids.next();
            row.attempt.start(id);
            let key = Key { kind: row.kind, namespace: namespace.clone(), name: name.clone() };
            let resource_version = row.resource_version.clone();
            commands
                .push(Command { id, action: Action::WriteConditions { key, resource_version, conditions } });
        }
    }

    pub(super) fn outcome(&mut self, now: Duration, id: u64, outcome: &Outcome) {
        let Some((_, row)) = self.rows_mut().find(|(_, row)| row.attempt.is(id)) else { return };
        match outcome {
            Outcome::Done => {
                row.wanted = None;
                row.attempt = Attempt::default();
            }
            // It has been deleted, and the watch will say so; or it has changed, and the watch will bring it.
            _ => row.attempt.failed(now),
        }
    }
}

/// All conditions with ours as it should be; nothing if they are so already.
fn conditions(mistakes: &[String], mut there: Vec<Condition>) -> Option<Vec<Condition>> {
    let (status, message) =
        if mistakes.is_empty() { ("True", SUCCESS.to_owned()) } else { ("False", mistakes.join("; ")) };
    let old = there.iter().position(|condition| condition.kind == VALID);
    let old = old.map(|at| there.remove(at));
    if old.as_ref().is_some_and(|old| old.status == status && old.message == message) {
        return None;
    }
    // The time is that of the last change of the status, not of the message.
    let last_transition_time =
        old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    there.push(Condition {
        kind: VALID.to_owned(),
        status: status.to_owned(),
        last_transition_time,
        message,
        ..Condition::default()
    });
    Some(there)
}
