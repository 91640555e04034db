//! The watch on the API server: Node objects become events, and nothing else happens here.
//!
//! A lost connection, an unreachable server or a missing kubeconfig is no reason to stop: pods keep what they have,
//! and the watch is tried again with growing pauses up to [`Pause::MAX`].

use crate::control::Control;
use crate::metrics::{Metrics, count};
use agent_api::Timestamp;
use agent_api::status::KubernetesStatus;
use agent_control::{Event, NodeObject};
use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use kube::api::ObjectMeta;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, utils::Backoff, watcher};
use kube::{Api, Client, Config};
use serde::Deserialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{info, warn};

/// The parts of a core/v1 Node that the agent reads. The rest is skipped while decoding, so that the status of big
/// nodes (images, conditions) never takes memory here.
#[derive(Clone, Debug, Deserialize)]
struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl kube::Resource for Node {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<Node> for NodeObject {
    fn from(node: Node) -> Self {
        let pod_cidrs = match (node.spec.pod_cidrs.is_empty(), node.spec.pod_cidr.is_empty()) {
            (true, false) => vec![node.spec.pod_cidr],
            _ => node.spec.pod_cidrs,
        };
        let internal = |address: NodeAddress| (address.kind == "InternalIP").then_some(address.address);
        Self {
            name: node.metadata.name.unwrap_or_default(),
            uid: node.metadata.uid.unwrap_or_default(),
            created_s: node
                .metadata
                .creation_timestamp
                .map_or(0, |time| u64::try_from(time.0.as_second()).unwrap_or(0)),
            pod_cidrs,
            internal_ips: node.status.addresses.into_iter().filter_map(internal).collect(),
        }
    }
}

/// Pauses between tries: doubling from a quarter second, so that a server that comes back is met soon.
#[derive(Debug)]
struct Pause(Duration);

impl Pause {
    const MIN: Duration = Duration::from_millis(250);
    const MAX: Duration = Duration::from_secs(10);

    const fn new() -> Self {
        Self(Self::MIN)
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::MAX);
        // Agents of many nodes lose their server at the same moment and should not come back at the same moment.
        let spread = u64::from(std::process::id()) ^ Timestamp::now().unix_nanos();
        Some(pause.mul_f64(0.75 + f64::from(u8::try_from(spread % 64).unwrap_or_default()) / 128.0))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = Self::MIN;
    }
}

/// What the local API shows of the watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchStatus {
    status: Arc<Mutex<KubernetesStatus>>,
    metrics: Arc<Metrics>,
}

impl WatchStatus {
    /// Not connected yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { status: Arc::default(), metrics }
    }

    /// As it is now.
    pub(crate) fn get(&self) -> KubernetesStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut KubernetesStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes a success; one log line when it ends a time of failures.
    fn succeeded(&self) {
        count(&self.metrics.node_events);
        self.change(|status| {
            if !status.connected {
                info!(server = status.server, "connected to the API server");
            }
            status.connected = true;
            status.error = None;
            status.last_event = Some(Timestamp::now());
        });
    }

    /// Notes a failure; one log line per kind of failure, not per try.
    fn failed(&self, problem: String) {
        count(&self.metrics.watch_failures);
        self.change(|status| {
            if status.error.as_ref() != Some(&problem) {
                warn!(server = status.server, "{problem}; pods keep their network meanwhile, trying again");
            }
            status.connected = false;
            status.error = Some(problem);
        });
    }
}

/// Watches until the process ends.
pub(crate) async fn run(kubeconfig: Option<PathBuf>, control: Control, status: WatchStatus) {
    /// After so many failures in a row the configuration is read again: certificates and tokens may have been renewed.
    const FAILURES_BEFORE_RELOAD: u32 = 5;
    let mut pause = Pause::new();
    loop {
        let client = match connect(kubeconfig.as_deref(), &status).await {
            Ok(client) => client,
            Err(problem) => {
                status.failed(brief(&problem));
                tokio::time::sleep(pause.next().unwrap_or(Pause::MAX)).await;
                continue;
            }
        };
        pause.reset();
        let mut failures = 0;
        let mut events =
            pin!(watcher(Api::<Node>::all(client), watcher::Config::default()).backoff(Pause::new()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // `Init` says that a list is about to be asked for, not that anything was answered.
                    if !matches!(event, watcher::Event::Init) {
                        failures = 0;
                        status.succeeded();
                    }
                    pass_on(event, &control, &status);
                }
                Err(problem) => {
                    failures += 1;
                    status.failed(explain(&problem));
                    if failures >= FAILURES_BEFORE_RELOAD {
                        break;
                    }
                }
            }
        }
    }
}

fn pass_on(event: watcher::Event<Node>, control: &Control, status: &WatchStatus) {
    match event {
        watcher::Event::Init => control.event(Event::NodeListStarted),
        watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
            control.event(Event::NodeUpsert(node.into()));
        }
        watcher::Event::InitDone => {
            control.event(Event::NodeListSynced);
            status.change(|status| status.synced = true);
        }
        watcher::Event::Delete(node) => {
            control.event(Event::NodeDelete { name: node.metadata.name.unwrap_or_default() });
        }
    }
}

async fn connect(kubeconfig: Option<&Path>, status: &WatchStatus) -> Result<Client> {
    let mut config = configuration(kubeconfig).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    let server = config.cluster_url.to_string();
    status.change(|status| server.trim_end_matches('/').clone_into(&mut status.server));
    Client::try_from(config).context("cannot make a client for the API server from the kubeconfig")
}

/// By flag, by `$KUBECONFIG`, or as the pod that the agent runs in.
async fn configuration(kubeconfig: Option<&Path>) -> Result<Config> {
    let path = kubeconfig
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(path) = path {
        let describe = || format!("kubeconfig {}", path.display());
        let kubeconfig = Kubeconfig::read_from(&path).with_context(describe)?;
        return Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(describe);
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(problem) => bail!(
            "no way to the API server: give --kubeconfig FILE (or BRISTLE_KUBECONFIG), or run in a pod with a service account ({problem})"
        ),
    }
}

/// One sentence with what to do, for the failures that operators meet.
fn explain(problem: &watcher::Error) -> String {
    let source = match problem {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => Some(source),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    };
    match source {
        Some(kube::Error::Api(status)) if status.code == 403 => {
            format!(
                "the API server refuses to list nodes ({}); apply deploy/rbac.yaml or give a kubeconfig with get, list and watch on nodes",
                status.message
            )
        }
        Some(kube::Error::Api(status)) if status.code == 401 => {
            format!(
                "the API server does not accept the credentials ({}); renew the kubeconfig or token",
                status.message
            )
        }
        Some(kube::Error::HyperError(_) | kube::Error::Service(_)) => {
            format!("the API server is out of reach ({})", root(problem))
        }
        _ => format!("watching nodes failed ({})", chain(problem)),
    }
}

/// What was tried and why it failed, without the layers between.
fn brief(problem: &anyhow::Error) -> String {
    let (outer, root) = (problem.to_string(), problem.root_cause().to_string());
    if outer == root { outer } else { format!("{outer}: {root}") }
}

/// The innermost cause: of a connection that fails only this says why.
fn root(problem: &dyn std::error::Error) -> String {
    let mut last = problem;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// An error with all its causes, each said once.
fn chain(problem: &dyn std::error::Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Node, Pause};
    use agent_control::NodeObject;
    use kube::runtime::utils::Backoff as _;

    fn object(json: serde_json::Value) -> NodeObject {
        serde_json::from_value::<Node>(json).unwrap().into()
    }

    #[test]
    fn takes_what_it_needs_from_a_node() {
        let node = object(serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/112"], "taints": []},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "172.30.1.2"},
                    {"type": "InternalIP", "address": "fd00:30::2"},
                    {"type": "ExternalIP", "address": "1.2.3.4"},
                ],
                "images": [{"names": ["x"], "sizeBytes": 1}],
            },
        }));
        assert_eq!(node.name, "n1");
        assert_eq!(node.uid, "u1");
        assert_eq!(node.pod_cidrs, ["10.1.0.0/24", "fd00:1::/112"]);
        assert_eq!(node.internal_ips, ["172.30.1.2", "fd00:30::2"]);
    }

    #[test]
    fn an_empty_node_is_no_error() {
        let node = object(serde_json::json!({"metadata": {"name": "n"}}));
        assert!(node.pod_cidrs.is_empty() && node.internal_ips.is_empty());
        let node = object(serde_json::json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24"}}));
        assert_eq!(node.pod_cidrs, ["10.1.0.0/24"], "the old field counts where the new one is missing");
    }

    #[test]
    fn pauses_grow_and_start_over() {
        let mut pause = Pause::new();
        let first = pause.next().unwrap();
        assert!(first < Pause::MIN * 2, "{first:?}");
        let last = (0..20).map(|_| pause.next().unwrap()).last().unwrap();
        assert!(last > Pause::MAX / 2 && last < Pause::MAX * 2, "{last:?}");
        pause.reset();
        assert!(pause.next().unwrap() < Pause::MIN * 2);
    }
}
