//! Calls from outside the cluster, with real eBPF: a host that is no pod and no node calls services at a node, whose backends are there
//! and at another node, while the node's agent is killed again and again; and the client's address where it shall be kept.
//!
//! Needs root and the built programs; says so and passes without them, unless `BRISTLE_REQUIRE_ALL=1`.

#[path = "support/pods.rs"]
#[expect(dead_code, reason = "these tests have pods of their own")]
mod support;

use lab::plan::{Family, Routing};
use lab::traffic::{Kind, Options, Tally, tally};
use lab::{BlockingCluster, Cluster};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, can_run};

/// Ports of the services at nodes, and of the one that keeps the client's address.
const HTTP: u16 = 30_080;
const ECHO: u16 = 30_007;
const LOCAL: u16 = 30_081;

fn service(name: &str, app: &str, policy: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  type: NodePort\n  \
         externalTrafficPolicy: {policy}\n  ipFamilyPolicy: PreferDualStack\n  selector: {{app: {app}}}\n  ports: [{port}]\n"
    )
}

fn server(cluster: &BlockingCluster, name: &str, node: &str, app: &str, container: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {app}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c, {container}}}]\n"
    );
    cluster.apply(&pod).expect("the pod is accepted");
    cluster.wait(|c| c.wait_running("default", name, PATIENCE)).expect("the pod runs");
}

/// Runs something on the host outside.
fn outside<T: Send>(cluster: &BlockingCluster, work: impl FnOnce() -> T + Send) -> T {
    cluster.outside().ns().run_blocking(work).expect("the host outside is entered")
}

fn calls(cluster: &BlockingCluster, kind: Kind, to: IpAddr, port: u16, count: u32) -> Tally {
    let options = Options { kind, to, port, count, interval_us: 10_000, size: 1000, timeout_us: 5_000_000 };
    outside(cluster, || tally(&options)).expect("there is a socket")
}

/// What an HTTP server says of one request, if anybody answers: itself, and whether it sees the client by its own address.
fn ask(cluster: &BlockingCluster, to: SocketAddr) -> Option<(String, bool)> {
    let (own, answer) = outside(cluster, || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some((stream.local_addr().ok()?.ip(), answer))
    })?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    let client: IpAddr = body["client"].as_str()?.parse().ok()?;
    Some((body["hostname"].as_str()?.to_owned(), client == own))
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_host_outside_reaches_services_through_the_tunnel() {
    reaches(Routing::Vxlan);
}

#[test]
fn a_host_outside_reaches_services_with_native_routing() {
    reaches(Routing::Native);
}

fn reaches(routing: Routing) {
    if !can_run("calls from outside") {
        return;
    }
    let cluster = Cluster::builder()
        .nodes(2)
        .family(Family::Dual)
        .routing(routing)
        .kube_proxy_replacement(true)
        .blocking()
        .expect("a cluster of two nodes");
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    for (place, node) in ["near", "far"].into_iter().zip(&nodes) {
        server(&cluster, &format!("web-{place}"), node, "web", "image: bristle/http-echo");
        server(&cluster, &format!("echo-{place}"), node, "echo", "image: bristle/echo, args: [--udp, '7']");
    }
    server(&cluster, "lone", &nodes[0], "lone", "image: bristle/http-echo");
    let web = service("web", "web", "Cluster", "{port: 80, targetPort: 8080, nodePort: 30080}");
    let echo = service("echo", "echo", "Cluster", "{port: 7, protocol: UDP, targetPort: 7, nodePort: 30007}");
    let local = service("local", "lone", "Local", "{port: 80, targetPort: 8080, nodePort: 30081}");
    for service in [web, echo, local] {
        cluster.apply(&service).expect("the service is accepted");
    }
    let addresses = cluster.nodes()[0].addresses();
    assert_eq!(addresses.len(), 2, "one of each family");
    for address in &addresses {
        // Backends of both nodes answer.
        let mut seen = BTreeSet::new();
        eventually("an answer from everybody", || {
            seen.extend(ask(&cluster, SocketAddr::new(*address, HTTP)).map(|(pod, _)| pod));
            seen.len() == 2
        });
        eventually("an answer of the one", || ask(&cluster, SocketAddr::new(*address, LOCAL)).is_some());
        eventually("an echo", || calls(&cluster, Kind::Udp, *address, ECHO, 1).answered == 1);
        let answer = ask(&cluster, SocketAddr::new(*address, LOCAL));
        assert_eq!(answer, Some(("lone".to_owned(), true)), "the client's address is kept");
    }
    for address in cluster.nodes()[1].addresses() {
        assert_eq!(ask(&cluster, SocketAddr::new(address, LOCAL)), None, "nobody of that node's");
    }

    // An agent that is killed at any moment of its start costs no connection and no datagram.
    let (agent, done) = (cluster.nodes()[0].agent().control(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pause = 0;
            while !done.load(Ordering::Relaxed) {
                agent.kill(Signal::SIGKILL);
                pause = (pause + 170) % 600;
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
        for address in &addresses {
            for (kind, port) in [(Kind::Http, HTTP), (Kind::Udp, ECHO)] {
                let counted = calls(&cluster, kind, *address, port, 100);
                assert_eq!(counted, Tally { sent: 100, answered: 100, resets: 0, errors: 0 }, "{address}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(agent.starts() > 5, "{}", agent.starts());
}
