//! What everything on one node's kubelet shares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sim_api::Store;
use sim_api::object::{name, namespace, uid};
use sim_api::options::WriteOptions;
use sim_api::resource::EVENTS;
use tokio::sync::{Semaphore, watch};

use super::cni::Attachment;
use super::cni_fault::CniFault;
use crate::ns::NsSet;

/// How many sandboxes are set up or torn down at once on one node.
pub(crate) const PARALLEL_SANDBOXES: usize = 20;

/// A node as its kubelet sees it.
#[derive(Debug)]
pub(crate) struct NodeContext {
    /// Name of the Node object.
    pub name: String,
    /// InternalIPs, the primary family first.
    pub addresses: Vec<IpAddr>,
    /// The node's namespaces.
    pub ns: Arc<NsSet>,
    /// First process of the node, in root PID numbers.
    pub pid: u32,
    /// The node's cgroup on the host.
    pub cgroup: PathBuf,
    /// Directory of containers' logs on the host.
    pub logs: PathBuf,
    /// `bristle-lab` on the host.
    pub program: PathBuf,
    /// Text of /etc/hosts shared by all.
    pub hosts: String,
    /// Limits [`PARALLEL_SANDBOXES`].
    pub sandboxes: Semaphore,
    /// Whether the CNI can attach pods: `Ok`, or why not.
    pub network: watch::Sender<Result<(), String>>,
    /// Addresses of the cluster DNS.
    pub dns: watch::Receiver<Vec<IpAddr>>,
    /// How long ADD took, in the order in which calls ended.
    pub add_times: Mutex<Vec<Duration>>,
    /// What the runtime does wrong on purpose.
    pub faults: Mutex<Vec<CniFault>>,
    /// Attachments that are there, by container id.
    pub attachments: Mutex<BTreeMap<String, Attachment>>,
}

impl NodeContext {
    /// A path of the node as this process reaches it.
    pub(crate) fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What the runtime does wrong now.
    pub(crate) fn faults(&self) -> Vec<CniFault> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attachments that are there.
    pub(crate) fn attachments(&self) -> MutexGuard<'_, BTreeMap<String, Attachment>> {
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the duration of a successful ADD.
    pub(crate) fn record_add(&self, took: Duration) {
        self.add_times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }
}

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// For information.
    Normal,
    /// Something does not work.
    Warning,
}

/// Writes events about pods, repeated ones as a count (as `kubectl describe` shows them).
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Reason and message → name of the event and how often.
    seen: Mutex<BTreeMap<(String, String), (String, u64)>>,
}

impl Events {
    /// Reports on an object.
    pub(crate) fn report(
        &self,
        store: &Store,
        node: &str,
        about: &Value,
        kind: EventKind,
        reason: &str,
        message: &str,
    ) {
        let now = timestamp(store.now());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let options = WriteOptions::default();
        let ns = match namespace(about) {
            "" => "default",
            ns => ns,
        };
        let key = (reason.to_owned(), message.to_owned());
        if let Some((event, count)) = seen.get_mut(&key) {
            *count += 1;
            let patch = sim_api::options::Patch::Merge(json!({"count": *count, "lastTimestamp": now}));
            let _ = store.patch(&EVENTS, ns, event, sim_api::options::Sub::Main, &patch, &options);
            return;
        }
        let event = format!("{}.{:x}{:04x}", name(about), store.now().as_nanosecond(), seen.len());
        seen.insert(key, (event.clone(), 1));
        let kind = match kind {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": event, "namespace": ns},
            "involvedObject": {
                "apiVersion": about.get("apiVersion"), "kind": about.get("kind"), "name": name(about), "namespace": namespace(about), "uid": uid(about),
            },
            "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "kubelet", "host": node}, "reportingComponent": "kubelet", "reportingInstance": node,
        });
        // An event that cannot be written is no reason to stop what it reports.
        let _ = store.create(&EVENTS, ns, object, &options);
    }
}

/// A time as the API writes it: whole seconds.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
