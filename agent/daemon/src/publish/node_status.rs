//! The `NodePolicyStatus` of this node: written when it says something new, and not too often.

use std::time::{Duration, Instant};

use agent_crd::NodePolicyStatus;
use agent_crd::meta::OwnerReference;

use crate::watch::Pause;

/// Between two writes at least; a thousand nodes hear of one change of a policy at the same moment.
const APART: Duration = Duration::from_secs(1);

/// The same where only counts of staged policies are others.
const COUNTS_APART: Duration = Duration::from_secs(30);

/// What is written is written again after so long, for nobody watches whether it is still there.
const AGAIN: Duration = Duration::from_mins(5);

/// What has been written of it.
#[derive(Debug)]
pub(super) struct NodeStatus {
    written: Option<(NodePolicyStatus, Instant)>,
    pause: Pause,
    /// After a failure: not before.
    not_before: Option<Instant>,
}

impl NodeStatus {
    /// Nothing has been written.
    pub(super) const fn new() -> Self {
        Self { written: None, pause: Pause::new(), not_before: None }
    }

    /// When it is to be written; a time that has passed: now.
    pub(super) fn due(&self, wanted: &NodePolicyStatus, now: Instant) -> Instant {
        let due = match &self.written {
            None => now,
            Some((written, at)) if written == wanted => *at + AGAIN,
            Some((written, at)) => {
                let without_counts =
                    |status: &NodePolicyStatus| NodePolicyStatus { staged: Vec::new(), ..status.clone() };
                let only_counts = without_counts(written) == without_counts(wanted);
                *at + if only_counts { COUNTS_APART } else { APART }
            }
        };
        self.not_before.map_or(due, |not_before| due.max(not_before))
    }

    /// It has been written.
    pub(super) fn done(&mut self, status: NodePolicyStatus, now: Instant) {
        *self = Self { written: Some((status, now)), ..Self::new() };
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause.next().unwrap_or(Pause::MAX));
    }
}

/// The status as an object that goes with its Node.
pub(super) fn owned(status: &NodePolicyStatus, node_uid: Option<String>) -> NodePolicyStatus {
    let mut status = status.clone();
    status.metadata.owner_references = node_uid
        .into_iter()
        .map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: status.metadata.name.clone(),
            uid,
            controller: None,
        })
        .collect();
    status
}

#[cfg(test)]
mod tests {
    use agent_crd::node_policy_status::StagedPolicy;

    use super::*;

    #[test]
    fn news_are_told_soon_and_counts_now_and_then() {
        let status = |revision: u64, count: u64| NodePolicyStatus {
            revisions: [("NetworkPolicy".to_owned(), revision)].into(),
            staged: vec![StagedPolicy { would_deny: count, ..StagedPolicy::default() }],
            ..NodePolicyStatus::default()
        };
        let now = Instant::now();
        let mut told = NodeStatus::new();
        assert_eq!(told.due(&status(1, 0), now), now);
        told.failed(now);
        assert!(told.due(&status(1, 0), now) > now);
        told.done(status(1, 0), now);
        assert_eq!(told.due(&status(1, 0), now), now + AGAIN);
        assert_eq!(told.due(&status(2, 0), now), now + APART);
        assert_eq!(told.due(&status(1, 7), now), now + COUNTS_APART);
    }
}
