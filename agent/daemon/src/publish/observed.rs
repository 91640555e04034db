//! The `CiliumEndpoint` objects of this node and the annotation of its Node, as they are in the API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use agent_control::ObjectName;
use agent_crd::CiliumEndpoint;
use tokio::sync::Notify;

use crate::watch::version;

/// What the watch has seen, and what has been written since.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Addresses of this node; `None`: not known yet, so that every object may be of this node.
    own: Option<Vec<IpAddr>>,
    ours: BTreeMap<ObjectName, CiliumEndpoint>,
    /// Names heard since a list began.
    heard: Option<BTreeSet<ObjectName>>,
    /// The latest version that the watch has come to.
    newest: u64,
    synced: bool,
    /// The own Node, once it has been seen.
    node: Option<Annotated>,
}

/// The own Node.
#[derive(Debug)]
struct Annotated {
    /// Its UID.
    uid: Option<String>,
    /// What its annotation says.
    revision: Option<String>,
    /// Its version.
    version: u64,
}

impl Inner {
    fn is_ours(&self, object: &CiliumEndpoint) -> bool {
        let node = object.status.networking.as_ref().and_then(|networking| networking.node.as_ref());
        let Some(node) = node.and_then(|node| node.parse::<IpAddr>().ok()) else { return false };
        self.own.as_ref().is_none_or(|own| own.contains(&node))
    }
}

fn name(object: &CiliumEndpoint) -> ObjectName {
    ObjectName::new(&object.metadata.namespace, &object.metadata.name)
}

fn version_of(object: &CiliumEndpoint) -> u64 {
    version(Some(&object.metadata.resource_version))
}

impl Observed {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The addresses of this node are known, or are others now. Without any nothing changes.
    pub(crate) fn set_own(&self, own: &[IpAddr]) {
        self.with(|inner| {
            if own.is_empty() || inner.own.as_deref() == Some(own) {
                return;
            }
            inner.own = Some(own.to_vec());
            let ours = std::mem::take(&mut inner.ours);
            inner.ours = ours.into_iter().filter(|(_, object)| inner.is_ours(object)).collect();
        });
    }

    /// An object as the watch or a list has it. What is older than what was written is left out.
    pub(crate) fn seen(&self, object: CiliumEndpoint) {
        let changed = self.with(|inner| {
            let (name, at) = (name(&object), version_of(&object));
            inner.newest = inner.newest.max(at);
            match &mut inner.heard {
                Some(heard) => drop(heard.insert(name.clone())),
                None if inner.ours.get(&name).is_some_and(|known| version_of(known) >= at) => return false,
                None => {}
            }
            if inner.is_ours(&object) {
                inner.ours.insert(name, object);
                true
            } else {
                inner.ours.remove(&name).is_some()
            }
        });
        self.tell(changed);
    }

    /// An object as it was written. Where the watch is further already, it knows better: the object may be gone again.
    pub(super) fn wrote(&self, object: CiliumEndpoint) {
        self.with(|inner| {
            if version_of(&object) > inner.newest {
                inner.ours.insert(name(&object), object);
            }
        });
    }

    /// An object is gone; `at` is the version of its deletion.
    pub(crate) fn gone(&self, name: &ObjectName, at: u64) {
        let changed = self.with(|inner| {
            inner.newest = inner.newest.max(at);
            let later = inner.ours.get(name).is_some_and(|known| version_of(known) > at);
            !later && inner.ours.remove(name).is_some()
        });
        self.tell(changed);
    }

    /// An object has been deleted by us.
    pub(crate) fn forget(&self, name: &ObjectName) {
        self.with(|inner| inner.ours.remove(name));
    }

    /// A list of all objects begins.
    pub(crate) fn list_started(&self) {
        self.with(|inner| {
            inner.heard = Some(BTreeSet::new());
            // Versions of a server that was set back begin anew.
            inner.newest = 0;
        });
    }

    /// The list is complete: what was not in it is gone.
    pub(crate) fn list_synced(&self) {
        self.with(|inner| {
            inner.synced = true;
            if let Some(heard) = inner.heard.take() {
                // What was written meanwhile and is forgotten here is written again, which changes nothing.
                inner.ours.retain(|name, _| heard.contains(name));
            }
        });
        self.tell(true);
    }

    /// The own Node as the watch has it. What is older than what was written is left out.
    pub(crate) fn seen_node(&self, uid: Option<String>, revision: Option<String>, version: u64) {
        let changed = self.with(|inner| {
            if inner.node.as_ref().is_some_and(|node| node.version > version) {
                return false;
            }
            let same = |node: &Annotated| (&node.uid, &node.revision) == (&uid, &revision);
            let changed = !inner.node.as_ref().is_some_and(same);
            inner.node = Some(Annotated { uid, revision, version });
            changed
        });
        self.tell(changed);
    }

    /// A list of all Nodes begins: versions of a server that was set back begin anew.
    pub(crate) fn node_list_started(&self) {
        self.with(|inner| {
            if let Some(node) = &mut inner.node {
                node.version = 0;
            }
        });
    }

    /// The own Node as it was written.
    pub(super) fn wrote_node(&self, revision: String, version: u64) {
        self.with(|inner| {
            let uid = inner.node.as_ref().and_then(|node| node.uid.clone());
            if inner.node.as_ref().is_none_or(|node| node.version < version) {
                inner.node = Some(Annotated { uid, revision: Some(revision), version });
            }
        });
    }

    /// The UID of the own Node, as far as is known.
    pub(super) fn node_uid(&self) -> Option<String> {
        self.with(|inner| inner.node.as_ref()?.uid.clone())
    }

    /// What the annotation of the own Node says, as far as is known.
    pub(super) fn node_revision(&self) -> Option<String> {
        self.with(|inner| inner.node.as_ref()?.revision.clone())
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.changed.notify_one();
        }
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A whole list has been seen.
    pub(super) fn is_synced(&self) -> bool {
        self.with(|inner| inner.synced && inner.own.is_some())
    }

    /// The objects of this node.
    pub(super) fn ours(&self) -> BTreeMap<ObjectName, CiliumEndpoint> {
        self.with(|inner| if inner.own.is_some() { inner.ours.clone() } else { BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "172.30.1.1";

    fn object(version: u64, node: &str) -> CiliumEndpoint {
        let mut object = CiliumEndpoint::default();
        object.metadata.name = "a".to_owned();
        object.metadata.resource_version = version.to_string();
        object.status.networking = Some(agent_crd::cilium_endpoint::EndpointNetworking {
            addressing: Vec::new(),
            node: Some(node.to_owned()),
        });
        object
    }

    fn observed() -> Observed {
        let observed = Observed::default();
        observed.set_own(&[OWN.parse().unwrap()]);
        observed
    }

    fn versions(observed: &Observed) -> Vec<u64> {
        observed.ours().values().map(version_of).collect()
    }

    #[test]
    fn what_was_written_counts_until_the_watch_is_further() {
        let observed = observed();
        observed.wrote(object(5, OWN));
        observed.seen(object(4, OWN));
        assert_eq!(versions(&observed), [5]);
        observed.seen(object(6, OWN));
        assert_eq!(versions(&observed), [6]);
    }

    #[test]
    fn an_answer_that_comes_late_brings_back_nothing() {
        let observed = observed();
        observed.seen(object(5, OWN));
        observed.gone(&ObjectName::new("", "a"), 6);
        observed.wrote(object(5, OWN));
        assert_eq!(versions(&observed), [0_u64; 0]);
        observed.wrote(object(7, OWN));
        observed.gone(&ObjectName::new("", "a"), 6);
        assert_eq!(versions(&observed), [7], "that end was an earlier one's");
    }

    #[test]
    fn an_object_of_another_node_is_not_ours_also_if_it_was() {
        let observed = Observed::default();
        observed.seen(object(5, "172.30.1.2"));
        assert_eq!(versions(&observed), [0_u64; 0], "whose it is is not known");
        observed.set_own(&[OWN.parse().unwrap()]);
        assert_eq!(versions(&observed), [0_u64; 0]);
        observed.seen(object(6, OWN));
        assert_eq!(versions(&observed), [6]);
        observed.seen(object(7, "172.30.1.2"));
        assert_eq!(versions(&observed), [0_u64; 0]);
    }

    #[test]
    fn a_whole_list_says_what_is_gone_and_a_cut_one_does_not() {
        let observed = observed();
        observed.seen(object(5, OWN));
        observed.list_started();
        assert_eq!(versions(&observed), [5]);
        observed.list_started();
        observed.list_synced();
        assert_eq!(versions(&observed), [0_u64; 0]);
    }
}
