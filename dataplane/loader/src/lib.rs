//! dataplane-loader puts the packet programs and their tables into the kernel and keeps them there across restarts.
//!
//! It is the only crate that knows aya. It must not know what a row means (that is the agent) or what a program decides
//! (that is `dataplane-core`): here a table is bytes under a name, a program is a name and a hook.
//!
//! Start at [`Object::load`] for the object, [`Table`] for tables, [`attach`] for hooks of devices,
//! [`cgroup`] for those of sockets, and [`probe`] for what a
//! kernel must have. A pinned [`Table`] can be opened without the object, which is how the command line reads it.

pub mod attach;
pub mod cgroup;
pub mod clock;
pub mod events;
pub mod measure;
pub mod object;
pub mod pins;
pub mod probe;
pub mod sandbox;
mod sys;
pub mod table;
pub mod test_run;
pub mod verifier;

pub use attach::{Attachment, Direction, Hook, HookKind};
pub use clock::Clock;
pub use events::EventReader;
pub use object::{LoadOptions, Object};
pub use pins::Pins;
pub use sandbox::Sandbox;
pub use table::{Row, Table, TableError, TableInfo, TableKind, TableSpec, TypedTable, Upsert};
pub use test_run::{Context, TestRun, TestRunResult};
