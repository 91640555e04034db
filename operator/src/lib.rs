//! The cluster's part of Bristle: gives sets of labels their identities, collects those that nobody uses, and says of
//! policies whether they could be understood.
//!
//! [`core`] decides and knows no I/O: events in, commands out. [`shell`] is the process around it: watches, the lease
//! that makes one operator of several the leader, the calls to the API server.
//! It must not know anything about nodes, endpoints' interfaces or packets.
//! Start reading at [`core::Operator`], then [`shell::run`].

#![forbid(unsafe_code)]

pub mod core;
pub mod shell;
