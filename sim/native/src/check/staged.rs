//! What staged policies would have decided otherwise: what the programs count, agents add up by object.
//!
//! An agent may lose what was counted when it dies, but never adds more than was counted, and never less than the rows say that it has read
//! and whose cookies it still knows.

use std::collections::BTreeMap;

use agent_control::ports::Row;
use dataplane_abi::policy::{Staged, StagedCount, StagedKey};
use zerocopy::FromBytes as _;

use crate::queue::NodeId;
use crate::world::World;

/// Counts of a node: of what would be allowed, and of what would be denied.
type Would = [u64; 2];

/// Counts by cookie and kind.
type Rows = BTreeMap<(u32, u8), u64>;

/// What was counted on a node.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// The rows as they were after the last packet.
    rows: Rows,
    /// Everything, whatever has become of its row.
    all: Would,
    /// The rows as the agent has read them last.
    read: Rows,
}

fn rows(raw: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Rows {
    let row = |(key, value): (Vec<u8>, Vec<u8>)| {
        let key = StagedKey::read_from_bytes(&key).ok()?;
        Some(((key.cookie, key.staged), StagedCount::read_from_bytes(&value).ok()?.count))
    };
    raw.filter_map(row).collect()
}

/// The place of a kind in [`Would`].
const fn place(staged: u8) -> Option<usize> {
    match Staged::from_number(staged) {
        Some(Staged::WouldAllow) => Some(0),
        Some(Staged::WouldDeny) => Some(1),
        Some(Staged::Nothing) | None => None,
    }
}

/// The sums of what tables have counted.
pub(super) fn sums(tables: &dataplane_native::Tables) -> Would {
    let mut sums = Would::default();
    for ((_, staged), count) in rows(tables.dump("STAGED").unwrap_or_default().into_iter()) {
        if let Some(place) = place(staged) {
            sums[place] += count;
        }
    }
    sums
}

impl World {
    /// A program has run on a node.
    pub(crate) fn count_staged(&mut self, n: NodeId) {
        let now = rows(self.nodes[n].native.tables().dump("STAGED").unwrap_or_default().into_iter());
        let counted = self.check.staged.entry(n).or_default();
        for ((cookie, staged), count) in &now {
            let before = counted.rows.get(&(*cookie, *staged)).copied().unwrap_or_default();
            if let Some(place) = place(*staged) {
                // A row that was removed has come back.
                counted.all[place] += count.checked_sub(before).unwrap_or(*count);
            }
        }
        counted.rows = now;
    }

    /// The agent of a node has read the counts.
    pub(crate) fn staged_read(&mut self, n: NodeId, read: &[Row]) {
        let raw = read.iter().map(|row| (row.key.clone(), row.value.clone()));
        self.check.staged.entry(n).or_default().read = rows(raw);
    }

    /// The agent of a node has removed a row.
    pub(crate) fn staged_removed(&mut self, n: NodeId, key: &[u8]) {
        let counted = self.check.staged.entry(n).or_default();
        if let Ok(key) = StagedKey::read_from_bytes(key) {
            counted.rows.remove(&(key.cookie, key.staged));
            counted.read.remove(&(key.cookie, key.staged));
        }
    }

    /// The agent of a node is a new one.
    pub(crate) fn staged_unread(&mut self, n: NodeId) {
        if let Some(counted) = self.check.staged.get_mut(&n) {
            counted.read.clear();
        }
    }

    /// The agent says of each staged policy what was counted.
    pub(super) fn check_staged(&self, n: NodeId) -> Option<(&'static str, String)> {
        let (agent, counted) = (self.nodes[n].agent.agent.as_ref()?, self.check.staged.get(&n)?);
        let engine = agent.policy()?;
        agent.staged_policies().into_iter().find_map(|policy| {
            let mut least = Would::default();
            for ((cookie, staged), count) in &counted.read {
                let own = engine.origins(*cookie).iter().any(|origin| {
                    let object = &origin.object;
                    (object.kind.name(), &object.namespace, &object.name)
                        == (policy.kind.as_str(), &policy.namespace, &policy.name)
                });
                if let Some(place) = place(*staged).filter(|_| own) {
                    least[place] += count;
                }
            }
            let said = [policy.would_allow, policy.would_deny];
            let wrong = (0..2).any(|i| !(least[i]..=counted.all[i]).contains(&said[i]));
            let what = || {
                format!(
                    "{} {} would allow and deny {said:?}, as is said; counted were {:?}, of which it has read {least:?}",
                    policy.kind, policy.name, counted.all
                )
            };
            wrong.then(|| ("policy", what()))
        })
    }
}
