//! The simulator's native arm: a cluster in one process, on virtual time.
//!
//! Each node runs the real [`agent_control::Agent`] and the real programs of `dataplane-core` on tables in memory.
//! Only what lies outside of them is simulated: the API server's watches, the runtime, hosts' network stacks, wires, time.
//! One seed decides every order, delay and fault, so a run can be repeated exactly.
//!
//! Start reading at [`run`], then `sim.rs` (the loop), `world.rs` (what happens), `path.rs` (packets) and `check.rs` (invariants).
//! It must not know Linux: everything here runs on any machine, without privileges.
#![forbid(unsafe_code)]

mod agents;
mod calls;
mod caught;
mod check;
mod cni;
mod fabric;
mod faults;
mod flows;
mod kinds;
mod kubelet;
mod listen;
mod modes;
mod node;
mod objects;
mod odd;
mod operator;
mod outside;
mod path;
mod ports;
mod publish;
mod queue;
mod rows;
mod run;
mod scale;
mod sim;
mod steps;
mod trace;
mod traffic;
pub mod verdicts;
mod view;
mod watch;
mod world;

pub use check::Violation;
pub use run::{Options, Report, Said, Seen, known, knows_kind, run, write_capture};
pub use scale::{ScaleReport, Stretch, scale};
pub use world::Stats;
