//! What an operator sees of policies on a running cluster: which of them dropped a packet, what staged ones would do, and on
//! which nodes they are in force.
//!
//! Needs root and the built programs; says so and passes without them, unless `BRISTLE_REQUIRE_ALL=1`.

#[path = "support/pods.rs"]
mod support;

use lab::{BlockingCluster, Cluster};
use serde_json::Value;
use sim_api::DeleteOptions;
use sim_api::resource::{Gr, NETWORKPOLICIES};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{PATIENCE, Pod, can_run, start_pod};

const POLICIES: Gr = Gr::new("cilium.io", "ciliumnetworkpolicies");

/// `bristle` against the agent of the first node.
fn bristle(cluster: &BlockingCluster) -> Command {
    let mut command = Command::new(cluster.bins().path.join("bristle"));
    command.arg("--socket").arg(cluster.nodes()[0].file("/run/bristle/bristle.sock"));
    command
}

fn json(cluster: &BlockingCluster, args: &[&str]) -> Value {
    let output = bristle(cluster).args(args).args(["-o", "json"]).output().expect("bristle starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Repeats until `check` finds what it looks for.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A datagram of a new connection from one pod to another.
fn datagram(from: &Pod, to: &Pod) {
    let socket = from.netns.run(|| UdpSocket::bind((from.ips[0], 0))).expect("enter").expect("bind");
    // It may be answered by an ICMP error; what policy says of it is what matters.
    let _ = socket.send_to(b"hello", (to.ips[0], 9));
}

/// Status, reason and message of a condition of a policy.
fn condition(cluster: &BlockingCluster, policy: &str, kind: &str) -> Option<(String, String, String)> {
    let object = cluster.store().get(&POLICIES, "default", policy).ok()?;
    let conditions = object["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

#[test]
fn policies_on_a_cluster_explain_themselves() {
    if !can_run("what an operator sees of policies") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).blocking().expect("a cluster of two nodes");
    let names: Vec<&str> = cluster.nodes().iter().map(lab::cluster::Node::name).collect();
    let here = start_pod(&cluster, "here", names[0]);
    let there = start_pod(&cluster, "there", names[1]);

    a_policy_can_be_tried_before_it_is_applied(&cluster);
    a_drop_names_the_policy(&cluster, &here, &there);
    a_staged_policy_is_counted(&cluster, &here, &there);
    a_policy_says_where_it_is_in_force(&cluster);
    one_pod_is_enforced_in_its_own_way(&cluster);
}

fn a_policy_can_be_tried_before_it_is_applied(cluster: &BlockingCluster) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("closed.yaml");
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
                  spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 443}]}]}\n";
    std::fs::write(&file, closed).expect("write");
    let ask = |port: &str, more: &[&str]| {
        let what = ["policy", "explain", "--from", "default/there", "--to", "default/here", "--port", port];
        bristle(cluster).args(what).args(more).output().expect("bristle starts")
    };
    // Both pods have to be known, one of them by what the other node tells.
    eventually("an answer", || ask("80", &[]).status.success().then_some(()));
    let with = ["--with", file.to_str().expect("text")];
    for (port, code, told) in [
        ("80", 1, "the answer changes: it passes now, it does not pass then"),
        ("443", 0, "the answer stays"),
    ] {
        let output = ask(port, &with);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(told), "{text}");
    }
    let output = ask("80", &["--without", "NetworkPolicy/default/none"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("there is no NetworkPolicy default/none"), "{text}");
    // Nothing of it is in force.
    assert_eq!(json(cluster, &["policy", "list"]), serde_json::json!([]));
    // The other node is a node, whatever identity it has.
    let node = cluster.nodes()[1].name();
    let object = cluster.store().get(&sim_api::resource::NODES, "", node).expect("it is there");
    let addresses = object["status"]["addresses"].as_array().expect("addresses");
    let address = addresses.iter().find(|address| address["type"] == "InternalIP").expect("one");
    let address = address["address"].as_str().expect("text");
    let peers = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: nodes, namespace: default}}\n\
         spec: {{endpointSelector: {{}}, ingress: [{{fromNodes: [{{matchLabels: {{kubernetes.io/hostname: {node}}}}}]}}]}}\n"
    );
    cluster.apply(&peers).expect("the policy is accepted");
    let question = ["policy", "explain", "--from", address, "--to", "default/here", "--port", "80"];
    eventually("the answer about the node", || {
        let answer = json(cluster, &question);
        let of_node = answer["from"]["labels"]
            .as_array()?
            .contains(&format!("node:kubernetes.io/hostname={node}").into());
        (of_node && answer["ingress"]["judged"] == true && answer["passes"] == true).then_some(())
    });
    cluster.store().delete(&POLICIES, "default", "nodes", &DeleteOptions::default()).expect("it is there");
    eventually("no policy", || (json(cluster, &["policy", "list"]) == serde_json::json!([])).then_some(()));
}

fn a_drop_names_the_policy(cluster: &BlockingCluster, here: &Pod, there: &Pod) {
    cluster
        .apply(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: default}\n\
             spec: {podSelector: {}, policyTypes: [Egress]}\n",
        )
        .expect("the policy is accepted");
    let monitor = bristle(cluster)
        .args(["monitor", "--kind", "drop", "--count", "40", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("bristle starts");
    eventually("the reader", || (json(cluster, &["status"])["monitor"]["readers"] == 1).then_some(()));
    let mut monitor = monitor;
    let since = Instant::now();
    while monitor.try_wait().expect("it is ours").is_none() {
        assert!(since.elapsed() < PATIENCE, "nothing is dropped");
        datagram(here, there);
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = monitor.wait_with_output().expect("the monitor has ended");
    let events: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("events");
    // Pods' kernels join groups at any time, and that is dropped too.
    let mut denied = events.iter().rev().filter(|event| event["reason"] == "POLICY_DENIED");
    let event = denied.next().unwrap_or_else(|| panic!("no drop by policy: {events:?}"));
    assert_eq!(event["direction"], "egress", "{event}");
    assert_eq!(event["decided_by"], serde_json::json!(["NetworkPolicy/default/closed isolates"]), "{event}");
    assert_eq!(event["source_pod"], "default/here", "{event}");
    assert_eq!(event["destination_pod"], "default/there", "{event}");
    let labels = event["source_labels"].as_array().expect("labels");
    assert!(labels.contains(&"k8s:io.kubernetes.pod.namespace=default".into()), "{event}");
    cluster
        .store()
        .delete(&NETWORKPOLICIES, "default", "closed", &DeleteOptions::default())
        .expect("the policy is there");
}

fn a_staged_policy_is_counted(cluster: &BlockingCluster, here: &Pod, there: &Pod) {
    cluster
        .apply(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
             metadata: {name: next, namespace: default, annotations: {bristle.io/staged: \"true\"}}\n\
             spec: {endpointSelector: {}, egressDeny: [{toEntities: [all]}]}\n",
        )
        .expect("the policy is accepted");
    let would_deny = || {
        let policies = json(cluster, &["policy", "list"]);
        let next = policies.as_array()?.iter().find(|policy| policy["name"] == "next")?.clone();
        next["staged"]["would_deny"].as_u64()
    };
    eventually("the staged policy", would_deny);
    let count = eventually("the first counts", || {
        datagram(here, there);
        would_deny().filter(|count| *count > 0)
    });
    // Counted in the kernel: it goes on while nobody is there, and the next agent knows of it.
    let node = cluster.nodes()[0].name();
    assert!(cluster.kill_agent(node).expect("the node is there"));
    for _ in 0..5 {
        datagram(here, there);
    }
    let after = eventually("the agent and its counts", || {
        let output = bristle(cluster).args(["policy", "list", "-o", "json"]).output().ok()?;
        let policies: Value = serde_json::from_slice(&output.stdout).ok()?;
        let next = policies.as_array()?.iter().find(|policy| policy["name"] == "next")?.clone();
        next["staged"]["would_deny"].as_u64().filter(|after| *after >= count + 5)
    });
    let page = {
        let socket = cluster.nodes()[0].file("/run/bristle/bristle.sock");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--unix-socket"]).arg(socket).arg("http://agent/metrics");
        String::from_utf8(curl.output().expect("curl is there").stdout).expect("text")
    };
    let metric = format!(
        "bristle_policy_staged_total{{kind=\"CiliumNetworkPolicy\",namespace=\"default\",policy=\"next\",would=\"deny\"}} {after}"
    );
    assert!(page.contains(&metric), "{metric} in {page}");
    let (status, reason, _) = eventually("the condition of the staged policy", || {
        condition(cluster, "next", "Enforced").filter(|(_, reason, _)| reason == "Staged")
    });
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Staged"));
    cluster.store().delete(&POLICIES, "default", "next", &DeleteOptions::default()).expect("it is there");
}

fn a_policy_says_where_it_is_in_force(cluster: &BlockingCluster) {
    cluster
        .apply(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: default}\n\
             spec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n",
        )
        .expect("the policy is accepted");
    let (status, reason, message) = eventually("the condition", || condition(cluster, "p", "Enforced"));
    assert_eq!((status.as_str(), reason.as_str()), ("True", "InForce"), "{message}");
    assert_eq!(message, "in force on every node");
    assert_eq!(condition(cluster, "p", "Valid").expect("it is there").0, "True");
}

fn one_pod_is_enforced_in_its_own_way(cluster: &BlockingCluster) {
    let endpoint = || {
        let output = bristle(cluster).args(["endpoint", "list", "-o", "json"]).output().ok()?;
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        list.as_array()?.iter().find(|endpoint| endpoint["pod"] == "here").cloned()
    };
    let id = endpoint().expect("the pod has an endpoint")["id"].to_string();
    let set = |pairs: &[&str]| {
        let command = [&["endpoint", "config", id.as_str()], pairs].concat();
        bristle(cluster).args(command).output().expect("bristle starts")
    };
    let output = set(&["PolicyAuditMode=Enabled", "PolicyEnforcement=always"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What the command has answered is in force.
    let in_force = endpoint().expect("it is there")["policy"].clone();
    assert_eq!([&in_force["audit"], &in_force["ingress"], &in_force["egress"]], [true; 3], "{in_force}");
    for (wrong, told) in
        [("PolicyAuditMode=on", "unknown variant `on`"), ("Debug=Enabled", "unknown field `Debug`")]
    {
        let output = set(&[wrong]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(told), "{text}");
    }
    let node = cluster.nodes()[0].name();
    assert!(cluster.kill_agent(node).expect("the node is there"));
    let after = eventually("the next agent", || endpoint().filter(|endpoint| endpoint["state"] == "ready"));
    let config = serde_json::json!({"PolicyEnforcement": "always", "PolicyAuditMode": "Enabled"});
    assert_eq!((&after["config"], &after["policy"]["audit"]), (&config, &true.into()));
    assert!(set(&["PolicyAuditMode=node", "PolicyEnforcement=node"]).status.success());
    // While the new agent has not heard of all policies, what it has found stays in force. A policy of an earlier step isolates the pod
    // in one direction.
    eventually("what holds for the node", || {
        let in_force = endpoint()?["policy"].clone();
        (in_force["audit"] == false && in_force["egress"] == false).then_some(())
    });
}
