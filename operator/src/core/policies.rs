//! Policies: whether they could be understood and are in force, and whether their status says so.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_crd::meta::Condition;

use super::enforcement::{Asked, Enforcement, IN_FORCE, PolicyKey, STAGED, Said, Touched};
use super::event::{Action, Command, Key, Kind, Outcome, Policy};
use super::retry::{Attempt, CommandIds};
use super::table::{Listing, Place, Table};
use super::validity::Validity;

/// The conditions that the operator writes: whether the policy could be understood, and whether it is in force on every node.
const VALID: &str = "Valid";
const ENFORCED: &str = "Enforced";

/// Between two writes of what nodes say of a policy.
const APART: Duration = Duration::from_secs(5);

/// The same where only the counts of a staged policy are others.
const COUNTS_APART: Duration = Duration::from_secs(60);

/// What it says of a policy without mistakes.
const SUCCESS: &str = "Policy validation succeeded";

/// Parts that are not enforced of which a message tells.
const PARTS: usize = 3;

/// A policy, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: Kind,
    resource_version: String,
    validity: Validity,
    /// What nodes shall have in force.
    asked: Asked,
    /// All conditions as they are.
    there: Vec<Condition>,
    /// All conditions as they should be, unless the object has them already.
    wanted: Option<Vec<Condition>>,
    /// When what nodes say was last written.
    said: Option<Duration>,
    attempt: Attempt,
}

impl Row {
    const fn is_valid(&self) -> bool {
        self.validity.mistakes.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Policies {
    namespaced: Table<Row>,
    clusterwide: Table<Row>,
    cluster: Table<Row>,
    /// Policies by the version that they ask for.
    by_version: BTreeSet<(Kind, u64, Place)>,
    /// Policies that are to be looked at.
    stale: BTreeSet<PolicyKey>,
    /// Policies that are to be looked at later.
    later: BTreeSet<(Duration, PolicyKey)>,
}

impl Policies {
    const fn table(&self, kind: Kind) -> &Table<Row> {
        match kind {
            Kind::NamespacedPolicy => &self.namespaced,
            Kind::ClusterPolicy => &self.cluster,
            _ => &self.clusterwide,
        }
    }

    const fn table_mut(&mut self, kind: Kind) -> &mut Table<Row> {
        match kind {
            Kind::NamespacedPolicy => &mut self.namespaced,
            Kind::ClusterPolicy => &mut self.cluster,
            _ => &mut self.clusterwide,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        let tables = [&self.namespaced, &self.clusterwide, &self.cluster];
        tables.into_iter().flat_map(|table| table.rows().values())
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = ((&String, &String), &mut Row)> {
        let tables = [&mut self.namespaced, &mut self.clusterwide, &mut self.cluster];
        tables.into_iter().flat_map(Table::rows_mut).map(|((namespace, name), row)| ((namespace, name), row))
    }

    pub(super) const fn listing(&self, kind: Kind) -> Listing {
        self.table(kind).listing()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let valid = self.rows().filter(|row| row.is_valid()).count();
        (valid, self.rows().count() - valid)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.rows().filter(|row| row.attempt.is_in_flight()).count()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.stale.is_empty() && self.later.is_empty() && self.rows().all(|row| row.wanted.is_none())
    }

    pub(super) fn next_retry(&self) -> Option<Duration> {
        let writes = self.rows().filter(|row| row.wanted.is_some()).filter_map(|row| row.attempt.next());
        writes.chain(self.later.first().map(|(at, _)| *at)).min()
    }

    pub(super) fn doubt(&mut self) {
        self.namespaced.doubt();
        self.clusterwide.doubt();
        self.cluster.doubt();
        self.rows_mut().for_each(|(_, row)| row.attempt = Attempt::default());
    }

    pub(super) fn list_started(&mut self, kind: Kind) {
        self.table_mut(kind).start();
    }

    pub(super) fn list_synced(&mut self, kind: Kind) {
        self.table_mut(kind).sync();
        let there =
            |(of, _, place): &(Kind, u64, Place)| *of != kind || self.table(kind).rows().contains_key(place);
        let by_version = self.by_version.iter().filter(|entry| there(entry)).cloned().collect();
        self.by_version = by_version;
    }

    pub(super) fn upsert(&mut self, now: Duration, policy: Policy) {
        let (kind, place) = (policy.kind, (policy.metadata.namespace.clone(), policy.metadata.name.clone()));
        let known = self.table(kind).rows().get(&place);
        let before = known.map(|known| known.asked.version());
        let asked = Asked::by(
            &policy.metadata,
            policy.status.condition(ENFORCED),
            known.map(|known| &known.asked),
            now,
        );
        // The same version again is nothing new, and what is under way goes on.
        let same = known.filter(|known| known.resource_version == policy.metadata.resource_version);
        let row = Row {
            kind,
            validity: policy.validity,
            there: policy.status.conditions,
            wanted: same.and_then(|same| same.wanted.clone()),
            said: known.and_then(|known| known.said),
            attempt: same.map_or_else(Attempt::default, |same| same.attempt),
            resource_version: policy.metadata.resource_version,
            asked,
        };
        if let Some(before) = before {
            self.by_version.remove(&(kind, before, place.clone()));
        }
        self.by_version.insert((kind, row.asked.version(), place.clone()));
        self.stale.insert((kind, place.clone()));
        self.table_mut(kind).upsert(place, row);
    }

    pub(super) fn delete(&mut self, key: &Key) {
        let place = (key.namespace.clone(), key.name.clone());
        if let Some(row) = self.table_mut(key.kind).delete(&place) {
            self.by_version.remove(&(key.kind, row.asked.version(), place));
        }
    }

    /// Nodes say something else of these.
    pub(super) fn touch(&mut self, touched: Touched) {
        self.stale.extend(touched.policies);
        for (kind, above, up_to) in touched.versions {
            let first = (kind, above.saturating_add(1), Place::default());
            let asking = self
                .by_version
                .range(first..)
                .take_while(|(of, version, _)| *of == kind && *version <= up_to);
            self.stale.extend(asking.map(|(kind, _, place)| (*kind, place.clone())));
        }
    }

    /// Finds out what is to be said of policies of which something may have changed.
    pub(super) fn review(&mut self, now: Duration, nodes: &Enforcement) {
        while let Some((_, key)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.later.pop_first();
            self.stale.insert(key);
        }
        for key in std::mem::take(&mut self.stale) {
            let Some(row) = self.table_mut(key.0).get_mut(&key.1) else { continue };
            if row.attempt.is_in_flight() {
                // What comes of it is told, and looked at then.
                continue;
            }
            let (wanted, later) = conditions(row, nodes.says(&key, &row.asked, now), now);
            row.wanted = wanted;
            self.later.extend(later.map(|at| (at, key)));
        }
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
        let tables = [&mut self.namespaced, &mut self.clusterwide, &mut self.cluster];
        let mut rows = tables.into_iter().flat_map(Table::rows_mut);
        let Some((place, row)) = rows.find(|(_, row)| row.attempt.is(id)) else { return };
        match outcome {
            Outcome::Done => {
                if let Some(written) = row.wanted.take() {
                    if is_said(&written) != is_said(&row.there) {
                        row.said = Some(now);
                    }
                    row.there = written;
                }
                row.attempt = Attempt::default();
            }
            // It has been deleted, and the watch will say so; or it has changed, and the watch will bring it.
            _ => row.attempt.failed(now),
        }
        let key = (row.kind, place.clone());
        self.stale.insert(key);
    }
}

/// The condition about nodes, but for its time.
fn is_said(conditions: &[Condition]) -> Option<Condition> {
    let enforced = conditions.iter().find(|condition| condition.kind == ENFORCED)?;
    Some(Condition { last_transition_time: None, ..enforced.clone() })
}

/// All conditions with ours as they should be, nothing if they are so already; and when to look again.
fn conditions(row: &Row, said: Said, now: Duration) -> (Option<Vec<Condition>>, Option<Duration>) {
    let mut conditions = row.there.clone();
    let mistakes = row.validity.mistakes.join("; ");
    let (status, reason, message) =
        if row.is_valid() { ("True", "Valid", SUCCESS.to_owned()) } else { ("False", "Invalid", mistakes) };
    let valid = Condition {
        kind: VALID.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        ..Condition::default()
    };
    let mut is_other =
        set(&mut conditions, valid, |old, new| (&old.status, &old.message) == (&new.status, &new.message));
    let mut later = None;
    match said {
        Said::Nothing => {}
        Said::Later(at) => later = Some(at),
        Said::So { status, reason, message } => {
            let (status, reason, message) = match parts(&row.validity).filter(|_| reason == IN_FORCE) {
                Some(parts) => {
                    ("False", "PartlyEnforced", format!("{message}, but for parts of it: {parts}"))
                }
                None => (status, reason, message),
            };
            let enforced = Condition {
                kind: ENFORCED.to_owned(),
                status: status.to_owned(),
                observed_generation: Some(row.asked.generation()).filter(|generation| *generation > 0),
                reason: reason.to_owned(),
                message,
                ..Condition::default()
            };
            let old = row.there.iter().find(|condition| condition.kind == ENFORCED);
            let only_counts = old.is_some_and(|old| {
                reason == STAGED
                    && old.reason == reason
                    && old.observed_generation == enforced.observed_generation
            });
            let due = row.said.map(|said| said + if only_counts { COUNTS_APART } else { APART });
            if let Some(due) = due.filter(|due| *due > now && is_said(&row.there).as_ref() != Some(&enforced))
            {
                later = Some(due);
            } else {
                is_other |= set(&mut conditions, enforced, |old, new| {
                    Condition { last_transition_time: None, ..old.clone() } == *new
                });
            }
        }
    }
    (is_other.then_some(conditions), later)
}

/// Parts of a policy that are not enforced, the first of them.
fn parts(validity: &Validity) -> Option<String> {
    let named = validity.unenforced.iter().take(PARTS).cloned().collect::<Vec<_>>().join("; ");
    let more = validity.unenforced.len().saturating_sub(PARTS);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    (!named.is_empty()).then(|| format!("{named}{more}"))
}

/// Puts a condition in the place of the old one of its kind, unless that is the same; whether it did.
fn set(
    conditions: &mut Vec<Condition>,
    new: Condition,
    is_same: impl Fn(&Condition, &Condition) -> bool,
) -> bool {
    let at = conditions.iter().position(|condition| condition.kind == new.kind);
    let old = at.map(|at| &conditions[at]);
    if old.is_some_and(|old| is_same(old, &new)) {
        return false;
    }
    // The time is that of the last change of the status, not of the message.
    let last_transition_time =
        old.filter(|old| old.status == new.status).and_then(|old| old.last_transition_time.clone());
    if let Some(at) = at {
        conditions.remove(at);
    }
    conditions.push(Condition { last_transition_time, ..new });
    true
}
