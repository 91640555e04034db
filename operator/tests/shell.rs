//! The process against the simulated API server: objects appear, the lease holds, nothing is done behind the fence.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_crd::CiliumIdentity;
use bristle_operator::shell::{Flags, Shared, run, serve};
use clap::Parser as _;
use kube::{Client, Config};
use serde_json::{Value, json};
use sim_api::faults::{CallMatch, Effect};
use sim_api::resource::{CUSTOMRESOURCEDEFINITIONS, LEASES, NAMESPACES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, Faults, Gr, ServerConfig, ServerHandle, Store, Sub, WriteOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const IDENTITIES: Gr = Gr::new("cilium.io", "ciliumidentities");
const ENDPOINTS: Gr = Gr::new("cilium.io", "ciliumendpoints");
const POLICIES: Gr = Gr::new("cilium.io", "ciliumnetworkpolicies");
const OF_TIERS: Gr = Gr::new("policy.networking.k8s.io", "clusternetworkpolicies");
const CLUSTERWIDE: Gr = Gr::new("cilium.io", "ciliumclusterwidenetworkpolicies");

/// That of these operators.
const LEASE_DURATION: Duration = Duration::from_secs(3);

struct Cluster {
    store: Store,
    faults: Faults,
    client: Client,
    _server: ServerHandle,
}

fn cluster() -> Cluster {
    let store = Store::new(StoreOptions::default());
    let config = ServerConfig::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let faults = config.faults.clone();
    let server = sim_api::server::start(store.clone(), config).unwrap();
    let client = Client::try_from(Config::new(server.url().parse().unwrap())).unwrap();
    Cluster { store, faults, client, _server: server }
}

fn create(store: &Store, gr: &Gr, namespace: &str, object: Value) {
    store.create(gr, namespace, object, &WriteOptions::default()).unwrap();
}

fn pod(store: &Store, name: &str, app: &str) {
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": app, "pod-template-hash": name}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    });
    create(store, &PODS, "default", pod);
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
    shared: Arc<Shared>,
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
    }
}

fn operator(cluster: &Cluster, more: &[&str]) -> Running {
    let duration = LEASE_DURATION.as_secs().to_string();
    let base = ["bristle-operator", "--lease-duration", &duration];
    let flags = Flags::try_parse_from(base.into_iter().chain(more.iter().copied())).unwrap();
    let (stop, stopped) = oneshot::channel();
    let shared = Arc::new(Shared::default());
    let (client, told) = (cluster.client.clone(), Arc::clone(&shared));
    let task = tokio::spawn(async move {
        run(&flags, client, told, async {
            // A sender that is dropped is no order to stop.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await
    });
    Running { stop, task, shared }
}

async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number of the identity with this label.
fn number(store: &Store, label: &str, value: &str) -> Option<u32> {
    store.resource(&IDENTITIES)?;
    let all = store.list(&IDENTITIES, "");
    let one = all.iter().find(|identity| identity["security-labels"][label] == value)?;
    one["metadata"]["name"].as_str()?.parse().ok()
}

fn valid(store: &Store, gr: &Gr, namespace: &str, name: &str) -> Option<(String, String)> {
    let policy = store.get(gr, namespace, name).ok()?;
    let condition = policy["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Valid")?.clone();
    assert!(condition["lastTransitionTime"].is_string());
    Some((condition["status"].as_str()?.to_owned(), condition["message"].as_str()?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_identities_and_policies_are_checked() {
    let cluster = cluster();
    let store = &cluster.store;
    pod(store, "a", "web");
    // Who has policies of tiers has installed their definition.
    create(store, &CUSTOMRESOURCEDEFINITIONS, "", agent_crd::crd::cluster_network_policy());
    let one = operator(&cluster, &["--lease-identity", "one", "--collect-after", "1"]);
    eventually("the identity", || number(store, "k8s:app", "web").filter(|n| *n == 256)).await;
    let definition = store.get(&CUSTOMRESOURCEDEFINITIONS, "", "ciliumidentities.cilium.io").unwrap();
    assert_eq!(definition["metadata"]["labels"]["io.cilium.k8s.crd.schema.version"], "1.32.6");
    let identity = store.get(&IDENTITIES, "", "256").unwrap();
    assert_eq!(identity["security-labels"]["k8s:io.kubernetes.pod.namespace"], "default");
    assert_eq!(identity["security-labels"]["k8s:io.cilium.k8s.policy.serviceaccount"], "default");
    assert_eq!(identity["metadata"]["labels"]["app"], "web");
    assert!(identity["security-labels"]["k8s:pod-template-hash"].is_null());

    pod(store, "b", "web");
    pod(store, "c", "db");
    eventually("the second identity", || number(store, "k8s:app", "db").filter(|n| *n == 257)).await;
    assert_eq!(store.list(&IDENTITIES, "").len(), 2);

    let policy = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    create(store, &POLICIES, "default", policy("good", json!({"endpointSelector": {}, "ingress": [{}]})));
    let mixed =
        json!({"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.0/8"], "fromEntities": ["host"]}]});
    create(store, &POLICIES, "default", policy("mixed", mixed));
    create(store, &CLUSTERWIDE, "", policy("nodes", json!({"nodeSelector": {}, "egress": [{}]})));
    let of_tier = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    create(store, &OF_TIERS, "", policy("first", of_tier));
    let success = ("True".to_owned(), "Policy validation succeeded".to_owned());
    let good = eventually("the condition", || valid(store, &POLICIES, "default", "good")).await;
    assert_eq!(good, success);
    assert_eq!(eventually("the condition", || valid(store, &CLUSTERWIDE, "", "nodes")).await, success);
    assert_eq!(eventually("the condition", || valid(store, &OF_TIERS, "", "first")).await, success);
    let (status, message) = eventually("the condition", || valid(store, &POLICIES, "default", "mixed")).await;
    assert_eq!(status, "False");
    assert!(message.contains("fromCIDR and fromEntities exclude each other"), "{message}");

    // Watches break, and it goes on; an endpoint keeps an identity, and what nobody uses goes.
    let endpoint = json!({"metadata": {"name": "c"}, "status": {"identity": {"id": 257}}});
    create(store, &ENDPOINTS, "default", endpoint);
    cluster.faults.cut_watches();
    for name in ["a", "b", "c"] {
        store.delete(&PODS, "default", name, &DeleteOptions::now()).unwrap();
    }
    eventually("its end", || number(store, "k8s:app", "web").is_none().then_some(())).await;
    assert_eq!(number(store, "k8s:app", "db"), Some(257));
    store.delete(&ENDPOINTS, "default", "c", &DeleteOptions::now()).unwrap();
    eventually("its end", || number(store, "k8s:app", "db").is_none().then_some(())).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_takes_over_and_numbers_stay() {
    let cluster = cluster();
    let store = &cluster.store;
    pod(store, "a", "web");
    pod(store, "b", "db");
    let one = operator(&cluster, &["--lease-identity", "one"]);
    eventually("the identities", || number(store, "k8s:app", "web")).await;
    // That there are no policies of tiers here is no reason to wait.
    eventually("all lists", || one.shared.figures().1.synced.then_some(())).await;
    let two = operator(&cluster, &["--lease-identity", "two"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(one.shared.figures().0 && !two.shared.figures().0, "one leads, two waits");
    let before = (number(store, "k8s:app", "web"), number(store, "k8s:app", "db"));
    let began = Instant::now();
    one.stop().await;
    eventually("the new leader", || two.shared.figures().0.then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(3), "a lease that is given back is not waited for");
    pod(store, "c", "api");
    eventually("the third identity", || number(store, "k8s:app", "api").filter(|n| *n == 258)).await;
    assert_eq!((number(store, "k8s:app", "web"), number(store, "k8s:app", "db")), before);
    let lease = store.get(&LEASES, "kube-system", "bristle-operator").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "two");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_is_followed_before_agents_have_waited_long_enough() {
    let cluster = cluster();
    let store = &cluster.store;
    let one = operator(&cluster, &["--lease-identity", "one"]);
    eventually("the first sync", || one.shared.figures().1.synced.then_some(())).await;
    let two = operator(&cluster, &["--lease-identity", "two"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nothing is given back.
    one.task.abort();
    let began = Instant::now();
    pod(store, "a", "web");
    eventually("the identity", || number(store, "k8s:app", "web")).await;
    // Agents wait as many times the lease's duration as that.
    let wait = CiliumIdentity::WAIT.div_duration_f64(CiliumIdentity::LEASE_DURATION);
    assert!(began.elapsed() < LEASE_DURATION.mul_f64(wait), "after {:?}", began.elapsed());
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_renew_stops_before_another_may_begin() {
    let cluster = cluster();
    let store = &cluster.store;
    let one = operator(&cluster, &["--lease-identity", "one"]);
    eventually("the first sync", || one.shared.figures().1.synced.then_some(())).await;
    // Only the lease is out of reach: everything else could still be written.
    let lease = CallMatch { resource: Some(LEASES), ..CallMatch::default() };
    let fault = cluster.faults.inject(lease, Effect::Fail(500), None);
    let began = Instant::now();
    let error = one.task.await.unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "before the lease runs out");
    assert!(error.to_string().contains("lease"), "{error}");
    pod(store, "a", "web");
    cluster.faults.remove(fault);
    let two = operator(&cluster, &["--lease-identity", "two"]);
    eventually("the identity", || number(store, "k8s:app", "web")).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_taken_away_ends_it_at_once() {
    let cluster = cluster();
    let one = operator(&cluster, &["--lease-identity", "one"]);
    eventually("the first sync", || one.shared.figures().1.synced.then_some(())).await;
    let thief = |lease: &mut Value| {
        lease["spec"]["holderIdentity"] = json!("thief");
        lease["spec"]["renewTime"] = json!("2026-01-01T00:00:00.000000Z");
    };
    cluster.store.modify(&LEASES, "kube-system", "bristle-operator", Sub::Main, thief).unwrap();
    assert!(one.task.await.unwrap().is_err());
    let lease = cluster.store.get(&LEASES, "kube-system", "bristle-operator").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "thief", "it is not taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_does_what_is_to_be_done_and_ends() {
    let cluster = cluster();
    let store = &cluster.store;
    create(store, &NAMESPACES, "", json!({"metadata": {"name": "shop", "labels": {"team": "a"}}}));
    for n in 0..50 {
        pod(store, &format!("p{n}"), &format!("app{n:02}"));
    }
    // Some calls fail, some are done although they seem to fail.
    let creating = CallMatch { verb: Some("create"), resource: Some(IDENTITIES), ..CallMatch::default() };
    cluster.faults.inject(creating.clone(), Effect::Fail(500), Some(3));
    cluster.faults.inject(creating, Effect::FailAfter(500), Some(5));
    operator(&cluster, &["--once", "--leader-elect", "false"]).task.await.unwrap().unwrap();
    let identities = store.list(&IDENTITIES, "");
    assert_eq!(identities.len(), 50, "one for each set, also where the answer was lost");
    assert!(store.get(&LEASES, "kube-system", "bristle-operator").is_err(), "without election no lease");
    // Definitions that are there already are no trouble, and nothing is left to do.
    let revision = store.revision();
    operator(&cluster, &["--once", "--leader-elect", "false"]).task.await.unwrap().unwrap();
    assert_eq!(store.list(&IDENTITIES, ""), identities);
    assert_eq!(store.revision(), revision, "nothing was written");
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_and_health_are_served() {
    let cluster = cluster();
    pod(&cluster.store, "a", "web");
    let one = operator(&cluster, &["--lease-identity", "one"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::clone(&one.shared)));
    eventually("the identity", || (one.shared.figures().1.identities == 1).then_some(())).await;
    eventually("the first sync", || one.shared.figures().1.synced.then_some(())).await;
    // The identity may be seen before its maker hears that it is made.
    let began = Instant::now();
    let mut page = get(address, "/metrics").await;
    while !page.contains("result=\"done\"") && began.elapsed() < Duration::from_secs(20) {
        page = get(address, "/metrics").await;
    }
    for line in [
        "bristle_operator_leading 1",
        "bristle_operator_synced 1",
        "bristle_operator_identities 1",
        "bristle_operator_commands_total{command=\"create_identity\",result=\"done\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    one.stop().await;
}
