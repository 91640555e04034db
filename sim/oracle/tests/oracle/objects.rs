//! Objects: which are taken, which are ignored, and what errors say.

use serde_json::{Value, json};
use sim_oracle::{Cluster, Options, OracleError};

use crate::support::{attempt, check, cluster, documents, judge, pod, policies, policy};

fn refused(object: &Value) -> OracleError {
    Cluster::new().set(object).expect_err("it is malformed")
}

/// The spec of a policy, then the field and the problem.
const POLICIES: &[(&str, &str, &str)] = &[
    ("{podSelector: {matchLabels: [a]}}", "spec.podSelector.matchLabels", "must be an object"),
    ("{podSelector: {matchLabels: {a: 1}}}", "spec.podSelector.matchLabels.a", "must be a string"),
    (
        "{podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}",
        "spec.podSelector.matchExpressions[0].operator",
        "\"in\" is none of In, NotIn, Exists, DoesNotExist",
    ),
    (
        "{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}",
        "spec.podSelector.matchExpressions[0].values",
        "must not be empty",
    ),
    (
        "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "spec.podSelector.matchExpressions[0].values",
        "must be empty",
    ),
    (
        "{podSelector: {matchExpressions: [{operator: Exists}]}}",
        "spec.podSelector.matchExpressions[0].key",
        "must be set",
    ),
    ("{policyTypes: [ingress]}", "spec.policyTypes[0]", "\"ingress\" is none of Ingress, Egress"),
    ("{ingress: {}}", "spec.ingress", "must be a list"),
    ("{ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]", "must have a selector or an ipBlock"),
    (
        "{egress: [{}, {to: [{ipBlock: {cidr: 1.0.0.0/8}, podSelector: {}}]}]}",
        "spec.egress[1].to[0].ipBlock",
        "must not stand beside a selector",
    ),
    ("{ingress: [{from: [{ipBlock: {}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr", "must be set"),
    (
        "{ingress: [{from: [{ipBlock: {cidr: 1.0.0.0}}]}]}",
        "spec.ingress[0].from[0].ipBlock.cidr",
        "\"1.0.0.0\": invalid IP address syntax",
    ),
    (
        "{ingress: [{from: [{ipBlock: {cidr: 1.0.0.0/8, except: [2.0.0.0/16]}}]}]}",
        "spec.ingress[0].from[0].ipBlock.except",
        "2.0.0.0/16 is not a part of 1.0.0.0/8",
    ),
    (
        "{ingress: [{from: [{ipBlock: {cidr: 1.0.0.0/8, except: [1.0.0.0/8]}}]}]}",
        "spec.ingress[0].from[0].ipBlock.except",
        "1.0.0.0/8 is not a part of 1.0.0.0/8",
    ),
    (
        "{ingress: [{ports: [{port: 0}]}]}",
        "spec.ingress[0].ports[0].port",
        "must be a whole number from 1 to 65535",
    ),
    (
        "{ingress: [{ports: [{port: 65536}]}]}",
        "spec.ingress[0].ports[0].port",
        "must be a whole number from 1 to 65535",
    ),
    (
        "{ingress: [{ports: [{protocol: tcp}]}]}",
        "spec.ingress[0].ports[0].protocol",
        "\"tcp\" is none of TCP, UDP, SCTP",
    ),
    (
        "{ingress: [{ports: [{protocol: ICMP}]}]}",
        "spec.ingress[0].ports[0].protocol",
        "\"ICMP\" is none of TCP, UDP, SCTP",
    ),
    (
        "{ingress: [{ports: [{endPort: 5}]}]}",
        "spec.ingress[0].ports[0].endPort",
        "must not stand without port",
    ),
    (
        "{ingress: [{ports: [{port: a, endPort: 5}]}]}",
        "spec.ingress[0].ports[0].endPort",
        "must not stand beside a named port",
    ),
    (
        "{ingress: [{ports: [{port: 6, endPort: 5}]}]}",
        "spec.ingress[0].ports[0].endPort",
        "must not be below port",
    ),
];

#[test]
fn malformed_policies_are_named() {
    for (spec, field, problem) in POLICIES {
        let error = refused(&policy("p", spec));
        assert_eq!((error.field.as_str(), error.problem.as_str()), (*field, *problem), "{spec}");
        assert_eq!(error.to_string(), format!("NetworkPolicy default/p: {field}: {problem}"));
    }
}

#[test]
fn other_malformed_objects_are_named() {
    let cases = "
{apiVersion: v1, kind: Pod, metadata: {name: a}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x}}
---
{apiVersion: v1, kind: Node}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: a}, spec: {hostNetwork: 'yes'}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: a}, status: {podIPs: [{ip: 10.0.0.256}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: a}, spec: {containers: [{ports: [{name: b}]}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: x}}
---
{apiVersion: v1, kind: Node, metadata: {name: a}, status: {addresses: [{type: InternalIP}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: x, name: a}, spec: {clusterIP: 10.0.0.1, ports: [{}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: x, name: a}, spec: {type: Cluster}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: x, name: a}, spec: {clusterIP: 10.0.0.1, externalTrafficPolicy: local}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: x, name: a}, spec: {clusterIP: 10.0.0.1, ports: [{port: 1, nodePort: 70000}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: x, name: a}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: x, name: a}, addressType: IPv4, endpoints: [{addresses: []}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: x, name: a}, addressType: IPv4, endpoints: [{addresses: ['::1']}]}
";
    let expected = [
        "Pod a: metadata.namespace",
        "Pod x/: metadata.name",
        "Node: metadata.name",
        "Pod x/a: spec.hostNetwork",
        "Pod x/a: status.podIPs[0].ip",
        "Pod x/a: spec.containers[0].ports[0].containerPort",
        "Namespace a: metadata.labels",
        "Node a: status.addresses[0].address",
        "Service x/a: spec.ports[0].port",
        "Service x/a: spec.type",
        "Service x/a: spec.externalTrafficPolicy",
        "Service x/a: spec.ports[0].nodePort",
        "EndpointSlice x/a: addressType",
        "EndpointSlice x/a: endpoints[0].addresses",
        "EndpointSlice x/a: endpoints[0].addresses",
    ];
    let errors: Vec<String> = documents(cases)
        .iter()
        .map(refused)
        .map(|error| format!("{}: {}", error.object, error.field))
        .collect();
    assert_eq!(errors, expected);
}

#[test]
fn other_kinds_are_ignored() {
    let mut cluster = cluster(Options::default(), &[]);
    for (version, kind) in [
        ("v1", "ConfigMap"),
        ("cilium.io/v2", "CiliumEndpoint"),
        ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ("serving.knative.dev/v1", "Service"),
    ] {
        let object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {"namespace": "default", "name": "x"}, "spec": {"ingress": "?", "ports": "?"},
        });
        assert_eq!(cluster.set(&object), Ok(()), "{version} {kind}");
    }
    assert_eq!(cluster.set(&json!("text")), Ok(()));
    check(&cluster, &[("mine/worker > default/db tcp:1", true)]);
}

#[test]
fn the_latest_of_an_object_counts() {
    let question = "mine/worker > default/db tcp:80";
    let mut cluster = cluster(Options::default(), &policies(&["{podSelector: {}}"]));
    assert!(!judge(&cluster, question).allowed);
    cluster.set(&policy("policy-0", "{podSelector: {}, ingress: [{}]}")).unwrap();
    assert!(judge(&cluster, question).allowed);
    cluster.set(&policy("policy-0", "{podSelector: {}}")).unwrap();
    cluster.set(&policy("policy-0", "{ingress: 5}")).unwrap_err();
    assert!(!judge(&cluster, question).allowed, "an error changes nothing");
    cluster.remove("NetworkPolicy", "other", "policy-0");
    cluster.remove("Policy", "default", "policy-0");
    assert!(!judge(&cluster, question).allowed, "another object was removed");
    cluster.remove("NetworkPolicy", "default", "policy-0");
    assert!(judge(&cluster, question).allowed);
}

#[test]
fn labels_may_change_under_a_policy() {
    let spec = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {project: myproject}}}]}]}";
    let mut cluster = cluster(Options::default(), &policies(&[spec]));
    let table = |allowed| [("mine/worker > default/db tcp:80", allowed)];
    check(&cluster, &table(true));
    cluster.remove("Namespace", "", "mine");
    check(&cluster, &table(false));
    cluster.set(&pod("default/db", &json!({}), "node-1", 10)).unwrap();
    check(&cluster, &table(true));
    cluster.remove("Pod", "default", "db");
    cluster.remove("Node", "", "node-1");
    assert!(cluster.judge(&attempt("mine/worker > default/db tcp:80")).allowed);
}
