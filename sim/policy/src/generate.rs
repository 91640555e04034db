//! Random clusters with policies of every kind, and attempts to try.
//!
//! Everything is drawn from a small vocabulary (labels, networks, ports), so that policies overlap and both answers are frequent.
//! The same seed and [`Plan`] make the same case for ever; policies have random numbers of their own each, so a feature less does not change the rest of them.

mod attempts;
mod cilium;
mod cluster;
mod draw;
mod network_policy;
mod selectors;
mod tiers;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sim_scenario::Rng;

use crate::case::PolicyCase;
use cluster::World;
use draw::Draw;

/// Something that objects may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// NetworkPolicies.
    NetworkPolicies,
    /// CiliumNetworkPolicies.
    CiliumPolicies,
    /// CiliumClusterwideNetworkPolicies.
    ClusterwidePolicies,
    /// ClusterNetworkPolicies.
    Tiers,
    /// Rules of Cilium's policies that deny.
    Deny,
    /// `enableDefaultDeny`.
    DefaultDeny,
    /// CIDR groups, by name and by labels.
    CidrGroups,
    /// `toServices`.
    Services,
    /// `fromNodes`, `toNodes`, and `nodes` of ClusterNetworkPolicies.
    Nodes,
    /// Keys of selectors with source `reserved`.
    ReservedKeys,
    /// Labels of pods that are no part of their identities, and selectors that ask for them.
    FilteredLabels,
    /// The entity `kube-apiserver`, and the EndpointSlice that says where it is.
    ApiServer,
    /// ICMP: `icmps`, and attempts.
    Icmp,
    /// Ports by their names.
    NamedPorts,
    /// What only a proxy could enforce: HTTP and DNS rules, server names, names of hosts, authentication.
    Proxy,
    /// Staged policies.
    Staged,
    /// Host policies, and attempts between nodes and others.
    HostPolicies,
    /// Objects that are to be refused, in place of valid ones.
    Invalid,
}

/// All features.
pub const FEATURES: &[Feature] = &[
    Feature::NetworkPolicies,
    Feature::CiliumPolicies,
    Feature::ClusterwidePolicies,
    Feature::Tiers,
    Feature::Deny,
    Feature::DefaultDeny,
    Feature::CidrGroups,
    Feature::Services,
    Feature::Nodes,
    Feature::ReservedKeys,
    Feature::FilteredLabels,
    Feature::ApiServer,
    Feature::Icmp,
    Feature::NamedPorts,
    Feature::Proxy,
    Feature::Staged,
    Feature::HostPolicies,
    Feature::Invalid,
];

/// What cases shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What objects may use.
    pub features: BTreeSet<Feature>,
    /// At most so many pods; at least 2 are made.
    pub most_pods: u64,
    /// At most so many policies of all kinds together.
    pub most_policies: u64,
    /// So many attempts.
    pub attempts: usize,
}

impl Default for Plan {
    /// All features but host policies, which implementations need not have; up to 30 pods and 20 policies, 200 attempts.
    fn default() -> Self {
        Self {
            features: FEATURES.iter().copied().filter(|f| *f != Feature::HostPolicies).collect(),
            most_pods: 30,
            most_policies: 20,
            attempts: 200,
        }
    }
}

impl Plan {
    /// This plan without a feature.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Self {
        self.features.remove(&feature);
        self
    }

    /// This plan with a feature.
    #[must_use]
    pub fn with(mut self, feature: Feature) -> Self {
        self.features.insert(feature);
        self
    }
}

/// The case of a seed.
pub fn generate(seed: u64, plan: &Plan) -> PolicyCase {
    let world = World::draw(&mut Draw::new(Rng::stream(seed, "policy-cluster", 0), plan));
    let mut objects = world.objects();
    let mut rng = Rng::stream(seed, "policy-kinds", 0);
    let kinds = kinds(plan);
    for index in 0..rng.range(0..=plan.most_policies) {
        let Some(kind) = rng.pick(&kinds) else { break };
        let mut draw = Draw::new(Rng::stream(seed, kind.stream(), index), plan);
        objects.extend(policy(*kind, &format!("p{index}"), &mut draw, &world));
    }
    let mut draw = Draw::new(Rng::stream(seed, "policy-attempts", 0), plan);
    PolicyCase { attempts: attempts::draw(&mut draw, &world, plan.attempts), objects }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Cilium,
    Clusterwide,
    Tier,
}

impl Kind {
    fn stream(self) -> &'static str {
        match self {
            Self::Network => "policy-network",
            Self::Cilium => "policy-cilium",
            Self::Clusterwide => "policy-clusterwide",
            Self::Tier => "policy-tier",
        }
    }
}

/// The kinds of a plan, each as often as it shall come in relation to the others.
fn kinds(plan: &Plan) -> Vec<Kind> {
    [
        (Feature::NetworkPolicies, Kind::Network, 3),
        (Feature::CiliumPolicies, Kind::Cilium, 3),
        (Feature::ClusterwidePolicies, Kind::Clusterwide, 1),
        (Feature::Tiers, Kind::Tier, 2),
    ]
    .into_iter()
    .filter(|(feature, ..)| plan.features.contains(feature))
    .flat_map(|(_, kind, weight)| std::iter::repeat_n(kind, weight))
    .collect()
}

/// A policy; two versions of it if the second is to be refused.
fn policy(kind: Kind, name: &str, draw: &mut Draw<'_>, world: &World) -> Vec<Value> {
    let namespace = draw.one(&world.namespaces).name.clone();
    let (version, kind_name, specs) = match kind {
        Kind::Network => {
            let spec = network_policy::spec(draw);
            ("networking.k8s.io/v1", "NetworkPolicy", vec![spec])
        }
        Kind::Cilium => {
            let specs = cilium::specs(draw, Some(&namespace));
            ("cilium.io/v2", "CiliumNetworkPolicy", specs)
        }
        Kind::Clusterwide => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", cilium::specs(draw, None)),
        Kind::Tier => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", vec![tiers::spec(draw)]),
    };
    let mut object = json!({"apiVersion": version, "kind": kind_name, "metadata": {"name": name}});
    if matches!(kind, Kind::Network | Kind::Cilium) {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if draw.has(Feature::Staged) && draw.percent(12) {
        object["metadata"]["annotations"] = json!({"bristle.io/staged": "true"});
    }
    if let [spec] = specs.as_slice() {
        object["spec"] = spec.clone();
    } else {
        object["specs"] = json!(specs);
    }
    let mut versions = vec![object.clone()];
    if draw.has(Feature::Invalid) && draw.percent(8) {
        versions.push(invalid(kind, object, draw));
        // Sometimes there has never been a valid one.
        if draw.percent(30) {
            versions.remove(0);
        }
    }
    versions
}

/// The object with one thing wrong.
fn invalid(kind: Kind, mut object: Value, draw: &mut Draw<'_>) -> Value {
    let wrong = match kind {
        Kind::Network => draw.pick(&[
            json!({"podSelector": {}, "policyTypes": ["Sideways"]}),
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]}]}),
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 90, "endPort": 80}]}]}),
        ]),
        Kind::Cilium | Kind::Clusterwide => draw.pick(&[
            json!({"endpointSelector": {}}),
            json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "fromEntities": ["world"]}]}),
            json!({"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]}),
            json!({"endpointSelector": {}, "ingressDeny": [{"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]}]}),
            json!({"endpointSelector": {}, "ingress": [{"icmps": [{"fields": [{"type": 8}]}], "toPorts": [{"ports": [{"port": "80"}]}]}]}),
        ]),
        Kind::Tier => draw.pick(&[
            json!({"tier": "Admin", "priority": 1001, "subject": {"namespaces": {}}}),
            json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": []}]}),
            json!({"tier": "Basement", "priority": 1, "subject": {"namespaces": {}}}),
        ]),
    };
    if let Some(fields) = object.as_object_mut() {
        fields.remove("specs");
        fields.insert("spec".to_owned(), wrong);
    }
    object
}
