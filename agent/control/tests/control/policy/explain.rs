//! Why something passes, asked of an agent, and what a change would do to that.

use agent_api::policy::{Change, ObjectRef, WhatIf};
use agent_policy::proto::TCP;

use super::*;

const EAST: &str = "172.30.0.2";
const WEST: &str = "172.30.0.3";

impl World {
    fn passes(&self, from: &str, to: &str) -> bool {
        self.agent.explain_policy(from, to, TCP, 80).expect("an answer").passes
    }

    fn what_if(&self, from: &str, with: &[serde_json::Value], without: &[&str]) -> Result<WhatIf, String> {
        let named = |text: &&str| {
            let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
            let [kind, namespace, name] = parts.try_into().expect("kind, namespace and name");
            ObjectRef { kind, namespace, name }
        };
        let change = Change { with: with.to_vec(), without: without.iter().map(named).collect() };
        self.agent.what_if(from, "default/a", TCP, 80, &change)
    }
}

fn cilium(spec: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "default", "name": "p"}, "spec": spec,
    })
}

#[test]
fn nodes_are_who_their_labels_say() {
    let mut objects = Objects::new();
    let world = World::up(objects.set(third()));
    assert!(world.identity_of(EAST.parse().unwrap()) > 255, "nodes are told apart");
    for (node, passes) in [(EAST, true), (WEST, false), ("172.30.0.1", true)] {
        assert_eq!(world.passes(node, "default/a"), passes, "{node}");
    }
    // For pods elsewhere this node is one of the others, with its own labels.
    let labels = world.agent.explain_policy("172.30.0.1", "default/far", TCP, 80).expect("an answer");
    assert!(!labels.from.labels.contains(&"reserved:host".to_owned()), "{labels:?}");
}

/// A question about a policy that would be the first to tell nodes apart.
#[test]
fn nodes_are_told_apart_by_policies_that_are_only_thought_of() {
    let world = World::up(&Objects::new());
    let spec = json!({
        "endpointSelector": {"matchLabels": {"app": "a"}},
        "ingress": [{"fromNodes": [{"matchLabels": {"zone": "east"}}]}],
    });
    let changes = |from| world.what_if(from, &[cilium(&spec)], &[]).expect("an answer").changes;
    assert!(!changes(EAST) && changes(WEST) && changes("default/b"));
    // Nothing of it has come into force.
    assert!(world.passes("default/b", "default/a") && world.passes(WEST, "default/a"));
    assert_eq!(world.agent.policies(), []);
}

#[test]
fn policies_and_groups_are_applied_and_deleted_in_thought() {
    let mut objects = Objects::new();
    let world = World::up(objects.set(third()));
    let deleted = ["ciliumnetworkpolicy/default/p"];
    let answer = world.what_if("default/b", &[], &deleted).expect("an answer");
    assert!(answer.changes && !answer.now.passes && answer.then.passes);
    // What is applied counts after what is deleted.
    let spec = json!({
        "endpointSelector": {"matchLabels": {"app": "a"}},
        "ingress": [{"fromCIDRSet": [{"cidrGroupRef": "partners"}]}],
    });
    let group = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "partners"},
        "spec": {"externalCIDRs": ["198.51.100.0/24"]},
    });
    let with = [cilium(&spec), group];
    let passes = |from| world.what_if(from, &with, &deleted).expect("an answer").then.passes;
    assert!(passes("198.51.100.7") && !passes("192.0.2.1") && !passes("default/b"));
    let now = |from| world.what_if(from, &with, &deleted).expect("an answer").now.passes;
    assert!(!now("198.51.100.7") && now("192.0.2.1"));
}

#[test]
fn what_cannot_be_applied_is_told() {
    let world = World::up(&Objects::new());
    for (object, told) in [
        (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}), "Pod/x of v1 is neither"),
        (
            json!({"apiVersion": "cilium.io/v1", "kind": "CiliumNetworkPolicy", "metadata": {"name": "x"}}),
            "is neither",
        ),
        (cilium(&json!({"endpointSelector": {}})), "CiliumNetworkPolicy/default/p would be refused"),
        (json!(7), "is neither"),
    ] {
        let error = world.what_if("default/b", &[object], &[]).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn what_is_not_there_cannot_be_deleted_even_in_thought() {
    let world = World::up(&Objects::new());
    for object in ["NetworkPolicy/default/x", "CiliumCIDRGroup//x", "Pod/default/a"] {
        let error = world.what_if("default/b", &[], &[object]).unwrap_err();
        assert!(error.contains("there is no"), "{error}");
    }
}
