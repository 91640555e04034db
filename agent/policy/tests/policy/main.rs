//! The engine from the outside: objects in, rows out.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod evaluator;
mod histories;
mod limits;
mod normal;
mod objects;
mod steps;
mod tables;
mod world;
