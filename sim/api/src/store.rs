//! The cluster's objects.

mod bootstrap;
mod core;
mod delete;
mod read;
mod scale;
mod watcher;
mod write;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::error::ApiError;
use crate::options::{DeleteOptions, Patch, Sub, WriteOptions};
use crate::registry::ResourceDef;
use crate::resource::Gr;

use self::core::Core;
pub use read::{ListQuery, ListResult};
pub(crate) use scale::selector_text;
pub use watcher::{WatchEvent, Watcher};
pub use write::Written;

/// An object as it is kept: never changed in place, cheap to share.
pub type Object = Arc<Value>;

/// How a store is set up.
#[derive(Clone)]
pub struct StoreOptions {
    /// Time of creation and deletion stamps.
    pub clock: Arc<dyn Clock>,
    /// Ranges of service addresses, the primary family first.
    pub service_cidrs: Vec<IpNet>,
    /// Node ports, first and last.
    pub node_ports: (u16, u16),
    /// Changes kept for watches; older resource versions answer 410.
    pub log_capacity: usize,
    /// Makes UIDs differ between clusters.
    pub seed: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let v4 = IpNet::V4(ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16));
        let v6 = IpNet::V6(ipnet::Ipv6Net::new_assert([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0].into(), 112));
        Self {
            clock: Arc::new(SystemClock),
            service_cidrs: vec![v4, v6],
            node_ports: (30000, 32767),
            log_capacity: 10_000,
            seed: 0,
        }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is another.
    Modified,
    /// It is gone; the object is its last state.
    Deleted,
}

/// One entry of the change log.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its resource version; grows by one with every change of the store.
    pub revision: u64,
    /// The object's resource.
    pub resource: Gr,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change.
    pub object: Object,
    /// The object before the change.
    pub previous: Option<Object>,
}

/// The cluster's objects; clones share them.
///
/// Namespaces are given as `""` for resources of the cluster. Objects come and go in their storage version.
/// Every call takes effect at once and as a whole; nothing in here waits.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    clock: Arc<dyn Clock>,
    revision: watch::Sender<u64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl Store {
    /// A store with what every cluster has: the first namespaces and the service of the API server.
    pub fn new(options: StoreOptions) -> Self {
        let clock = options.clock.clone();
        let mut core = Core::new(options);
        bootstrap::bootstrap(&mut core);
        let revision = watch::Sender::new(core.revision());
        Self(Arc::new(Shared { core: Mutex::new(core), clock, revision }))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write and tells subscribers if anything changed.
    fn writing<T>(&self, write: impl FnOnce(&mut Core) -> T) -> T {
        let (result, revision) = {
            let mut core = self.core();
            let result = write(&mut core);
            (result, core.revision())
        };
        self.0.revision.send_if_modified(|r| {
            // Two writers may get here in the other order than they wrote.
            let newer = revision > *r;
            *r = revision.max(*r);
            newer
        });
        result
    }

    /// The time now, by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The resource version of the last change.
    pub fn revision(&self) -> u64 {
        self.core().revision()
    }

    /// Follows [`Store::revision`]; changes after every change of the store.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// Changes after revision `after`, oldest first.
    ///
    /// # Errors
    /// 410 if the log does not go back that far: list again.
    pub fn changes(&self, after: u64) -> Result<Vec<Change>, ApiError> {
        self.core().changes(after).map(|c| c.cloned().collect())
    }

    /// The resource of this name, built-in or from a CRD.
    pub fn resource(&self, r: &Gr) -> Option<Arc<ResourceDef>> {
        self.core().registry.get(r).cloned()
    }

    /// The resource whose objects are of this kind.
    pub fn resource_of_kind(&self, group: &str, kind: &str) -> Option<Arc<ResourceDef>> {
        self.core().registry.by_kind(group, kind).cloned()
    }

    /// All resources by group and name.
    pub fn resources(&self) -> Vec<Arc<ResourceDef>> {
        self.core().registry.iter().cloned().collect()
    }

    /// Makes an object; `namespace` is `""` for resources of the cluster. `apiVersion` and `kind` may be left out.
    ///
    /// # Errors
    /// 409 if there is one of that name, 422 if it is not valid, 404 or 403 if its namespace is missing or ending.
    pub fn create(
        &self,
        r: &Gr,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Object, ApiError> {
        self.create_full(r, namespace, object, options).map(|w| w.object)
    }

    /// As [`Store::create`], with the warnings.
    pub fn create_full(
        &self,
        r: &Gr,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.writing(|core| core.create(r, namespace, object, options))
    }

    /// Reads an object.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn get(&self, r: &Gr, namespace: &str, name: &str) -> Result<Object, ApiError> {
        self.core().get(r, namespace, name)
    }

    /// All objects of a resource, in one namespace or (with `""`) in all, by namespace and name; none for a resource
    /// that is not known.
    pub fn list(&self, r: &Gr, namespace: &str) -> Vec<Object> {
        self.core().list(r, namespace)
    }

    /// A list as a request asks for it.
    ///
    /// # Errors
    /// 400 for a broken continue token, 410 for a revision that is too old, 504 for one that is yet to come.
    pub fn query(&self, r: &Gr, query: &ListQuery) -> Result<ListResult, ApiError> {
        self.core().query(r, query)
    }

    /// Replaces an object (or the part of it that `sub` names). With `metadata.resourceVersion` set it fails with 409
    /// if the object has changed since. Name and namespace are taken from the object.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub fn update(
        &self,
        r: &Gr,
        sub: Sub,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Object, ApiError> {
        self.update_full(r, sub, object, options).map(|w| w.object)
    }

    /// As [`Store::update`], with the warnings.
    pub fn update_full(
        &self,
        r: &Gr,
        sub: Sub,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.writing(|core| core.update(r, sub, object, options))
    }

    /// Changes an object.
    ///
    /// # Errors
    /// 404 (except for apply), 409, 415 for a strategic merge patch of a custom resource, 422.
    pub fn patch(
        &self,
        r: &Gr,
        namespace: &str,
        name: &str,
        sub: Sub,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Object, ApiError> {
        self.patch_full(r, namespace, name, sub, patch, options).map(|w| w.object)
    }

    /// As [`Store::patch`], with the warnings and whether the object is new.
    pub fn patch_full(
        &self,
        r: &Gr,
        namespace: &str,
        name: &str,
        sub: Sub,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.writing(|core| core.patch(r, namespace, name, sub, patch, options))
    }

    /// Reads, lets `change` work on a copy, and writes it back if it differs. Other writers cannot come between.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::update`].
    pub fn modify(
        &self,
        r: &Gr,
        namespace: &str,
        name: &str,
        sub: Sub,
        change: impl FnOnce(&mut Value),
    ) -> Result<Object, ApiError> {
        self.writing(|core| {
            let old = core.get(r, namespace, name)?;
            let mut new = (*old).clone();
            change(&mut new);
            if new == *old {
                return Ok(old);
            }
            core.update(r, sub, new, &WriteOptions::default()).map(|w| w.object)
        })
    }

    /// Deletes an object, or begins to: then the object that is still there is returned.
    ///
    /// # Errors
    /// 404; 409 if a precondition does not hold.
    pub fn delete(
        &self,
        r: &Gr,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Object>, ApiError> {
        self.writing(|core| core.delete(r, namespace, name, options))
    }

    /// The `autoscaling/v1` Scale of an object.
    ///
    /// # Errors
    /// 404 if there is no such object or it cannot be scaled.
    pub fn scale(&self, r: &Gr, namespace: &str, name: &str) -> Result<Value, ApiError> {
        self.core().scale(r, namespace, name)
    }

    /// A watch of a resource from after revision `after`.
    pub fn watch(&self, r: &Gr, namespace: &str, selector: crate::selector::Selector, after: u64) -> Watcher {
        Watcher::new(self.clone(), r.clone(), namespace.to_owned(), selector, after)
    }

    /// Tells under which addresses the API server itself is reached (endpoints of `default/kubernetes`).
    ///
    /// # Errors
    /// The endpoints could not be written.
    pub fn set_api_endpoints(&self, addresses: &[IpAddr], port: u16) -> Result<(), ApiError> {
        self.writing(|core| bootstrap::set_api_endpoints(core, addresses, port))
    }
}
