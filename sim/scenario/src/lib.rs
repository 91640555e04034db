//! Scenarios: what happens to a cluster, as data that every arm can run.
//!
//! A [`Scenario`] holds a cluster, objects over time, traffic, faults and expectations. The simulator runs it in one process on
//! virtual time, the end-to-end runner on network namespaces; both report an [`Outcome`], and two outcomes can be compared.
//!
//! It must not know how any arm carries a scenario out. Start reading at [`model`].
#![forbid(unsafe_code)]

// From data to text and back.
pub mod answers;
pub mod compare;
pub mod error;
pub mod flows;
pub mod model;
pub mod names;
pub mod object;
pub mod outcome;
pub mod path;
pub mod replay;
pub mod validate;
mod words;

mod decode;
mod form;
mod read;

// Making scenarios.
pub mod builder;
pub mod generate;
pub mod judge;
pub mod profile;
pub mod rng;
pub mod shrink;

pub use compare::compare;
pub use error::{Invalid, Problem, ScenarioError};
pub use generate::generate;
pub use model::Scenario;
pub use outcome::Outcome;
pub use profile::Profile;
pub use replay::Replay;
pub use rng::Rng;
pub use shrink::{ShrinkProgress, shrink};
pub use validate::Known;
