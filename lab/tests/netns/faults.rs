//! Faults: each does what it says, to the node that is meant, until it is healed.

use std::fs;
use std::time::{Duration, Instant};

use agent_api::status::AgentState;
use agent_api::{Endpoint, Status, paths};
use lab::fault::{ApiFault, CniFault, Fault, FaultKind, LinkFault};
use lab::plan::Routing;
use lab::{BlockingCluster, Cluster};
use rstest::{fixture, rstest};
use sim_api::options::{DeleteOptions, Sub};
use sim_api::resource::{NODES, PODS};

use crate::common::{PATIENCE, make};

/// Two nodes joined by the switch, a client on the first and a server on the second.
#[fixture]
fn cluster(#[default(Routing::Vxlan)] routing: Routing) -> Option<BlockingCluster> {
    let builder =
        Cluster::builder().nodes(2).routing(routing).software_fabric(1).record_state(Duration::from_secs(60));
    let cluster = make(builder)?;
    for (name, node, image) in
        [("client", "node-1", "bristle/client"), ("server", "node-2", "bristle/http-echo")]
    {
        pod(&cluster, name, node, image);
    }
    Some(cluster)
}

fn pod(cluster: &BlockingCluster, name: &str, node: &str, image: &str) {
    let yaml = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: {image}}}]}}}}"
    );
    cluster.apply(&yaml).expect("the pod is valid");
    cluster.wait_running("default", name, PATIENCE).expect("the pod gets ready");
}

fn delete(cluster: &BlockingCluster, name: &str) {
    cluster.store().delete(&PODS, "default", name, &DeleteOptions::now()).expect("it can be deleted");
    until(&format!("pod {name} gone"), || cluster.store().get(&PODS, "default", name).is_err());
}

/// Waits until something is so.
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn fault(cluster: &BlockingCluster, node: &str, kind: FaultKind) {
    let fault = Fault { node: Some(node.to_owned()), lasts: None, kind };
    cluster.wait(|c| c.fault(&fault)).expect("it can be broken");
}

fn link(cluster: &BlockingCluster, fault_of: LinkFault) {
    fault(cluster, "node-2", FaultKind::Link(fault_of));
}

fn server(cluster: &BlockingCluster) -> Vec<String> {
    let object = cluster.store().get(&PODS, "default", "server").expect("the pod is there");
    let ips = object["status"]["podIPs"].as_array().cloned().unwrap_or_default();
    ips.iter().filter_map(|ip| ip["ip"].as_str().map(str::to_owned)).collect()
}

/// Pings the server; what ping said, and whether every request was answered.
fn ping(cluster: &BlockingCluster, address: &str, options: &[&str]) -> (String, bool) {
    let command = [&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1"], options, &[address]].concat();
    let output = cluster.exec("default", "client", &command).expect("ping runs");
    let answered = output.stdout.contains("3 received");
    (output.stdout + &output.stderr, answered)
}

/// Changes a Node object, so that every watch has something to say.
fn touch(cluster: &BlockingCluster) -> bool {
    let count = |node: &mut serde_json::Value| {
        let label = &mut node["metadata"]["labels"]["touched"];
        *label = label.as_str().and_then(|n| n.parse::<u32>().ok()).map_or(0, |n| n + 1).to_string().into();
    };
    cluster.store().modify(&NODES, "", "node-2", Sub::Main, count).expect("the node is there");
    true
}

fn status(cluster: &BlockingCluster, node: &str) -> Option<Status> {
    cluster.node(node).expect("the node is there").ask_agent(paths::STATUS).ok()
}

#[rstest]
#[case::vxlan(Routing::Vxlan)]
#[case::native(Routing::Native)]
fn links_break_as_asked_and_heal(
    #[case] routing: Routing,
    #[from(cluster)]
    #[with(routing)]
    cluster: Option<BlockingCluster>,
) {
    let Some(cluster) = cluster else { return };
    assert_eq!(cluster.plan().routing, routing);
    for address in server(&cluster) {
        let (said, answered) = ping(&cluster, &address, &[]);
        assert!(answered && !said.contains("DUP!"), "{said}");
        // Enough to be cut into many segments and checked by the receiver.
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        let post = format!(
            "head -c 3000000 /dev/zero | tr '\\0' x | curl -sS --max-time 20 --data-binary @- -H Expect: http://{host}:8080/ | wc -c"
        );
        let posted = cluster.exec("default", "client", &["sh", "-c", &post]).expect("curl runs");
        // The server refuses bodies of this size after it has read them, or returns them: either way it is an answer.
        assert!(posted.stderr.is_empty() && posted.stdout.trim() != "0", "{posted:?}");

        let healthy = LinkFault::default;
        for (what, fault, options, works) in [
            ("loss", LinkFault { loss: 1.0, ..healthy() }, &[][..], false),
            ("corrupt", LinkFault { corrupt: 1.0, ..healthy() }, &["-s", "1000"], false),
            ("mtu, too large", LinkFault { mtu: Some(1000), ..healthy() }, &["-s", "1200"], false),
            ("mtu, small enough", LinkFault { mtu: Some(1000), ..healthy() }, &["-s", "500"], true),
        ] {
            link(&cluster, fault);
            let (said, answered) = ping(&cluster, &address, options);
            assert_eq!(answered, works, "{what}: {said}");
        }
        link(&cluster, LinkFault { duplicate: 1.0, ..healthy() });
        let (said, _) = ping(&cluster, &address, &[]);
        assert!(said.contains("DUP!"), "{said}");
        link(&cluster, LinkFault { delay: Duration::from_millis(100), ..healthy() });
        let (said, answered) = ping(&cluster, &address, &[]);
        let minimum =
            said.rsplit_once("= ").and_then(|(_, times)| times.split('/').next()?.parse::<f64>().ok());
        assert!(answered && minimum.is_some_and(|ms| ms >= 200.0), "both ways: {said}");

        cluster.heal(None).expect("it heals");
        fault(&cluster, "node-1", FaultKind::Partition);
        let (said, answered) = ping(&cluster, &address, &[]);
        assert!(!answered, "{said}");
        let connected = status(&cluster, "node-1").is_some_and(|status| status.kubernetes.connected);
        assert!(connected, "a partition lies between nodes");
        cluster.heal(Some("node-1")).expect("it heals");
        assert!(cluster.active_faults().is_empty());
        assert!(ping(&cluster, &address, &[]).1);
    }
    let counters = cluster.link_counters("node-2").expect("there is a switch");
    assert!(counters.lost > 0 && counters.corrupted > 0 && counters.duplicated > 0, "{counters:?}");
    assert!(counters.too_large > 0 && counters.reordered == 0, "{counters:?}");
}

#[rstest]
fn agents_die_stand_still_and_find_older_state(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let node = cluster.node("node-1").expect("the node is there");
    let address = server(&cluster)[0].clone();

    let process = node.agent().process().expect("it runs");
    let state = || fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    fault(&cluster, "node-1", FaultKind::Stall);
    until("the agent stands still", || state().contains(") T "));
    assert!(ping(&cluster, &address, &[]).1, "packets go on");
    cluster.heal(None).expect("it heals");
    until("the agent goes on", || !state().contains(") T "));

    let starts = node.agent().starts();
    let kill = |restart_after: u64, snapshot_age: u64| FaultKind::Kill {
        restart_after: Duration::from_secs(restart_after),
        snapshot_age: Duration::from_secs(snapshot_age),
    };
    fault(&cluster, "node-1", kill(600, 0));
    until("the agent is gone", || node.agent().process().is_none());
    assert!(ping(&cluster, &address, &[]).1, "packets go on");
    assert_eq!((cluster.active_faults().len(), node.agent().starts()), (1, starts));
    cluster.heal(None).expect("healing starts it at once");
    let serving = || status(&cluster, "node-1").is_some_and(|s| s.state == AgentState::Ready);
    until("the agent serves", || node.agent().starts() == starts + 1 && serving());

    // A pod that the restored state does not know: its endpoint is forgotten, as with any restored disk.
    std::thread::sleep(Duration::from_secs(3));
    pod(&cluster, "later", "node-1", "bristle/client");
    let known = || -> bool {
        let list: Vec<Endpoint> = node.ask_agent(paths::ENDPOINTS).unwrap_or_default();
        list.iter().any(|endpoint| endpoint.pod == "later")
    };
    assert!(known());
    let state_has = |name: &str| {
        fn texts(dir: &std::path::Path) -> String {
            let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            entries
                .map(|e| {
                    if e.path().is_dir() {
                        texts(&e.path())
                    } else {
                        String::from_utf8_lossy(&fs::read(e.path()).unwrap_or_default()).into_owned()
                    }
                })
                .collect()
        }
        texts(&node.file("/run/bristle/state")).contains(name)
    };
    assert!(state_has("later"));
    fault(&cluster, "node-1", kill(1, 3));
    until("the state is restored", || !state_has("later"));
    until("the agent serves", || node.agent().starts() == starts + 2 && serving());
    assert!(ping(&cluster, &address, &[]).1);
}

#[rstest]
fn the_api_server_fails_for_one_node_alone(cluster: Option<BlockingCluster>) {
    let Some(cluster) = cluster else { return };
    let connected = |node: &str| status(&cluster, node).is_some_and(|s| s.kubernetes.connected);
    let events = |node: &str| {
        let text = cluster.node(node).expect("there").ask_agent_text(paths::METRICS).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("bristle_kubernetes_events")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for kind in [ApiFault::Down, ApiFault::Error(500)] {
        fault(&cluster, "node-1", FaultKind::Api(kind));
        until(&format!("node-1 is cut off by {kind:?}"), || !connected("node-1"));
        // Agents believe in their server when it tells them something.
        until("node-2 is served", || touch(&cluster) && connected("node-2"));
        assert!(!connected("node-1"), "{kind:?}");
        cluster.heal(None).expect("it heals");
        until("node-1 is back", || touch(&cluster) && connected("node-1"));
    }
    // A server that remembers nothing is no failure: what it cannot tell by watches it tells by lists.
    let before = events("node-1");
    fault(&cluster, "node-1", FaultKind::Api(ApiFault::Error(410)));
    until("node-1 lists instead", || touch(&cluster) && events("node-1") > before && connected("node-1"));
    cluster.heal(None).expect("it heals");
    // Agents list again after these; that they did is seen from what they were told.
    for kind in [ApiFault::Cut, ApiFault::PartialList, ApiFault::Stale(1)] {
        let before = events("node-1");
        fault(&cluster, "node-1", FaultKind::Api(kind));
        assert!(cluster.active_faults().is_empty(), "it happens once");
        until(&format!("node-1 has listed again after {kind:?}"), || {
            events("node-1") > before && connected("node-1")
        });
    }
}

#[rstest]
#[case::repeat_add(CniFault::RepeatAdd)]
#[case::repeat_del(CniFault::RepeatDel(Duration::from_millis(500)))]
#[case::late_del(CniFault::LateDel(Duration::from_millis(500)))]
#[case::del_first(CniFault::DelFirst)]
fn runtimes_misbehave_and_nothing_is_left(#[case] kind: CniFault) {
    let Some(cluster) = make(Cluster::builder().nodes(1)) else { return };
    let used = || status(&cluster, "node-1").map(|s| s.ipam.iter().map(|pool| pool.used).sum::<u64>());
    let before = used();
    fault(&cluster, "node-1", FaultKind::Cni(kind));
    for name in ["a", "b"] {
        pod(&cluster, name, "node-1", "bristle/client");
    }
    delete(&cluster, "a");
    pod(&cluster, "c", "node-1", "bristle/client");
    for name in ["b", "c"] {
        let own = cluster.exec("default", name, &["ip", "-br", "address", "show", "eth0"]).expect("it runs");
        let object = cluster.store().get(&PODS, "default", name).expect("it is there");
        let address = object["status"]["podIP"].as_str().unwrap_or("none").to_owned();
        assert!(own.stdout.contains(&address), "{name}: {own:?}, not {address}");
    }
    cluster.heal(None).expect("it heals");
    fault(&cluster, "node-1", FaultKind::Gc);
    assert!(cluster.exec("default", "c", &["ip", "link", "show", "eth0"]).expect("it runs").success());
    for name in ["b", "c"] {
        delete(&cluster, name);
    }
    until("every address is free again", || used() == before);
}

#[rstest]
fn a_pod_whose_namespace_vanishes_is_made_again() {
    let Some(cluster) = make(Cluster::builder().nodes(1)) else { return };
    let fault =
        Fault { node: None, lasts: Some(Duration::from_secs(2)), kind: FaultKind::Cni(CniFault::NetnsGone) };
    cluster.wait(|c| c.fault(&fault)).expect("it can be broken");
    pod(&cluster, "a", "node-1", "bristle/client");
    let events = cluster.store().list(&sim_api::resource::EVENTS, "default");
    assert!(events.iter().any(|event| event["reason"] == "FailedCreatePodSandBox"), "the first ADD failed");
    assert!(cluster.active_faults().is_empty(), "its time is over");
}

#[rstest]
fn what_cannot_be_broken_is_refused_in_words() {
    let Some(cluster) = make(Cluster::builder().nodes(1)) else { return };
    let kill = FaultKind::Kill { restart_after: Duration::ZERO, snapshot_age: Duration::from_secs(1) };
    for (node, lasts, kind, words) in [
        (None, None, FaultKind::Partition, "--software-fabric"),
        (None, None, FaultKind::Link(LinkFault::default()), "--software-fabric"),
        (None, None, kill, "--record-state"),
        (Some("node-9"), None, FaultKind::Stall, "no node node-9"),
        (None, Some(Duration::from_secs(1)), FaultKind::Gc, "no duration"),
        (None, None, FaultKind::Api(ApiFault::Error(200)), "400 to 599"),
    ] {
        let fault = Fault { node: node.map(str::to_owned), lasts, kind };
        let refused = cluster.wait(|c| c.fault(&fault)).expect_err("it is refused");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(cluster.active_faults().is_empty());
}
