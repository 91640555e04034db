//! What isolates, what allows, what denies.

use rstest::rstest;
use sim_oracle::{Options, PolicyKind, PolicyName, Reason, RuleName};

use crate::support::{ccnp, check, cluster, cnp, judge, policy};

const FROM_FRONTEND: &str = "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromEndpoints: [{matchLabels: {role: frontend}}]}]}";

#[rstest]
#[case::a_rule_isolates_its_direction(
    FROM_FRONTEND,
    &[
        ("default/frontend > default/db tcp:1", true),
        ("default/frontend > default/db icmp:8", true),
        ("default/plain > default/db tcp:1", false),
        ("10.0.0.1 > default/db tcp:1", false),
        ("default/plain > default/frontend tcp:1", true),
        ("default/db > default/plain tcp:1", true),
        ("default/db > default/db tcp:1", true),
    ],
)]
#[case::an_empty_rule_isolates_and_allows_nothing(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [{}], egress: [{}]}",
    &[
        ("default/frontend > default/db tcp:1", false),
        ("default/db > default/frontend tcp:1", false),
        ("default/frontend > default/plain tcp:1", true),
    ],
)]
#[case::an_empty_list_leaves_the_direction_alone(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [], egress: [{}]}",
    &[("default/frontend > default/db tcp:1", true), ("default/db > default/frontend tcp:1", false)],
)]
#[case::null_is_nothing(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: null, egress: [{toEndpoints: null, toPorts: null}]}",
    &[("default/frontend > default/db tcp:1", true), ("default/db > default/frontend tcp:1", false)],
)]
#[case::an_empty_list_of_peers_is_nobody(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromEndpoints: [], toPorts: [{ports: [{port: '1'}]}]}]}",
    &[("default/frontend > default/db tcp:1", false)],
)]
#[case::ports_without_peers_are_those_of_everybody(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [{toPorts: [{ports: [{port: '1', protocol: TCP}]}]}]}",
    &[
        ("default/frontend > default/db tcp:1", true),
        ("alice/client > default/db tcp:1", true),
        ("10.0.0.1 > default/db tcp:1", true),
        ("node:node-2 > default/db tcp:1", true),
        ("10.0.0.1 > default/db tcp:2", false),
    ],
)]
#[case::deny_beats_allow(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromEntities: [all]}], \
      ingressDeny: [{fromEndpoints: [{matchLabels: {role: frontend}}], toPorts: [{ports: [{port: '1'}]}]}]}",
    &[
        ("default/plain > default/db tcp:1", true),
        ("default/frontend > default/db tcp:1", false),
        ("default/frontend > default/db tcp:2", true),
    ],
)]
#[case::rules_that_deny_isolate_too(
    "{endpointSelector: {matchLabels: {role: db}}, egressDeny: [{toEntities: [world]}]}",
    &[
        ("default/db > default/plain tcp:1", false),
        ("default/db > 10.0.0.1 tcp:1", false),
        ("default/plain > default/db tcp:1", true),
    ],
)]
#[case::an_empty_deny_denies_nothing(
    "{endpointSelector: {matchLabels: {role: db}}, ingress: [{fromEntities: [all]}], ingressDeny: [{}]}",
    &[("default/plain > default/db tcp:1", true)],
)]
#[case::without_default_deny_allows_change_nothing(
    "{endpointSelector: {matchLabels: {role: db}}, enableDefaultDeny: {ingress: false}, \
      ingress: [{fromEndpoints: [{matchLabels: {role: frontend}}]}]}",
    &[("default/frontend > default/db tcp:1", true), ("default/plain > default/db tcp:1", true)],
)]
#[case::without_default_deny_denies_still_deny(
    "{endpointSelector: {matchLabels: {role: db}}, enableDefaultDeny: {ingress: false}, \
      ingressDeny: [{fromEndpoints: [{matchLabels: {role: frontend}}]}]}",
    &[("default/frontend > default/db tcp:1", false), ("default/plain > default/db tcp:1", true)],
)]
#[case::default_deny_without_rules_isolates(
    "{endpointSelector: {matchLabels: {role: db}}, enableDefaultDeny: {ingress: true, egress: false}, egress: [{}]}",
    &[("default/frontend > default/db tcp:1", false), ("default/db > default/frontend tcp:1", true)],
)]
fn one_policy(#[case] spec: &str, #[case] table: &[(&str, bool)]) {
    check(&cluster(Options::default(), &[cnp("p", spec)]), table);
}

#[test]
fn one_spec_with_default_deny_is_enough() {
    let open = cnp(
        "open",
        "{endpointSelector: {matchLabels: {role: db}}, enableDefaultDeny: {ingress: false}, \
          ingress: [{fromEndpoints: [{matchLabels: {role: frontend}}]}]}",
    );
    let closed = ccnp("closed", "{endpointSelector: {}, ingress: [{}]}");
    check(
        &cluster(Options::default(), &[open, closed]),
        &[
            ("default/frontend > default/db tcp:1", true),
            ("default/plain > default/db tcp:1", false),
            ("default/frontend > default/plain tcp:1", false),
        ],
    );
}

#[test]
fn spec_and_specs_count_together() {
    let mut both = cnp("p", FROM_FRONTEND);
    both["specs"] = serde_json::json!([
        {"endpointSelector": {"matchLabels": {"role": "frontend"}}, "ingress": [{}]},
        {"endpointSelector": {"matchLabels": {"role": "db"}}, "ingress": [{}, {"fromEntities": ["world"]}]},
    ]);
    let cluster = cluster(Options::default(), &[both]);
    check(
        &cluster,
        &[
            ("default/frontend > default/db tcp:1", true),
            ("10.0.0.1 > default/db tcp:1", true),
            ("default/plain > default/db tcp:1", false),
            ("default/plain > default/frontend tcp:1", false),
        ],
    );
    let policy =
        PolicyName { kind: PolicyKind::CiliumNetworkPolicy, namespace: "default".into(), name: "p".into() };
    let verdict = judge(&cluster, "10.0.0.1 > default/db tcp:1");
    assert_eq!(verdict.why[1].isolated_by, std::slice::from_ref(&policy));
    assert_eq!(verdict.why[1].reason, Reason::Rule(RuleName { policy, spec: 2, index: 1 }));
}

#[test]
fn kinds_add_up_and_any_deny_wins() {
    let objects = [
        policy("net", "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {}}]}]}"),
        cnp("p", "{endpointSelector: {}, ingress: [{fromEntities: [world]}]}"),
        ccnp(
            "q",
            "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, \
              ingressDeny: [{fromEndpoints: [{matchLabels: {role: frontend}}]}, {fromCIDR: [10.9.0.0/16]}]}",
        ),
    ];
    let cluster = cluster(Options::default(), &objects);
    check(
        &cluster,
        &[
            ("default/plain > default/db tcp:1", true),
            ("10.0.0.1 > default/db tcp:1", true),
            ("alice/client > default/db tcp:1", false),
            ("default/frontend > default/db tcp:1", false),
            ("mine/frontend > alice/client tcp:1", false),
            ("10.9.0.1 > default/db tcp:1", false),
            ("10.9.0.1 > alice/client tcp:1", false),
            ("10.8.0.1 > alice/client tcp:1", true),
        ],
    );
    assert_eq!(
        judge(&cluster, "default/frontend > default/db tcp:1").to_string(),
        "forbidden; egress is not isolated; ingress rule 0 of CiliumClusterwideNetworkPolicy q denies it"
    );
}
