//! An API server takes the definitions, takes good objects by them, and refuses bad ones.

use rstest::{fixture, rstest};
use serde_json::{Value, json};
use sim_api::resource::CUSTOMRESOURCEDEFINITIONS;
use sim_api::store::StoreOptions;
use sim_api::{ApiError, Gr, Store, WriteOptions};

use crate::{DEFINITIONS, manifest};

#[fixture]
fn store() -> Store {
    let store = Store::new(StoreOptions::default());
    let strict = WriteOptions {
        field_validation: sim_api::options::FieldValidation::Strict,
        ..WriteOptions::default()
    };
    for definition in DEFINITIONS.iter().cloned() {
        let name = definition["metadata"]["name"].clone();
        let made = store.create(&CUSTOMRESOURCEDEFINITIONS, "", definition, &strict);
        made.unwrap_or_else(|error| panic!("{name} is refused: {error}"));
    }
    store.create(&sim_api::resource::NAMESPACES, "", json!({"metadata": {"name": "shop"}}), &strict).unwrap();
    store
}

fn create(store: &Store, mut object: Value) -> Result<(), ApiError> {
    let api_version = object["apiVersion"].as_str().unwrap().to_owned();
    let (group, _) = api_version.split_once('/').unwrap();
    let kind = object["kind"].clone();
    let plural = DEFINITIONS
        .iter()
        .map(|definition| definition["spec"]["names"].clone())
        .find(|names| names["kind"] == kind)
        .map(|names| names["plural"].as_str().unwrap().to_owned())
        .unwrap();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let strict = WriteOptions {
        field_validation: sim_api::options::FieldValidation::Strict,
        ..WriteOptions::default()
    };
    for key in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        object["metadata"].as_object_mut().unwrap().shift_remove(key);
    }
    store.create(&Gr::of(group, plural), &namespace, object, &strict).map(drop)
}

#[rstest]
#[case("cilium-network-policy.yaml")]
#[case("cilium-clusterwide-network-policy.yaml")]
#[case("cilium-cidr-group.yaml")]
#[case("cilium-identity.yaml")]
#[case("cilium-endpoint.yaml")]
#[case("cluster-network-policy.yaml")]
fn good_objects_are_taken(store: Store, #[case] file: &str) {
    create(&store, manifest(file)).unwrap();
}

/// A CiliumNetworkPolicy with one rule.
fn cnp(rule: Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": rule})
}

/// A CiliumNetworkPolicy with one ingress entry.
fn entry(entry: Value) -> Value {
    cnp(json!({"endpointSelector": {}, "ingress": [entry]}))
}

fn ports(ports: Value) -> Value {
    entry(json!({"toPorts": [{"ports": ports}]}))
}

fn admin(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = manifest("cluster-network-policy.yaml");
    change(&mut object["spec"]);
    object
}

#[rstest]
#[case::no_spec(json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p", "namespace": "shop"}}), "spec or specs is needed")]
#[case::no_selector(cnp(json!({"ingress": [{}]})), "oneOf")]
#[case::two_selectors(cnp(json!({"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]})), "oneOf")]
#[case::nothing_demanded(cnp(json!({"endpointSelector": {}})), "anyOf")]
#[case::operator(cnp(json!({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "ingress": [{}]})), "operator")]
#[case::label_value(cnp(json!({"endpointSelector": {"matchLabels": {"a": "b c"}}, "ingress": [{}]})), "matchLabels")]
#[case::requires(entry(json!({"fromRequires": [{}]})), "fromRequires")]
#[case::entity(entry(json!({"fromEntities": ["moon"]})), "fromEntities[0]")]
#[case::unknown(entry(json!({"fromEndpoint": []})), "fromEndpoint")]
#[case::cidr(entry(json!({"fromCIDRSet": [{"cidr": "10.0.0.0"}]})), "cidr")]
#[case::except(entry(json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["x"]}]})), "except[0]")]
#[case::no_cidr(entry(json!({"fromCIDRSet": [{}]})), "oneOf")]
#[case::two_cidrs(entry(json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "cidrGroupRef": "a"}]})), "oneOf")]
#[case::port(ports(json!([{"port": "65536"}])), "port")]
#[case::port_number(ports(json!([{"port": 80}])), "port")]
#[case::end_port(ports(json!([{"port": "80", "endPort": 65536}])), "endPort")]
#[case::protocol(ports(json!([{"port": "80", "protocol": "ICMP"}])), "protocol")]
#[case::too_many_ports(ports((0..41).map(|n| json!({"port": n.to_string()})).collect()), "Too many")]
#[case::icmp_family(entry(json!({"icmps": [{"fields": [{"family": "IPv5", "type": 8}]}]})), "family")]
#[case::icmp_type(entry(json!({"icmps": [{"fields": [{"family": "IPv4"}]}]})), "type")]
#[case::authentication(entry(json!({"authentication": {"mode": "maybe"}})), "mode")]
#[case::log(cnp(json!({"endpointSelector": {}, "ingress": [{}], "log": {"value": "x".repeat(33)}})), "log")]
#[case::fqdn(cnp(json!({"endpointSelector": {}, "egress": [{"toFQDNs": [{"matchName": "*.a"}]}]})), "matchName")]
#[case::listener(cnp(json!({"endpointSelector": {}, "egress": [{"toPorts": [{"listener": {"name": "l", "priority": 101, "envoyConfig": {"name": "e"}}}]}]})), "priority")]
#[case::no_labels(json!({"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "300"}}), "security-labels")]
#[case::group_cidr(json!({"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "g"}, "spec": {"externalCIDRs": ["here"]}}), "externalCIDRs[0]")]
#[case::endpoint_state(json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"name": "e", "namespace": "shop"}, "status": {"state": "fine"}}), "state")]
#[case::tier(admin(|spec| spec["tier"] = json!("Middle")), "tier")]
#[case::priority(admin(|spec| spec["priority"] = json!(1001)), "priority")]
#[case::no_subject(admin(|spec| spec["subject"] = json!({})), "subject")]
#[case::two_peers(admin(|spec| spec["egress"][0]["to"][0]["networks"] = json!(["10.0.0.0/8"])), "to[0]")]
#[case::no_peers(admin(|spec| spec["ingress"][0]["from"] = json!([])), "from")]
#[case::action(admin(|spec| spec["ingress"][0]["action"] = json!("Allow")), "action")]
#[case::domain(admin(|spec| spec["egress"][1]["to"][0]["domainNames"] = json!(["a.*.b"])), "domainNames[0]")]
fn bad_objects_are_refused(store: Store, #[case] object: Value, #[case] said: &str) {
    let error = create(&store, object).expect_err("it is refused");
    assert!(error.message.contains(said), "{error}");
}
