//! The server as kube-rs sees it: typed CRUD, watches that survive cuts, patches, exec, logs, port-forward.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests: a panic is the report")]

#[path = "support/processes.rs"]
mod processes;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use sim_api::faults::{CallMatch, Effect};
use sim_api::resource::{CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, NODES, PODS};
use sim_api::store::StoreOptions;
use sim_api::{Faults, ServerConfig, ServerHandle, Store, Sub, WriteOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

struct Server {
    store: Store,
    faults: Faults,
    client: Client,
    _handle: ServerHandle,
}

fn server() -> Server {
    server_with(StoreOptions::default())
}

fn server_with(options: StoreOptions) -> Server {
    let store = Store::new(options);
    let mut config = ServerConfig::new(TcpListener::bind("127.0.0.1:0").unwrap());
    config.runtime = Arc::new(processes::Processes);
    let faults = config.faults.clone();
    let handle = sim_api::server::start(store.clone(), config).unwrap();
    let client = Client::try_from(Config::new(handle.url().parse().unwrap())).unwrap();
    Server { store, faults, client, _handle: handle }
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"zone": "a"}}})
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"nodeName": "node-a", "containers": [{"name": "c", "image": "i:1"}]},
    }))
    .unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

#[tokio::test]
async fn typed_objects_come_and_go() {
    let s = server();
    let pods: Api<Pod> = Api::default_namespaced(s.client.clone());
    let made = pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().restart_policy.as_deref(), Some("Always"));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());

    let again = pods.create(&PostParams::default(), &pod("p")).await.unwrap_err();
    assert!(matches!(&again, kube::Error::Api(e) if e.code == 409 && e.reason == "AlreadyExists"), "{again}");

    let mut stale = made.clone();
    pods.patch("p", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"new": "1"}}})))
        .await
        .unwrap();
    stale.metadata.labels.as_mut().unwrap().insert("other".into(), "2".into());
    let lost = pods.replace("p", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(&lost, kube::Error::Api(e) if e.code == 409 && e.reason == "Conflict"), "{lost}");

    let listed = pods
        .list(&ListParams::default().labels("app in (x),new").fields("spec.nodeName=node-a"))
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
    assert!(pods.list(&ListParams::default().labels("app=y")).await.unwrap().items.is_empty());
    assert_eq!(pods.list_metadata(&ListParams::default()).await.unwrap().items[0].name_any(), "p");

    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

async fn call(s: &Server, method: &str, path: &str, media_type: &str, body: Value) -> (u16, String) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", media_type);
    let response = s.client.send(request.body(body.to_string().into_bytes().into()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// As kube-apiserver 1.30 and 1.36 were seen to answer.
#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_answered_as_by_kubernetes() {
    const JSON: &str = "application/json";
    let s = server();
    let definition = json!({
        "metadata": {"name": "ts.x.io"},
        "spec": {"group": "x.io", "scope": "Cluster", "names": {"plural": "ts", "kind": "T"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    });
    s.store.create(&CUSTOMRESOURCEDEFINITIONS, "", definition, &WriteOptions::default()).unwrap();
    let t = json!({"apiVersion": "x.io/v1", "kind": "T", "metadata": {"name": "a"}});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let (ts, configs) = ("/apis/x.io/v1/ts", "/api/v1/namespaces/default/configmaps");
    assert_eq!(call(&s, "POST", ts, JSON, t.clone()).await.0, 201);
    assert_eq!(call(&s, "POST", configs, JSON, config.clone()).await.0, 201);

    let nowhere = (404, "404 page not found\n".to_owned());
    for path in ["/apis/none.io/v1/ts", "/apis/x.io/v1/us", "/apis/x.io/v1/namespaces/default/ts"] {
        assert_eq!(call(&s, "GET", path, JSON, Value::Null).await, nowhere, "{path}");
    }
    let (status, text) = call(&s, "GET", "/apis/apps/v1/us", JSON, Value::Null).await;
    assert!(status == 404 && text.contains("the server could not find the requested resource"), "{text}");

    assert_eq!(call(&s, "PUT", configs, JSON, config.clone()).await.0, 405);
    assert_eq!(call(&s, "POST", configs, "text/plain", config).await.0, 415);
    let one = format!("{ts}/a");
    assert_eq!(call(&s, "PATCH", &one, "application/strategic-merge-patch+json", json!({})).await.0, 415);
    let (status, text) = call(&s, "PUT", &one, JSON, t).await;
    assert!(status == 422 && text.contains("must be specified for an update"), "{text}");

    let first = async |path: &str| {
        let list: Value = serde_json::from_str(&call(&s, "GET", path, JSON, Value::Null).await.1).unwrap();
        list["items"][0]["kind"].clone()
    };
    assert_eq!((first(ts).await, first(configs).await), (json!("T"), Value::Null));
}

#[tokio::test]
async fn all_kinds_of_patches() {
    let s = server();
    let pods: Api<Pod> = Api::default_namespaced(s.client.clone());
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    let strategic = json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}});
    let p = pods.patch("p", &PatchParams::default(), &Patch::Strategic(strategic)).await.unwrap();
    assert_eq!(p.spec.unwrap().containers[0].image.as_deref(), Some("i:2"));

    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}});
    let p = pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!(p.status.unwrap().phase.as_deref(), Some("Running"));

    let maps: Api<ConfigMap> = Api::default_namespaced(s.client.clone());
    let apply = |value: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}}),
        )
    };
    maps.patch("m", &PatchParams::apply("one"), &apply("1")).await.unwrap();
    let conflict = maps.patch("m", &PatchParams::apply("two"), &apply("2")).await.unwrap_err();
    assert!(matches!(&conflict, kube::Error::Api(e) if e.code == 409), "{conflict}");
    let m = maps.patch("m", &PatchParams::apply("two").force(), &apply("2")).await.unwrap();
    assert_eq!(m.data.unwrap()["k"], "2");
    assert_eq!(m.metadata.managed_fields.unwrap().len(), 1, "the first manager has lost its only field");
}

#[tokio::test]
async fn watches_go_on_through_cuts_and_expired_versions() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let s = server_with(StoreOptions { log_capacity: 20, ..StoreOptions::default() });
        s.store.create(&NODES, "", node("node-a"), &WriteOptions::default()).unwrap();
        let api: Api<Node> = Api::all(s.client.clone());
        let mut stream = watcher(api, config).default_backoff().applied_objects().boxed();
        let mut next = async |expect: &str| {
            within(expect, async {
                loop {
                    // Errors of a cut are followed by a new try.
                    if let Some(Ok(node)) = stream.next().await
                        && node.name_any() == expect
                    {
                        return;
                    }
                }
            })
            .await;
        };
        next("node-a").await;
        s.store.create(&NODES, "", node("node-b"), &WriteOptions::default()).unwrap();
        next("node-b").await;
        s.faults.cut_watches();
        s.store.create(&NODES, "", node("node-c"), &WriteOptions::default()).unwrap();
        next("node-c").await;
        // While the watch is down the log moves on, so that the client must list again.
        s.faults.inject(
            CallMatch { verb: Some("watch"), ..CallMatch::default() },
            Effect::Fail(500),
            Some(1),
        );
        s.faults.cut_watches();
        for i in 0..30 {
            s.store
                .create(
                    &CONFIGMAPS,
                    "default",
                    json!({"metadata": {"name": format!("m{i}")}}),
                    &WriteOptions::default(),
                )
                .unwrap();
        }
        s.store.create(&NODES, "", node("node-d"), &WriteOptions::default()).unwrap();
        next("node-d").await;
    }
}

#[tokio::test]
async fn a_watch_sees_objects_enter_and_leave_its_selector() {
    let s = server();
    let api: Api<Node> = Api::all(s.client.clone());
    s.store.create(&NODES, "", node("node-a"), &WriteOptions::default()).unwrap();
    let events = api.watch(&kube::api::WatchParams::default().labels("zone=a"), "0").await.unwrap();
    let mut events = events.boxed();
    let mut next = async || within("event", events.try_next()).await.unwrap().unwrap();
    assert!(matches!(next().await, kube::api::WatchEvent::Added(n) if n.name_any() == "node-a"));
    let relabel = |zone: &'static str| {
        s.store
            .modify(&NODES, "", "node-a", Sub::Main, |n| n["metadata"]["labels"]["zone"] = json!(zone))
            .unwrap()
    };
    relabel("b");
    assert!(matches!(next().await, kube::api::WatchEvent::Deleted(_)));
    relabel("a");
    assert!(matches!(next().await, kube::api::WatchEvent::Added(_)));
}

#[tokio::test]
async fn failing_calls_fail_as_often_as_asked() {
    let s = server();
    let api: Api<Node> = Api::all(s.client.clone());
    s.faults.inject(
        CallMatch { verb: Some("get"), resource: Some(NODES), ..CallMatch::default() },
        Effect::Fail(500),
        Some(1),
    );
    let failed = api.get("x").await.unwrap_err();
    assert!(matches!(&failed, kube::Error::Api(e) if e.code == 500), "{failed}");
    let failed = api.get("x").await.unwrap_err();
    assert!(matches!(&failed, kube::Error::Api(e) if e.code == 404), "{failed}");
    // The call is done although its answer is lost.
    s.faults.inject(
        CallMatch { verb: Some("create"), ..CallMatch::default() },
        Effect::FailAfter(500),
        Some(1),
    );
    let made: Node = serde_json::from_value(node("n")).unwrap();
    assert!(api.create(&PostParams::default(), &made).await.is_err());
    assert!(s.store.get(&NODES, "", "n").is_ok());
}

#[tokio::test]
async fn watches_and_lists_misbehave_as_asked() {
    let s = server();
    let api: Api<Node> = Api::all(s.client.clone());
    let watching = CallMatch { verb: Some("watch"), resource: Some(NODES), ..CallMatch::default() };
    let start = s.store.revision().to_string();
    let relabel = |value: &str| {
        let change = |n: &mut Value| n["metadata"]["labels"]["zone"] = json!(value);
        s.store.modify(&NODES, "", "n", Sub::Main, change).unwrap();
    };

    s.faults.inject(watching.clone(), Effect::Duplicate, Some(1));
    let mut twice = api.watch(&kube::api::WatchParams::default(), &start).await.unwrap().boxed();
    s.store.create(&NODES, "", node("n"), &WriteOptions::default()).unwrap();
    for _ in 0..2 {
        let event = within("event", twice.try_next()).await.unwrap().unwrap();
        assert!(matches!(event, kube::api::WatchEvent::Added(_)));
    }

    s.faults.inject(watching.clone(), Effect::Coalesce(Duration::from_millis(300)), Some(1));
    let start = s.store.revision().to_string();
    let mut last = api.watch(&kube::api::WatchParams::default(), &start).await.unwrap().boxed();
    for value in ["b", "c", "d"] {
        relabel(value);
    }
    let event = within("event", last.try_next()).await.unwrap().unwrap();
    assert!(matches!(event, kube::api::WatchEvent::Modified(n) if n.labels()["zone"] == "d"));

    s.faults.inject(watching, Effect::Gone, Some(1));
    let gone = api.watch(&kube::api::WatchParams::default(), &start).await.err().expect("refused");
    assert!(matches!(&gone, kube::Error::Api(e) if e.code == 410), "{gone}");

    let listing = CallMatch { verb: Some("list"), ..CallMatch::default() };
    s.faults.inject(listing, Effect::StaleList(1), Some(1));
    let zone = async || api.list(&ListParams::default()).await.unwrap().items[0].labels()["zone"].clone();
    assert_eq!((zone().await.as_str(), zone().await.as_str()), ("c", "d"));
}

#[tokio::test]
async fn answers_and_watches_break_off_for_the_client_that_is_meant() {
    let s = server();
    let api: Api<Node> = Api::all(s.client.clone());
    s.store.create(&NODES, "", node("n"), &WriteOptions::default()).unwrap();
    let from = |peer: &str| CallMatch { peers: vec![peer.parse().unwrap()], ..CallMatch::default() };

    let other = s.faults.inject(from("192.0.2.1"), Effect::Unreachable, None);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    s.faults.remove(other);
    let own = s.faults.inject(from("127.0.0.1"), Effect::Unreachable, None);
    let failed = api.list(&ListParams::default()).await.unwrap_err();
    assert!(!matches!(failed, kube::Error::Api(_)), "the connection breaks: {failed}");
    s.faults.remove(own);
    s.faults.inject(from("127.0.0.1"), Effect::PartialList, Some(1));
    assert!(api.list(&ListParams::default()).await.is_err());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let start = s.store.revision().to_string();
    let mut watch = api.watch(&kube::api::WatchParams::default(), &start).await.unwrap().boxed();
    assert!(s.faults.cut(&from("192.0.2.1")).is_empty());
    s.store.create(&NODES, "", node("m"), &WriteOptions::default()).unwrap();
    within("event", watch.try_next()).await.expect("it goes on");
    assert_eq!(s.faults.cut(&from("127.0.0.1")).into_iter().collect::<Vec<_>>(), [NODES]);
    assert!(!matches!(within("the end", watch.try_next()).await, Ok(Some(_))));

    s.faults.inject(from("127.0.0.1"), Effect::Expired, Some(1));
    let mut old = api.watch(&kube::api::WatchParams::default(), &start).await.unwrap().boxed();
    let event = within("event", old.try_next()).await.unwrap();
    assert!(matches!(event, Some(kube::api::WatchEvent::Error(e)) if e.code == 410));

    s.faults.inject(from("127.0.0.1"), Effect::Lag(Duration::from_millis(400)), Some(1));
    let start = s.store.revision().to_string();
    let mut late = api.watch(&kube::api::WatchParams::default(), &start).await.unwrap().boxed();
    #[expect(clippy::disallowed_methods, reason = "client and server speak over a socket, in real time")]
    let began = std::time::Instant::now();
    s.store.create(&NODES, "", node("o"), &WriteOptions::default()).unwrap();
    within("event", late.try_next()).await.expect("it comes").expect("and is one");
    assert!(began.elapsed() >= Duration::from_millis(400));
}

async fn running_pod(s: &Server) -> Api<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(s.client.clone());
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    s.store.modify(&PODS, "default", "p", Sub::Status, |p| p["status"]["phase"] = json!("Running")).unwrap();
    pods
}

#[tokio::test]
async fn exec_carries_streams_and_the_exit_code() {
    let s = server();
    let pods = running_pod(&s).await;
    let params = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("p", ["sh", "-c", "cat; echo err >&2; exit 3"], &params).await.unwrap();
    let (mut stdin, mut stdout, mut stderr) =
        (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    let payload = vec![b'x'; 300_000];
    let sent = payload.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut out, mut err) = (Vec::new(), String::new());
    within("output", async {
        tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_string(&mut err))
    })
    .await
    .unwrap();
    writing.await.unwrap();
    assert_eq!(out.len(), payload.len());
    assert_eq!(err, "err\n");
    let status = within("status", status).await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));

    let missing = pods.exec("p", ["true"], &AttachParams::default().container("nope")).await;
    assert!(missing.is_err());
}

#[tokio::test]
async fn logs_follow_and_tail() {
    let s = server();
    let pods = running_pod(&s).await;
    let tail = LogParams { tail_lines: Some(2), ..LogParams::default() };
    assert_eq!(pods.logs("p", &tail).await.unwrap(), "line 2\nline 3\n");
    let follow = LogParams { follow: true, timestamps: true, ..LogParams::default() };
    let mut lines = futures::AsyncBufReadExt::lines(pods.log_stream("p", &follow).await.unwrap());
    let mut all = Vec::new();
    while let Some(line) = within("log line", lines.try_next()).await.unwrap() {
        all.push(line);
    }
    assert_eq!(all.len(), 6);
    assert!(all[5].ends_with("Z line 6"), "{}", all[5]);
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert!(
        pods.logs("p", &previous).await.unwrap_err().to_string().contains("previous terminated container")
    );
}

#[tokio::test]
async fn ports_are_forwarded() {
    let s = server();
    let pods = running_pod(&s).await;
    let mut forwarder = pods.portforward("p", &[80, 1]).await.unwrap();
    let mut stream = forwarder.take_stream(80).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    within("answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HELLO");
    let refused = within("refusal", forwarder.take_error(1).unwrap()).await.unwrap();
    assert!(refused.contains("cannot connect to port 1"), "{refused}");
}
