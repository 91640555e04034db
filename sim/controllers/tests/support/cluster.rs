//! A cluster without networks: nodes that are ready, pods that run as soon as they are bound, and whose processes are
//! processes of this machine.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use sim_api::object::{at, is_deleting, list_at, name, namespace, set, str_at, uid};
use sim_api::resource::{NODES, PODS};
use sim_api::runtime::{
    Duplex, ExecRequest, ExecStreams, ExitStatus, LogLine, LogRequest, PodRef, RuntimeError,
};
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, NodeRuntime, ServerConfig, ServerHandle, Store, Sub, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};
use tokio::task::JoinHandle;

/// A running cluster; everything ends when it is dropped.
pub struct Cluster {
    pub store: Store,
    pub server: ServerHandle,
    pub faults: sim_api::Faults,
    driver: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Cluster {
    /// A cluster with this many nodes.
    pub fn start(nodes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        Self::start_on(listener, nodes)
    }

    pub fn start_on(listener: TcpListener, nodes: usize) -> Self {
        let store = Store::new(StoreOptions::default());
        let mut config = ServerConfig::new(listener);
        config.runtime = Arc::new(Processes);
        let faults = config.faults.clone();
        let server = sim_api::server::start(store.clone(), config).expect("the server starts");
        for i in 0..nodes {
            let node = format!("node-{}", char::from(b'a' + u8::try_from(i).expect("few nodes")));
            store.create(&NODES, "", self::node(&node, i), &WriteOptions::default()).expect("a node");
        }
        let cidr = |text: &str| text.parse().expect("a CIDR");
        let options = ControllerOptions {
            pod_cidrs: vec![(cidr("10.10.0.0/16"), 24), (cidr("fd00:10::/104"), 112)],
            node_grace_s: 0,
        };
        let mut controllers = Controllers::new(store.clone(), options);
        let mut changes = store.subscribe();
        let kubelet = store.clone();
        let driver = tokio::spawn(async move {
            loop {
                changes.borrow_and_update();
                while controllers.step() | run_pods(&kubelet) {}
                drop(tokio::time::timeout(Duration::from_millis(500), changes.changed()).await);
            }
        });
        Self { store, server, faults, driver }
    }
}

fn node(name: &str, i: usize) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("172.30.0.{}", i + 1)}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "2", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "2", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
            "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "test", "kernelVersion": "6.1", "containerRuntimeVersion": "none://1", "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "", "systemUUID": "", "kubeProxyVersion": ""},
        },
    })
}

/// The part of a kubelet that objects need: bound pods run, deleted ones go.
fn run_pods(store: &Store) -> bool {
    let mut changed = false;
    for pod in store.list(&PODS, "") {
        if str_at(&pod, &["spec", "nodeName"]).is_empty() {
            continue;
        }
        let (ns, pod_name) = (namespace(&pod), name(&pod));
        if is_deleting(&pod) {
            changed |=
                store.delete(&PODS, ns, pod_name, &DeleteOptions::now()).is_ok_and(|left| left.is_none());
        } else if str_at(&pod, &["status", "phase"]) == "Pending" {
            let now = sim_api::clock::rfc3339(store.now());
            let once = str_at(&pod, &["spec", "restartPolicy"]) == "Never";
            let statuses: Vec<Value> = list_at(&pod, &["spec", "containers"])
                .iter()
                .map(|c| {
                    let state = if once { json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}) } else { json!({"running": {"startedAt": now}}) };
                    json!({"name": c["name"], "image": c["image"], "imageID": c["image"], "ready": !once, "started": !once, "restartCount": 0, "containerID": format!("none://{}", uid(&pod)), "state": state})
                })
                .collect();
            let index =
                pod_name.bytes().fold(7_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b))) % 250 + 2;
            let ip = format!("10.10.{}.{index}", index % 3);
            let ready = if once { "False" } else { "True" };
            let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady"]
                .iter()
                .map(|t| json!({"type": t, "status": if *t == "Initialized" { "True" } else { ready }, "lastTransitionTime": now}))
                .chain(list_at(&pod, &["status", "conditions"]).iter().filter(|c| str_at(c, &["type"]) == "PodScheduled").cloned())
                .collect();
            let done = store.modify(&PODS, ns, pod_name, Sub::Status, |p| {
                set(p, &["status", "phase"], json!(if once { "Succeeded" } else { "Running" }));
                set(p, &["status", "podIP"], json!(ip));
                set(p, &["status", "podIPs"], json!([{"ip": ip}]));
                set(p, &["status", "hostIP"], json!("172.30.0.1"));
                set(p, &["status", "startTime"], json!(now));
                set(p, &["status", "conditions"], json!(conditions));
                set(p, &["status", "containerStatuses"], json!(statuses));
            });
            changed |= done.is_ok() && !at(&pod, &["metadata"]).is_null();
        }
    }
    changed
}

/// Runs commands on this machine, whatever the pod.
struct Processes;

impl NodeRuntime for Processes {
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
        mut streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        async move {
            let program = request.command.first().cloned().unwrap_or_default();
            let mut command = tokio::process::Command::new(&program);
            command
                .args(&request.command[1..])
                .env("POD_NAME", &pod.name)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let mut child =
                command.spawn().map_err(|source| RuntimeError::Spawn { command: program, source })?;
            let mut stdin = child.stdin.take().expect("piped");
            let (mut stdout, mut stderr) =
                (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
            let input = tokio::spawn(async move {
                if let Some(mut from) = streams.stdin {
                    drop(tokio::io::copy(&mut from, &mut stdin).await);
                }
            });
            let out = async {
                match &mut streams.stdout {
                    Some(to) => drop(tokio::io::copy(&mut stdout, to).await),
                    None => drop(tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await),
                }
            };
            let err = async {
                match &mut streams.stderr {
                    Some(to) => drop(tokio::io::copy(&mut stderr, to).await),
                    None => drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await),
                }
            };
            tokio::join!(out, err);
            let status = child.wait().await.map_err(|e| RuntimeError::Other(e.to_string()))?;
            input.abort();
            Ok(ExitStatus { code: status.code().unwrap_or(137) })
        }
        .boxed()
    }

    fn attach(
        &self,
        _: PodRef,
        _: ExecRequest,
        mut streams: ExecStreams,
    ) -> BoxFuture<'static, Result<ExitStatus, RuntimeError>> {
        async move {
            if let (Some(input), Some(output)) = (&mut streams.stdin, &mut streams.stdout) {
                drop(tokio::io::copy(input, output).await);
            }
            Ok(ExitStatus { code: 0 })
        }
        .boxed()
    }

    fn logs(
        &self,
        pod: PodRef,
        request: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, LogLine>, RuntimeError>> {
        async move {
            if request.previous {
                return Err(RuntimeError::NoPrevious { pod: pod.name, container: request.container });
            }
            let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
            let line = move |i: u64| LogLine { at: start, text: format!("line {i}\n").into() };
            let skip = request.tail_lines.map_or(0, |n| 3_u64.saturating_sub(n));
            let old = stream::iter((1..=3).skip(usize::try_from(skip).expect("small")).map(line));
            if !request.follow {
                return Ok(old.boxed());
            }
            let new = stream::iter(4..=6).then(move |i| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                line(i)
            });
            Ok(old.chain(new).boxed())
        }
        .boxed()
    }

    /// Answers every connection with what it sends, in capitals; port 1 refuses.
    fn port_forward(
        &self,
        pod: PodRef,
        port: u16,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, RuntimeError>> {
        async move {
            if port == 1 {
                let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                return Err(RuntimeError::Connect { pod: pod.name, port, source });
            }
            let (ours, theirs) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let (mut read, mut write) = tokio::io::split(theirs);
                let mut buffer = [0; 1024];
                while let Ok(n) = read.read(&mut buffer).await {
                    if n == 0 || write.write_all(&buffer[..n].to_ascii_uppercase()).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Box::new(ours) as Box<dyn Duplex>)
        }
        .boxed()
    }
}
