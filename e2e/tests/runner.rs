//! The runner against a real API server whose pods are played by this test: every exit code, every packet is chosen.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::cluster;
use e2e::matrix::Matrix;
use e2e::report::{Outcome, Report};
use e2e::runner::{self, Options};
use e2e::select::Selection;
use e2e::workloads::Images;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use sim_api::options::{Sub, WriteOptions};
use sim_api::resource::{DEPLOYMENTS, NODES, PODS};
use sim_api::runtime::{
    Duplex, ExecRequest, ExecStreams, ExitStatus, LogLine, LogRequest, NodeRuntime, PodRef, RuntimeError,
};
use sim_api::server::{self, ServerConfig};
use sim_api::{Store, StoreOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const NAMESPACE: &str = "cilium-test";

/// What goes wrong on purpose.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Packets do not show up in captures at the target.
    blind_target: bool,
    /// curl succeeds and prints a warning.
    noisy_curl: bool,
}

/// Pods that only pretend: commands are answered from a table, captures hold the packets that they would cause.
#[derive(Default)]
struct Players {
    faults: Faults,
    /// Frames that were on the wire, with the pod whose capture sees them.
    wire: Mutex<Vec<(String, Vec<u8>)>>,
}

fn addresses(app: &str) -> [&'static str; 2] {
    match app {
        "client" => ["10.0.1.1", "fd00:1::1"],
        "client2" => ["10.0.2.1", "fd00:2::1"],
        "echo-same-node" => ["10.0.1.2", "fd00:1::2"],
        "echo-other-node" => ["10.0.2.2", "fd00:2::2"],
        "node-a" => ["172.30.0.1", "fd30::1"],
        _ => ["172.30.0.2", "fd30::2"],
    }
}

/// `client-0` → `client`.
fn app(pod: &str) -> &str {
    pod.strip_suffix("-0").unwrap_or(pod)
}

impl Players {
    fn play(&self, pod: &str, command: &[String]) -> (i32, String) {
        let v6 = usize::from(command.iter().any(|word| word == "-6"));
        let source = addresses(app(pod))[v6];
        let last = command.last().cloned().unwrap_or_default();
        match command[0].as_str() {
            "curl" => {
                let host =
                    last.trim_start_matches("http://").trim_end_matches(":8080/").trim_matches(['[', ']']);
                let Some(target) = owner(host) else {
                    return (6, format!("curl: (6) Could not resolve host: {host}"));
                };
                for (there, flags) in [(true, 2), (false, 0x12), (true, 0x10), (true, 0x11), (false, 0x11)] {
                    let segment = if there { tcp(40000, 8080, flags) } else { tcp(8080, 40000, flags) };
                    let (from, to) = if there { (source, host) } else { (host, source) };
                    self.send(&[pod, &target], &frame(from, to, 6, &segment));
                }
                (0, if self.faults.noisy_curl { "Warning: odd".into() } else { String::new() })
            }
            "ping" => {
                let Some(target) = owner(&last) else { return (1, String::new()) };
                let (protocol, request, reply) = if v6 == 0 { (1, 8, 0) } else { (58, 128, 129) };
                self.send(&[pod, &target], &frame(source, &last, protocol, &[request, 0, 0, 0, 0, 1, 0, 1]));
                self.send(&[pod, &target], &frame(&last, source, protocol, &[reply, 0, 0, 0, 0, 1, 0, 1]));
                (0, String::new())
            }
            _ => (1, "no such host".into()),
        }
    }

    fn send(&self, seen_at: &[&str], frame: &[u8]) {
        let mut wire = self.wire.lock().expect("no test thread panics with it");
        for (end, pod) in seen_at.iter().enumerate() {
            if end == 0 || !self.faults.blind_target {
                wire.push(((*pod).to_owned(), frame.to_vec()));
            }
        }
    }

    fn seen(&self, pod: &str, from: usize) -> (Vec<Vec<u8>>, usize) {
        let wire = self.wire.lock().expect("no test thread panics with it");
        let frames =
            wire[from..].iter().filter(|(at, _)| at == pod).map(|(_, frame)| frame.clone()).collect();
        (frames, wire.len())
    }
}

/// The pod that has this address.
fn owner(address: &str) -> Option<String> {
    ["client", "client2", "echo-same-node", "echo-other-node", "node-a", "node-b"]
        .into_iter()
        .find(|app| addresses(app).contains(&address))
        .map(|app| if app.starts_with("node-") { app.to_owned() } else { format!("{app}-0") })
}

struct Runtime(Arc<Players>);

impl NodeRuntime for Runtime {
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        mut streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        let players = Arc::clone(&self.0);
        Box::pin(async move {
            let mut stderr = streams.stderr.take().expect("stderr is asked for");
            if request.command[0] != "sh" {
                let (code, said) = players.play(&pod.name, &request.command);
                stderr.write_all(said.as_bytes()).await.expect("stderr is open");
                return Ok(ExitStatus { code });
            }
            // A capture: tcpdump in a shell that waits for a line.
            let mut stdin = streams.stdin.take().expect("captures have stdin");
            let mut stdout = streams.stdout.take().expect("captures have stdout");
            let (_, mut position) = players.seen(&pod.name, 0);
            stdout.write_all(&pcap_header()).await.expect("stdout is open");
            stderr
                .write_all(b"tcpdump: listening on eth0, link-type EN10MB\n")
                .await
                .expect("stderr is open");
            let mut line = [0; 1];
            loop {
                let (frames, next) = players.seen(&pod.name, position);
                position = next;
                for frame in frames {
                    stdout.write_all(&pcap_frame(&frame)).await.expect("stdout is open");
                }
                tokio::select! {
                    _ = stdin.read(&mut line) => break,
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
            stderr.write_all(b"0 packets dropped by kernel\n").await.expect("stderr is open");
            Ok(ExitStatus { code: 0 })
        })
    }

    fn attach(
        &self,
        _: PodRef,
        _: ExecRequest,
        _: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        Box::pin(async { Err(RuntimeError::Other("not played".into())) })
    }

    fn logs(
        &self,
        _: PodRef,
        _: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>> {
        Box::pin(async { Err(RuntimeError::Other("not played".into())) })
    }

    fn port_forward(&self, _: PodRef, _: u16) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>> {
        Box::pin(async { Err(RuntimeError::Other("not played".into())) })
    }
}

fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut out = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    out.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 64, 0, 0, 0, 0]);
    out
}

fn frame(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("small");
    let mut out = vec![2; 12];
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend([8, 0, 0x45, 0]);
            out.extend((length + 20).to_be_bytes());
            out.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            out.extend(source.octets());
            out.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend(length.to_be_bytes());
            out.extend([protocol, 64]);
            out.extend(source.octets());
            out.extend(destination.octets());
        }
        _ => panic!("one family"),
    }
    out.extend(payload);
    out
}

fn pcap_header() -> Vec<u8> {
    let mut out = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    out.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    out
}

fn pcap_frame(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("small").to_le_bytes();
    [&[0; 8][..], &length, &length, frame].concat()
}

/// Makes every Deployment's pod and every bare pod run at once.
async fn play_kubelets(store: Store) {
    loop {
        for deployment in store.list(&DEPLOYMENTS, NAMESPACE) {
            let name = deployment["metadata"]["name"].as_str().expect("has a name");
            if store.get(&PODS, NAMESPACE, &format!("{name}-0")).is_err() {
                let template = &deployment["spec"]["template"];
                let mut metadata = template["metadata"].clone();
                metadata["name"] = json!(format!("{name}-0"));
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]});
                store.create(&PODS, NAMESPACE, pod, &WriteOptions::default()).expect("the pod is created");
            }
        }
        for pod in store.list(&PODS, NAMESPACE) {
            if pod["status"]["phase"] == "Running" {
                continue;
            }
            let name = pod["metadata"]["name"].as_str().expect("has a name");
            let node =
                pod["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str().expect("is pinned").to_owned();
            store
                .modify(&PODS, NAMESPACE, name, Sub::Main, |pod| pod["spec"]["nodeName"] = json!(node))
                .expect("the pod is bound");
            let ips = addresses(app(name));
            let status = json!({
                "phase": "Running",
                "podIP": ips[0],
                "podIPs": ips.map(|ip| json!({"ip": ip})),
                "conditions": [{"type": "Ready", "status": "True"}],
            });
            store
                .modify(&PODS, NAMESPACE, name, Sub::Status, |pod| pod["status"] = status)
                .expect("the pod's status is written");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn node(name: &str, addresses: [&str; 2]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": addresses.map(|address| json!({"type": "InternalIP", "address": address})),
        },
    })
}

async fn run(faults: Faults, selection: &str, captures: &Path) -> Report {
    let store = Store::new(StoreOptions::default());
    for (name, word) in [("one", "node-a"), ("two", "node-b")] {
        let node = node(name, addresses(word));
        let status = node["status"].clone();
        store.create(&NODES, "", node, &WriteOptions::default()).expect("the node is created");
        store
            .modify(&NODES, "", name, Sub::Status, |node| node["status"] = status)
            .expect("its status is written");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds on loopback");
    let mut config = ServerConfig::new(listener);
    config.runtime = Arc::new(Runtime(Arc::new(Players { faults, ..Players::default() })));
    let server = server::start(store.clone(), config).expect("the server starts");
    let kubeconfig = captures.join("kubeconfig");
    sim_api::kubeconfig::write_kubeconfig(&kubeconfig, "test", &server.url())
        .expect("the kubeconfig is written");
    let kubelets = tokio::spawn(play_kubelets(store));

    let client = cluster::connect(Some(&kubeconfig)).await.expect("connects");
    let matrix = Matrix::built_in().expect("the matrix can be read");
    let cases =
        selection.parse::<Selection>().and_then(|wish| wish.pick(&matrix)).expect("cases are selected");
    let options = Options {
        captures: captures.to_owned(),
        families: None,
        images: Images { client: "client".into(), echo: "echo".into() },
        nodes: None,
        ready_limit: Duration::from_secs(20),
        any_certificate: false,
        name_limit: Duration::from_millis(200),
        // Nobody plays the namespace controller.
        keep: true,
    };
    let report =
        runner::run(&client, &matrix, &cases, &options, &mut |_| ()).await.expect("the matrix is run");
    kubelets.abort();
    report
}

fn reasons(report: &Report) -> BTreeMap<String, String> {
    report.cases.iter().map(|case| (case.id.to_string(), case.reason.clone().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_pass_or_fail_for_what_really_happened() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = run(Faults::default(), "1,6,7,11,17,20,24,30,52,53,59,x1", dir.path()).await;
    let reasons = reasons(&report);
    for id in ["1", "6", "20"] {
        assert_eq!(reasons[id], "", "case {id}");
    }
    assert_eq!((report.total, report.passed, report.failed), (12, 3, 9));
    assert_eq!(report.families.len(), 2);
    for id in ["24", "30", "52", "53", "59", "x1"] {
        assert_eq!(
            reasons[id],
            "policy is not implemented: the cluster has no CustomResourceDefinition ciliumnetworkpolicies.cilium.io",
            "case {id}"
        );
    }
    for (id, part) in [
        ("7", "curl exited with 6: curl: (6) Could not resolve host: echo-same-node"),
        ("11", "services are not implemented"),
        ("17", "the name google.com does not resolve in the pod"),
    ] {
        assert!(reasons[id].contains(part), "case {id}: {}", reasons[id]);
    }
    // Both ends and both families, each a file that can be read.
    let files: Vec<PathBuf> = ["v4-source", "v4-target", "v6-source", "v6-target"]
        .map(|end| dir.path().join(format!("001-{end}.pcap")))
        .to_vec();
    assert_eq!(report.cases[0].captures, files);
    for file in files {
        assert_eq!(
            e2e::capture::read_file(&file).expect("is a capture").packets.len(),
            5,
            "{}",
            file.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_succeeds_is_not_enough() {
    let dir = tempfile::tempdir().expect("a directory");
    let blind = Faults { blind_target: true, ..Faults::default() };
    let report = run(blind, "1,5", dir.path()).await;
    assert_eq!(report.passed, 0);
    let reasons = reasons(&report);
    assert_eq!(
        reasons["1"],
        "v4: capture at the target: no SYN, no SYN-ACK, no FIN; v6: capture at the target: no SYN, no SYN-ACK, no FIN"
    );
    assert!(
        reasons["5"].contains("capture at the target: no echo request, no echo reply"),
        "{}",
        reasons["5"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_complains_has_not_succeeded() {
    let dir = tempfile::tempdir().expect("a directory");
    let noisy = Faults { noisy_curl: true, ..Faults::default() };
    let report = run(noisy, "4", dir.path()).await;
    assert_eq!(report.cases[0].result, Outcome::Failed);
    assert_eq!(report.cases[0].runs[0].exit_code, Some(0));
    assert!(reasons(&report)["4"].contains("curl succeeded but complained: Warning: odd"));
}
