//! Enforcement modes, audit, and staged policies.

use rstest::rstest;
use serde_json::{Value, json};
use sim_oracle::{Enforcement, Options, Reason};

use crate::support::{attempt, ccnp, check, cluster, cluster_policy, cnp, judge, policy};

const DENY_ALL: &str = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}";

#[test]
fn never_enforces_nothing() {
    let options = Options { enforcement: Enforcement::Never, host_policies: true, ..Options::default() };
    let objects = [
        policy("net", "{podSelector: {}}"),
        cnp("p", "{endpointSelector: {}, egress: [{}]}"),
        ccnp("q", "{nodeSelector: {}, ingress: [{}]}"),
        cluster_policy("r", DENY_ALL),
    ];
    let cluster = cluster(options, &objects);
    check(&cluster, &[("default/plain > default/db tcp:1", true), ("10.0.0.1 > node:node-1 tcp:1", true)]);
    let verdict = judge(&cluster, "default/plain > default/db tcp:1");
    assert!(verdict.why.iter().all(|because| because.reason == Reason::NotEnforced), "{verdict}");
}

#[test]
fn always_isolates_every_pod() {
    let options = Options { enforcement: Enforcement::Always, ..Options::by_identity() };
    let cluster = cluster(options, &[cnp("p", "{endpointSelector: {}, egress: [{toEntities: [world]}]}")]);
    check(
        &cluster,
        &[
            ("default/plain > default/db tcp:1", false),
            ("mine/worker > 10.0.0.1 tcp:1", false),
            ("default/plain > 10.0.0.1 tcp:1", true),
            ("node:node-1 > default/db tcp:1", true),
            ("node:node-1 > 10.0.0.1 tcp:1", true),
            ("default/db > default/db tcp:1", true),
        ],
    );
    assert_eq!(
        judge(&cluster, "10.0.0.1 > mine/worker tcp:1").to_string(),
        "forbidden; egress is not isolated; ingress is always isolated and no rule allows it"
    );
}

#[test]
fn audit_lets_through_and_tells() {
    let options = Options { audit: true, ..Options::default() };
    let cluster = cluster(options, &[policy("net", "{podSelector: {matchLabels: {role: db}}}")]);
    let forbidden = judge(&cluster, "default/plain > default/db tcp:1");
    assert_eq!((forbidden.allowed, forbidden.audited), (true, true));
    assert_eq!(forbidden.why[1].reason, Reason::NoRule);
    assert!(forbidden.to_string().starts_with("audited; "), "{forbidden}");
    let allowed = judge(&cluster, "default/plain > default/frontend tcp:1");
    assert_eq!((allowed.allowed, allowed.audited), (true, false));
}

fn staged(mut object: Value, value: &str) -> Value {
    object["metadata"]["annotations"] = json!({"bristle.io/staged": value});
    object
}

#[rstest]
#[case::network_policy(policy("p", "{podSelector: {matchLabels: {role: db}}}"))]
#[case::of_a_namespace(cnp("p", "{endpointSelector: {matchLabels: {role: db}}, ingress: [{}]}"))]
#[case::of_the_cluster(ccnp(
    "p",
    "{endpointSelector: {matchLabels: {role: db}}, ingressDeny: [{fromEntities: [all]}]}"
))]
#[case::tiers(cluster_policy("p", DENY_ALL))]
fn staged_policies_are_not_in_force(#[case] object: Value) {
    let attempt = attempt("default/plain > default/db tcp:1");
    for (object, now, then) in [
        (object.clone(), false, false),
        (staged(object.clone(), "true"), true, false),
        (staged(object.clone(), "false"), false, false),
    ] {
        let cluster = cluster(Options::default(), &[object]);
        assert_eq!(cluster.judge(&attempt).allowed, now);
        assert_eq!(cluster.judge_with_staged(&attempt).allowed, then);
    }
}

#[test]
fn staged_policies_may_open_too() {
    let attempt = attempt("default/plain > default/db tcp:1");
    let opens = staged(cnp("open", "{endpointSelector: {}, ingress: [{fromEntities: [all]}]}"), "true");
    let mut cluster = cluster(Options::default(), &[policy("net", "{podSelector: {}}"), opens.clone()]);
    assert!(!cluster.judge(&attempt).allowed);
    assert!(cluster.judge_with_staged(&attempt).allowed);
    // And it goes into force when the annotation goes.
    cluster.set(&cnp("open", "{endpointSelector: {}, ingress: [{fromEntities: [all]}]}")).unwrap();
    assert!(cluster.judge(&attempt).allowed);
}
