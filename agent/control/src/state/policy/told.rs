//! What is told of policies: up to which versions they are in force, and what cookies stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_policy::Policy;

use super::PolicyState;
use crate::objects::{Object, ObjectKind, ObjectName};

/// Versions of policies (`resourceVersion` as a number) that have come so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// The latest of any kind.
    pub(super) newest: u64,
    /// The latest of each kind.
    pub(super) of: BTreeMap<ObjectKind, u64>,
}

/// What tells a policy from its next version, if that is more than another status.
pub(super) fn mark(object: &Object) -> Option<u64> {
    let metadata = object.policy_metadata()?;
    Some((metadata.generation.unsigned_abs() << 1) + u64::from(metadata.is_staged()) + 1)
}

impl PolicyState {
    /// A policy is there, and this tells it from another one of its name.
    pub(super) fn note_mark(&mut self, kind: ObjectKind, name: &Arc<ObjectName>, mark: Option<u64>) {
        if let Some(mark) = mark {
            let before = self.marks.insert((kind, Arc::clone(name)), mark);
            self.pending_news |= before != Some(mark);
        }
    }

    /// An object is gone.
    pub(super) fn forget_mark(&mut self, kind: ObjectKind, name: &ObjectName) {
        if kind.is_of_policy() {
            self.pending_news |= self.marks.remove(&(kind, Arc::new(name.clone()))).is_some();
        }
    }

    /// The tables hold what the last commit asked for.
    pub(crate) fn settle(&mut self) {
        self.fresh.clear();
        if let Some(engine) = self.engine_mut() {
            engine.settle();
        }
        if self.in_force != self.heard {
            self.in_force.clone_from(&self.heard);
        }
        self.news += u64::from(std::mem::take(&mut self.pending_news));
        self.news += u64::from(!self.has_settled);
        self.has_settled = true;
        self.follow_names();
    }

    /// Another number than before: what is said of policies may be something else.
    pub(crate) fn news(&self) -> u64 {
        self.news
    }

    /// Staged policies would have decided otherwise more often than was known.
    pub(crate) fn counted(&mut self) {
        self.news += 1;
    }

    /// Whether the tables have held what the engine asked for at least once.
    pub(crate) fn has_settled(&self) -> bool {
        self.has_settled
    }

    /// Whether somebody wants to know what cookies stand for.
    pub(crate) fn want_names(&mut self, wanted: bool) {
        self.names_wanted = wanted;
        self.follow_names();
    }

    fn follow_names(&mut self) {
        let follow = self.names_wanted && self.has_settled;
        if follow == self.names_followed {
            return;
        }
        if let Some(engine) = self.engine_mut() {
            engine.follow_cookies(follow);
            self.names_followed = follow;
        }
    }

    /// What has become of cookies since the last time.
    pub(crate) fn take_cookies(&mut self) -> agent_policy::CookieChanges {
        self.engine_mut().map(Policy::take_cookies).unwrap_or_default()
    }

    /// The latest version of a policy that is in force here (`resourceVersion` of the object); 0 before the first.
    pub(crate) fn revision(&self) -> u64 {
        self.in_force.newest
    }

    /// The latest version of each kind of policy that is in force here.
    pub(crate) fn revisions(&self) -> &BTreeMap<ObjectKind, u64> {
        &self.in_force.of
    }
}

#[cfg(test)]
mod tests {
    use agent_crd::{CiliumNetworkPolicy, Object as _};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_another_once_it_is_staged() {
        let marked = |annotations: serde_json::Value| {
            let policy = json!({"metadata": {"namespace": "shop", "name": "p", "generation": 3, "annotations": annotations}});
            mark(&Object::CiliumNetworkPolicy(CiliumNetworkPolicy::from_json(policy).unwrap()))
        };
        let plain = marked(json!({}));
        assert_eq!(marked(json!({"bristle.io/staged": "false"})), plain);
        assert_ne!(marked(json!({"bristle.io/staged": "true"})), plain);
    }
}
