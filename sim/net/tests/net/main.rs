//! Hosts and nodes on a small network without programs: what a simulator relies on.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod journeys;
mod world;
