//! A cluster without networks: nodes that are ready, pods that run as soon as they are bound, and whose processes are
//! processes of this machine.

#[path = "../../../api/tests/support/processes.rs"]
mod processes;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sim_api::object::{at, is_deleting, list_at, name, namespace, set, str_at, uid};
use sim_api::resource::{NODES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, ServerConfig, ServerHandle, Store, Sub, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};
use tokio::task::JoinHandle;

/// A running cluster; everything ends when it is dropped.
pub(crate) struct Cluster {
    pub(crate) server: ServerHandle,
    driver: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Cluster {
    /// A cluster with this many nodes.
    pub(crate) fn start(listener: TcpListener, nodes: usize) -> Self {
        let store = Store::new(StoreOptions::default());
        let mut config = ServerConfig::new(listener);
        config.runtime = Arc::new(processes::Processes);
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
        Self { server, driver }
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
