//! Every operator of label selectors, for pods and for namespaces.

use crate::support::check_policies;

/// Requirements, then which of the pods with `role: db`, `role: frontend` and without labels they select.
const CASES: &[(&str, [bool; 3])] = &[
    ("matchLabels: {role: db}", [true, false, false]),
    ("matchLabels: {role: ''}", [false, false, false]),
    ("matchLabels: {role: db, tier: x}", [false, false, false]),
    ("matchExpressions: [{key: role, operator: In, values: [db]}]", [true, false, false]),
    ("matchExpressions: [{key: role, operator: In, values: [x, db, frontend]}]", [true, true, false]),
    ("matchExpressions: [{key: tier, operator: In, values: [db]}]", [false, false, false]),
    // The label need not be there.
    ("matchExpressions: [{key: role, operator: NotIn, values: [db]}]", [false, true, true]),
    ("matchExpressions: [{key: role, operator: NotIn, values: [db, frontend]}]", [false, false, true]),
    ("matchExpressions: [{key: tier, operator: NotIn, values: [db]}]", [true, true, true]),
    ("matchExpressions: [{key: role, operator: Exists}]", [true, true, false]),
    ("matchExpressions: [{key: tier, operator: Exists, values: []}]", [false, false, false]),
    ("matchExpressions: [{key: role, operator: DoesNotExist}]", [false, false, true]),
    ("matchExpressions: [{key: tier, operator: DoesNotExist}]", [true, true, true]),
    // All must hold.
    (
        "matchExpressions: [{key: role, operator: Exists}, {key: role, operator: NotIn, values: [db]}]",
        [false, true, false],
    ),
    (
        "matchLabels: {role: db}, matchExpressions: [{key: role, operator: NotIn, values: [db]}]",
        [false, false, false],
    ),
    (
        "matchLabels: {role: db}, matchExpressions: [{key: role, operator: In, values: [db, x]}]",
        [true, false, false],
    ),
    ("", [true, true, true]),
];

const PODS: [&str; 3] = ["default/db", "default/frontend", "default/plain"];

#[test]
fn select_the_pods_that_a_policy_applies_to() {
    for (selector, selected) in CASES {
        println!("{selector}");
        let spec = format!("{{podSelector: {{{selector}}}}}");
        for (pod, selected) in PODS.iter().zip(selected) {
            check_policies(&[&spec], &[(&format!("mine/worker > {pod} tcp:80"), !selected)]);
        }
    }
}

#[test]
fn select_the_pods_of_a_peer() {
    for (selector, selected) in CASES {
        println!("{selector}");
        let spec =
            format!("{{policyTypes: [Ingress], ingress: [{{from: [{{podSelector: {{{selector}}}}}]}}]}}");
        for (pod, selected) in PODS.iter().zip(selected) {
            check_policies(&[&spec], &[(&format!("{pod} > default/db2 tcp:80"), *selected)]);
        }
    }
}

#[test]
fn select_the_namespaces_of_a_peer() {
    // Namespaces mine (project myproject), alice (project other) and default (without labels).
    for (selector, selected) in [
        ("matchLabels: {project: myproject}", [true, false, false]),
        ("matchExpressions: [{key: project, operator: In, values: [myproject, other]}]", [true, true, false]),
        ("matchExpressions: [{key: project, operator: NotIn, values: [myproject]}]", [false, true, true]),
        ("matchExpressions: [{key: project, operator: Exists}]", [true, true, false]),
        ("matchExpressions: [{key: project, operator: DoesNotExist}]", [false, false, true]),
        ("", [true, true, true]),
    ] {
        println!("{selector}");
        let spec = format!("{{ingress: [{{from: [{{namespaceSelector: {{{selector}}}}}]}}]}}");
        let pods = ["mine/worker", "alice/client", "default/plain"];
        for (pod, selected) in pods.iter().zip(selected) {
            check_policies(&[&spec], &[(&format!("{pod} > default/db tcp:80"), selected)]);
        }
    }
}
