//! Hosts and nodes on a small network without programs: what a simulator relies on.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod bytes;
mod craft;
mod journeys;
mod neighbours;
mod properties;
mod trouble;
mod tunnel;
mod world;
