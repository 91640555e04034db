//! The Node object: registration, heartbeat, readiness.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sim_api::Store;
use sim_api::clock::rfc3339_micro;
use sim_api::error::ApiError;
use sim_api::options::{Sub, WriteOptions};
use sim_api::resource::{LEASES, NODES};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::cni::{CONF_DIR, NetworkConfig};
use super::context::{NodeContext, timestamp};

/// Pods that a node takes.
const MAX_PODS: u32 = 500;
/// How often the CNI is asked whether it is ready: while it is not, and once it is.
const ASK_OFTEN: Duration = Duration::from_millis(50);
const ASK_RARELY: Duration = Duration::from_secs(5);
/// How often the lease is renewed (kubelet: a quarter of 40 s).
const LEASE_PERIOD: Duration = Duration::from_secs(10);

/// Registers the node and keeps its status; never returns.
pub(crate) async fn keep(store: Store, node: Arc<NodeContext>) {
    while let Err(e) = register(&store, &node) {
        warn!(node = node.name, error = %e, "cannot register the node");
        sleep(Duration::from_secs(1)).await;
    }
    let mut next_lease = Instant::now();
    loop {
        if Instant::now() >= next_lease {
            if let Err(e) = renew_lease(&store, &node) {
                warn!(node = node.name, error = %e, "cannot renew the lease");
            }
            next_lease = Instant::now() + LEASE_PERIOD;
        }
        let state = network_state(&node).await;
        let changed = node.network.send_if_modified(|old| {
            let changed = *old != state;
            old.clone_from(&state);
            changed
        });
        if changed {
            match &state {
                Ok(()) => info!(node = node.name, "node is ready"),
                Err(why) => info!(node = node.name, why, "node is not ready"),
            }
            if let Err(e) = set_ready(&store, &node, &state) {
                warn!(node = node.name, error = %e, "cannot write the node's status");
            }
        }
        sleep(if state.is_ok() { ASK_RARELY } else { ASK_OFTEN }).await;
    }
}

async fn network_state(node: &NodeContext) -> Result<(), String> {
    let config = NetworkConfig::load(&node.file(CONF_DIR)).map_err(|e| e.to_string())?;
    config.status(&node.ns).await.map_err(|e| crate::error_chain(&e))
}

fn register(store: &Store, node: &NodeContext) -> Result<(), ApiError> {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
            },
        },
        "spec": {},
    });
    match store.create(&NODES, "", object, &WriteOptions::default()) {
        Err(e) if !e.is_already_exists() => return Err(e),
        _ => {}
    }
    set_ready(store, node, &Err("cni plugin not initialized".to_owned()))
}

fn set_ready(store: &Store, node: &NodeContext, network: &Result<(), String>) -> Result<(), ApiError> {
    let now = timestamp(store.now());
    let condition = |kind: &str, value: bool, reason: &str, message: &str| {
        json!({"type": kind, "status": if value { "True" } else { "False" }, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let ready = match network {
        Ok(()) => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Err(why) => {
            let message = format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {why}"
            );
            condition("Ready", false, "KubeletNotReady", &message)
        }
    };
    let conditions = json!([
        condition(
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available"
        ),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ]);
    let mut addresses: Vec<Value> =
        node.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    store.modify(&NODES, "", &node.name, Sub::Status, |object| {
        let mut status = json!({
            "capacity": capacity(), "allocatable": capacity(), "addresses": addresses, "conditions": conditions,
            "nodeInfo": node_info(), "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        });
        keep_times(&mut status["conditions"], &object["status"]["conditions"]);
        object["status"] = status;
    })?;
    Ok(())
}

/// Conditions whose status stays keep the time of their last change.
fn keep_times(new: &mut Value, old: &Value) {
    for condition in new.as_array_mut().into_iter().flatten() {
        let same = old
            .as_array()
            .into_iter()
            .flatten()
            .find(|o| o["type"] == condition["type"] && o["status"] == condition["status"]);
        if let Some(old) = same {
            condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
    }
}

fn renew_lease(store: &Store, node: &NodeContext) -> Result<(), ApiError> {
    let now = rfc3339_micro(store.now());
    match store.modify(&LEASES, "kube-node-lease", &node.name, Sub::Main, |lease| {
        lease["spec"]["renewTime"] = json!(now);
    }) {
        Err(e) if e.is_not_found() => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node.name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": now},
            });
            store.create(&LEASES, "kube-node-lease", lease, &WriteOptions::default()).map(drop)
        }
        result => result.map(drop),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn capacity() -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let kib = memory
        .as_deref()
        .and_then(|m| m.lines().next()?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(1 << 20);
    json!({"cpu": cpus.to_string(), "memory": format!("{kib}Ki"), "pods": MAX_PODS.to_string(), "ephemeral-storage": "100Gi"})
}

fn node_info() -> Value {
    let kernel =
        nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |n| n.trim_matches('"'))
        .to_owned();
    json!({
        "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": kernel, "osImage": os,
        "containerRuntimeVersion": format!("bristle-lab://{}", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": "v1.33.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": arch(),
    })
}
