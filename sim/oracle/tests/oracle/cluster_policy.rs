//! ClusterNetworkPolicy, sentence by sentence.

use rstest::rstest;
use serde_json::json;
use sim_oracle::{Options, PolicyKind, PolicyName, Reason, RuleName};

use crate::support::{check, cluster, cluster_policy, cnp, judge, policy};

const ALL: &str = "subject: {namespaces: {}}";
/// A NetworkPolicy that lets `default/frontend` in to `default/db`.
const NET: &str = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}";

/// What becomes of `default/frontend` and `default/plain` on the way to `default/db`, and of `mine/worker` on the way to `mine/frontend`, with NET.
#[rstest]
#[case::accept_is_final("tier: Admin, priority: 1", "{action: Accept, from: [{namespaces: {}}]}", [true, true, true])]
#[case::deny_is_final("tier: Admin, priority: 1", "{action: Deny, from: [{namespaces: {}}]}", [false, false, false])]
#[case::pass_leaves_it_to_others("tier: Admin, priority: 1", "{action: Pass, from: [{namespaces: {}}]}", [true, false, true])]
#[case::the_first_rule_wins(
    "tier: Admin, priority: 1",
    "{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}",
    [true, true, true]
)]
#[case::pass_skips_the_rest_of_the_tier(
    "tier: Admin, priority: 1",
    "{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}",
    [true, false, true]
)]
#[case::what_does_not_match_goes_on(
    "tier: Admin, priority: 1",
    "{action: Deny, from: [{namespaces: {matchLabels: {project: myproject}}}]}",
    [true, false, false]
)]
#[case::baseline_comes_last("tier: Baseline, priority: 1", "{action: Deny, from: [{namespaces: {}}]}", [true, false, false])]
#[case::baseline_cannot_open_what_is_isolated("tier: Baseline, priority: 1", "{action: Accept, from: [{namespaces: {}}]}", [true, false, true])]
#[case::no_rules_do_nothing("tier: Admin, priority: 1", "", [true, false, true])]
fn tiers_and_actions(#[case] place: &str, #[case] rules: &str, #[case] expected: [bool; 3]) {
    let spec = format!("{{{place}, {ALL}, ingress: [{rules}]}}");
    check(
        &cluster(Options::default(), &[policy("net", NET), cluster_policy("p", &spec)]),
        &[
            ("default/frontend > default/db tcp:1", expected[0]),
            ("default/plain > default/db tcp:1", expected[1]),
            ("mine/worker > mine/frontend tcp:1", expected[2]),
        ],
    );
}

#[test]
fn lower_priorities_come_first_and_then_names() {
    let with = |name: &str, priority: u32, action: &str| {
        cluster_policy(
            name,
            &format!(
                "{{tier: Admin, priority: {priority}, {ALL}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}"
            ),
        )
    };
    let attempt = "default/plain > default/db tcp:1";
    let mut cluster = cluster(Options::default(), &[with("a", 10, "Accept"), with("b", 9, "Deny")]);
    check(&cluster, &[(attempt, false)]);
    // The place of a policy changes with its priority.
    cluster.set(&with("b", 11, "Deny")).unwrap();
    check(&cluster, &[(attempt, true)]);
    cluster.set(&with("b", 10, "Deny")).unwrap();
    check(&cluster, &[(attempt, true)]);
    cluster.set(&with("0", 10, "Deny")).unwrap();
    check(&cluster, &[(attempt, false)]);
    cluster.remove("ClusterNetworkPolicy", "", "0");
    check(&cluster, &[(attempt, true)]);
}

#[test]
fn there_is_no_isolation() {
    let spec = format!(
        "{{tier: Admin, priority: 1, {ALL}, ingress: [{{action: Accept, from: [{{namespaces: {{matchLabels: {{user: alice}}}}}}]}}]}}"
    );
    check(
        &cluster(Options::default(), &[cluster_policy("p", &spec)]),
        &[
            ("alice/client > default/db tcp:1", true),
            ("default/plain > default/db tcp:1", true),
            ("10.0.0.1 > default/db tcp:1", true),
        ],
    );
}

/// Whom `default/db` cannot reach any more.
#[rstest]
#[case::namespaces("{namespaces: {matchLabels: {project: myproject}}}", &["mine/worker", "mine/frontend"])]
#[case::pods(
    "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: frontend}}}}",
    &["default/frontend", "mine/frontend"]
)]
#[case::pods_of_all_namespaces("{pods: {podSelector: {matchLabels: {role: worker}}}}", &["mine/worker"])]
#[case::all_pods("{namespaces: {}}", &["default/frontend", "default/plain", "mine/worker", "mine/frontend"])]
#[case::all_nodes("{nodes: {}}", &["node:node-1", "node:node-2", "default/host"])]
#[case::nodes("{nodes: {matchLabels: {zone: b}}}", &["node:node-2", "default/host"])]
#[case::networks("{networks: [10.1.0.0/16, '2001:db8::/32']}", &["10.1.1.1", "2001:db8::1"])]
#[case::what_is_not_known_denies_all(
    "{planets: [mars]}",
    &["default/frontend", "default/plain", "mine/worker", "mine/frontend", "node:node-1", "node:node-2", "default/host",
      "10.0.0.1", "10.1.1.1", "2001:db8::1"]
)]
fn egress_peers(#[case] peer: &str, #[case] denied: &[&str]) {
    let everybody = [
        "default/frontend",
        "default/plain",
        "mine/worker",
        "mine/frontend",
        "node:node-1",
        "node:node-2",
        "default/host",
        "10.0.0.1",
        "10.1.1.1",
        "2001:db8::1",
    ];
    let spec = format!(
        "{{tier: Baseline, priority: 0, subject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{role: db}}}}}}}}, \
           egress: [{{action: Deny, to: [{peer}]}}]}}"
    );
    let mut node = crate::support::node("node-2", 2);
    node["metadata"]["labels"] = json!({"zone": "b"});
    let cluster = cluster(Options::by_identity(), &[cluster_policy("p", &spec), node]);
    let found: Vec<&str> = everybody
        .into_iter()
        .filter(|to| !judge(&cluster, &format!("default/db > {to} tcp:1")).allowed)
        .collect();
    assert_eq!(found, denied);
}

#[test]
fn networks_match_pods_and_may_match_nodes() {
    let spec = format!(
        "{{tier: Admin, priority: 1, {ALL}, egress: [{{action: Deny, to: [{{networks: [0.0.0.0/0]}}]}}]}}"
    );
    let table = |of_nodes: bool| {
        [
            ("default/db > default/plain tcp:1", false),
            ("default/db > default/plain tcp:1 v6", true),
            ("default/db > node:node-2 tcp:1", of_nodes),
            ("default/db > 10.0.0.1 tcp:1", false),
        ]
    };
    check(&cluster(Options::default(), &[cluster_policy("p", &spec)]), &table(false));
    check(&cluster(Options::by_identity(), &[cluster_policy("p", &spec)]), &table(true));
}

/// Which of the traffic to `default/db`, whose ports `client` (TCP 6379) and `dns` (UDP 53) have names, is denied.
#[rstest]
#[case::number("{tcp: {destinationPort: {number: 80}}}", &["tcp:80"])]
#[case::range("{tcp: {destinationPort: {range: {start: 80, end: 81}}}}", &["tcp:80", "tcp:81"])]
#[case::udp("{udp: {destinationPort: {number: 53}}}", &["udp:53"])]
#[case::sctp("{sctp: {destinationPort: {number: 80}}}", &["sctp:80"])]
#[case::name("{destinationNamedPort: client}", &["tcp:6379"])]
#[case::name_of_udp("{destinationNamedPort: dns}", &["udp:53"])]
#[case::several("{tcp: {destinationPort: {number: 80}}}, {destinationNamedPort: dns}", &["tcp:80", "udp:53"])]
fn traffic(#[case] protocols: &str, #[case] denied: &[&str]) {
    let spec = format!(
        "{{tier: Admin, priority: 1, {ALL}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{protocols}]}}]}}"
    );
    let cluster = cluster(Options::default(), &[cluster_policy("p", &spec)]);
    let all = ["tcp:80", "tcp:81", "tcp:6379", "udp:53", "udp:80", "sctp:80", "icmp:8"];
    let found: Vec<&str> = all
        .into_iter()
        .filter(|what| !judge(&cluster, &format!("default/frontend > default/db {what}")).allowed)
        .collect();
    assert_eq!(found, denied);
}

#[test]
fn unknown_peers_accept_nothing_and_pass_nothing() {
    let with = |action: &str, peer: &str| {
        format!(
            "{{tier: Admin, priority: 1, {ALL}, egress: [{{action: {action}, to: [{peer}, {{namespaces: {{}}}}]}}]}}"
        )
    };
    let attempt = "default/plain > default/frontend tcp:1";
    let isolated = policy("net", "{podSelector: {}, policyTypes: [Egress]}");
    for (action, peer, expected) in [
        ("Accept", "{namespaces: {}}", true),
        ("Accept", "{}", false),
        ("Accept", "{domainNames: [example.com]}", false),
        ("Pass", "{}", false),
        ("Deny", "{}", false),
    ] {
        check(
            &cluster(Options::default(), &[isolated.clone(), cluster_policy("p", &with(action, peer))]),
            &[(attempt, expected)],
        );
    }
    let cluster = cluster(Options::default(), &[cluster_policy("p", &with("Pass", "{}"))]);
    check(&cluster, &[(attempt, false), ("default/plain > 10.0.0.1 tcp:1", false)]);
}

#[test]
fn pods_in_the_network_of_their_node_are_no_subjects_and_no_pods_to_peers() {
    let spec = format!(
        "{{tier: Admin, priority: 1, {ALL}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}], egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]}}"
    );
    check(
        &cluster(Options::by_identity(), &[cluster_policy("p", &spec)]),
        &[
            ("default/host > default/db tcp:1", true),
            ("default/db > default/host tcp:1", true),
            ("default/host > 10.0.0.1 tcp:1", true),
            ("default/db > default/plain tcp:1", false),
            ("default/db > default/db tcp:1", true),
        ],
    );
}

#[test]
fn reasons_name_what_passed_and_what_decided() {
    let admin = format!(
        "{{tier: Admin, priority: 1, {ALL}, ingress: [{{action: Pass, from: [{{namespaces: {{}}}}]}}]}}"
    );
    let base = format!(
        "{{tier: Baseline, priority: 1, {ALL}, ingress: [{{action: Pass, from: [{{namespaces: {{matchLabels: {{user: alice}}}}}}]}}, {{action: Deny, from: [{{namespaces: {{}}}}]}}]}}"
    );
    let open = cnp(
        "open",
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingress: [{fromEndpoints: [{matchLabels: {role: frontend}}]}]}",
    );
    let cluster =
        cluster(Options::default(), &[cluster_policy("admin", &admin), cluster_policy("base", &base), open]);
    check(
        &cluster,
        &[
            ("default/frontend > default/db tcp:1", true),
            ("default/plain > default/db tcp:1", false),
            ("alice/client > default/db tcp:1", true),
        ],
    );
    let rule = |name: &str, index: usize| RuleName {
        policy: PolicyName {
            kind: PolicyKind::ClusterNetworkPolicy,
            namespace: String::new(),
            name: name.into(),
        },
        spec: 0,
        index,
    };
    let because = |text: &str| judge(&cluster, text).why.remove(1);
    let plain = because("default/plain > default/db tcp:1");
    assert_eq!((plain.passed_by, plain.reason), (vec![rule("admin", 0)], Reason::Denied(rule("base", 1))));
    let client = because("alice/client > default/db tcp:1");
    assert_eq!(client.passed_by, [rule("admin", 0), rule("base", 0)]);
    assert_eq!(client.reason, Reason::NotIsolated);
}

#[rstest]
#[case::no_tier("{priority: 1, subject: {namespaces: {}}}", "spec.tier")]
#[case::no_priority("{tier: Admin, subject: {namespaces: {}}}", "spec.priority")]
#[case::priority_too_high("{tier: Admin, priority: 1001, subject: {namespaces: {}}}", "spec.priority")]
#[case::no_subject("{tier: Admin, priority: 1}", "spec.subject")]
#[case::two_subjects(
    "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}",
    "spec.subject.pods"
)]
#[case::no_pod_selector(
    "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}}}}",
    "spec.subject.pods.podSelector"
)]
#[case::no_action(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{from: [{namespaces: {}}]}]}",
    "spec.ingress[0].action"
)]
#[case::no_peers(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: []}]}",
    "spec.ingress[0].from"
)]
#[case::two_in_one_peer(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}, networks: [10.0.0.0/8]}]}]}",
    "spec.egress[0].to[0].networks"
)]
#[case::no_cidr(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [all]}]}]}",
    "spec.egress[0].to[0].networks[0]"
)]
#[case::empty_protocols(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: []}]}",
    "spec.ingress[0].protocols"
)]
#[case::protocol_without_port(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}",
    "spec.ingress[0].protocols[0].tcp.destinationPort"
)]
#[case::range_of_one(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], \
      protocols: [{tcp: {destinationPort: {range: {start: 8, end: 8}}}}]}]}",
    "spec.ingress[0].protocols[0].tcp.destinationPort.range"
)]
#[case::named_ports_of_networks(
    "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}], \
      protocols: [{destinationNamedPort: web}]}]}",
    "spec.egress[0].protocols"
)]
fn invalid_objects_are_refused(#[case] spec: &str, #[case] field: &str) {
    let valid = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}";
    let mut cluster = cluster(Options::default(), &[cluster_policy("p", valid)]);
    let error = cluster.set(&cluster_policy("p", spec)).unwrap_err();
    assert_eq!((error.object.as_str(), error.field.as_str()), ("ClusterNetworkPolicy p", field), "{error}");
    check(&cluster, &[("default/plain > default/db tcp:1", false)]);
}

#[test]
fn lists_have_bounds() {
    let spec = |count: usize| {
        let rules = vec!["{action: Deny, from: [{namespaces: {}}]}"; count].join(", ");
        format!("{{tier: Admin, priority: 1, {ALL}, ingress: [{rules}]}}")
    };
    let mut cluster = cluster(Options::default(), &[cluster_policy("p", &spec(25))]);
    assert!(cluster.set(&cluster_policy("p", &spec(26))).is_err());
}
