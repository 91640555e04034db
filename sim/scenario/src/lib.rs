//! Scenarios: what happens to a cluster, as data that every arm can run.
//!
//! A [`Scenario`] holds a cluster, objects over time, traffic, faults and expectations. The simulator runs it in one process on
//! virtual time, the end-to-end runner on network namespaces; both report an [`Outcome`], and two outcomes can be compared.
//!
//! It must not know how any arm carries a scenario out. Start reading at [`model`].
#![forbid(unsafe_code)]

pub mod model;
pub mod outcome;

mod decode;
mod form;
mod read;

pub mod error;
pub mod names;
pub mod path;
pub mod rng;
pub mod validate;

pub use error::{Invalid, Problem, ScenarioError};
pub use model::Scenario;
pub use outcome::Outcome;
pub use rng::Rng;
pub use validate::Known;
