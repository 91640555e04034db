//! The cases that the documentation of NetworkPolicy goes through.

use sim_oracle::{Direction, Options, PolicyKind, PolicyName, Reason, RuleName};

use crate::support::{check_policies, cluster, judge, policies};

#[test]
fn without_policies_everything_is_allowed() {
    check_policies(
        &[],
        &[
            ("default/plain > default/db tcp:6379", true),
            ("mine/worker > default/db icmp", true),
            ("default/db > 8.8.8.8 udp:53", true),
            ("8.8.8.8 > default/db tcp:6379", true),
            ("node:node-2 > default/db sctp:1 v6", true),
        ],
    );
}

const DB: &str = "
podSelector: {matchLabels: {role: db}}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
  - namespaceSelector: {matchLabels: {project: myproject}}
  - podSelector: {matchLabels: {role: frontend}}
  ports: [{protocol: TCP, port: 6379}]
egress:
- to: [{ipBlock: {cidr: 10.0.0.0/24}}]
  ports: [{protocol: TCP, port: 5978}]
";

#[test]
fn the_database_and_its_clients() {
    check_policies(
        &[DB],
        &[
            // The three kinds of peers, at the port.
            ("172.17.0.9 > default/db tcp:6379", true),
            ("172.17.2.0 > default/db tcp:6379", true),
            ("default/frontend > default/db tcp:6379", true),
            ("mine/worker > default/db tcp:6379", true),
            ("mine/frontend > default/db tcp:6379", true),
            // The exception, and its edges.
            ("172.17.0.255 > default/db tcp:6379", true),
            ("172.17.1.0 > default/db tcp:6379", false),
            ("172.17.1.255 > default/db tcp:6379", false),
            ("172.16.255.255 > default/db tcp:6379", false),
            ("172.18.0.0 > default/db tcp:6379", false),
            // Others.
            ("default/plain > default/db tcp:6379", false),
            ("alice/client > default/db tcp:6379", false),
            // Other ports and protocols.
            ("default/frontend > default/db tcp:6380", false),
            ("default/frontend > default/db udp:6379", false),
            ("default/frontend > default/db icmp", false),
            // Egress.
            ("default/db > 10.0.0.7 tcp:5978", true),
            ("default/db > 10.0.0.7 tcp:80", false),
            ("default/db > 10.0.1.7 tcp:5978", false),
            ("default/db > default/frontend tcp:5978", false),
            // Every pod that it selects, and no other.
            ("default/frontend > default/db2 tcp:6379", true),
            ("default/plain > default/db2 tcp:6379", false),
            ("default/plain > default/frontend tcp:6379", true),
            ("default/frontend > 10.0.9.9 tcp:5978", true),
        ],
    );
}

#[test]
fn reasons_name_policies_and_rules() {
    let cluster = cluster(Options::default(), &policies(&[DB, "podSelector: {}"]));
    let name = |name: &str| PolicyName {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: name.into(),
    };

    let verdict = judge(&cluster, "default/frontend > default/db tcp:6379");
    let [egress, ingress] = verdict.why.as_slice() else { panic!("{verdict}") };
    assert_eq!((egress.direction, &egress.reason), (Direction::Egress, &Reason::NotIsolated));
    assert_eq!(ingress.direction, Direction::Ingress);
    assert_eq!(ingress.isolated_by, [name("policy-0"), name("policy-1")]);
    assert_eq!(ingress.reason, Reason::Rule(RuleName { policy: name("policy-0"), spec: 0, index: 0 }));

    let verdict = judge(&cluster, "default/db > default/plain tcp:1");
    assert_eq!(
        verdict.to_string(),
        "forbidden; egress is isolated by NetworkPolicy default/policy-0 and no rule allows it; \
         ingress is isolated by NetworkPolicy default/policy-1 and no rule allows it"
    );
}

#[test]
fn two_selectors_in_one_peer_must_both_match() {
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - namespaceSelector: {matchLabels: {user: alice}}
    podSelector: {matchLabels: {role: client}}
"],
        &[
            ("alice/client > default/db tcp:1", true),
            ("alice/cron > default/db tcp:1", false),
            ("mine/worker > default/db tcp:1", false),
            ("default/frontend > default/db tcp:1", false),
        ],
    );
}

#[test]
fn of_two_peers_one_must_match() {
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - namespaceSelector: {matchLabels: {user: alice}}
  - podSelector: {matchLabels: {role: frontend}}
"],
        &[
            ("alice/client > default/db tcp:1", true),
            ("alice/cron > default/db tcp:1", true),
            ("default/frontend > default/db tcp:1", true),
            ("default/plain > default/db tcp:1", false),
            // A podSelector alone means the policy's own namespace.
            ("mine/frontend > default/db tcp:1", false),
        ],
    );
}

#[test]
fn default_policies_of_a_namespace() {
    let (to, from) = ("mine/worker > default/plain udp:5", "default/plain > mine/worker udp:5");
    let within = "default/frontend > default/plain icmp";
    let elsewhere = "alice/client > mine/worker tcp:80";
    for (what, specs, allowed) in [
        ("deny ingress", vec!["{podSelector: {}, policyTypes: [Ingress]}"], [false, true, false]),
        ("deny egress", vec!["{podSelector: {}, policyTypes: [Egress]}"], [true, false, false]),
        ("deny all", vec!["{podSelector: {}, policyTypes: [Ingress, Egress]}"], [false, false, false]),
        (
            "allow ingress",
            vec![
                "{podSelector: {}, policyTypes: [Ingress]}",
                "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
            ],
            [true, true, true],
        ),
        (
            "allow egress",
            vec![
                "{podSelector: {}, policyTypes: [Egress]}",
                "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
            ],
            [true, true, true],
        ),
        (
            "allow ingress alone does not help egress",
            vec!["{podSelector: {}, policyTypes: [Ingress, Egress]}", "{podSelector: {}, ingress: [{}]}"],
            [true, false, false],
        ),
    ] {
        println!("{what}");
        check_policies(
            &specs,
            &[(to, allowed[0]), (from, allowed[1]), (within, allowed[2]), (elsewhere, true)],
        );
    }
}

#[test]
fn a_namespace_by_its_name() {
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - namespaceSelector:
      matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [mine, nowhere]}]
"],
        &[
            ("mine/worker > default/db tcp:1", true),
            ("alice/client > default/db tcp:1", false),
            ("default/frontend > default/db tcp:1", false),
        ],
    );
}

#[test]
fn a_range_of_ports() {
    check_policies(
        &["
podSelector: {matchLabels: {role: db}}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: 10.0.0.0/24}}]
  ports: [{protocol: TCP, port: 32000, endPort: 32768}]
"],
        &[
            ("default/db > 10.0.0.1 tcp:31999", false),
            ("default/db > 10.0.0.1 tcp:32000", true),
            ("default/db > 10.0.0.1 tcp:32500", true),
            ("default/db > 10.0.0.1 tcp:32768", true),
            ("default/db > 10.0.0.1 tcp:32769", false),
            ("default/db > 10.0.0.1 udp:32500", false),
            ("default/db > 10.0.1.1 tcp:32500", false),
        ],
    );
}

#[test]
fn both_ends_must_allow() {
    let egress = "{podSelector: {matchLabels: {role: frontend}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: db}}}]}]}";
    let ingress = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}";
    let closed_egress = "{podSelector: {matchLabels: {role: frontend}}, policyTypes: [Egress]}";
    let closed_ingress = "{podSelector: {matchLabels: {role: db}}}";
    let to = "default/frontend > default/db tcp:1";
    for (specs, allowed) in [
        ([egress, ingress], true),
        ([closed_egress, ingress], false),
        ([egress, closed_ingress], false),
        ([closed_egress, closed_ingress], false),
    ] {
        // What answers is not asked about connections: the other way round is another attempt.
        check_policies(&specs, &[(to, allowed), ("default/db > default/frontend tcp:1", true)]);
    }
}
