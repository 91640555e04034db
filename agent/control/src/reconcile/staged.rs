//! `STAGED`: how often policies that are not in force would have decided otherwise. The dataplane counts by cookie, the agent
//! adds up by object.
//!
//! Rows outlive the agent, and cookies mean the same to its successor, so it goes on from what the table has. Rows whose cookie
//! stands for nothing any more are removed after what they say has been noted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent_policy::{ObjectRef, Policy};
use dataplane_abi::policy::{Staged, StagedCount, StagedKey};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::Run;
use crate::agent::Agent;
use crate::backoff::Failure;
use crate::ports::{PortError, Table};
use crate::state::policy::PolicyState;
use crate::time::Now;

/// How often the table is read while there are staged policies. Counts are behind by this at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// What a staged policy would have decided otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Would {
    /// Packets that were dropped and that it would let through.
    pub(crate) allow: u64,
    /// Connections that passed and that it would deny, each once for each direction in which a policy was asked.
    pub(crate) deny: u64,
}

/// The counts, and when they are read next.
#[derive(Debug, Default)]
pub(crate) struct StagedCounts {
    next: Now,
    failure: Option<Failure>,
    /// Rows as they were read last; empty: there are none to look after.
    rows: BTreeMap<(u32, u8), u64>,
    /// Staged objects among those for which a cookie stands.
    cookies: BTreeMap<u32, Vec<Arc<ObjectRef>>>,
    totals: BTreeMap<Arc<ObjectRef>, Would>,
    /// What an earlier agent left has been seen.
    begun: bool,
}

impl StagedCounts {
    /// When the table is to be read next; `None`: not as long as no policy is staged, or cookies of an earlier agent may come up.
    pub(crate) fn due(&self, policy: &PolicyState) -> Option<Now> {
        let policy = policy.engine().filter(|_| policy.has_settled())?;
        let idle = self.begun && self.rows.is_empty() && self.totals.is_empty();
        let due = self.failure.as_ref().map_or(self.next, |failure| failure.retry_at);
        (policy.store().has_staged() || !idle).then_some(due)
    }

    /// What an object would have decided otherwise.
    pub(crate) fn of(&self, object: &ObjectRef) -> Would {
        self.totals.get(object).copied().unwrap_or_default()
    }

    fn add(&mut self, policy: &Policy, key: StagedKey, count: u64) {
        let before = self.rows.insert((key.cookie, key.staged), count).unwrap_or_default();
        // A row that was removed and has come back counts from the beginning.
        let more = if count < before { count } else { count - before };
        let is_staged = |origin: &agent_policy::Origin| policy.store().is_staged(&origin.object);
        let origins = policy.origins(key.cookie);
        if !origins.is_empty() {
            let mut objects: Vec<Arc<ObjectRef>> =
                origins.iter().filter(|origin| is_staged(origin)).map(|o| Arc::clone(&o.object)).collect();
            objects.dedup();
            self.cookies.insert(key.cookie, objects);
        }
        for object in self.cookies.get(&key.cookie).into_iter().flatten() {
            let total = self.totals.entry(Arc::clone(object)).or_default();
            match Staged::from_number(key.staged) {
                Some(Staged::WouldAllow) => total.allow += more,
                Some(Staged::WouldDeny) => total.deny += more,
                Some(Staged::Nothing) | None => {}
            }
        }
    }
}

impl Agent {
    /// Reads the counts, if they are due, and removes rows that stand for nothing any more.
    pub(super) fn count_staged(&mut self, run: &mut Run<'_>) {
        if self.staged.due(&self.state.policy).is_none_or(|due| due > run.now) {
            return;
        }
        self.staged.next = run.now.plus(INTERVAL);
        let result = self.read_staged(run);
        let mut slot = self.staged.failure.take();
        if run.note(&mut slot, result) {
            self.staged.begun = true;
        }
        self.staged.failure = slot;
    }

    fn read_staged(&mut self, run: &mut Run<'_>) -> Result<(), PortError> {
        let rows = run.maps.dump(Table::Staged)?;
        let before = self.staged.totals.clone();
        let Some(policy) = self.state.policy.engine() else { return Ok(()) };
        let staged = &mut self.staged;
        let (mut gone, mut seen) = (Vec::new(), BTreeSet::new());
        for row in &rows {
            let key = StagedKey::read_from_bytes(&row.key);
            let count = StagedCount::read_from_bytes(&row.value);
            let (Ok(key), Ok(StagedCount { count })) = (key, count) else { continue };
            staged.add(policy, key, count);
            seen.insert((key.cookie, key.staged));
            if policy.origins(key.cookie).is_empty() {
                gone.push(key);
            }
        }
        staged.rows.retain(|key, _| seen.contains(key));
        staged.totals.retain(|object, _| policy.store().is_staged(object));
        for key in gone {
            run.maps.delete(Table::Staged, key.as_bytes())?;
            *run.report.rows_removed.entry(Table::Staged).or_default() += 1;
            staged.rows.remove(&(key.cookie, key.staged));
        }
        let rows = &staged.rows;
        let has_row = |cookie: u32| rows.range((cookie, 0)..=(cookie, u8::MAX)).next().is_some();
        staged.cookies.retain(|cookie, _| has_row(*cookie));
        if staged.totals != before {
            self.state.policy.counted();
        }
        Ok(())
    }
}
