//! What counts when a field is missing, empty or null.

use crate::support::check_policies;

const IN: &str = "mine/worker > default/db tcp:80";
const OUT: &str = "default/db > mine/worker tcp:80";
const IN_ICMP: &str = "mine/worker > default/db icmp";

/// Spec without its podSelector, then whether IN and OUT are allowed.
const POLICY_TYPES: &[(&str, bool, bool)] = &[
    ("{}", false, true),
    ("{policyTypes: []}", false, true),
    ("{policyTypes: null}", false, true),
    ("{ingress: []}", false, true),
    ("{ingress: [{}]}", true, true),
    // An egress section without a rule does not make a policy affect egress, one with a rule does.
    ("{egress: []}", false, true),
    ("{egress: [{}]}", false, true),
    ("{egress: [{to: [{ipBlock: {cidr: 1.1.1.1/32}}]}]}", false, false),
    ("{ingress: [{}], egress: [{}]}", true, true),
    // What policyTypes say counts, whatever rules there are.
    ("{policyTypes: [Ingress]}", false, true),
    ("{policyTypes: [Egress]}", true, false),
    ("{policyTypes: [Ingress, Egress]}", false, false),
    ("{policyTypes: [Egress], ingress: [{ports: [{port: 1}]}]}", true, false),
    ("{policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}", false, true),
    ("{policyTypes: [Egress], egress: [{}]}", true, true),
];

#[test]
fn policy_types() {
    for (spec, ingress, egress) in POLICY_TYPES {
        println!("{spec}");
        check_policies(&[spec], &[(IN, *ingress), (OUT, *egress)]);
    }
}

#[test]
fn pod_selector() {
    for spec in ["{}", "{podSelector: null}", "{podSelector: {}}", "{podSelector: {matchLabels: {}}}"] {
        println!("{spec}");
        check_policies(&[spec], &[(IN, false), ("mine/worker > default/plain tcp:80", false)]);
    }
}

/// A rule, then whether IN and IN_ICMP are allowed.
const RULES: &[(&str, bool, bool)] = &[
    ("{}", true, true),
    ("{from: []}", true, true),
    ("{from: null, ports: null}", true, true),
    ("{ports: []}", true, true),
    ("{from: [{namespaceSelector: {}}]}", true, true),
    ("{from: [{namespaceSelector: {}, podSelector: {}}]}", true, true),
    // An empty podSelector alone: all pods of the policy's own namespace.
    ("{from: [{podSelector: {}}]}", false, false),
    ("{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}", true, true),
    ("{from: [{ipBlock: {cidr: '::/0'}}]}", false, false),
    // A port without anything: all ports of TCP.
    ("{ports: [{}]}", true, false),
    ("{ports: [{protocol: TCP}]}", true, false),
    ("{ports: [{protocol: UDP}]}", false, false),
    ("{ports: [{protocol: UDP}, {port: 80}]}", true, false),
    ("{ports: [{port: 81}]}", false, false),
    ("{from: [{podSelector: {}}], ports: []}", false, false),
];

#[test]
fn rules() {
    for (rule, tcp, icmp) in RULES {
        println!("{rule}");
        check_policies(
            &[&format!("{{podSelector: {{}}, ingress: [{rule}]}}")],
            &[(IN, *tcp), (IN_ICMP, *icmp)],
        );
    }
}

#[test]
fn one_rule_of_several_is_enough() {
    let rule = |port: u16| format!("{{ports: [{{port: {port}}}]}}");
    let spec = format!("{{ingress: [{}, {}]}}", rule(79), rule(80));
    check_policies(&[&spec], &[(IN, true), ("mine/worker > default/db tcp:81", false)]);
    let (one, two) = (format!("{{ingress: [{}]}}", rule(79)), format!("{{ingress: [{}]}}", rule(80)));
    check_policies(&[&one, &two], &[(IN, true), ("mine/worker > default/db tcp:81", false)]);
}
