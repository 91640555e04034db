//! Attempts and objects in few words, and a small cluster to try them in.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sim_oracle::{Attempt, Cluster, End, Family, Options, Protocol, Verdict};

/// Documents of a YAML text.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    // Each document by itself: the whole cannot be read as one value.
    yaml.split("\n---\n")
        .filter(|text| !text.trim().is_empty())
        .map(|text| serde_yaml_ng::from_str(text).unwrap())
        .collect()
}

pub(crate) fn set_all(cluster: &mut Cluster, yaml: &str) {
    for object in documents(yaml) {
        cluster.set(&object).unwrap();
    }
}

/// A pod in YAML's flow form. `last` is the last byte of its addresses, 10.244.0.x and fd00:244::x.
pub(crate) fn pod(path: &str, labels: &Value, node: &str, last: u8) -> Value {
    let (namespace, name) = path.split_once('/').unwrap();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": {
            "phase": "Running",
            "podIP": format!("10.244.0.{last}"),
            "podIPs": [{"ip": format!("10.244.0.{last}")}, {"ip": format!("fd00:244::{last:x}")}],
        },
    })
}

pub(crate) fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A node with InternalIPs 192.168.0.x and fd00:168::x.
pub(crate) fn node(name: &str, last: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.0.{last}")},
            {"type": "InternalIP", "address": format!("fd00:168::{last:x}")},
            {"type": "Hostname", "address": name},
        ]},
    })
}

/// A policy of namespace `default` from the YAML of its spec.
pub(crate) fn policy(name: &str, spec: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": name},
        "spec": serde_yaml_ng::from_str::<Value>(spec).unwrap(),
    })
}

/// A CiliumNetworkPolicy of namespace `default` from the YAML of its spec.
pub(crate) fn cnp(name: &str, spec: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "default", "name": name},
        "spec": serde_yaml_ng::from_str::<Value>(spec).unwrap(),
    })
}

/// A CiliumClusterwideNetworkPolicy from the YAML of its spec.
pub(crate) fn ccnp(name: &str, spec: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": name},
        "spec": serde_yaml_ng::from_str::<Value>(spec).unwrap(),
    })
}

/// A ClusterNetworkPolicy from the YAML of its spec.
pub(crate) fn cluster_policy(name: &str, spec: &str) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
        "spec": serde_yaml_ng::from_str::<Value>(spec).unwrap(),
    })
}

/// The objects that the tables of policies play in.
pub(crate) fn world() -> Vec<Value> {
    let mut db = pod("default/db", &json!({"role": "db"}), "node-1", 10);
    db["spec"]["containers"] = json!([
        {"name": "main", "ports": [
            {"name": "client", "containerPort": 6379},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]},
        {"name": "side", "ports": [{"name": "metrics", "containerPort": 9121, "protocol": "TCP"}]},
    ]);
    db["spec"]["initContainers"] = json!([
        {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
        {"name": "setup", "ports": [{"name": "setup", "containerPort": 1}]},
    ]);
    let mut db2 = pod("default/db2", &json!({"role": "db"}), "node-2", 11);
    db2["spec"]["containers"] =
        json!([{"name": "main", "ports": [{"name": "client", "containerPort": 16379}]}]);
    let mut host = pod("default/host", &json!({"role": "frontend"}), "node-2", 99);
    host["spec"]["hostNetwork"] = json!(true);
    host["status"]["podIPs"] = json!([{"ip": "192.168.0.2"}]);
    let mut done = pod("default/done", &json!({"role": "frontend"}), "node-2", 14);
    done["status"]["phase"] = json!("Succeeded");
    let mut pending = pod("default/pending", &json!({"role": "frontend"}), "node-2", 15);
    pending["status"] = json!({"phase": "Pending"});
    vec![
        node("node-1", 1),
        node("node-2", 2),
        namespace("default", &json!({})),
        namespace("mine", &json!({"project": "myproject"})),
        namespace("alice", &json!({"user": "alice", "project": "other"})),
        db,
        db2,
        pod("default/frontend", &json!({"role": "frontend"}), "node-2", 12),
        pod("default/plain", &json!({}), "node-2", 13),
        host,
        done,
        pending,
        pod("mine/worker", &json!({"role": "worker"}), "node-2", 20),
        pod("mine/frontend", &json!({"role": "frontend"}), "node-2", 21),
        pod("alice/client", &json!({"role": "client"}), "node-2", 30),
        pod("alice/cron", &json!({"role": "cron"}), "node-2", 31),
    ]
}

/// The world with some more objects.
pub(crate) fn cluster(options: Options, objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::with_options(options);
    for object in world().iter().chain(objects) {
        cluster.set(object).unwrap();
    }
    cluster
}

/// `default/db`, `node:node-1` or an address.
pub(crate) fn end(text: &str) -> End {
    if let Some(name) = text.strip_prefix("node:") {
        End::Node { name: name.to_owned() }
    } else if let Some((namespace, name)) = text.split_once('/') {
        End::Pod { namespace: namespace.to_owned(), name: name.to_owned() }
    } else {
        End::Outside(text.parse().unwrap())
    }
}

pub(crate) fn protocol(text: &str) -> Protocol {
    match text {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "icmp" => Protocol::Icmp,
        _ => panic!("no protocol {text}"),
    }
}

/// `FROM > TO PROTOCOL:PORT`, `FROM > TO icmp`; with ` v6` at the end over IPv6. An end outside decides the family by itself.
pub(crate) fn attempt(text: &str) -> Attempt {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [from, ">", to, what, rest @ ..] = words.as_slice() else {
        panic!("no attempt: {text}");
    };
    let (name, port) = what.split_once(':').map_or((*what, None), |(name, port)| (name, Some(port)));
    let (from, to) = (end(from), end(to));
    let family = match (&from, &to, rest) {
        (End::Outside(address), _, _) | (_, End::Outside(address), _) => Family::of(*address),
        (_, _, ["v6"]) => Family::V6,
        _ => Family::V4,
    };
    Attempt { from, to, family, protocol: protocol(name), port: port.map(|port| port.parse().unwrap()) }
}

pub(crate) fn judge(cluster: &Cluster, text: &str) -> Verdict {
    cluster.judge(&attempt(text))
}

/// Names which attempts come out wrong, all of them.
pub(crate) fn check(cluster: &Cluster, table: &[(&str, bool)]) {
    let mut wrong = String::new();
    for (text, allowed) in table {
        let verdict = judge(cluster, text);
        if verdict.allowed != *allowed {
            writeln!(wrong, "{text}: {verdict}").unwrap();
        }
        // The reasons must carry the verdict.
        assert_eq!(verdict.allowed, verdict.why.iter().all(|because| because.reason.allows()), "{text}");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Policies of namespace `default` by their specs, in the world, and what they do.
pub(crate) fn check_policies(specs: &[&str], table: &[(&str, bool)]) {
    check(&cluster(Options::default(), &policies(specs)), table);
}

pub(crate) fn policies(specs: &[&str]) -> Vec<Value> {
    specs.iter().enumerate().map(|(index, spec)| policy(&format!("policy-{index}"), spec)).collect()
}
