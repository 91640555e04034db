//! What an operator sees of a running agent: `bristle`, the local API, metrics, and the removal of everything.
//!
//! Needs root and the built programs; says so and passes without them, unless `BRISTLE_REQUIRE_ALL=1`.

#[path = "support/pods.rs"]
mod support;

use lab::{BlockingCluster, Cluster};
use serde_json::Value;
use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{PATIENCE, can_run, start_pod};

/// `bristle` against the agent of the first node.
fn bristle(cluster: &BlockingCluster) -> Command {
    let mut command = Command::new(cluster.bins().path.join("bristle"));
    command.arg("--socket").arg(cluster.nodes()[0].file("/run/bristle/bristle.sock"));
    command
}

fn output(cluster: &BlockingCluster, args: &[&str]) -> Output {
    bristle(cluster).args(args).output().expect("bristle starts")
}

/// Standard output of a command that succeeds.
fn text(cluster: &BlockingCluster, args: &[&str]) -> String {
    let output = output(cluster, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(cluster: &BlockingCluster, args: &[&str]) -> Value {
    serde_json::from_str(&text(cluster, &[args, &["-o", "json"]].concat())).expect("JSON")
}

/// Repeats until `check` finds what it looks for.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn metrics(cluster: &BlockingCluster) -> String {
    let socket = cluster.nodes()[0].file("/run/bristle/bristle.sock");
    let curl = Command::new("curl")
        .arg("--silent")
        .arg("--fail")
        .arg("--unix-socket")
        .arg(socket)
        .arg("http://agent/metrics")
        .output();
    String::from_utf8(curl.expect("curl is there").stdout).expect("text")
}

#[test]
fn an_operator_sees_what_the_agent_does() {
    if !can_run("what an operator sees") {
        return;
    }
    let cluster = Cluster::builder().nodes(2).blocking().expect("a cluster of two nodes");
    let names: Vec<&str> = cluster.nodes().iter().map(lab::cluster::Node::name).collect();
    let here = start_pod(&cluster, "here", names[0]);
    let there = start_pod(&cluster, "there", names[1]);

    status_nodes_and_ipcache(&cluster, names[0]);
    let id = endpoints(&cluster, &here);
    connections(&cluster, &here, &there);
    drops_are_seen_with_their_reason(&cluster, &here, id);
    mistakes_are_explained(&cluster);
    cleanup_leaves_nothing(&cluster);
}

fn status_nodes_and_ipcache(cluster: &BlockingCluster, node: &str) {
    let status = json(cluster, &["status"]);
    assert_eq!(status["state"], "ready", "{status}");
    assert_eq!(status["node"], node);
    assert_eq!(status["kubernetes"]["synced"], true);
    assert_eq!(status["ipam"].as_array().expect("pools").len(), 2, "one pool of each family");
    let human = text(cluster, &["status"]);
    assert!(human.starts_with("Agent:") && human.contains("ready"), "{human}");

    let nodes = json(cluster, &["node", "list"]);
    let nodes = nodes.as_array().expect("a list");
    assert_eq!(nodes.len(), 2);
    let remote = nodes.iter().find(|node| node["local"] == false).expect("the other node");
    let ipcache = json(cluster, &["ipcache", "list"]);
    let row = |prefix: &Value| {
        ipcache.as_array().expect("a list").iter().find(|row| row["prefix"] == *prefix).cloned()
    };
    for cidr in remote["pod_cidrs"].as_array().expect("a list") {
        let row = row(cidr).expect("a row for the other node's pods");
        assert_eq!(row["tunnel"], remote["internal_ips"][0], "pods of the other node are behind it");
    }
}

/// The id of the pod's endpoint.
fn endpoints(cluster: &BlockingCluster, here: &support::Pod) -> u64 {
    let endpoints = json(cluster, &["endpoint", "list"]);
    let endpoint = endpoints
        .as_array()
        .expect("a list")
        .iter()
        .find(|endpoint| endpoint["pod"] == "here")
        .expect("the pod's endpoint");
    assert_eq!(endpoint["state"], "ready");
    let ips: [std::net::IpAddr; 2] = [&endpoint["ipv4"], &endpoint["ipv6"]]
        .map(|ip| ip.as_str().expect("an address").parse().expect("an address"));
    assert_eq!(ips.as_slice(), here.ips.as_slice(), "as the Pod object has them");
    let id = endpoint["id"].as_u64().expect("a number");
    assert_eq!(json(cluster, &["endpoint", "get", &id.to_string()]), *endpoint);
    id
}

fn connections(cluster: &BlockingCluster, here: &support::Pod, there: &support::Pod) {
    for (&from, &to) in here.ips.iter().zip(&there.ips) {
        let server = there.netns.run(|| UdpSocket::bind((to, 7000))).expect("enter").expect("bind");
        server.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let client = here.netns.run(|| UdpSocket::bind((from, 7001))).expect("enter").expect("bind");
        client.send_to(b"hello", (to, 7000)).expect("send");
        let (_, peer) = server.recv_from(&mut [0; 16]).expect("it comes");
        assert_eq!(peer.ip(), from, "with the pod's own address");
        let found = eventually("the connection", || {
            let all = json(cluster, &["bpf", "ct", "list"]);
            let wanted = |entry: &&Value| {
                entry["source"] == client.local_addr().expect("a socket").to_string()
                    && entry["protocol"] == "udp"
            };
            all.as_array()?.iter().find(wanted).cloned()
        });
        assert_eq!(found["destination"], server.local_addr().expect("a socket").to_string());
        assert!(found["forward"].as_str().expect("a text").starts_with("tunnel "), "{found}");
    }
}

fn drops_are_seen_with_their_reason(cluster: &BlockingCluster, here: &support::Pod, id: u64) {
    // An address of this node's pod CIDR that no pod has.
    let IpAddrs { free, own } = free_address(cluster, here);
    let monitor = bristle(cluster)
        .args(["monitor", "--kind", "drop", "--endpoint", &id.to_string(), "--count", "1", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("bristle starts");
    eventually("the reader", || (json(cluster, &["status"])["monitor"]["readers"] == 1).then_some(()));
    let socket = here.netns.run(|| UdpSocket::bind((own, 0))).expect("enter").expect("bind");
    // The answer may be an ICMP error; the drop is what matters.
    let _ = socket.send_to(b"anybody", (free, 9));
    let output = monitor.wait_with_output().expect("the monitor ends after one event");
    let event: Value = serde_json::from_slice(&output.stdout).expect("one event");
    assert_eq!(event["kind"], "drop");
    assert_eq!(event["reason"], "UNKNOWN_L3_TARGET_ADDRESS");
    assert_eq!(event["destination"], free.to_string());
    assert_eq!(event["destination_port"], 9);
    assert_eq!(event["endpoint"], id);

    let page = metrics(cluster);
    assert!(
        page.contains("bristle_drop_count_total{reason=\"Unknown L3 target address\",direction=\"EGRESS\"}"),
        "{page}"
    );
    assert!(page.contains("bristle_cni_requests_seconds_count{command=\"ADD\",code=\"0\"}"), "{page}");
    assert!(page.contains("bristle_nodes_all_num 2\n"), "{page}");
}

struct IpAddrs {
    free: std::net::IpAddr,
    own: std::net::IpAddr,
}

/// The last address of the pod CIDR that the pod's own one is of.
fn free_address(cluster: &BlockingCluster, here: &support::Pod) -> IpAddrs {
    let own = here.ips[0];
    let status = json(cluster, &["status"]);
    let cidrs = status["network"]["pod_cidrs"].as_array().expect("a list");
    let cidr = cidrs
        .iter()
        .map(|cidr| cidr.as_str().and_then(|cidr| cidr.parse::<ipnet::IpNet>().ok()).expect("a CIDR"))
        .find(|cidr| cidr.contains(&own));
    let last = cidr.expect("its CIDR").hosts().last().expect("it has addresses");
    IpAddrs { free: last, own }
}

fn mistakes_are_explained(cluster: &BlockingCluster) {
    let error = |args: &[&str]| {
        let output = output(cluster, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(error(&["endpoint", "get", "65000"]).contains("there is no endpoint 65000 on this node"));
    assert!(error(&["bpf", "map", "get", "nothing"]).contains("/v1/maps lists them"));
    let nowhere = Command::new(cluster.bins().path.join("bristle"))
        .args(["--socket", "/nonexistent/s", "status"])
        .output()
        .expect("bristle starts");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("start bristle-agent on this node"));
}

fn cleanup_leaves_nothing(cluster: &BlockingCluster) {
    let node = &cluster.nodes()[0];
    cluster.wait(async |_| node.agent().stop().await);
    // As the node has it: directories of the machine may be hidden there.
    let agent = "/opt/bristle/bin/bristle-agent";
    let links = || {
        let output = node.run("ip", &["-brief", "link"]).expect("ip runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let asked = node.run(agent, &["cleanup"]).expect("it starts");
    assert!(asked.status.success());
    assert!(links().contains("bristle_host"), "asking changes nothing");
    let done = node.run(agent, &["cleanup", "--yes"]).expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let left = links();
    assert!(!left.contains("bristle_") && !left.contains("lxc"), "{left}");
    let routes = node.run("ip", &["route", "show", "proto", "76"]).expect("ip runs");
    assert!(routes.stdout.is_empty(), "{}", String::from_utf8_lossy(&routes.stdout));
    for path in ["/sys/fs/bpf/bristle", "/run/bristle/bristle.sock", "/etc/cni/net.d/05-bristle.conflist"] {
        assert!(!node.file(path).exists(), "{path} is left");
    }
}
