//! End-to-end runs of the connectivity matrix against a cluster that is reached only through its Kubernetes API, or in the simulator.
//!
//! The harness must not know which kind of cluster it talks to, nor anything of the agent: what it needs it does with
//! API objects and `pods/exec`, and what it believes it believes because of a command's exit and of packet captures.
//! Start reading at [`matrix`] (what is run) and [`runner`] (how).
//!
//! [`scenario`] is another matter: it carries a scenario of `sim-scenario` out on a lab, breaks the lab on the way, and reads from its
//! agents what came of it. [`suite`] asks a lab many questions about many policies.
#![forbid(unsafe_code)]

pub mod matrix;
pub mod select;

pub mod capture;
pub mod packet;
pub mod profile;

pub mod cluster;
pub mod exec;
pub mod policy;
pub mod probe;
pub mod workloads;

pub mod diagnose;
pub mod netns;

pub mod native;

pub mod report;
pub mod runner;

pub mod scenario;

pub mod suite;
