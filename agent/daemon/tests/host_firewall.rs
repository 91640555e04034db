//! Policies for nodes with real eBPF: they refuse what the node shall not take and not open, leave pods' traffic alone, and do
//! not cut the agent off from the API server.
//!
//! Needs root and the built programs; says so and passes without them, unless `BRISTLE_REQUIRE_ALL=1`.

#[path = "support/pods.rs"]
mod support;

use agent_node::Netns;
use lab::plan::Routing;
use lab::{BlockingCluster, Cluster};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{PATIENCE, can_run, start_pod};

const PORT: u16 = 8080;

/// Long enough for two more SYNs.
const SOON: Duration = Duration::from_millis(3500);

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// Takes connections until the test ends.
fn serve(netns: &Netns) {
    let listener =
        netns.run(|| TcpListener::bind(("::", PORT))).expect("enter").expect("listen in both families");
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

fn reaches(from: &Netns, to: IpAddr) -> bool {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, PORT), SOON);
    from.run(connect).expect("enter").is_ok()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `bristle policy list` says on the first node.
fn listed(cluster: &BlockingCluster) -> String {
    let mut command = Command::new(cluster.bins().path.join("bristle"));
    command.arg("--socket").arg(cluster.nodes()[0].file("/run/bristle/bristle.sock"));
    let output = command.args(["policy", "list", "-o", "json"]).output().expect("bristle starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn policies_for_nodes_are_in_force_behind_the_tunnel() {
    run(Routing::Vxlan);
}

#[test]
fn policies_for_nodes_are_in_force_with_native_routing() {
    run(Routing::Native);
}

fn run(routing: Routing) {
    if !can_run("policies for nodes") {
        return;
    }
    let cluster = Cluster::builder()
        .nodes(2)
        .routing(routing)
        .policy(true)
        .agent_args(["--host-firewall".to_owned()])
        .blocking()
        .expect("a cluster of two nodes");
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let node = Netns::of_process(cluster.nodes()[0].machine().pid()).expect("the node's network namespace");
    let addresses = cluster.nodes()[0].addresses();
    let friend = start_pod(&cluster, "friend", &nodes[0]);
    let stranger = start_pod(&cluster, "stranger", &nodes[0]);
    let other = start_pod(&cluster, "other", &nodes[1]);
    let kin = start_pod(&cluster, "kin", &nodes[1]);
    for netns in [&node, &friend.netns, &stranger.netns, &other.netns, &kin.netns] {
        serve(netns);
    }
    for address in &addresses {
        assert!(reaches(&stranger.netns, *address) && reaches(&other.netns, *address), "without a policy");
    }

    // host-firewall-ingress: pods here and elsewhere may not, others may.
    let selector = "fromEndpoints: [{matchLabels: {app: friend}}, {matchLabels: {app: kin}}]";
    cluster
        .apply(&policy("in", &format!("{{nodeSelector: {{}}, ingress: [{{{selector}}}]}}")))
        .expect("applied");
    eventually("the policy for ingress", || !reaches(&stranger.netns, addresses[0]));
    for address in &addresses {
        assert!(!reaches(&stranger.netns, *address), "stranger to {address}");
        assert!(!reaches(&other.netns, *address), "other to {address}");
        assert!(reaches(&friend.netns, *address), "friend to {address}");
        assert!(reaches(&kin.netns, *address), "kin to {address}");
    }
    for pod in [&stranger, &other] {
        for to in &pod.ips {
            assert!(reaches(&friend.netns, *to) && reaches(&node, *to), "{to} is no node, and answers pass");
        }
    }

    // host-firewall-egress: one pod here and one elsewhere are not reached by the node.
    let denied = "toEndpoints: [{matchLabels: {app: stranger}}, {matchLabels: {app: other}}]";
    cluster
        .apply(&policy(
            "out",
            &format!("{{nodeSelector: {{}}, egressDeny: [{{{denied}}}], egress: [{{toEntities: [all]}}]}}"),
        ))
        .expect("applied");
    eventually("the policy for egress", || !reaches(&node, stranger.ips[0]));
    for (pod, passes) in [(&stranger, false), (&other, false), (&friend, true), (&kin, true)] {
        for to in &pod.ips {
            assert_eq!(reaches(&node, *to), passes, "{to}");
            assert!(reaches(if passes { &stranger.netns } else { &friend.netns }, *to), "pods are not nodes");
        }
    }
    assert!(!listed(&cluster).contains("allow-api-cut"), "the API server is reached");

    // What would cut the node off is only audited, and the agent goes on hearing of pods.
    cluster.apply(&policy("out", "{nodeSelector: {}, egress: [{}]}")).expect("applied");
    eventually("the finding", || listed(&cluster).contains("allow-api-cut"));
    assert!(reaches(&node, stranger.ips[0]) && !reaches(&stranger.netns, addresses[0]));
    start_pod(&cluster, "late", &nodes[0]);
}
