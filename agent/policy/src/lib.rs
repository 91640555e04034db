//! Who may speak with whom: labels, selectors, rules, and the rows that they come to.
//!
//! [`Policy`] takes objects, identities and endpoints as they come and go, and [`Policy::commit`] gives what has to be
//! written for it, in an order in which no step opens or closes anything that is not so before or after.
//! What holds is a function of what is there, not of the way to it; and work is in proportion to the policies that a
//! change can meet.
//!
//! There is no I/O, no clock and no randomness in here, and nothing of Kubernetes but the types of `agent-crd`.
//! It must not know packets, maps or sockets: rows are told in its own words ([`Changes`]).
//! How policy is evaluated is told in `docs/policy.md`.
//!
//! Start reading at `rule` (the normal form of all objects), then `decide` (what the rules say), `compile` (rows) and
//! `engine` (what changes).

#![forbid(unsafe_code)]

mod changes;
mod compile;
mod config;
mod decide;
mod endpoint;
mod engine;
mod error;
mod explain;
mod finding;
mod label;
mod matcher;
mod normal;
mod numbers;
mod peers;
mod pool;
mod ports;
mod rows;
mod rule;
mod selector;
mod store;
mod tables;

pub use changes::Changes;
pub use config::{Config, Enforcement};
pub use endpoint::{Endpoint, EndpointId};
pub use engine::{CanonicalEndpoint, CanonicalRow, CanonicalVerdict, Node, Policy};
pub use error::{InvalidPolicy, Mistakes, Problem};
pub use explain::{Explanation, Party, Side, explain, explain_side};
pub use finding::{Finding, Severity};
pub use label::{
    CLUSTER, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, source, split_source,
};
pub use normal::{Normal, PolicyObject, cidr_group, normalise};
pub use peers::{Entity, Families};
pub use ports::{NamedPort, PortName, PortRange, Ports, prefixes, proto};
pub use rows::{
    Blocks, Direction, EVERYBODY, EndpointPolicy, L4Prefix, L4Set, Outcome, Row, RowKey, Staged, Verdict,
};
pub use rule::{Action, Kind, ObjectRef, Origin, PeerRef, Peers, Rule, Section, Spec, Tier};
pub use selector::{Op, Requirement, Selector, Selectors, Values};
pub use store::{CidrGroup, Service, Store};
pub use tables::CookieChanges;
