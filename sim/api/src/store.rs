//! The cluster's objects.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::ApiError;
use crate::options::{DeleteOptions, Patch, Sub, WriteOptions};
use crate::resource::Gr;

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
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    revision: watch::Sender<u64>,
}

impl Store {
    /// The time now, by the store's clock.
    pub fn now(&self) -> Timestamp { unimplemented!() }
    /// The resource version of the last change.
    pub fn revision(&self) -> u64 { *self.0.revision.borrow() }
    /// Follows [`Store::revision`]; changes after every change of the store.
    pub fn subscribe(&self) -> watch::Receiver<u64> { self.0.revision.subscribe() }
    /// Changes after revision `after`, oldest first.
    ///
    /// # Errors
    /// 410 if the log does not go back that far: list again.
    pub fn changes(&self, _after: u64) -> Result<Vec<Change>, ApiError> { unimplemented!() }
    /// Makes an object; `namespace` is `""` for resources of the cluster.
    pub fn create(&self, _r: &Gr, _namespace: &str, _object: Value, _o: &WriteOptions) -> Result<Object, ApiError> { unimplemented!() }
    /// Reads an object.
    pub fn get(&self, _r: &Gr, _namespace: &str, _name: &str) -> Result<Object, ApiError> { unimplemented!() }
    /// All objects of a resource, in one namespace or (with `""`) in all, by namespace and name.
    pub fn list(&self, _r: &Gr, _namespace: &str) -> Vec<Object> { unimplemented!() }
    /// Replaces an object (or its status). With `metadata.resourceVersion` set it fails with 409 if the object has
    /// changed since.
    pub fn update(&self, _r: &Gr, _sub: Sub, _object: Value, _o: &WriteOptions) -> Result<Object, ApiError> { unimplemented!() }
    /// Changes an object.
    pub fn patch(&self, _r: &Gr, _namespace: &str, _name: &str, _sub: Sub, _patch: &Patch, _o: &WriteOptions) -> Result<Object, ApiError> { unimplemented!() }
    /// Deletes an object, or begins to: then the object that is still there is returned.
    pub fn delete(&self, _r: &Gr, _namespace: &str, _name: &str, _o: &DeleteOptions) -> Result<Option<Object>, ApiError> { unimplemented!() }
    /// Tells under which addresses the API server itself is reached (endpoints of `default/kubernetes`).
    pub fn set_api_endpoints(&self, _addresses: &[IpAddr], _port: u16) -> Result<(), ApiError> { unimplemented!() }
}
