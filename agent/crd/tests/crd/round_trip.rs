//! What is read is written again as it was, and what is not known is named and does no harm.

use agent_crd::cilium_endpoint::EndpointState;
use agent_crd::meta::IntOrString;
use agent_crd::network_policy::PolicyType;
use agent_crd::rule::{AuthenticationMode, Entity, IcmpFamily, MismatchAction, Protocol};
use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NetworkPolicy, Object, SelectorOperator,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::manifest;

fn read_and_write<T: Object>(value: Value) -> Value {
    T::from_json(value).expect("it can be read").to_json()
}

#[rstest]
#[case("network-policy.yaml", read_and_write::<NetworkPolicy>)]
#[case("cilium-network-policy.yaml", read_and_write::<CiliumNetworkPolicy>)]
#[case("cilium-clusterwide-network-policy.yaml", read_and_write::<CiliumClusterwideNetworkPolicy>)]
#[case("cilium-cidr-group.yaml", read_and_write::<CiliumCIDRGroup>)]
#[case("cilium-identity.yaml", read_and_write::<CiliumIdentity>)]
#[case("cilium-endpoint.yaml", read_and_write::<CiliumEndpoint>)]
#[case("cluster-network-policy.yaml", read_and_write::<ClusterNetworkPolicy>)]
fn an_object_is_written_as_it_was_read(#[case] file: &str, #[case] both: fn(Value) -> Value) {
    let object = manifest(file);
    // Comparison of maps does not heed the order of keys.
    assert_eq!(both(object.clone()), object);
}

#[test]
fn a_cilium_policy_is_understood() {
    let policy = CiliumNetworkPolicy::from_json(manifest("cilium-network-policy.yaml")).unwrap();
    assert_eq!(policy.metadata.key(), "shop/checkout");
    assert_eq!(policy.metadata.generation, 3);
    let rule = policy.rules().next().unwrap();
    assert_eq!(rule.endpoint_selector.as_ref().unwrap().match_expressions[0].operator, SelectorOperator::In);
    assert!(rule.isolates_ingress());
    assert!(!rule.isolates_egress(), "it says so");
    let ingress = &rule.ingress;
    assert_eq!(ingress[0].peers().kinds(), ["Endpoints"]);
    assert_eq!(ingress[0].authentication.as_ref().unwrap().mode, AuthenticationMode::Required);
    let ports = &ingress[0].to_ports[0];
    assert!(ports.needs_proxy());
    assert_eq!(ports.ports[0].end_port, Some(8450));
    let headers = &ports.rules.as_ref().unwrap().http.as_ref().unwrap()[0].header_matches;
    assert_eq!(headers[0].mismatch, Some(MismatchAction::Replace));
    assert_eq!(ingress[2].from_entities, Some(vec![Entity::Host, Entity::KubeApiServer]));
    let icmp = &ingress[3].icmps[0].fields;
    assert_eq!((&icmp[0].family, &icmp[0].kind), (&None, &IntOrString::Int(8)));
    assert_eq!(
        (&icmp[1].family, &icmp[1].kind),
        (&Some(IcmpFamily::Ipv6), &IntOrString::String("EchoRequest".into()))
    );
    assert_eq!(ingress[4].peers().endpoints, Some(&[][..]), "a list that is there but empty");
    assert!(ingress[5].peers().is_empty());
    assert_eq!(rule.ingress_deny[0].peers().kinds(), ["Nodes"]);
    assert_eq!(rule.egress[0].to_ports[0].ports[0].protocol, Some(Protocol::Any));
    assert_eq!(rule.egress[1].peers().kinds(), ["FQDNs"]);
    assert_eq!(rule.egress_deny[0].peers().cidrs, Some(&["169.254.169.254/32".to_owned()][..]));
    assert_eq!(policy.status.condition("Valid").unwrap().status, "True");
}

#[test]
fn words_that_are_not_known_are_kept() {
    let mut object = manifest("cilium-clusterwide-network-policy.yaml");
    object["spec"]["ingress"][0]["fromEntities"][0] = json!("moon");
    let policy = CiliumClusterwideNetworkPolicy::from_json(object.clone()).unwrap();
    let entities = policy.spec.as_ref().unwrap().ingress[0].from_entities.clone().unwrap();
    assert_eq!(entities, [Entity::Other("moon".into()), Entity::Health]);
    assert_eq!(policy.to_json(), object);
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    let mut object = manifest("cilium-endpoint.yaml");
    object["status"]["controllers"] = json!([{"name": "x"}]);
    object["metadata"]["managedFields"] = json!([]);
    let endpoint = CiliumEndpoint::from_json(object).unwrap();
    assert_eq!(endpoint.status.state, Some(EndpointState::Ready));
    assert_eq!(endpoint.to_json(), manifest("cilium-endpoint.yaml"));
}

#[test]
fn a_mistake_is_told_with_the_objects_name() {
    let mut object = manifest("network-policy.yaml");
    object["spec"]["ingress"] = json!("none");
    let error = NetworkPolicy::from_json(object).unwrap_err();
    assert_eq!(error.to_string(), "read NetworkPolicy shop/db");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("expected a sequence"), "{cause}");
}

#[rstest]
#[case(json!({}), true, false)]
#[case(json!({"egress": []}), true, false)]
#[case(json!({"egress": [{}]}), true, true)]
#[case(json!({"policyTypes": ["Egress"]}), false, true)]
#[case(json!({"policyTypes": ["Ingress"], "egress": [{}]}), true, false)]
#[case(json!({"policyTypes": ["Sideways"]}), true, true)]
fn directions_of_a_network_policy(#[case] mut spec: Value, #[case] ingress: bool, #[case] egress: bool) {
    spec["podSelector"] = json!({});
    let policy = NetworkPolicy::from_json(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    assert_eq!((policy.spec.isolates_ingress(), policy.spec.isolates_egress()), (ingress, egress));
    assert!(policy.spec.policy_types.iter().all(|t| *t != PolicyType::Other(String::new())));
}

#[rstest]
#[case("256", Some(256))]
#[case("65535", Some(65535))]
#[case("255", None)]
#[case("65536", None)]
#[case("0300", None)]
#[case("+300", None)]
#[case("x", None)]
fn the_number_of_an_identity_is_its_name(#[case] name: &str, #[case] number: Option<u32>) {
    let mut object = manifest("cilium-identity.yaml");
    object["metadata"]["name"] = json!(name);
    assert_eq!(CiliumIdentity::from_json(object).unwrap().number(), number);
}
