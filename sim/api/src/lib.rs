//! An in-memory Kubernetes API server for simulated clusters: good enough that `kubectl` and kube-rs need not know.
//!
//! It has two halves. [`Store`] is synchronous and deterministic: objects, resource versions, the change log that
//! watches read, defaulting, validation, patches, server-side apply, deletion. Time comes from an injected
//! [`Clock`]; nothing in it is random, so a simulator can step it. [`server`] puts HTTP in front of it: discovery,
//! OpenAPI, tables, watches, `exec`, `logs` and `port-forward`; the processes behind the latter are reached through
//! a [`NodeRuntime`].
//!
//! What it must not know: nodes' kernels, networks, processes (that is `lab`), and what controllers do with the
//! objects (that is `sim-controllers`).
//!
//! Start reading at [`Store`], then `server`.

#![forbid(unsafe_code)]

mod admission;
pub mod clock;
pub mod error;
pub mod faults;
pub mod kubeconfig;
pub mod managed;
pub mod object;
pub mod options;
pub mod patch;
pub mod protobuf;
pub mod registry;
pub mod resource;
pub mod runtime;
pub mod schema;
pub mod selector;
pub mod server;
pub mod store;
mod table;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::ApiError;
pub use faults::Faults;
pub use kubeconfig::write_kubeconfig;
pub use options::{DeleteOptions, Patch, Propagation, Sub, WriteOptions};
pub use resource::Gr;
pub use runtime::NodeRuntime;
pub use selector::Selector;
pub use server::{ServerConfig, ServerHandle};
pub use store::{Change, ChangeKind, Object, Store, StoreOptions};
