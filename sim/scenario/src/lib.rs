//! Scenarios: what happens to a cluster, as data that every arm can run.
//!
//! A [`Scenario`] holds a cluster, objects over time, traffic, faults and expectations. The simulator runs it in one process on
//! virtual time, the end-to-end runner on network namespaces; both report an [`Outcome`], and two outcomes can be compared.
//!
//! It must not know how any arm carries a scenario out. Start reading at [`model`].
#![forbid(unsafe_code)]

pub mod model;
pub mod outcome;

pub use model::Scenario;
pub use outcome::Outcome;
