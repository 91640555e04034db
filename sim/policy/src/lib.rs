//! Policies to try implementations with.
//!
//! [`suite`] has the cases of the Kubernetes network policy conformance suite as data that every arm can run.
//! [`generate`](generate::generate) makes random clusters with policies of every kind and attempts to try, [`shrink`](shrink::shrink) makes what fails smaller.
//!
//! It knows `sim-oracle` for its words (an [`Attempt`](sim_oracle::Attempt)) and to see which objects are valid; it must know no implementation.
#![forbid(unsafe_code)]

mod case;
pub mod connectivity;
pub mod generate;
pub mod shrink;
pub mod suite;

pub use case::PolicyCase;
pub use generate::{Feature, Plan, generate};
pub use shrink::shrink;
