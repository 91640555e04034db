//! Says from Kubernetes objects alone what must happen to a connection attempt.
//!
//! It is written from the Kubernetes documentation (NetworkPolicy concept and API reference, ClusterNetworkPolicy API reference, Services, virtual IPs,
//! EndpointSlices, traffic policies) and from Cilium's (CiliumNetworkPolicy and what belongs to it), and shares no code with agent or dataplane: what
//! the two sides read differently in the documentation shows up as a difference.
//! So it must not know another crate of ours, and it prefers straight evaluation to speed: every question looks at every policy.
//!
//! [`Cluster`] is the view of the objects. [`Cluster::translate`] answers which backends are right for an address that may be a service's,
//! [`Cluster::locate`] says whose an address is, and [`Cluster::judge`] whether policies allow the attempt to reach its final destination.
//! Start reading in `judge.rs` and `translate.rs`: one function a sentence of the documentation.
//!
//! Judged is the first packet of a connection. Replies of an allowed connection are always allowed, so nothing has to be asked for them.
//!
//! Where the documentation leaves a choice to implementations, [`Options`] name it. What only a proxy could enforce (HTTP and DNS rules, names of
//! hosts, TLS, authentication) allows nothing. Not looked at: topology hints and `trafficDistribution` (preferences among right backends),
//! `loadBalancerSourceRanges` (a matter of the platform), `hostPort`, other clusters.
#![forbid(unsafe_code)]

mod attempt;
mod cluster;
mod error;
mod field;
mod identity;
mod judge;
mod objects;
mod options;
mod party;
mod translate;
mod verdict;

pub use attempt::{Attempt, End, Family, ObjectName, Protocol};
pub use cluster::Cluster;
pub use error::OracleError;
pub use options::{Enforcement, Options, OwnNode};
pub use translate::{Backend, Translation};
pub use verdict::{Because, Direction, PolicyKind, PolicyName, Reason, RuleName, Verdict};
