//! Who is meant: nodes, pods of the host's network, pods that are not there, addresses.

use sim_oracle::{Cluster, End, Options, OwnNode};

use crate::support::{attempt, check, check_policies, cluster, end, node, pod, policies, policy};

const ISOLATED: &str = "{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress]}";

#[test]
fn a_pod_reaches_itself_and_its_node() {
    let table = [
        ("default/db > default/db tcp:1", true),
        ("default/db > default/db icmp v6", true),
        ("default/db > default/db2 tcp:1", false),
        ("node:node-1 > default/db tcp:1", true),
        ("default/db > node:node-1 tcp:1", true),
        ("node:node-2 > default/db tcp:1", false),
        ("default/db > node:node-2 tcp:1", false),
    ];
    check_policies(&[ISOLATED], &table);
    let mut table = table;
    (table[3].1, table[4].1) = (false, false);
    let options = Options { own_node: OwnNode::Judged, ..Options::default() };
    check(&cluster(options, &policies(&[ISOLATED])), &table);
}

#[test]
fn the_own_node_needs_no_object() {
    let mut cluster = cluster(Options::default(), &policies(&[ISOLATED]));
    cluster.remove("Node", "", "node-1");
    check(&cluster, &[("node:node-1 > default/db tcp:1", true), ("node:node-2 > default/db tcp:1", false)]);
}

#[test]
fn pods_in_the_network_of_their_node_are_the_node() {
    check_policies(
        // It would isolate the pod, and its label would let it in.
        &[
            "{podSelector: {}}",
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}",
        ],
        &[
            ("default/plain > default/host tcp:1", true),
            ("default/frontend > default/db tcp:1", true),
            // On node-2, and db is not.
            ("default/host > default/db tcp:1", false),
            ("default/host > default/db2 tcp:1", true),
        ],
    );
    check_policies(
        &["{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}]}]}"],
        &[
            ("default/host > default/db tcp:1", true),
            ("node:node-2 > default/db tcp:1", true),
            ("default/host > default/db tcp:1 v6", false),
        ],
    );
}

#[test]
fn pods_that_have_ended_or_have_no_address_match_nothing() {
    let open = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    check_policies(
        &[open, "{podSelector: {matchLabels: {role: frontend}}}"],
        &[
            ("default/frontend > default/db tcp:1", true),
            ("default/done > default/db tcp:1", false),
            ("default/pending > default/db tcp:1", false),
            ("default/unheard-of > default/db tcp:1", false),
            // And nothing isolates them.
            ("default/plain > default/frontend tcp:1", false),
            ("default/plain > default/done tcp:1", true),
            ("default/plain > default/pending tcp:1", true),
        ],
    );
    // Where everybody may come, nobody has to be known.
    check_policies(&["{podSelector: {}, ingress: [{}]}"], &[("default/unheard-of > default/db tcp:1", true)]);
}

#[test]
fn an_address_of_one_family_says_nothing_about_the_other() {
    let mut four = pod("default/four", &serde_json::json!({"role": "db"}), "node-1", 40);
    four["status"]["podIPs"] = serde_json::Value::Null;
    let mut objects = policies(&["{podSelector: {matchLabels: {role: db}}}"]);
    objects.push(four);
    check(
        &cluster(Options::default(), &objects),
        &[("default/plain > default/four tcp:1", false), ("default/plain > default/four tcp:1 v6", true)],
    );
}

#[test]
fn blocks_and_families() {
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48', '2001:db8:2::/48']}
  - ipBlock: {cidr: 198.51.100.7/32}
"],
        &[
            ("2001:db8::1 > default/db tcp:1", true),
            ("2001:db8:1::1 > default/db tcp:1", false),
            ("2001:db8:2::1 > default/db tcp:1", false),
            ("2001:db8:3::1 > default/db tcp:1", true),
            ("2001:db9::1 > default/db tcp:1", false),
            ("198.51.100.7 > default/db tcp:1", true),
            ("198.51.100.6 > default/db tcp:1", false),
        ],
    );
    // What one block leaves out another may let in.
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.1.2.0/24}}]
"],
        &[("10.1.2.3 > default/db tcp:1", true), ("10.1.3.3 > default/db tcp:1", false)],
    );
}

#[test]
fn whether_blocks_match_pods_and_nodes_is_an_option() {
    let all = "{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], \
               ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    for (pods, nodes) in [(true, true), (true, false), (false, true), (false, false)] {
        let options = Options { blocks_match_pods: pods, blocks_match_nodes: nodes, ..Options::default() };
        check(
            &cluster(options, &policies(&[all])),
            &[
                ("default/plain > default/db tcp:1", pods),
                ("default/db > default/plain tcp:1", pods),
                ("node:node-2 > default/db tcp:1", nodes),
                ("default/db > default/host tcp:1", nodes),
                ("8.8.8.8 > default/db tcp:1", true),
                ("default/db > 8.8.8.8 tcp:1", true),
            ],
        );
    }
}

#[test]
fn policies_are_of_their_namespace_alone() {
    let mut other = policy("other", "{podSelector: {}}");
    other["metadata"]["namespace"] = "mine".into();
    check(
        &cluster(Options::default(), &[other]),
        &[("default/plain > mine/worker tcp:1", false), ("mine/worker > default/db tcp:1", true)],
    );
}

#[test]
fn a_namespace_that_was_not_seen_has_its_name() {
    let mut cluster = Cluster::new();
    let labels = serde_json::json!({});
    let objects = [
        node("node-1", 1),
        pod("default/db", &labels, "node-1", 1),
        pod("far/client", &labels, "node-1", 2),
        policy(
            "p",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: far}}}]}]}",
        ),
    ];
    objects.iter().for_each(|object| cluster.set(object).unwrap());
    assert!(cluster.judge(&attempt("far/client > default/db tcp:1")).allowed);
    assert!(!cluster.judge(&attempt("default/other > default/db tcp:1")).allowed);
}

#[test]
fn addresses_are_located() {
    let cluster = cluster(Options::default(), &[]);
    for (address, expected) in [
        ("10.244.0.10", "default/db"),
        ("fd00:244::b", "default/db2"),
        ("192.168.0.2", "node:node-2"),
        ("fd00:168::1", "node:node-1"),
        // Of a pod that has finished.
        ("10.244.0.14", "10.244.0.14"),
        ("8.8.8.8", "8.8.8.8"),
    ] {
        assert_eq!(cluster.locate(address.parse().unwrap()), end(expected), "{address}");
    }
    assert_eq!(
        Cluster::new().locate("10.244.0.10".parse().unwrap()),
        End::Outside("10.244.0.10".parse().unwrap())
    );
}
