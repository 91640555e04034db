//! The policy engine.
#![forbid(unsafe_code)]

mod decide;
mod filter;
mod icmp;
mod label;
mod matcher;
mod numbers;
mod ports;
mod rows;
mod rule;
mod selector;

pub use filter::{LabelFilter, Pattern, PodMeta, pod_labels};
pub use icmp::icmp_type;
pub use label::{
    CLUSTER, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, source, split_source,
};
pub use ports::{NamedPort, PortName, PortRange, Ports, prefixes, proto};
pub use rows::{
    Direction, EVERYBODY, EndpointPolicy, L4Prefix, L4Set, Outcome, Row, RowKey, Staged, Verdict,
};
pub use rule::{Action, Kind, ObjectRef, Origin, PeerRef, Peers, Rule, Section, Spec, Tier};
pub use selector::{Op, Requirement, Selector};
