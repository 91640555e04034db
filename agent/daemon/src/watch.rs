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
use axum::http::Response;
use futures::StreamExt as _;
use kube::api::ObjectMeta;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, utils::Backoff, watcher};
use kube::{Api, Client, Config};
use serde::Deserialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tower::util::MapResponseLayer;
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
            labels: node.metadata.labels.unwrap_or_default(),
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

    /// Notes that the server has begun to answer: a list comes, or a watch is established, perhaps without anything to tell for
    /// hours. One log line when this ends a time of failures.
    fn answered(&self) {
        self.change(|status| {
            if !status.connected {
                info!(server = status.server, "connected to the API server");
            }
            status.connected = true;
            status.error = None;
        });
    }

    /// Notes that the watch delivered something.
    fn delivered(&self) {
        count(&self.metrics.node_events);
        self.answered();
        self.change(|status| status.last_event = Some(Timestamp::now()));
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
                        status.delivered();
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
    let client = ClientBuilder::try_from(config)
        .context("cannot make a client for the API server from the kubeconfig")?;
    // A watch that is taken up again is silent until a node changes, so its success shows in the answer's head alone.
    let status = status.clone();
    let heads = MapResponseLayer::new(move |response: Response<_>| {
        if response.status().is_success() {
            status.answered();
        }
        response
    });
    Ok(client.with_layer(&heads).build())
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
    use super::{Node, Pause, WatchStatus};
    use crate::control::Control;
    use agent_api::status::KubernetesStatus;
    use agent_control::{Event, NodeObject};
    use kube::runtime::utils::Backoff as _;
    use rstest::rstest;
    use sim_api::faults::{CallMatch, Effect};
    use sim_api::resource::NODES;
    use sim_api::store::StoreOptions;
    use sim_api::{Faults, ServerConfig, ServerHandle, Store, WriteOptions};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

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
        assert_eq!(node.labels, [("a".to_owned(), "b".to_owned())].into());
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

    fn make_node(store: &Store, name: &str) {
        let node = serde_json::json!({"metadata": {"name": name}});
        store.create(&NODES, "", node, &WriteOptions::default()).unwrap();
    }

    /// An API server with one node, and an agent that watches it.
    struct Watched {
        store: Store,
        faults: Faults,
        status: WatchStatus,
        events: mpsc::Receiver<Event>,
        watch: tokio::task::JoinHandle<()>,
        _server: ServerHandle,
        _dir: tempfile::TempDir,
    }

    impl Watched {
        /// Ready when the first list is whole.
        async fn new() -> Self {
            let store = Store::new(StoreOptions::default());
            make_node(&store, "n1");
            let config = ServerConfig::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let faults = config.faults.clone();
            let server = sim_api::server::start(store.clone(), config).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let kubeconfig = dir.path().join("kubeconfig");
            sim_api::kubeconfig::write_kubeconfig(&kubeconfig, "test", &server.url()).unwrap();
            let (sender, events) = mpsc::channel();
            let control = Control::heard_by(move |event| drop(sender.send(event)));
            let status = WatchStatus::new(std::sync::Arc::default());
            let watch = tokio::spawn(super::run(Some(kubeconfig), control, status.clone()));
            let watched = Self { store, faults, status, events, watch, _server: server, _dir: dir };
            watched.until("the first list", |status| status.synced).await;
            watched
        }

        async fn until(&self, what: &str, is_so: impl Fn(&KubernetesStatus) -> bool) {
            let since = Instant::now();
            while !is_so(&self.status.get()) {
                assert!(since.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.status.get());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        /// All watches end, and every call meets `effect`, until the agent has noticed.
        async fn outage(&self, effect: Effect) {
            self.faults.inject(CallMatch::default(), effect, None);
            self.faults.cut_watches();
            self.until("the outage", |status| !status.connected && status.error.is_some()).await;
            self.faults.clear();
        }

        /// What the agent was told since the last time.
        fn told(&self) -> Vec<Event> {
            std::thread::sleep(Duration::from_millis(20));
            self.events.try_iter().collect()
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.watch.abort();
        }
    }

    #[rstest]
    #[case::out_of_reach(Effect::Unreachable)]
    #[case::broken(Effect::Fail(500))]
    #[case::forbidden(Effect::Fail(403))]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_that_is_taken_up_again_is_connected_though_nothing_happens(#[case] effect: Effect) {
        let watched = Watched::new().await;
        watched.told();
        let last_event = watched.status.get().last_event;
        watched.outage(effect).await;
        watched.until("the watch", |status| status.connected).await;
        let status = watched.status.get();
        assert_eq!((status.error, status.synced), (None, true));
        assert_eq!(status.last_event, last_event, "nothing was delivered");
        assert_eq!(watched.told(), [], "the list is not asked for again");
        make_node(&watched.store, "n2");
        watched.until("the new node", |status| status.last_event != last_event).await;
        assert!(matches!(&watched.told()[..], [Event::NodeUpsert(node)] if node.name == "n2"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_whose_place_is_lost_lists_again_and_is_connected() {
        let watched = Watched::new().await;
        watched.told();
        watched.outage(Effect::Expired).await;
        watched.until("the new list", |status| status.connected && status.error.is_none()).await;
        let started = Instant::now();
        let mut told = watched.told();
        while !told.contains(&Event::NodeListSynced) {
            assert!(started.elapsed() < Duration::from_secs(20), "{told:?}");
            told.extend(watched.told());
        }
        assert!(told.contains(&Event::NodeListStarted));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_refuses_is_not_connected() {
        let watched = Watched::new().await;
        let refuse = CallMatch { verb: Some("watch"), ..CallMatch::default() };
        watched.faults.inject(refuse, Effect::Fail(403), None);
        watched.faults.cut_watches();
        watched.until("the refusal", |status| !status.connected).await;
        // Some tries later it still is not.
        tokio::time::sleep(Duration::from_millis(800)).await;
        let status = watched.status.get();
        assert!(!status.connected && status.error.unwrap().contains("rbac.yaml"));
    }
}
