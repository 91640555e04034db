//! The policy engine.
#![forbid(unsafe_code)]

mod changes;
mod compile;
mod config;
mod decide;
mod endpoint;
mod engine;
mod error;
mod filter;
mod finding;
mod icmp;
mod label;
mod matcher;
mod normal;
mod numbers;
mod peers;
mod ports;
mod rows;
mod rule;
mod selector;
mod store;
mod tables;

pub use changes::Changes;
pub use config::{Config, Enforcement};
pub use endpoint::{Endpoint, EndpointId};
pub use engine::{CanonicalEndpoint, CanonicalRow, CanonicalVerdict, Policy};
pub use error::{InvalidPolicy, Problem};
pub use filter::{LabelFilter, Pattern, PodMeta, pod_labels};
pub use finding::{Finding, Severity};
pub use icmp::icmp_type;
pub use label::{
    CLUSTER, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, source, split_source,
};
pub use normal::{Normal, PolicyObject, STAGED, cidr_group, normalise};
pub use peers::{Entity, Families};
pub use ports::{NamedPort, PortName, PortRange, Ports, prefixes, proto};
pub use rows::{
    Direction, EVERYBODY, EndpointPolicy, L4Prefix, L4Set, Outcome, Row, RowKey, Staged, Verdict,
};
pub use rule::{Action, Kind, ObjectRef, Origin, PeerRef, Peers, Rule, Section, Spec, Tier};
pub use selector::{Op, Requirement, Selector};
pub use store::{CidrGroup, Service, Store};
