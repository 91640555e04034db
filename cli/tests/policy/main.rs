//! `bristle policy` on example manifests, as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod explain;
mod run;
mod status;
mod validate;
