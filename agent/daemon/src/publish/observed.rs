//! The `CiliumEndpoint` objects of this node, as they are in the API.

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
    synced: bool,
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

    /// An object as it is now, from the watch or as it was written. What is older than what is known is left out.
    pub(crate) fn seen(&self, object: CiliumEndpoint) {
        let changed = self.with(|inner| {
            let name = name(&object);
            if let Some(heard) = &mut inner.heard {
                heard.insert(name.clone());
            }
            let of = |object: &CiliumEndpoint| version(Some(&object.metadata.resource_version));
            let known = inner.ours.get(&name);
            if known
                .is_some_and(|known| of(known) >= of(&object) && known.metadata.uid == object.metadata.uid)
            {
                return false;
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

    /// An object is gone; `at` is the version of its deletion.
    pub(crate) fn gone(&self, name: &ObjectName, at: u64) {
        let changed = self.with(|inner| {
            let known = inner.ours.get(name);
            let later = known.is_some_and(|known| version(Some(&known.metadata.resource_version)) > at);
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
        self.with(|inner| inner.heard = Some(BTreeSet::new()));
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
