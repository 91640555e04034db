//! What is wrong with policies, before they are applied.

use rstest::rstest;
use serde_json::Value;

use crate::run::policy;

fn validated() -> Vec<Value> {
    let ran = policy(&["validate", "-f", "@wrong", "-o", "json"], "");
    assert_eq!(ran.code, 1, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[rstest]
#[case("NetworkPolicy/shop/port", "spec.ingress[0].ports[0]")]
#[case("NetworkPolicy/shop/type", "spec.ingress[0].from: invalid type")]
#[case(
    "NetworkPolicy/shop/old",
    "apiVersion: `networking.k8s.io/v1beta1` is not read for this kind: write `networking.k8s.io/v1`"
)]
#[case("CiliumCIDRGroup/group", "spec.externalCIDRs[0]")]
fn what_is_refused_is_told_with_its_field(#[case] object: &str, #[case] field: &str) {
    let all = validated();
    let one = all.iter().find(|one| one["object"] == object).unwrap();
    let refused = one["refused"].as_str().unwrap();
    assert!(refused.starts_with(field), "{refused}");
}

#[rstest]
#[case("NetworkPolicy/shop/misspelt", "spec.ingres: is not known here")]
#[case("CiliumNetworkPolicy/shop/names", "toFQDNs")]
#[case("CiliumNetworkPolicy/shop/group", "CiliumCIDRGroup nowhere does not exist")]
#[case("CiliumClusterwideNetworkPolicy/nodes", "--host-firewall enforce policies for nodes")]
fn what_has_no_effect_is_a_warning(#[case] object: &str, #[case] expected: &str) {
    let all = validated();
    let one = all.iter().find(|one| one["object"] == object).unwrap();
    assert_eq!(one["refused"], Value::Null);
    assert!(one["warnings"].to_string().contains(expected), "{one}");
}

#[test]
fn good_policies_are_ok() {
    let ran = policy(&["validate", "-f", "@shop"], "");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.ends_with("5 looked at, 0 refused\n"), "{}", ran.out);
    assert!(!ran.out.contains("warning"), "{}", ran.out);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let ran = policy(&["validate", "-f", "-"], "apiVersion: v1\nkind: NetworkPolicy\n");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("standard input") && ran.err.contains("has no name"), "{}", ran.err);
}
