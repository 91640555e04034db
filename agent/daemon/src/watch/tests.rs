//! The watches against a simulated API server.

use super::Pause;
use super::node::Node;
use crate::control::Control;
use crate::publish::Observed;
use crate::testing::ApiServer;
use agent_api::status::KubernetesStatus;
use agent_control::{Event, NodeObject, Object, ObjectKind, ObjectName};
use kube::runtime::utils::Backoff as _;
use rstest::rstest;
use sim_api::faults::{CallMatch, Effect};
use sim_api::resource::{NAMESPACES, NETWORKPOLICIES, NODES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{Store, WriteOptions};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
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

#[test]
fn what_has_one_cause_says_the_same_for_every_kind() {
    let lost = || {
        let lost = std::io::Error::from(std::io::ErrorKind::TimedOut);
        kube::runtime::watcher::Error::WatchFailed(kube::Error::ReadEvents(lost))
    };
    let said = super::explain::watch("nodes", &lost());
    assert_eq!(said, "the API server is out of reach (timed out)");
    assert_eq!(super::explain::watch("pods", &lost()), said);
    let status = kube::core::Status::failure("storage is (re)initializing", "TooManyRequests").with_code(429);
    let starting = kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()));
    let said = super::explain::watch("pods", &starting);
    assert_eq!(said, "the API server is not ready (storage is (re)initializing)");
}

fn make_node(store: &Store, name: &str) {
    let node = serde_json::json!({"metadata": {"name": name}});
    store.create(&NODES, "", node, &WriteOptions::default()).unwrap();
}

/// An API server with one node, and an agent that watches it.
struct Watched {
    api: ApiServer,
    events: mpsc::Receiver<Event>,
    watches: Vec<tokio::task::JoinHandle<()>>,
}

impl Watched {
    /// With the watch on nodes alone; ready when the first list is whole.
    async fn new() -> Self {
        let watched = Self::start(Store::new(StoreOptions::default()), None);
        watched.until("the first list", |status| status.synced).await;
        watched
    }

    fn start(store: Store, observed: Option<&Arc<Observed>>) -> Self {
        make_node(&store, "n1");
        let api = ApiServer::start(store);
        let (sender, events) = mpsc::channel();
        let control = Control::heard_by(move |event| drop(sender.send(event)));
        let watches = super::start(&api.connector, &control, "n1", observed, false);
        Self { api, events, watches }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&KubernetesStatus) -> bool) {
        let since = Instant::now();
        while !is_so(&self.api.status.get()) {
            assert!(since.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.api.status.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All watches end, and every call meets `effect`, until the agent has noticed.
    async fn outage(&self, effect: Effect) {
        self.api.faults.inject(CallMatch::default(), effect, None);
        self.api.faults.cut_watches();
        self.until("the outage", |status| !status.connected && status.error.is_some()).await;
        self.api.faults.clear();
    }

    /// What the agent was told since the last time.
    fn told(&self) -> Vec<Event> {
        std::thread::sleep(Duration::from_millis(20));
        self.events.try_iter().collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

#[rstest]
#[case::out_of_reach(Effect::Unreachable)]
#[case::broken(Effect::Fail(500))]
#[case::forbidden(Effect::Fail(403))]
#[case::silent(Effect::Delay(Duration::from_hours(1)))]
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_taken_up_again_is_connected_though_nothing_happens(#[case] effect: Effect) {
    let watched = Watched::new().await;
    watched.told();
    let last_event = watched.api.status.get().last_event;
    watched.outage(effect).await;
    watched.until("the watch", |status| status.connected).await;
    let status = watched.api.status.get();
    assert_eq!((status.error, status.synced), (None, true));
    assert_eq!(status.last_event, last_event, "nothing was delivered");
    assert_eq!(watched.told(), [], "the list is not asked for again");
    make_node(&watched.api.store, "n2");
    watched.until("the new node", |status| status.last_event != last_event).await;
    assert!(matches!(&watched.told()[..], [Event::NodeUpsert(node)] if node.name == "n2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_place_is_lost_lists_again_and_that_is_no_failure() {
    let watched = Watched::new().await;
    watched.told();
    let watching = CallMatch { verb: Some("watch"), ..CallMatch::default() };
    watched.api.faults.inject(watching, Effect::Expired, Some(1));
    watched.api.faults.cut_watches();
    let started = Instant::now();
    let mut told = watched.told();
    while !told.contains(&Event::NodeListSynced) {
        assert!(started.elapsed() < Duration::from_secs(20), "{told:?}");
        told.extend(watched.told());
    }
    assert!(told.contains(&Event::NodeListStarted));
    assert_eq!(watched.api.metrics.watch_failures.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_not_connected() {
    let watched = Watched::new().await;
    let refuse = CallMatch { verb: Some("watch"), ..CallMatch::default() };
    watched.api.faults.inject(refuse, Effect::Fail(403), None);
    watched.api.faults.cut_watches();
    watched.until("the refusal", |status| !status.connected).await;
    // Some tries later it still is not.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let status = watched.api.status.get();
    assert!(!status.connected && status.error.unwrap().contains("rbac.yaml"));
}

/// A cluster with the CRDs that policy needs, and an agent that watches everything.
struct Policies {
    watched: Watched,
    /// What it was told and nobody has looked at.
    told: std::cell::RefCell<Vec<Event>>,
}

impl Policies {
    fn start(store: Store) -> Self {
        let watched = Watched::start(store, Some(&Arc::default()));
        Self { watched, told: std::cell::RefCell::default() }
    }

    async fn synced() -> Self {
        let store = Store::new(StoreOptions::default());
        install(&store, &agent_crd::crd::needed());
        let policies = Self::start(store);
        policies.watched.until("all lists", |status| status.synced && status.connected).await;
        policies.until("the last list", |event| matches!(event, Event::ListSynced(_)).then_some(()));
        policies
    }

    fn create(&self, resource: &sim_api::resource::Gr, object: serde_json::Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.watched.api.store.create(resource, &namespace, object, &WriteOptions::default()).unwrap();
    }

    /// Waits for an event in which `find` finds what it looks for. Those before it are taken.
    fn until<T>(&self, what: &str, find: impl Fn(&Event) -> Option<T>) -> T {
        self.until_while(what, find, || ())
    }

    /// The same, doing something every second.
    fn until_while<T>(&self, what: &str, find: impl Fn(&Event) -> Option<T>, act: impl Fn()) -> T {
        let since = Instant::now();
        let mut acted = None;
        let mut told = self.told.borrow_mut();
        loop {
            if let Some((at, found)) = told.iter().enumerate().find_map(|(at, e)| Some((at, find(e)?))) {
                told.drain(..=at);
                return found;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{what}: {told:?}");
            if acted.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
                acted = Some(Instant::now());
                act();
            }
            told.extend(self.watched.told());
        }
    }

    fn upsert(&self, kind: ObjectKind, name: &str) -> (Object, u64) {
        self.until(&format!("{kind:?} {name}"), |event| match event {
            Event::Upsert { object, version } if object.kind() == kind && object.name().name == name => {
                Some(((**object).clone(), *version))
            }
            _ => None,
        })
    }
}

fn install(store: &Store, definitions: &[serde_json::Value]) {
    for definition in definitions {
        let resource = sim_api::resource::CUSTOMRESOURCEDEFINITIONS;
        store.create(&resource, "", definition.clone(), &WriteOptions::default()).unwrap();
    }
}

fn cilium(resource: &'static str) -> sim_api::resource::Gr {
    sim_api::resource::Gr::new("cilium.io", resource)
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_own_node_come_with_what_identity_and_ports_need() {
    let policies = Policies::synced().await;
    let pod = |name: &str, more: &str| {
        json(&format!(
            r#"{{"metadata": {{"name": "{name}", "namespace": "default", "labels": {{"app": "{name}"}}}},
                "spec": {{"containers": [{{"name": "c", "image": "i", "ports": [
                    {{"name": "http", "containerPort": 8080}}, {{"containerPort": 9}},
                    {{"name": "dns", "containerPort": 53, "protocol": "UDP"}}]}}]{more}}}}}"#
        ))
    };
    policies.create(&PODS, pod("elsewhere", r#", "nodeName": "n2""#));
    policies.create(&PODS, pod("host", r#", "nodeName": "n1", "hostNetwork": true"#));
    policies.create(&PODS, pod("own", r#", "nodeName": "n1", "serviceAccountName": "cart""#));
    let next = |event: &Event| match event {
        Event::Upsert { object, .. } => match &**object {
            Object::Pod(pod) => Some(pod.clone()),
            _ => None,
        },
        _ => None,
    };
    let own = policies.until("the pod", next);
    assert_eq!((own.name.as_str(), own.service_account.as_str()), ("own", "cart"));
    assert_eq!(own.labels["app"], "own");
    let ports: Vec<(&str, u8, u16)> =
        own.named_ports.iter().map(|port| (port.name.as_str(), port.proto, port.port)).collect();
    assert_eq!(ports, [("http", 6, 8080), ("dns", 17, 53)]);

    let at_once = sim_api::DeleteOptions { grace_period_s: Some(0), ..sim_api::DeleteOptions::default() };
    policies.watched.api.store.delete(&PODS, "default", "own", &at_once).unwrap();
    policies.until("the end of the pod", |event| {
        let gone = ObjectName::new("default", "own");
        matches!(event, Event::Delete { kind: ObjectKind::Pod, name, .. } if *name == gone).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_carry_their_version_and_end_with_a_later_one() {
    let policies = Policies::synced().await;
    let policy = r#"{"metadata": {"name": "p", "namespace": "default"}, "spec": {"podSelector": {}}}"#;
    policies.create(&NETWORKPOLICIES, json(policy));
    let (_, created) = policies.upsert(ObjectKind::NetworkPolicy, "p");
    assert!(created > 0);
    let options = sim_api::DeleteOptions::default();
    policies.watched.api.store.delete(&NETWORKPOLICIES, "default", "p", &options).unwrap();
    let deleted = policies.until("its end", |event| match event {
        Event::Delete { kind: ObjectKind::NetworkPolicy, version, .. } => Some(*version),
        _ => None,
    });
    assert!(deleted > created, "{deleted} {created}");

    policies.create(&NAMESPACES, json(r#"{"metadata": {"name": "shop", "labels": {"team": "a"}}}"#));
    let (object, _) = policies.upsert(ObjectKind::Namespace, "shop");
    assert!(matches!(object, Object::Namespace(namespace) if namespace.labels["team"] == "a"));
    let identity = r#"{"metadata": {"name": "300"}, "security-labels": {"k8s:app": "x"}}"#;
    policies.create(&cilium("ciliumidentities"), json(identity));
    let (object, _) = policies.upsert(ObjectKind::Identity, "300");
    assert!(matches!(object, Object::Identity(identity) if identity.number() == Some(300)));
}

/// One object that the types cannot take neither hides the others nor counts as gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_object_is_told_as_such_and_hides_no_other() {
    let store = Store::new(StoreOptions::default());
    // Without schemas, as where somebody else's definitions are installed.
    let definitions = agent_crd::crd::needed().into_iter().map(|mut definition| {
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json(r#"{"type": "object", "x-kubernetes-preserve-unknown-fields": true}"#);
        definition
    });
    install(&store, &definitions.collect::<Vec<_>>());
    let group = |name: &str, cidrs: &str| {
        json(&format!(
            r#"{{"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
                "metadata": {{"name": "{name}"}}, "spec": {{"externalCIDRs": {cidrs}}}}}"#
        ))
    };
    let options = WriteOptions::default();
    store.create(&cilium("ciliumcidrgroups"), "", group("a-bad", "7"), &options).unwrap();
    store.create(&cilium("ciliumcidrgroups"), "", group("b-good", "[\"10.0.0.0/8\"]"), &options).unwrap();
    let policies = Policies::start(store);
    let error = policies.until("the bad one", |event| match event {
        Event::Unreadable { kind: ObjectKind::CidrGroup, name, error } if name.name == "a-bad" => {
            Some(error.clone())
        }
        _ => None,
    });
    assert!(error.contains('7'), "{error}");
    policies.upsert(ObjectKind::CidrGroup, "b-good");
    policies.until("the list", |event| (*event == Event::ListSynced(ObjectKind::CidrGroup)).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_definitions_are_named_until_they_are_there() {
    let policies = Policies::start(Store::new(StoreOptions::default()));
    let told = |status: &KubernetesStatus| status.error.as_ref().is_some_and(|e| e.contains("deploy/crds"));
    policies.watched.until("the complaint", told).await;
    assert!(!policies.watched.api.status.get().synced);
    install(&policies.watched.api.store, &agent_crd::crd::needed());
    policies.watched.until("all lists", |status| status.synced && status.connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_need_not_be_there_is_an_empty_list_until_it_comes() {
    let policies = Policies::synced().await;
    install(&policies.watched.api.store, &[agent_crd::crd::cluster_network_policy()]);
    let policy = json(
        r#"{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "c"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}}"#,
    );
    let resource = sim_api::resource::Gr::new("policy.networking.k8s.io", "clusternetworkpolicies");
    policies.create(&resource, policy);
    policies.upsert(ObjectKind::ClusterNetworkPolicy, "c");
    let synced = Event::ListSynced(ObjectKind::ClusterNetworkPolicy);
    policies.until("the list", |event| (*event == synced).then_some(()));

    let definitions = sim_api::resource::CUSTOMRESOURCEDEFINITIONS;
    let name = "clusternetworkpolicies.policy.networking.k8s.io";
    policies.watched.api.store.delete(&definitions, "", name, &sim_api::DeleteOptions::default()).unwrap();
    // A watch that begins at this very moment is not cut, so once may not be enough.
    let cut = || policies.watched.api.faults.cut_watches();
    policies.until_while("the empty list", |event| (*event == synced).then_some(()), cut);
}

/// A list that breaks off says that it began, and never that it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_list_never_ends_and_the_next_one_does() {
    let policies = Policies::synced().await;
    policies.create(&NAMESPACES, json(r#"{"metadata": {"name": "shop"}}"#));
    policies.upsert(ObjectKind::Namespace, "shop");
    let faults = &policies.watched.api.faults;
    let lists = |verb| CallMatch { verb: Some(verb), resource: Some(NAMESPACES), ..CallMatch::default() };
    faults.inject(lists("watch"), Effect::Expired, Some(1));
    faults.inject(lists("list"), Effect::PartialList, Some(2));
    faults.cut_watches();
    let started = Event::ListStarted(ObjectKind::Namespace);
    let synced = Event::ListSynced(ObjectKind::Namespace);
    for list in ["first", "second"] {
        let which =
            policies.until(list, |event| (*event == started || *event == synced).then(|| event.clone()));
        assert_eq!(which, started, "{list} list");
    }
    policies.until("the whole list", |event| (*event == synced).then_some(()));
}
