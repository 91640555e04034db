//! What is wrong with a policy, and what of it is not enforced. Agents and the operator ask the same reader, so that a policy is
//! valid for both or for none.

use agent_crd::identity_labels::DEFAULT_CLUSTER;
use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, Object, ReadError,
};
use agent_policy::{PolicyObject, normalise};
use serde_json::Value;

/// What is to be said of a policy by its text alone, one sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// What is wrong with it. None: it is valid.
    pub mistakes: Vec<String>,
    /// Parts that are not enforced as they are written, on any node.
    pub unenforced: Vec<String>,
}

impl Validity {
    /// Of a CiliumNetworkPolicy.
    pub fn of_namespaced(object: Value) -> Self {
        Self::of(CiliumNetworkPolicy::from_json(object).as_ref().map(PolicyObject::Cilium))
    }

    /// Of a CiliumClusterwideNetworkPolicy.
    pub fn of_clusterwide(object: Value) -> Self {
        let read = CiliumClusterwideNetworkPolicy::from_json(object);
        Self::of(read.as_ref().map(PolicyObject::CiliumClusterwide))
    }

    /// Of a ClusterNetworkPolicy.
    pub fn of_cluster(object: Value) -> Self {
        Self::of(ClusterNetworkPolicy::from_json(object).as_ref().map(PolicyObject::Cluster))
    }

    fn of(read: Result<PolicyObject<'_>, &ReadError>) -> Self {
        // Nothing of it depends on the name of the cluster.
        match read.map(|object| normalise(object, DEFAULT_CLUSTER)) {
            Ok(Ok(normal)) => Self { mistakes: Vec::new(), unenforced: normal.unenforced },
            Ok(Err(mistakes)) => Self {
                mistakes: mistakes.each().iter().map(ToString::to_string).collect(),
                unenforced: Vec::new(),
            },
            Err(error) => Self { mistakes: vec![error.source.to_string()], unenforced: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let policy = json!({"metadata": {"name": "p", "namespace": "shop"}, "specs": [
            {"endpointSelector": {}, "ingress": [{"fromEntities": ["moon"]}, {"fromCIDR": ["10.0.0.0/33"]}]},
            {"ingress": [{}]},
        ]});
        assert_eq!(
            Validity::of_namespaced(policy).mistakes,
            [
                "specs[0].ingress[0].fromEntities[0]: `moon` is not known",
                "specs[0].ingress[1].fromCIDR[0]: `10.0.0.0/33` is no CIDR",
                "specs[1]: needs exactly one of endpointSelector, nodeSelector",
            ]
        );
    }

    #[test]
    fn nodes_are_for_policies_of_the_cluster() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {}, "ingress": [{}]}});
        assert_eq!(Validity::of_clusterwide(policy.clone()), Validity::default());
        assert_eq!(Validity::of_namespaced(policy).mistakes.len(), 1);
    }

    #[test]
    fn what_no_agent_enforces_is_named_with_its_place() {
        let http =
            json!([{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}]);
        let policy = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": {"endpointSelector": {}, "ingress": [
            {"toPorts": [{"ports": [{"port": "443"}]}]},
            {"toPorts": http},
            {"fromEndpoints": [{}], "authentication": {"mode": "required"}},
        ]}});
        let validity = Validity::of_namespaced(policy);
        assert_eq!(validity.mistakes, [""; 0]);
        let places: Vec<&str> = validity
            .unenforced
            .iter()
            .filter_map(|part| part.split_once(": "))
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places, ["spec.ingress[1].toPorts[0]", "spec.ingress[2]"]);
    }

    #[test]
    fn policies_of_tiers_are_read_too() {
        let with = |action: &str, peer: Value| {
            let rule = json!({"action": action, "to": [peer]});
            let spec =
                json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]});
            Validity::of_cluster(json!({"metadata": {"name": "p"}, "spec": spec}))
        };
        assert_eq!(with("Accept", json!({"networks": ["10.0.0.0/8"]})), Validity::default());
        assert_eq!(with("Deny", json!({"networks": ["10.0.0.0/33"]})).mistakes.len(), 1);
        assert_eq!(with("Accept", json!({"domainNames": ["example.com"]})).unenforced.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_a_mistake() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"endpointSelector": "all"}});
        assert_eq!(Validity::of_namespaced(policy).mistakes.len(), 1);
    }
}
