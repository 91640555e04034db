//! Peers other than endpoints.

use rstest::rstest;
use serde_json::{Value, json};
use sim_oracle::Options;

use crate::support::{ccnp, check, cluster, cnp, documents, judge};

/// A group of two networks, and a service behind which nobody of the cluster is.
const OBJECTS: &str = "
apiVersion: cilium.io/v2
kind: CiliumCIDRGroup
metadata: {name: partners, labels: {trust: low}}
spec: {externalCIDRs: [10.1.0.0/16, '2001:db8:1::/48']}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: default, labels: {tier: data}}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far-1, namespace: default, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
endpoints: [{addresses: [10.5.0.5]}, {addresses: [10.244.0.13]}]
ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: mine, labels: {tier: front}}
spec: {clusterIP: 10.96.0.7, selector: {role: frontend}, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [192.168.0.2]}, {addresses: [10.7.0.7]}]
ports: [{port: 6443}]
";

const EVERYBODY: &[&str] = &[
    "default/plain",
    "mine/frontend",
    "alice/client",
    "node:node-1",
    "node:node-2",
    "10.0.0.1",
    "10.1.1.1",
    "10.1.2.2",
    "10.5.0.5",
    "10.7.0.7",
    "2001:db8:1::1",
];

fn objects(policies: &[Value]) -> Vec<Value> {
    documents(OBJECTS).into_iter().chain(policies.iter().cloned()).collect()
}

/// Whom `default/db`, on node-1, may reach by an egress rule with these peers. Its own node is judged as everybody else.
#[rstest]
#[case::all("toEntities: [all]", EVERYBODY)]
#[case::world("toEntities: [world]", &["10.0.0.1", "10.1.1.1", "10.1.2.2", "10.5.0.5", "10.7.0.7", "2001:db8:1::1"])]
#[case::cluster("toEntities: [cluster]", &["default/plain", "mine/frontend", "alice/client", "node:node-1", "node:node-2", "10.7.0.7"])]
#[case::host("toEntities: [host]", &["node:node-1"])]
#[case::remote_node("toEntities: [remote-node]", &["node:node-2"])]
#[case::two_entities("toEntities: [remote-node, host]", &["node:node-1", "node:node-2"])]
#[case::api_server("toEntities: [kube-apiserver]", &["node:node-2", "10.7.0.7"])]
#[case::none("toEntities: [none, health, ingress, init, unmanaged]", &[])]
#[case::cidr("toCIDR: [10.1.0.0/16]", &["10.1.1.1", "10.1.2.2"])]
#[case::cidr_of_all("toCIDR: [0.0.0.0/0]", &["10.0.0.1", "10.1.1.1", "10.1.2.2", "10.5.0.5", "10.7.0.7"])]
#[case::address("toCIDR: [10.1.1.1]", &["10.1.1.1"])]
#[case::bits_behind_the_prefix("toCIDR: [10.1.1.1/16]", &["10.1.1.1", "10.1.2.2"])]
#[case::addresses_of_pods_and_nodes("toCIDR: [10.244.0.0/16, 192.168.0.0/16]", &[])]
#[case::except("toCIDRSet: [{cidr: 10.1.0.0/16, except: [10.1.1.0/24]}]", &["10.1.2.2"])]
#[case::group("toCIDRSet: [{cidrGroupRef: partners}]", &["10.1.1.1", "10.1.2.2", "2001:db8:1::1"])]
#[case::group_and_except("toCIDRSet: [{cidrGroupRef: partners, except: [10.1.1.0/24]}]", &["10.1.2.2", "2001:db8:1::1"])]
#[case::groups("toCIDRSet: [{cidrGroupSelector: {matchLabels: {trust: low}}}]", &["10.1.1.1", "10.1.2.2", "2001:db8:1::1"])]
#[case::other_groups("toCIDRSet: [{cidrGroupSelector: {matchLabels: {trust: high}}}]", &[])]
#[case::no_such_group("toCIDRSet: [{cidrGroupRef: nobody}]", &[])]
#[case::service_without_selector("toServices: [{k8sService: {serviceName: far, namespace: default}}]", &["10.5.0.5"])]
#[case::service_with_selector("toServices: [{k8sService: {serviceName: front, namespace: mine}}]", &["mine/frontend"])]
#[case::services_by_labels("toServices: [{k8sServiceSelector: {selector: {matchLabels: {tier: front}}, namespace: mine}}]", &["mine/frontend"])]
#[case::services_of_another_namespace("toServices: [{k8sServiceSelector: {selector: {}, namespace: alice}}]", &[])]
#[case::services_of_any_namespace("toServices: [{k8sServiceSelector: {selector: {matchLabels: {tier: front}}}}]", &["mine/frontend"])]
#[case::service_of_any_namespace("toServices: [{k8sService: {serviceName: front}}]", &["mine/frontend"])]
#[case::names("toFQDNs: [{matchName: example.com}, {matchPattern: '*'}]", &[])]
#[case::clouds("toGroups: [{aws: {region: moon}}]", &[])]
#[case::nodes("toNodes: [{}]", &["node:node-2"])]
#[case::nodes_by_labels("toNodes: [{matchLabels: {zone: b}}]", &["node:node-2"])]
#[case::no_such_nodes("toNodes: [{matchLabels: {zone: a}}]", &[])]
fn egress_peers(#[case] peers: &str, #[case] allowed: &[&str]) {
    let spec = format!("{{endpointSelector: {{matchLabels: {{role: db}}}}, egress: [{{{peers}}}]}}");
    let mut node = crate::support::node("node-2", 2);
    node["metadata"]["labels"] = json!({"zone": "b"});
    let cluster = cluster(Options::by_identity(), &objects(&[cnp("p", &spec), node]));
    let found: Vec<&str> = EVERYBODY
        .iter()
        .copied()
        .filter(|to| judge(&cluster, &format!("default/db > {to} tcp:80")).allowed)
        .collect();
    assert_eq!(found, allowed);
}

#[test]
fn that_cidrs_match_nodes_is_an_option() {
    let spec = "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromCIDR: [0.0.0.0/0]}]}";
    for cidrs_match_nodes in [false, true] {
        let options = Options { cidrs_match_nodes, ..Options::by_identity() };
        check(
            &cluster(options, &[cnp("p", spec)]),
            &[
                ("node:node-2 > default/db tcp:1", cidrs_match_nodes),
                ("default/plain > default/db tcp:1", false),
                ("10.0.0.1 > default/db tcp:1", true),
            ],
        );
    }
}

#[test]
fn a_group_is_what_it_is_now() {
    let spec =
        "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromCIDRSet: [{cidrGroupRef: partners}]}]}";
    let mut cluster = cluster(Options::default(), &objects(&[cnp("p", spec)]));
    check(&cluster, &[("10.1.1.1 > default/db tcp:1", true), ("10.2.1.1 > default/db tcp:1", false)]);
    let mut group = documents(OBJECTS).remove(0);
    group["spec"]["externalCIDRs"] = json!(["10.2.0.0/16"]);
    cluster.set(&group).unwrap();
    check(&cluster, &[("10.1.1.1 > default/db tcp:1", false), ("10.2.1.1 > default/db tcp:1", true)]);
    group["spec"]["externalCIDRs"] = json!(["10.3.0.0/16", "nonsense"]);
    assert!(cluster.set(&group).is_err());
    check(&cluster, &[("10.2.1.1 > default/db tcp:1", true), ("10.3.1.1 > default/db tcp:1", false)]);
    cluster.remove("CiliumCIDRGroup", "", "partners");
    check(&cluster, &[("10.2.1.1 > default/db tcp:1", false)]);
}

#[test]
fn the_own_node_always_reaches_its_pods() {
    let objects = [cnp("p", "{endpointSelector: {}, ingress: [{}], egress: [{}]}")];
    check(
        &cluster(Options::by_identity(), &objects),
        &[
            ("node:node-1 > default/db tcp:1", true),
            ("node:node-2 > default/db tcp:1", false),
            ("default/db > node:node-1 tcp:1", false),
        ],
    );
    check(
        &cluster(Options::default(), &objects),
        &[("node:node-1 > default/db tcp:1", true), ("default/db > node:node-1 tcp:1", true)],
    );
}

#[test]
fn host_policies_judge_nodes_if_they_are_in_force() {
    let mut node = crate::support::node("node-2", 2);
    node["metadata"]["labels"] = json!({"zone": "b"});
    let policy = ccnp(
        "hosts",
        "{nodeSelector: {matchLabels: {zone: b}}, \
          ingress: [{fromEntities: [cluster]}, {toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]}",
    );
    for host_policies in [false, true] {
        let options = Options { host_policies, ..Options::by_identity() };
        check(
            &cluster(options, &[node.clone(), policy.clone()]),
            &[
                ("10.0.0.1 > node:node-2 tcp:22", true),
                ("10.0.0.1 > node:node-2 tcp:80", !host_policies),
                ("10.0.0.1 > default/host tcp:80", !host_policies),
                ("node:node-1 > node:node-2 tcp:80", true),
                ("default/db > node:node-2 tcp:80", true),
                ("10.0.0.1 > node:node-1 tcp:80", true),
                ("10.0.0.1 > default/db tcp:80", true),
                ("node:node-2 > 10.0.0.1 tcp:80", true),
            ],
        );
    }
}
