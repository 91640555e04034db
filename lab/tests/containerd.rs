//! The CNI plugin and the agent under a real container runtime: sandboxes made by containerd and runc through the CRI socket, as a kubelet
//! makes them.
//!
//! Needs root, containerd and runc (Debian: `apt-get install containerd runc`), and the built programs (`cargo xtask test` builds them).
//! Everything runs inside a node of a lab, so the machine's own containerd, if any, notices nothing.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]

#[path = "containerd/cri.rs"]
mod cri;
#[path = "containerd/image.rs"]
mod image;
#[path = "containerd/runtime.rs"]
mod runtime;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use agent_node::{Netlink, Netns};
use cri::{Cri, VersionRequest, VersionResponse};
use lab::Cluster;
use lab::bins::BinDir;
use lab::cluster::Node;
use lab::preflight::{self, find_tool};
use runtime::Runtime;

/// Why the test cannot run here, if it cannot.
fn missing() -> Option<String> {
    if let Err(error) = preflight::machine() {
        return Some(error.to_string());
    }
    if let Some(tool) = ["containerd", "runc", "ctr", "ip"].into_iter().find(|tool| find_tool(tool).is_none())
    {
        return Some(format!("{tool} is not installed (apt-get install containerd runc iproute2)"));
    }
    BinDir::find(None).err().map(|error| error.to_string())
}

/// A sandbox as the tests see it.
struct Sandbox {
    id: String,
    ips: Vec<IpAddr>,
    netns: Netns,
}

async fn run_sandbox(cri: &Cri, runtime: &Runtime, name: &str) -> Sandbox {
    let id = cri
        .run_pod_sandbox(name, runtime.cgroup())
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", runtime.log()));
    let answer = cri.pod_sandbox_status(&id).await.unwrap();
    let status = answer.status.unwrap();
    assert_eq!(status.state, 0, "ready");
    let network = status.network.unwrap();
    let mut ips = vec![network.ip.parse().unwrap()];
    ips.extend(network.additional_ips.iter().map(|ip| ip.ip.parse::<IpAddr>().unwrap()));
    let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
    let netns =
        namespaces.iter().find(|namespace| namespace["type"] == "network").unwrap()["path"].as_str().unwrap();
    // /var/run is an absolute link, which would lead out of containerd's root.
    let netns = runtime.file(&netns.replace("/var/run/", "/run/"));
    Sandbox { id, ips, netns: Netns::open(netns).unwrap() }
}

/// One connection from one sandbox to another, with data in both directions.
fn exchange(from: &Sandbox, to: &Sandbox, ip: IpAddr) {
    let listener = to.netns.run(|| TcpListener::bind((ip, 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
            peer.ip()
        });
        let connect = || {
            TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .unwrap_or_else(|error| panic!("{address}: {error}"))
        };
        let mut stream = from.netns.run(connect).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut text = [0; 4];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ping");
        let peer = server.join().unwrap();
        assert!(from.ips.contains(&peer), "the source is the pod's own address, not {peer}");
    });
}

/// What pods leave on a node: links, namespaces, endpoints of the agent, control groups.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: BTreeSet<String>,
    netns: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    queue: BTreeSet<String>,
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "lock")
        .collect()
}

async fn traces(node: &Node, runtime: &Runtime) -> Traces {
    let links = node.machine().ns().run_blocking(|| Netlink::open().unwrap().links().unwrap()).unwrap();
    Traces {
        links: links.into_iter().map(|link| link.name).collect(),
        netns: names_in(&runtime.file("/run/netns")),
        endpoints: endpoints(node).await,
        queue: names_in(&node.file("/run/bristle/delete-queue")),
    }
}

/// Container ids of the agent's endpoints, by its local API.
async fn endpoints(node: &Node) -> BTreeSet<String> {
    use http_body_util::BodyExt as _;
    let stream = tokio::net::UnixStream::connect(node.file("/run/bristle/bristle.sock")).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request =
        hyper::Request::get("/v1/endpoints").header("host", "localhost").body(String::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let list: Vec<agent_api::Endpoint> =
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    list.into_iter().map(|endpoint| endpoint.container_id).collect()
}

/// Waits for what follows an answer by a moment: namespaces end in the background.
async fn wait_for(node: &Node, runtime: &Runtime, wanted: &Traces) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let found = traces(node, runtime).await;
        if found == *wanted {
            return;
        }
        assert!(Instant::now() < end, "left behind: {found:#?}\ninstead of {wanted:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_of_containerd_reach_each_other_and_leave_nothing_behind() {
    if let Some(reason) = missing() {
        assert!(std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(), "{reason}");
        eprintln!(
            "SKIPPED: sandboxes_of_containerd_reach_each_other_and_leave_nothing_behind needs root and containerd: {reason}"
        );
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().nodes(1).policy(false).build().await.unwrap();
    let node = &cluster.nodes()[0];
    let runtime = Runtime::start(node, scratch.path()).await.unwrap();
    let cri = runtime.cri(node).await.unwrap();
    let version: VersionResponse =
        cri.call("Version", &VersionRequest { version: "v1".into() }).await.unwrap();
    println!("{} {}", version.runtime_name, version.runtime_version);
    wait_until_ready(&cri).await;
    let before = traces(node, &runtime).await;

    let start = Instant::now();
    let a = run_sandbox(&cri, &runtime, "pod-a").await;
    println!("RunPodSandbox took {:?}", start.elapsed());
    let b = run_sandbox(&cri, &runtime, "pod-b").await;
    assert_eq!(a.ips.len(), 2, "one address of each family: {:?}", a.ips);
    assert!(a.ips.iter().all(|ip| !b.ips.contains(ip)), "{:?} {:?}", a.ips, b.ips);
    for (from, to) in [(&a, &b), (&b, &a)] {
        for ip in &to.ips {
            exchange(from, to, *ip);
        }
    }
    let during = traces(node, &runtime).await;
    assert_eq!(during.endpoints.len(), before.endpoints.len() + 2, "{during:?}");

    // With the agent: everything goes at once, and a repeated stop and removal are no errors.
    for _ in 0..2 {
        cri.stop_pod_sandbox(&a.id).await.unwrap();
    }
    for _ in 0..2 {
        cri.remove_pod_sandbox(&a.id).await.unwrap();
    }
    drop(a);
    let mut expected = before.endpoints.clone();
    expected.insert(b.id.clone());
    assert_eq!(endpoints(node).await, expected, "DEL is done when it is answered");

    // Without an agent: the runtime is not kept waiting, and the next agent cleans up.
    node.agent().stop().await;
    let starts = node.agent().starts();
    let error = cri.run_pod_sandbox("pod-c", runtime.cgroup()).await.unwrap_err();
    assert!(error.message.contains("start bristle-agent"), "{error}");
    let start = Instant::now();
    cri.stop_pod_sandbox(&b.id).await.unwrap();
    cri.remove_pod_sandbox(&b.id).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(b);
    node.agent().resume();
    node.agent().wait_started_after(starts).await;
    wait_until_ready(&cri).await;
    wait_for_api(node).await;
    wait_for(node, &runtime, &before).await;

    // And the next pod gets a network again.
    let d = run_sandbox(&cri, &runtime, "pod-d").await;
    cri.stop_pod_sandbox(&d.id).await.unwrap();
    cri.remove_pod_sandbox(&d.id).await.unwrap();
    drop(d);
    wait_for(node, &runtime, &before).await;

    let cgroup = runtime.cgroup().trim_start_matches('/').to_owned();
    drop(runtime);
    let left: Vec<_> = runtime::hierarchies()
        .into_iter()
        .map(|dir| dir.join(&cgroup))
        .filter(|path| path.exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn wait_until_ready(cri: &Cri) {
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(error) = cri.network_ready().await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A restarted agent listens after a moment.
async fn wait_for_api(node: &Node) {
    let end = Instant::now() + Duration::from_secs(20);
    while tokio::net::UnixStream::connect(node.file("/run/bristle/bristle.sock")).await.is_err() {
        assert!(Instant::now() < end, "the agent does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
