//! What is wrong with a policy. Agents and the operator ask the same reader, so that a policy is valid for both or for none.

use agent_crd::identity_labels::DEFAULT_CLUSTER;
use agent_crd::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, Object, ReadError};
use agent_policy::{PolicyObject, normalise};
use serde_json::Value;

/// What is wrong with a CiliumNetworkPolicy, one sentence for each mistake. None: it is valid.
pub fn of_namespaced(object: Value) -> Vec<String> {
    mistakes(CiliumNetworkPolicy::from_json(object).as_ref().map(PolicyObject::Cilium))
}

/// As [`of_namespaced`], of a CiliumClusterwideNetworkPolicy.
pub fn of_clusterwide(object: Value) -> Vec<String> {
    mistakes(CiliumClusterwideNetworkPolicy::from_json(object).as_ref().map(PolicyObject::CiliumClusterwide))
}

fn mistakes(read: Result<PolicyObject<'_>, &ReadError>) -> Vec<String> {
    // Whether it is valid does not depend on the name of the cluster.
    match read.map(|object| normalise(object, DEFAULT_CLUSTER)) {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(mistakes)) => mistakes.each().iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.source.to_string()],
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
            of_namespaced(policy),
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
        assert_eq!(of_clusterwide(policy.clone()), Vec::<String>::new());
        assert_eq!(of_namespaced(policy).len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_a_mistake() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"endpointSelector": "all"}});
        assert_eq!(of_namespaced(policy).len(), 1);
    }
}
