//! What the documentation says, asked of the oracle.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod cilium;
mod cluster_policy;
mod defaults;
mod examples;
mod modes;
mod objects;
mod peers;
mod ports;
mod properties;
mod selectors;
mod services;
mod support;
