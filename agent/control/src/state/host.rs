//! The node as an endpoint: whether policies are for it, what they say, and whether they would cut it off from the API server.
//!
//! An agent that cannot reach the API server never hears that the policy which did that was taken back. So what the node opens is
//! only audited as long as its policies would not let it reach every API server, unless one of those that stand in the way says that
//! this is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use agent_policy::{EndpointId as PolicyEndpoint, Kind, LabelSet, ObjectRef, Spec};
use dataplane_abi::Identity;
use dataplane_abi::endpoints::EndpointFlags;

use super::policy::InForce;
use crate::finding::Finding;

/// The node's number among endpoints, as events and lists have it. Pods begin with 1.
pub(crate) const NODE: PolicyEndpoint = PolicyEndpoint(0);

/// Annotation of a policy that may cut nodes off from the API server.
pub const ALLOW_API_CUT: &str = "bristle.io/allow-api-cut";

/// Why an API server cannot be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cuts {
    /// API servers that policies stand in the way of, with the policies.
    pub(crate) servers: BTreeMap<SocketAddr, BTreeSet<ObjectRef>>,
    /// What the node opens is judged, and it is not known where an API server is.
    pub(crate) is_unknown: bool,
}

impl Cuts {
    fn any(&self) -> bool {
        self.is_unknown || !self.servers.is_empty()
    }
}

/// What is known of the node as an endpoint.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// Policies are for it.
    enabled: bool,
    /// What the rows of an earlier agent said, until all is known that they rest on.
    restored: Option<InForce>,
    /// By which addresses the agent itself reaches an API server.
    reached_at: BTreeSet<SocketAddr>,
    /// Policies that may cut nodes off.
    consents: BTreeSet<ObjectRef>,
    cuts: Cuts,
    /// Labels by which policies select the node.
    labels: LabelSet,
}

impl HostState {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn set_labels(&mut self, labels: LabelSet) {
        self.labels = labels;
    }

    /// Whether a rule is for the node.
    pub(crate) fn is_subject_of(&self, spec: &Spec) -> bool {
        spec.host && spec.subject.matches(&self.labels, None)
    }

    /// The rows of an earlier agent, for the node's addresses.
    pub(crate) fn restore(&mut self, found: Option<InForce>) {
        self.restored = found.filter(|_| self.enabled);
    }

    /// All that those rows rest on is known.
    pub(crate) fn forget_restored(&mut self) {
        self.restored = None;
    }

    pub(crate) fn set_reached_at(&mut self, servers: BTreeSet<SocketAddr>) {
        self.reached_at = servers;
    }

    pub(crate) fn reached_at(&self) -> &BTreeSet<SocketAddr> {
        &self.reached_at
    }

    /// Takes note of whether a policy may cut nodes off.
    pub(crate) fn set_consent(&mut self, name: &str, consents: bool) {
        let object = ObjectRef {
            kind: Kind::CiliumClusterwideNetworkPolicy,
            namespace: String::new(),
            name: name.to_owned(),
        };
        if consents {
            self.consents.insert(object);
        } else {
            self.consents.remove(&object);
        }
    }

    /// Whether one of these policies may do what they do.
    pub(crate) fn is_meant(&self, policies: &BTreeSet<ObjectRef>) -> bool {
        !policies.is_disjoint(&self.consents)
    }

    /// What would be cut off from now on; returns whether that makes a difference to what is in force.
    pub(crate) fn set_cuts(&mut self, cuts: Cuts) -> bool {
        let before = std::mem::replace(&mut self.cuts, cuts);
        before.any() != self.cuts.any()
    }

    /// Whether what the node opens is only audited, since its policies would cut it off.
    pub(crate) fn is_spared(&self) -> bool {
        self.cuts.any()
    }

    /// What the rows of the node's addresses say. `policy`: what the engine says, once there is one.
    pub(crate) fn in_force(&self, policy: Option<InForce>) -> InForce {
        let nothing = InForce { identity: Identity::HOST, policy: 0, flags: EndpointFlags(0) };
        if !self.enabled {
            return nothing;
        }
        let mut in_force = self.restored.or(policy).unwrap_or(nothing);
        if self.restored.is_none() {
            in_force.flags.set(EndpointFlags::AUDIT_EGRESS, self.is_spared());
        }
        in_force
    }

    /// What is to be said about policies for nodes. `own`: those that are for this one.
    pub(crate) fn findings(&self, own: impl Iterator<Item = ObjectRef>) -> Vec<Finding> {
        if !self.enabled {
            let off = "nodeSelector: it is not enforced, since the agent runs without --host-firewall";
            return own.map(|object| Finding::error(object.to_string(), off)).collect();
        }
        let mut cut: BTreeMap<&ObjectRef, Vec<String>> = BTreeMap::new();
        for (server, objects) in &self.cuts.servers {
            for object in objects {
                cut.entry(object).or_default().push(server.to_string());
            }
        }
        let tail = format!(
            "or give it the annotation {ALLOW_API_CUT}: \"true\", which puts it in force all the same"
        );
        let begin = "what this node opens is only audited, by all policies for it";
        let mut findings: Vec<Finding> = cut
            .into_iter()
            .map(|(object, servers)| {
                let servers = servers.join(", ");
                let message = format!(
                    "{begin}: this one would cut the node off from the API server at {servers}; allow that, {tail}"
                );
                Finding::error(object.to_string(), message)
            })
            .collect();
        if self.cuts.is_unknown {
            let message =
                format!("{begin}: it is not known where the API server is; wait until it is, {tail}");
            findings.extend(own.map(|object| Finding::error(object.to_string(), message.clone())));
        }
        findings
    }
}
