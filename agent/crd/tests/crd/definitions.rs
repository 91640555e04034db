//! The definitions keep the rules for structural schemas, and know every field of the manifests.

use agent_crd::crd;
use agent_crd::schema::unknown_fields;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{DEFINITIONS, manifest};

fn schema_of(kind: &str) -> Value {
    let definition = DEFINITIONS.iter().find(|definition| definition["spec"]["names"]["kind"] == kind);
    definition.expect("the kind has a definition")["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Kubernetes documentation, "Specifying a structural schema": types everywhere, and inside of `anyOf`, `oneOf`
/// and `not` nothing but rules on values; no references, and nothing that the API server does not know.
fn assert_structural(node: &Value, at: &str) {
    const KNOWN: &[&str] = &[
        "type",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "default",
        "anyOf",
        "oneOf",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
    ];
    let node = node.as_object().unwrap_or_else(|| panic!("{at} is no schema"));
    for key in node.keys() {
        assert!(KNOWN.contains(&key.as_str()), "{at} has {key}");
    }
    let int_or_string = node.contains_key("x-kubernetes-int-or-string");
    assert_eq!(node.contains_key("type"), !int_or_string, "{at} has one type");
    if let Some(kind) = node.get("type") {
        assert!(kind.is_string(), "{at} has one type");
    }
    if let Some(format) = node.get("format").and_then(Value::as_str) {
        assert!(["int32", "int64", "cidr", "date-time"].contains(&format), "{at} has format {format}");
    }
    for junction in ["anyOf", "oneOf"] {
        for part in node.get(junction).and_then(Value::as_array).into_iter().flatten() {
            let part = part.as_object().expect("rules on values");
            let allowed = if int_or_string { "type" } else { "required" };
            assert!(part.keys().all(|key| key == allowed), "{at} {junction}");
            for field in part.get("required").and_then(Value::as_array).into_iter().flatten() {
                assert!(
                    node["properties"].get(field.as_str().expect("a name")).is_some(),
                    "{at} {junction} {field}"
                );
            }
        }
    }
    assert!(!(node.contains_key("properties") && node.contains_key("additionalProperties")), "{at}");
    for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        assert_structural(property, &format!("{at}.{name}"));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get(key) {
            assert_structural(inner, &format!("{at}.{key}"));
        }
    }
}

#[test]
fn every_schema_is_structural() {
    for definition in DEFINITIONS.iter() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        assert_structural(schema, name);
        // Above a status subresource the API server takes no junctions.
        if version["subresources"].get("status").is_some() {
            for junction in ["anyOf", "oneOf", "not", "allOf"] {
                assert!(schema.get(junction).is_none(), "{name} has {junction} at its root");
            }
        }
    }
}

#[rstest]
#[case("cilium-network-policy.yaml")]
#[case("cilium-clusterwide-network-policy.yaml")]
#[case("cilium-cidr-group.yaml")]
#[case("cilium-identity.yaml")]
#[case("cilium-endpoint.yaml")]
#[case("cluster-network-policy.yaml")]
fn every_field_is_known(#[case] file: &str) {
    let object = manifest(file);
    let schema = schema_of(object["kind"].as_str().unwrap());
    assert_eq!(unknown_fields(&schema, &object), Vec::<String>::new());
}

#[test]
fn fields_that_are_not_known_are_named() {
    let mut object = manifest("cilium-network-policy.yaml");
    object["specs"][0]["ingress"][0]["fromEndpoint"] = json!([]);
    object["specs"][0]["egress"][1]["toFQDNs"][0]["matchRegex"] = json!("x");
    object["metadata"]["managedFields"] = json!([]);
    object["spec2"] = json!({});
    assert_eq!(
        unknown_fields(&schema_of("CiliumNetworkPolicy"), &object),
        ["specs[0].ingress[0].fromEndpoint", "specs[0].egress[1].toFQDNs[0].matchRegex", "spec2",]
    );
}

#[test]
fn names_are_those_that_people_know() {
    let names: Vec<String> = crd::needed()
        .iter()
        .map(|d| {
            let short: Vec<&str> = d["spec"]["names"]["shortNames"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let scope = d["spec"]["scope"].as_str().unwrap();
            let status = d["spec"]["versions"][0]["subresources"]["status"].is_object();
            format!("{} {} {scope} {status}", d["metadata"]["name"].as_str().unwrap(), short.join(","))
        })
        .collect();
    assert_eq!(
        names,
        [
            "ciliumcidrgroups.cilium.io ccg Cluster false",
            "ciliumclusterwidenetworkpolicies.cilium.io ccnp Cluster true",
            "ciliumendpoints.cilium.io cep,ciliumep Namespaced false",
            "ciliumidentities.cilium.io ciliumid Cluster true",
            "ciliumnetworkpolicies.cilium.io cnp,ciliumnp Namespaced true",
            "nodepolicystatuses.bristle.io nps Cluster false",
        ]
    );
}
