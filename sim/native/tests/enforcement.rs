//! On which nodes a policy is in force: what is in the way on one node is said of the policy, and goes again; and policies for
//! the nodes themselves.

use sim_native::Options;
use sim_scenario::Scenario;
use sim_scenario::validate::Known;

const SCENARIO: &str = r#"
bristle: scenario/v1
name: no-room-for-policy
description: A node has no room for the rows of a policy for a while.
cluster: {nodes: 2}
steps:
  - apply:
      - {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
  - pod: {name: client, namespace: shop, node: node-1, labels: {app: client}}
  - pod: {name: server, namespace: shop, node: node-2, serve: ["tcp:9000"], labels: {app: server}}
  - wait: {for: rest}
  - fault: {node: node-2, table-full: {table: POLICY, rows: 0}, for: 30s}
  - apply:
      - apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: only-client, namespace: shop}
        spec:
          endpointSelector: {matchLabels: {app: server}}
          ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
  - wait: {for: rest, within: 5m}
"#;

#[test]
fn what_is_in_the_way_on_one_node_is_said_of_the_policy_until_it_is_gone() {
    let known = Known::default();
    let scenario = Scenario::parse_valid(SCENARIO, "here", &known).unwrap_or_else(|error| panic!("{error}"));
    for seed in 1..=5 {
        let report = sim_native::run(&scenario, &Options { seed, ..Options::default() });
        assert_eq!(report.outcome.failures, [""; 0], "seed {seed}");
        let said: Vec<_> = report.said.iter().filter(|said| said.policy == "shop/only-client").collect();
        let reasons: Vec<&str> = said.iter().map(|said| said.condition.1.as_str()).collect();
        assert_eq!(reasons, ["Behind", "InForce"], "seed {seed}: {said:?}");
        let message = &said[0].condition.2;
        assert!(
            message.starts_with("not in force on 1 of 2 nodes: node-2 (") && message.contains("POLICY"),
            "seed {seed}: {message}"
        );
    }
}

const FOR_NODES: &str = r#"
bristle: scenario/v1
name: policies-for-nodes
description: A node takes only what other nodes send; what would keep it from the API server is audited until it is meant.
cluster: {nodes: 2, family: v4, host-firewall: true}
steps:
  - pod: {name: client, node: node-1}
  - wait: {for: rest}
  - apply:
      - apiVersion: cilium.io/v2
        kind: CiliumClusterwideNetworkPolicy
        metadata: {name: nodes}
        spec:
          nodeSelector: {}
          ingress: [{fromEntities: [remote-node]}]
          egress: [{toEntities: [remote-node]}]
  - wait: {for: rest}
  - traffic: {id: pod, from: pod/client, to: node/node-2, kind: ping, timeout: 1s, expect: fail}
  - traffic: {id: node, from: node/node-1, to: node/node-2, kind: ping, expect: ok}
  - traffic: {id: audited, from: node/node-1, to: world/first, kind: http, port: 80, expect: ok}
  - wait: {for: rest}
  - apply:
      - apiVersion: cilium.io/v2
        kind: CiliumClusterwideNetworkPolicy
        metadata: {name: nodes, annotations: {bristle.io/allow-api-cut: "true"}}
        spec:
          nodeSelector: {}
          ingress: [{fromEntities: [remote-node]}]
          egress: [{toEntities: [remote-node]}]
  - wait: {for: rest}
  - traffic: {id: meant, from: node/node-1, to: world/first, kind: http, port: 80, timeout: 1s, expect: fail}
  - wait: {for: rest}
  - expect: {drops: {reason: POLICY_DENIED, at-least: 2}}
"#;

#[test]
fn a_node_is_judged_and_cut_off_from_the_api_server_only_if_that_is_meant() {
    for routing in ["vxlan", "native"] {
        let text = FOR_NODES.replace("family: v4", &format!("family: v4, routing: {routing}"));
        let known = Known::default();
        let scenario = Scenario::parse_valid(&text, "here", &known).unwrap_or_else(|error| panic!("{error}"));
        for seed in 1..=5 {
            let report = sim_native::run(&scenario, &Options { seed, ..Options::default() });
            assert_eq!(report.outcome.failures, [""; 0], "{routing}, seed {seed}");
        }
    }
}
