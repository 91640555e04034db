//! The CNI plugin against the real agent on a node of a lab, called as a runtime calls it: what goes wrong has the right code and a message
//! that helps, and leaves nothing behind.
//!
//! Needs root and the built programs (`cargo xtask test` builds them).

#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic with its place")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_node::route::Route;
use agent_node::{Netlink, Netns};
use lab::Cluster;
use lab::bins::BinDir;
use lab::cluster::Node;
use lab::preflight;
use serde_json::{Value, json};

/// A node with an agent; `None`, with a word, if the test cannot run here.
async fn cluster(test: &str) -> Option<Cluster> {
    let missing = preflight::machine().and_then(|()| BinDir::find(None).map(drop)).err();
    if let Some(reason) = missing {
        assert!(std::env::var_os("BRISTLE_REQUIRE_ALL").is_none(), "{test}: {reason}");
        eprintln!("SKIPPED: {test} needs root and the built programs: {reason}");
        return None;
    }
    Some(Cluster::builder().nodes(1).policy(false).build().await.unwrap())
}

/// One call of the plugin inside the node: exit code zero with what it printed, or the error object.
fn call(node: &Node, command: &str, container: &str, netns: &str, extra: &Value) -> Result<Value, Value> {
    let mut config = json!({"cniVersion": "1.1.0", "name": "bristle", "type": "bristle-cni"});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}");
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", container),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", &args),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let run = || {
        let mut child = Command::new("/opt/cni/bin/bristle-cni")
            .env_clear()
            .envs(variables)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes())?;
        child.wait_with_output()
    };
    let output = node.machine().ns().run_blocking(run).unwrap().unwrap();
    let printed =
        if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    if output.status.success() { Ok(printed) } else { Err(printed) }
}

/// A pod's network namespace by a name in the node's /run/netns.
struct PodNetns {
    path: String,
    netns: Netns,
}

fn pod_netns(node: &Node, name: &str) -> PodNetns {
    let output = node.run("ip", &["netns", "add", name]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let path = format!("/run/netns/{name}");
    let netns = Netns::open(node.file(&path)).unwrap();
    PodNetns { path, netns }
}

fn links(node: &Node) -> BTreeSet<String> {
    let links = node.machine().ns().run_blocking(|| Netlink::open().unwrap().links().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).collect()
}

fn addresses(result: &Value) -> BTreeSet<String> {
    result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

/// The error has this code and says this.
fn assert_error(answer: Result<Value, Value>, code: u32, part: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(part), "{error} should contain {part:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_go_wrong_have_their_codes_and_leave_nothing_behind() {
    let Some(cluster) = cluster("calls_that_go_wrong_have_their_codes_and_leave_nothing_behind").await else {
        return;
    };
    let node = &cluster.nodes()[0];
    let plain = json!({});
    call(node, "STATUS", "", "", &plain).unwrap();
    let before = links(node);

    let a = pod_netns(node, "a");
    let result = call(node, "ADD", "a", &a.path, &plain).unwrap();
    assert_eq!(addresses(&result).len(), 2, "one of each family: {result}");
    assert_eq!(result["interfaces"][1]["sandbox"], a.path);
    let with_a = links(node);
    assert_eq!(
        with_a.difference(&before).collect::<Vec<_>>(),
        [result["interfaces"][0]["name"].as_str().unwrap()]
    );
    let prev = json!({"prevResult": result});
    call(node, "CHECK", "a", &a.path, &prev).unwrap();

    // A second ADD, for the same container and for another one in the same namespace.
    assert_error(call(node, "ADD", "a", &a.path, &plain), 102, "call DEL before another ADD");
    assert_error(call(node, "ADD", "other", &a.path, &plain), 4, "CNI_IFNAME=eth0 exists already");
    // Namespaces that are gone or are none.
    assert_error(call(node, "ADD", "b", "/run/netns/gone", &plain), 8, "/run/netns/gone");
    assert_error(call(node, "ADD", "b", "/proc/self/ns/mnt", &plain), 8, "network namespace");
    assert_error(call(node, "ADD", "b", "/etc/hosts", &plain), 8, "is not a network namespace");
    assert_error(call(node, "CHECK", "b", &a.path, &prev), 3, "not known");
    assert_eq!(links(node), with_a, "nothing is left of failed calls");
    call(node, "CHECK", "a", &a.path, &prev).unwrap();

    // DELs for others leave it alone, whatever they are for.
    call(node, "DEL", "other", &a.path, &plain).unwrap();
    call(node, "DEL", "never-seen", "", &plain).unwrap();
    call(node, "CHECK", "a", &a.path, &prev).unwrap();

    // CHECK sees what is missing.
    let mut pod = Netlink::open_in(&a.netns).unwrap();
    let eth0 = pod.link("eth0").unwrap().index;
    let gateway = |ip: &&Value| ip["gateway"].as_str().is_some_and(|text| text.contains('.'));
    let ips = result["ips"].as_array().unwrap();
    let router = ips.iter().find(gateway).unwrap()["gateway"].as_str().unwrap();
    let default = Route::default_via(router.parse().unwrap(), eth0);
    assert!(pod.delete_route(&default).unwrap());
    assert_error(call(node, "CHECK", "a", &a.path, &prev), 101, "route to 0.0.0.0/0");
    pod.replace_route(&default).unwrap();
    call(node, "CHECK", "a", &a.path, &prev).unwrap();

    // DEL, and again with what containerd 2.1 repeats it with. The addresses rest before somebody else gets them.
    call(node, "DEL", "a", &a.path, &prev).unwrap();
    call(node, "DEL", "a", "", &plain).unwrap();
    assert_eq!(links(node), before);
    let again = call(node, "ADD", "a", &a.path, &plain).unwrap();
    assert!(addresses(&again).is_disjoint(&addresses(&result)), "{again}");

    // GC spares what is listed. The node's own pods have to be listed, too: the agent cannot know that this is a test.
    let b = pod_netns(node, "b");
    call(node, "ADD", "b", &b.path, &plain).unwrap();
    let mut valid = own_pods(node);
    valid.retain(|attachment| attachment["containerID"] != "b");
    call(node, "GC", "", "", &json!({"cni.dev/valid-attachments": valid})).unwrap();
    assert_eq!(links(node).len(), before.len() + 1);
    assert_error(call(node, "CHECK", "b", &b.path, &json!({"prevResult": {}})), 3, "not known");

    // A namespace that ended without a DEL, as when a machine lost its runtime's state.
    let PodNetns { path, netns } = a;
    drop((pod, netns));
    node.run("ip", &["netns", "del", "a"]).unwrap();
    call(node, "DEL", "a", &path, &plain).unwrap();
    assert_eq!(links(node), before);
}

/// The attachments that the agent knows, from its state directory's documents by way of its API.
fn own_pods(node: &Node) -> Vec<Value> {
    use std::io::Read as _;
    let mut stream = std::os::unix::net::UnixStream::connect(node.file("/run/bristle/bristle.sock")).unwrap();
    stream.write_all(b"GET /v1/endpoints HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let endpoints: Vec<agent_api::Endpoint> = serde_json::from_str(body).unwrap();
    let attachment = |endpoint: agent_api::Endpoint| json!({"containerID": endpoint.container_id, "ifname": endpoint.ifname});
    endpoints.into_iter().map(attachment).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pod_cidr_says_so_and_empties_again() {
    let Some(cluster) = cluster("a_full_pod_cidr_says_so_and_empties_again").await else { return };
    let node = &cluster.nodes()[0];
    let before = links(node);
    let mut added = Vec::new();
    let mut seen = BTreeSet::new();
    let mut times = Vec::new();
    let refused = loop {
        let name = format!("full-{}", added.len());
        let pod = pod_netns(node, &name);
        let start = Instant::now();
        match call(node, "ADD", &name, &pod.path, &json!({})) {
            Ok(result) => {
                times.push(start.elapsed());
                for address in addresses(&result) {
                    assert!(seen.insert(address.clone()), "{address} was given out twice");
                }
                added.push((name, pod));
                assert!(added.len() < 300, "the node's pod CIDR is a /24");
            }
            Err(error) => break error,
        }
    };
    times.sort_unstable();
    println!(
        "{} ADDs one after the other: median {:?}, slowest {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(added.len() > 240, "{}: {refused}", added.len());
    assert_eq!(refused["code"], 11, "{refused}");
    assert!(refused["msg"].as_str().unwrap().contains("no IPv4 address is free"), "{refused}");
    let full = links(node).len();
    assert_eq!(full, before.len() + added.len(), "nothing is left of the refused ADD");

    let start = Instant::now();
    for (name, pod) in &added {
        call(node, "DEL", name, &pod.path, &json!({})).unwrap();
    }
    println!(
        "{} DELs one after the other: {:?} each",
        added.len(),
        start.elapsed() / u32::try_from(added.len()).unwrap()
    );
    assert!(start.elapsed() < Duration::from_mins(2));
    assert_eq!(links(node), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_pods_at_once_get_their_own_addresses() {
    let Some(cluster) = cluster("twenty_pods_at_once_get_their_own_addresses").await else { return };
    let node = &cluster.nodes()[0];
    let before = links(node);
    let pods: Vec<_> = (0..100).map(|number| pod_netns(node, &format!("many-{number}"))).collect();
    let add = |(number, pod): (usize, &PodNetns)| {
        let start = Instant::now();
        let result = call(node, "ADD", &format!("many-{number}"), &pod.path, &json!({})).unwrap();
        (start.elapsed(), addresses(&result))
    };
    let numbered: Vec<_> = pods.iter().enumerate().collect();
    let done: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..20)
            .map(|lane| {
                let mine = numbered.iter().skip(lane).step_by(20).copied();
                scope.spawn(move || mine.map(add).collect::<Vec<_>>())
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    let mut times: Vec<_> = done.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    println!("100 ADDs, 20 at a time: median {:?}, p99 {:?}", times[50], times[98]);
    let given: BTreeSet<_> = done.iter().flat_map(|(_, addresses)| addresses).collect();
    assert_eq!(given.len(), 200, "each pod has one address of each family and nobody else has it");

    // All at once gone, too, without a runtime that asks one by one.
    let ours: BTreeSet<_> = pods.iter().enumerate().map(|(number, _)| format!("many-{number}")).collect();
    let mut valid = own_pods(node);
    valid.retain(|attachment| !ours.contains(attachment["containerID"].as_str().unwrap()));
    call(node, "GC", "", "", &json!({"cni.dev/valid-attachments": valid})).unwrap();
    assert_eq!(links(node), before);
}
