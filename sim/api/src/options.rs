//! Options of calls.

use serde_json::Value;

/// Which part of an object a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sub {
    /// Everything but the status (and all of it for kinds without a status subresource).
    #[default]
    Main,
    /// `…/status`: only the status.
    Status,
    /// `…/scale`: the replica count, as an `autoscaling/v1` Scale.
    Scale,
    /// `namespaces/…/finalize`: `spec.finalizers` of a namespace.
    Finalize,
    /// `pods/…/ephemeralcontainers`.
    EphemeralContainers,
    /// `pods/…/resize`.
    Resize,
}

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them without a word.
    #[default]
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse the call.
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Do everything but keep the result.
    pub dry_run: bool,
    /// Who writes; without it `managedFields` are left alone (except in apply, which needs it).
    pub field_manager: Option<String>,
    /// Apply: take fields over from other managers.
    pub force: bool,
    /// Unknown fields.
    pub field_validation: FieldValidation,
}

/// A change of an object that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 6902, a list of operations.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge, built-in kinds only.
    Strategic(Value),
    /// Server-side apply; creates the object if it is missing.
    Apply(Value),
}

/// What happens to the objects a deleted object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without their owner.
    Orphan,
    /// The owner goes first, the garbage collector removes them afterwards.
    Background,
    /// They go first, the owner waits for them.
    Foreground,
}

/// Options of delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Seconds a pod has to end; `None`: what the pod says; 0: remove at once.
    pub grace_period_s: Option<i64>,
    /// What to do about owned objects; `None`: background.
    pub propagation: Option<Propagation>,
    /// Fail with 409 unless the object has this UID.
    pub uid: Option<String>,
    /// Fail with 409 unless the object has this resource version.
    pub resource_version: Option<String>,
    /// Do everything but keep the result.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Removal at once, without grace.
    pub fn now() -> Self {
        Self { grace_period_s: Some(0), ..Self::default() }
    }
}
