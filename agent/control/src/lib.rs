//! The brain of the node agent: events in, rows, routes and links out, and no I/O in between.
//!
//! [`Agent::handle`] takes one [`Event`] and updates the state; [`Agent::reconcile`] compares what the state asks for with what is there
//! and makes the difference, through two ports: [`MapStore`] (the tables of the dataplane) and [`NodeOps`] (links, routes, programs, state directory).
//! There is no clock, no randomness, no thread and no lock in here: the same calls give the same calls to the ports.
//!
//! It must not know packets (that is `dataplane-core`), sockets, netlink or the Kubernetes client.
//! Start reading at [`Agent`], then [`Event`] and [`ports`].
//!
//! # The daemon's loop
//! ```text
//! agent = Agent::new(config, documents of the state directory)
//! loop {
//!     wait for an event, or until agent.next_deadline()
//!     take all events that wait: replies += agent.handle(now, event)       // Tick when only time has passed
//!     report = agent.reconcile(now, maps, node)
//!     send replies and report.replies; close the descriptors that came with them
//! }
//! ```

#![forbid(unsafe_code)]

mod agent;
mod backoff;
mod cni;
mod config;
mod controllers;
mod event;
mod few;
mod finding;
pub mod memory;
mod objects;
mod plan;
pub mod ports;
mod reconcile;
mod state;
mod time;
mod tracked;

pub use agent_policy::Enforcement;

pub use agent::{Agent, PartyNames, ReconcileReport, RuleNames, ServiceHealth};
pub use cni::{CniRequest, Netns, NetnsHandle, Reply, RequestId};
pub use config::{
    Config, CtGcConfig, FamilyMode, Masquerade, MonitorAggregation, NODE_PORTS, PolicyConfig, Routing,
    SNAT_PORTS, ServiceTranslation,
};
pub use event::{DeviceFacts, Event, NodeObject};
pub use few::{Few, FewMap};
pub use finding::{Finding, Severity};
pub use objects::{
    EndpointObject, NamespaceObject, Object, ObjectKind, ObjectName, PodObject, ReadError, ServiceObject,
    ServicePort, SliceEndpoint, SliceObject, named_port,
};
pub use ports::{MapStore, NodeOps, PortError};
pub use state::host::ALLOW_API_CUT;
pub use state::services::Services;
pub use time::Now;
