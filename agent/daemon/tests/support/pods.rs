//! Pods for tests on a lab of their own.

use agent_node::Netns;
use lab::BlockingCluster;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// How long anything may take that a loaded machine does slowly.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Whether a cluster can be made here; if not, says so loudly.
pub(crate) fn can_run(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let why = match lab::bins::BinDir::find(None) {
        _ if !root => "it needs root (network namespaces and eBPF)".to_owned(),
        Ok(bins) if bins.path.join("bristle").is_file() => return true,
        Ok(_) => "bristle is not built; `cargo xtask test` builds everything first".to_owned(),
        Err(missing) => format!("{missing}; `cargo xtask test` builds everything first"),
    };
    assert!(std::env::var("BRISTLE_REQUIRE_ALL").as_deref() != Ok("1"), "must not be skipped here: {why}");
    // Not by eprintln: of a test that passes the harness shows nothing.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    false
}

fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: bristle/client}}]\n"
    )
}

/// A running pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its network namespace.
    pub(crate) netns: Netns,
    /// Its addresses.
    pub(crate) ips: Vec<IpAddr>,
}

/// Starts a pod on a node and waits until it has its network.
pub(crate) fn start_pod(cluster: &BlockingCluster, name: &'static str, node: &str) -> Pod {
    cluster.apply(&pod(name, node)).expect("the pod is accepted");
    cluster.wait(|c| c.wait_running("default", name, PATIENCE)).expect("the pod runs");
    let (process, _) = cluster.kubelets().container_process("default", name, None).expect("it has a process");
    let object = cluster.store().get(&sim_api::resource::PODS, "default", name).expect("it is there");
    let ips = object["status"]["podIPs"].as_array().expect("it has addresses");
    let ips: Vec<IpAddr> =
        ips.iter().map(|ip| ip["ip"].as_str().unwrap_or_default().parse().expect("an address")).collect();
    // The container's first process enters the namespace a moment after it was started.
    let since = std::time::Instant::now();
    loop {
        let netns = Netns::of_process(process.pid).expect("its network namespace");
        if netns.run(|| std::net::UdpSocket::bind((ips[0], 0))).expect("enter").is_ok() {
            return Pod { netns, ips };
        }
        assert!(since.elapsed() < PATIENCE, "{name} does not enter its network namespace");
        std::thread::sleep(Duration::from_millis(20));
    }
}
