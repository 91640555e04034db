//! The agent against ports in memory: what users, runtimes and operators rely on.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod addresses;
mod cni;
mod conntrack;
mod crash;
mod inspect;
mod journey;
mod masquerade;
mod nodes;
mod order;
mod policy;
mod scale;
mod services;
mod world;
