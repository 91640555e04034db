//! Benchmarks of the whole: packets per program, paths between pods beside their yardsticks, clusters.
//!
//! What it must not know: how the agent and the dataplane work inside. It runs what users run and measures from
//! outside; goals are upper bounds that are reported, never enforced. Start reading at [`figure`] (what is reported),
//! then [`net`] and [`traffic`].
#![forbid(unsafe_code)]

pub mod figure;
pub mod net;
pub mod traffic;
