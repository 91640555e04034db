//! Services without kube-proxy, with real eBPF: pods reach them while the agent is killed again and again, backends come and go,
//! and a service without any refuses at once.
//!
//! Needs root and the built programs; says so and passes without them, unless `BRISTLE_REQUIRE_ALL=1`.

#[path = "support/pods.rs"]
mod support;

use lab::cluster::Node;
use lab::{BlockingCluster, Cluster};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, can_run, start_pod};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 80, targetPort: 8080}]
";

/// The same pods from outside, by balancers that ask nodes whether they have some.
const OUTER: &str = "apiVersion: v1
kind: Service
metadata: {name: outer, namespace: default}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32100
  selector: {app: web}
  ports: [{port: 81, targetPort: 8080}]
";

/// A pod that answers on port 8080.
fn server(cluster: &BlockingCluster, name: &str, node: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: web}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: bristle/http-echo}}]\n"
    );
    cluster.apply(&pod).expect("the pod is accepted");
    cluster.wait(|c| c.wait_running("default", name, PATIENCE)).expect("the pod runs");
}

/// Requests of the client, each over a connection of its own: how many were sent, were answered, and failed.
fn requests(cluster: &BlockingCluster, to: IpAddr, count: u64) -> [u64; 3] {
    let (to, count) = (to.to_string(), count.to_string());
    let traffic = ["/opt/bristle/bin/bristle-lab", "traffic", "http", &to, "--port", "80"];
    let command = [&traffic[..], &["--count", &count, "--interval-us", "10000"]].concat();
    let output = cluster.exec("default", "client", &command).expect("the client runs");
    let last = output.stdout.lines().last().unwrap_or("{}");
    let last: Value = serde_json::from_str(last).expect("a line of JSON");
    let number = |key: &str| last[key].as_u64().unwrap_or_default();
    [number("sent"), number("answered"), number("resets") + number("errors")]
}

/// What `bristle` says on the first node.
fn bristle(cluster: &BlockingCluster, words: &[&str]) -> Value {
    let mut command = Command::new(cluster.bins().path.join("bristle"));
    command.arg("--socket").arg(cluster.nodes()[0].file("/run/bristle/bristle.sock"));
    let output = command.args(words).args(["-o", "json"]).output().expect("bristle starts");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// How many backends each family of the service has, by the agent and by the tables.
fn backends(cluster: &BlockingCluster) -> Vec<usize> {
    let count = |list: &Value| -> Vec<usize> {
        let its = |item: &&Value| item["name"] == "web" || item["frontend"].as_str().is_some_and(is_its);
        let all = list.as_array().into_iter().flatten().filter(its);
        all.map(|item| item["backends"].as_array().map_or(0, Vec::len)).collect()
    };
    [count(&bristle(cluster, &["service", "list"])), count(&bristle(cluster, &["bpf", "lb", "list"]))]
        .concat()
}

fn is_its(frontend: &str) -> bool {
    frontend.ends_with(":80")
}

/// What the nodes say to a balancer that asks them for their endpoints: code and number, by node.
fn health(cluster: &BlockingCluster) -> Vec<(u16, u64)> {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/32100 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3";
    let answer = |node: &Node| {
        let answer = node.run("bash", &["-c", ask]).expect("bash runs").stdout;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        assert!(code == 0 || body["service"]["name"] == "outer", "{answer}");
        (code, body["localEndpoints"].as_u64().unwrap_or(u64::MAX))
    };
    cluster.nodes().iter().map(answer).collect()
}

/// Whether a process of the first node may listen at a port.
fn may_listen(cluster: &BlockingCluster, port: u64) -> bool {
    let script = format!(
        "echo 0 >/sys/fs/cgroup/cgroup.procs && exec perl -MIO::Socket::INET -e \
         'exit !IO::Socket::INET->new(Listen => 1, LocalPort => {port})'"
    );
    let output = cluster.nodes()[0].run("sh", &["-c", &script]).expect("a shell runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn services_work_without_kube_proxy_and_without_an_agent() {
    if !can_run("services") {
        return;
    }
    let cluster =
        Cluster::builder().nodes(2).kube_proxy_replacement(true).blocking().expect("a cluster of two nodes");
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let client = start_pod(&cluster, "client", &nodes[0]);
    assert_eq!(client.ips.len(), 2, "one of each family");
    server(&cluster, "near", &nodes[0]);
    server(&cluster, "far", &nodes[1]);
    cluster.apply(SERVICE).expect("the service is accepted");
    let service = cluster.store().get(&sim_api::resource::SERVICES, "default", "web").expect("it is there");
    let addresses = service["spec"]["clusterIPs"].as_array().expect("it has addresses");
    let addresses: Vec<IpAddr> =
        addresses.iter().map(|ip| ip.as_str().unwrap_or_default().parse().expect("an address")).collect();
    assert_eq!(addresses.len(), 2, "one of each family");
    eventually("the service", || backends(&cluster) == [2, 2, 2, 2]);
    cluster.apply(OUTER).expect("the service is accepted");
    eventually("the answer for balancers", || health(&cluster) == [(200, 1), (200, 1)]);

    // Nobody would reach a process of the node there.
    let outer = cluster.store().get(&sim_api::resource::SERVICES, "default", "outer").expect("it is there");
    let node_port = outer["spec"]["ports"][0]["nodePort"].as_u64().expect("it has one");
    eventually("the refusal of the port", || !may_listen(&cluster, node_port));
    assert!(may_listen(&cluster, 8181));

    // Who is in the pod's network and not in the node's cgroup is left alone.
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(addresses[0], 80), Duration::from_secs(1));
    assert!(client.netns.run(connect).expect("enter").is_err());

    // An agent that is killed at any moment of its start costs no connection.
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
            let counted = requests(&cluster, *address, 200);
            assert_eq!(counted, [200, 200, 0], "{address}");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(agent.starts() > 5, "{}", agent.starts());

    // Who is left answers; with nobody left a call fails.
    for (pod, left, codes) in [("near", 1, [503, 200]), ("far", 0, [503, 503])] {
        let options = sim_api::DeleteOptions::default();
        cluster.store().delete(&sim_api::resource::PODS, "default", pod, &options).expect("it was there");
        eventually("the news", || backends(&cluster) == [left; 4]);
        let code = |(code, _): &(u16, u64)| *code;
        eventually("the news for balancers", || health(&cluster).iter().map(code).eq(codes));
        for address in &addresses {
            let counted = requests(&cluster, *address, 20);
            assert_eq!(counted, if left == 0 { [20, 0, 20] } else { [20, 20, 0] }, "{address}");
        }
    }
}
