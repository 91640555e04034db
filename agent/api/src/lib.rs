//! Types of the agent's local sockets: what `bristle` prints, what `bristle-cni` sends, what scripts may rely on.
//!
//! Two sockets, both below the runtime directory (`/run/bristle`):
//! `bristle.sock` speaks HTTP/1.1 with JSON ([`paths`], [`status`], [`endpoint`], [`ipcache`], [`node`], [`map`],
//! [`ct`], [`nat`], [`policy`], [`service`], [`monitor`]); `cni.sock` takes one CNI request per packet.
//! Field names and the meaning of values are stable: fields are added, never renamed, and readers ignore unknown ones.
//!
//! This crate must not know how any of it is obtained: it holds no I/O, except the files of [`cni::delete_queue`], whose locking is the contract.

#![forbid(unsafe_code)]

pub mod cni;
pub mod ct;
pub mod endpoint;
pub mod error;
pub mod ipcache;
pub mod map;
pub mod monitor;
pub mod nat;
pub mod node;
pub mod paths;
pub mod policy;
pub mod service;
pub mod status;
pub mod time;

pub use ct::CtEntry;
pub use endpoint::{
    Endpoint, EndpointConfig, EndpointConfigChange, EndpointPolicy, EndpointState, PolicyAuditMode,
    PolicyEnforcement,
};
pub use error::ApiError;
pub use ipcache::IpcacheEntry;
pub use map::{MapDump, MapInfo, MapRow};
pub use monitor::MonitorEvent;
pub use nat::NatEntry;
pub use node::Node;
pub use service::{LbBackend, LbFrontend, Service, ServiceBackend, ServiceFrontend};
pub use status::{AgentState, Health, RoutingMode, Status};
pub use time::Timestamp;
