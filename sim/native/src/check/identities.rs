//! Which nodes know which identities, and when a pod may have one that others do not know.

use agent_control::{ObjectKind, ObjectName};
use agent_crd::CiliumIdentity;
use dataplane_abi::Identity;

use crate::queue::NodeId;
use crate::world::World;

impl World {
    /// The agent of a node has written all rows: those of the identities that it was told of are there.
    pub(crate) fn note_identities(&mut self, n: NodeId) {
        let process = &self.nodes[n].agent;
        let watch = process.watches.get(&ObjectKind::Identity);
        if let Some(watch) = watch.filter(|watch| watch.following && process.inbox.is_empty()) {
            self.check.identities.insert(n, watch.position);
        }
    }

    /// Whether a node has the rows of an identity, so that a packet which carries it is met as whom it says.
    fn knows_identity(&self, n: NodeId, identity: Identity) -> bool {
        let Some(written) = self.check.identities.get(&n) else { return false };
        let watch = self.nodes[n].agent.watches.get(&ObjectKind::Identity);
        let told = watch.filter(|watch| watch.following).map_or(usize::MAX, |watch| watch.position);
        let name = ObjectName::new("", identity.0.to_string());
        let log = self.kinds.get(&ObjectKind::Identity);
        log.is_some_and(|log| log.has(&name, (*written).min(told)))
    }

    /// Whether a node may not know the identity that a pod of the node `home` has: one that is no pod's own, or one that has been
    /// there for longer than pods wait before they take it. Nor can be said what is known where clocks jump.
    pub(super) fn may_not_know(&self, n: NodeId, home: NodeId, identity: Identity) -> bool {
        !self.knows_identity(n, identity)
            && (identity.is_reserved() || !self.nodes[home].skew.is_zero() || !self.is_young(identity))
    }

    /// Whether others may take a pod that changes to an identity for somebody else.
    pub(crate) fn may_surprise(&self, identity: u64) -> bool {
        let Ok(number) = u32::try_from(identity) else { return true };
        let is_skewed = self.nodes.iter().any(|node| !node.skew.is_zero());
        let unknown = |n| !self.knows_identity(n, Identity(number));
        (0..self.nodes.len()).any(unknown) && (is_skewed || !self.is_young(Identity(number)))
    }

    /// Whether an identity is so new that no pod that has another one may take it.
    fn is_young(&self, identity: Identity) -> bool {
        let name = ObjectName::new("", identity.0.to_string());
        let made = self.kinds.get(&ObjectKind::Identity).and_then(|log| log.made(&name));
        made.is_some_and(|made| self.now < made + CiliumIdentity::CHANGE_GRACE)
    }
}
