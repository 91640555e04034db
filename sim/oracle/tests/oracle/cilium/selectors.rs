//! Sources of keys, namespaces that are added, and labels that are no part of an identity.

use rstest::rstest;
use serde_json::json;
use sim_oracle::Options;

use crate::support::{ccnp, check, cluster, cnp, judge, pod};

/// Whom a selector in `fromEndpoints` of a policy of namespace `default` lets in to `default/db`.
#[rstest]
#[case::all_of_the_namespace("{}", &["default/frontend", "default/plain"])]
#[case::any("{matchLabels: {role: frontend}}", &["default/frontend"])]
#[case::any_by_name("{matchLabels: {'any:role': frontend}}", &["default/frontend"])]
#[case::from_kubernetes("{matchLabels: {'k8s:role': frontend}}", &["default/frontend"])]
#[case::from_elsewhere("{matchLabels: {'container:role': frontend}}", &[])]
#[case::another_namespace(
    "{matchLabels: {'k8s:io.kubernetes.pod.namespace': alice}}",
    &["alice/client", "alice/cron"]
)]
#[case::another_namespace_without_source(
    "{matchLabels: {io.kubernetes.pod.namespace: mine, role: frontend}}",
    &["mine/frontend"]
)]
#[case::some_namespaces(
    "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [mine, default]}, \
       {key: role, operator: Exists}]}",
    &["default/frontend", "mine/worker", "mine/frontend"]
)]
#[case::every_namespace(
    "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}",
    &["default/frontend", "default/plain", "mine/worker", "mine/frontend", "alice/client", "alice/cron"]
)]
#[case::namespaces_by_their_labels(
    "{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.project': myproject}}",
    &["mine/worker", "mine/frontend"]
)]
#[case::namespaces_by_their_names(
    "{matchLabels: {io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name: alice}}",
    &["alice/client", "alice/cron"]
)]
#[case::missing_is_not_in(
    "{matchExpressions: [{key: role, operator: NotIn, values: [frontend]}]}",
    &["default/plain"]
)]
#[case::missing("{matchExpressions: [{key: role, operator: DoesNotExist}]}", &["default/plain"])]
#[case::the_own_node("{matchLabels: {'reserved:host': ''}}", &[])]
#[case::other_nodes("{matchLabels: {'reserved:remote-node': ''}}", &["node:node-2", "default/host"])]
#[case::the_world("{matchExpressions: [{key: 'reserved:world', operator: Exists}]}", &["10.0.0.1"])]
#[case::reserved_keys_are_of_no_namespace(
    "{matchExpressions: [{key: 'reserved:remote-node', operator: DoesNotExist}, {key: role, operator: DoesNotExist}]}",
    &["default/plain", "10.0.0.1"]
)]
#[case::cluster("{matchLabels: {'k8s:io.cilium.k8s.policy.cluster': default, role: frontend}}", &["default/frontend"])]
#[case::another_cluster("{matchLabels: {'k8s:io.cilium.k8s.policy.cluster': far}}", &[])]
fn peers_of_a_policy_of_a_namespace(#[case] selector: &str, #[case] allowed: &[&str]) {
    let spec = format!(
        "{{endpointSelector: {{matchLabels: {{role: db}}}}, ingress: [{{fromEndpoints: [{selector}]}}]}}"
    );
    check_ingress(&cluster(Options::default(), &[cnp("p", &spec)]), allowed);
}

/// The same in a policy of the cluster.
#[rstest]
#[case::all_pods(
    "{}",
    &["default/frontend", "default/plain", "mine/worker", "mine/frontend", "alice/client", "alice/cron"]
)]
#[case::all_with_the_label("{matchLabels: {role: frontend}}", &["default/frontend", "mine/frontend"])]
#[case::one_namespace("{matchLabels: {'k8s:io.kubernetes.pod.namespace': mine}}", &["mine/worker", "mine/frontend"])]
#[case::pods_without_the_label("{matchExpressions: [{key: role, operator: DoesNotExist}]}", &["default/plain"])]
#[case::other_nodes("{matchLabels: {'reserved:remote-node': ''}}", &["node:node-2", "default/host"])]
#[case::the_world("{matchExpressions: [{key: 'reserved:world', operator: Exists}]}", &["10.0.0.1"])]
#[case::reserved_keys_are_of_no_namespace(
    "{matchExpressions: [{key: 'reserved:remote-node', operator: DoesNotExist}, {key: role, operator: DoesNotExist}]}",
    &["default/plain", "10.0.0.1"]
)]
#[case::labels_of_nodes_are_of_no_pod("{matchExpressions: [{key: 'node:zone', operator: Exists}]}", &[])]
fn peers_of_a_policy_of_the_cluster(#[case] selector: &str, #[case] allowed: &[&str]) {
    let spec = format!(
        "{{endpointSelector: {{matchLabels: {{role: db}}}}, ingress: [{{fromEndpoints: [{selector}]}}]}}"
    );
    check_ingress(&cluster(Options::default(), &[ccnp("p", &spec)]), allowed);
}

/// Nobody but these reaches `default/db`, apart from its own node.
fn check_ingress(cluster: &sim_oracle::Cluster, allowed: &[&str]) {
    let everybody = [
        "default/frontend",
        "default/plain",
        "mine/worker",
        "mine/frontend",
        "alice/client",
        "alice/cron",
        "node:node-2",
        "default/host",
        "10.0.0.1",
    ];
    let found: Vec<&str> = everybody
        .into_iter()
        .filter(|from| judge(cluster, &format!("{from} > default/db tcp:1")).allowed)
        .collect();
    assert_eq!(found, allowed);
}

#[test]
fn a_policy_of_a_namespace_is_about_its_own_pods_alone() {
    let spec = "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': alice}}, ingress: [{}]}";
    check(
        &cluster(Options::default(), &[cnp("p", spec)]),
        &[("default/plain > alice/client tcp:1", true), ("alice/client > default/plain tcp:1", false)],
    );
    check(
        &cluster(Options::default(), &[ccnp("p", spec)]),
        &[("default/plain > alice/client tcp:1", false), ("alice/client > default/plain tcp:1", true)],
    );
}

#[test]
fn expressions_about_other_namespaces_leave_nobody() {
    let spec = "{endpointSelector: {matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [alice]}]}, \
                 ingress: [{}]}";
    check(
        &cluster(Options::default(), &[cnp("p", spec)]),
        &[("default/plain > alice/client tcp:1", true), ("alice/client > default/plain tcp:1", true)],
    );
}

/// Labels that are no part of an identity cannot be selected, whatever they are on.
#[rstest]
#[case("role", true)]
#[case("app.kubernetes.io/name", true)]
#[case("example.com/team", true)]
#[case("kubernetes.io/os", false)]
#[case("io.kubernetes.something", false)]
#[case("k8s.io/cluster", false)]
#[case("pod-template-hash", false)]
#[case("controller-revision-hash", false)]
#[case("statefulset.kubernetes.io/pod-name", false)]
#[case("apps.kubernetes.io/pod-index", false)]
#[case("topology.kubernetes.io/zone", false)]
#[case("node.beta.kubernetes.io/x", false)]
#[case("io.cilium.k8s.policy.serviceaccount", false)]
fn labels_of_identities(#[case] key: &str, #[case] is_relevant: bool) {
    let spec = format!(
        "{{endpointSelector: {{matchLabels: {{role: db}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'{key}': v}}}}]}}]}}"
    );
    let labelled = pod("default/labelled", &json!({key: "v"}), "node-2", 50);
    let net = crate::support::policy(
        "net",
        &format!(
            "{{podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{'{key}': v}}}}}}]}}]}}"
        ),
    );
    let attempt = "default/labelled > default/db tcp:1";
    check(&cluster(Options::default(), &[cnp("p", &spec), labelled.clone()]), &[(attempt, is_relevant)]);
    // Kubernetes knows of no such thing; implementations with identities cannot do otherwise.
    check(&cluster(Options::default(), &[net.clone(), labelled.clone()]), &[(attempt, true)]);
    let options = Options { identity_labels_alone: true, ..Options::default() };
    check(&cluster(options, &[net, labelled]), &[(attempt, is_relevant)]);
}

#[test]
fn service_accounts_are_labels() {
    let spec = "{endpointSelector: {matchLabels: {role: db}}, \
                 ingress: [{fromEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.policy.serviceaccount': robot}}]}]}";
    let mut robot = pod("default/robot", &json!({}), "node-2", 50);
    robot["spec"]["serviceAccountName"] = json!("robot");
    // It cannot give itself another's.
    let liar = pod("default/liar", &json!({"io.cilium.k8s.policy.serviceaccount": "robot"}), "node-2", 51);
    check(
        &cluster(Options::default(), &[cnp("p", spec), robot, liar]),
        &[("default/robot > default/db tcp:1", true), ("default/liar > default/db tcp:1", false)],
    );
}
