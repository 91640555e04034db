//! On which nodes policies are in force.

use serde_json::Value;

use crate::run::policy;

#[test]
fn each_node_has_a_line_and_what_is_wrong_another() {
    let ran = policy(&["status", "-f", "@status"], "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "NODE  REVISION  NOT ENFORCED  PROBLEM",
            "n1    41        0             -",
            "n2    40        1             upsert POLICY: the table is full",
            "n1: CiliumNetworkPolicy/shop/next: staged, would deny 12 and allow 3",
            "n2: CiliumNetworkPolicy/shop/db: too many rows",
        ]
    );
}

#[test]
fn some_policies_can_be_asked_for() {
    for name in ["db", "shop/db", "CiliumNetworkPolicy/shop/db"] {
        let ran = policy(&["status", name, "-f", "@status", "-o", "json"], "");
        let status: Value = serde_json::from_str(&ran.out).unwrap();
        let nodes = &status["nodes"];
        assert_eq!(nodes[1]["exceptions"][0]["message"], "too many rows", "{name}");
        assert_eq!(nodes[0]["staged"], serde_json::json!([]), "{name}");
    }
}

#[test]
fn policies_in_the_files_are_said_to_be_in_force_or_not() {
    let ran = policy(&["status", "-f", "@status", "-f", "@status-policies"], "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().map(str::trim_end).take(5).collect();
    assert_eq!(
        lines,
        [
            "POLICY                         VERSION  IN FORCE  NOT ON",
            "NetworkPolicy/shop/web         7        1/2       n2 (in force up to version 0: upsert POLICY: the table is full)",
            "CiliumNetworkPolicy/shop/db    40       1/2       n2 (too many rows)",
            "CiliumNetworkPolicy/shop/next  39       staged    -",
            "",
        ]
    );
    let ran = policy(&["status", "web", "-f", "@status", "-f", "@status-policies", "-o", "json"], "");
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["policies"].as_array().unwrap().len(), 1);
    assert_eq!(status["policies"][0]["in_force"], serde_json::json!(["n1"]));
}

#[test]
fn without_anything_of_agents_it_says_where_to_get_it() {
    let ran = policy(&["status", "-f", "-"], "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("kubectl get nodepolicystatuses"), "{}", ran.err);
}

#[test]
fn what_is_not_enforced_though_it_is_taken_in_is_said() {
    let input = r#"[
        {"apiVersion": "bristle.io/v1alpha1", "kind": "NodePolicyStatus", "metadata": {"name": "n1"},
         "revisions": {"CiliumNetworkPolicy": 9}, "audit": true},
        {"apiVersion": "bristle.io/v1alpha1", "kind": "NodePolicyStatus", "metadata": {"name": "n2"},
         "revisions": {"CiliumNetworkPolicy": 9}, "enforcement": "never"},
        {"apiVersion": "bristle.io/v1alpha1", "kind": "NodePolicyStatus", "metadata": {"name": "n3"},
         "revisions": {"CiliumNetworkPolicy": 9}, "enforcement": "always"},
        {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
         "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "9"},
         "spec": {"endpointSelector": {}, "ingress": [
            {"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}]}]}}
    ]"#;
    let list = format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": {input}}}");
    let ran = policy(&["status", "-f", "-"], &list);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "1/3       n1 (it is only audited there: what it denies passes), n2 (enforcement is off there)",
        "CiliumNetworkPolicy/shop/web: spec.ingress[0].toPorts[0]: it needs a proxy",
        "n1: every policy: it is only audited there",
        "n2: every policy: enforcement is off there",
    ] {
        assert!(ran.out.contains(line), "{line}\n{}", ran.out);
    }
    let ran = policy(&["status", "-f", "-", "-o", "json"], &list);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["policies"][0]["in_force"], serde_json::json!(["n3"]));
    assert_eq!(status["policies"][0]["unenforced"].as_array().unwrap().len(), 1);
}

#[test]
fn what_a_node_has_no_room_to_list_is_not_known() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "bristle.io/v1alpha1", "kind": "NodePolicyStatus", "metadata": {"name": "n1"},
         "revisions": {"NetworkPolicy": 9}, "notEnforced": 2,
         "exceptions": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "db", "message": "too many rows"}]},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
         "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "9"}, "spec": {"podSelector": {}}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
         "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "9"}, "spec": {"podSelector": {}}}
    ]}"#;
    let ran = policy(&["status", "-f", "-", "-o", "json"], list);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["policies"][0]["in_force"], serde_json::json!(["n1"]), "{status}");
    assert_eq!(status["policies"][1]["in_force"], serde_json::json!([]), "{status}");
    let why = status["policies"][1]["not_in_force"]["n1"].as_str().unwrap();
    assert!(why.contains("not known: it names 1 of 2"), "{why}");
}
