//! What the store promises, without HTTP.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests: a panic is the report")]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sim_api::object::{at, int_at, list_at, name, set, str_at};
use sim_api::options::FieldValidation;
use sim_api::resource::{
    CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, NODES, PODS, SERVICES,
};
use sim_api::store::{ChangeKind, ListQuery, StoreOptions};
use sim_api::{
    ApiError, DeleteOptions, Gr, ManualClock, Patch, Propagation, Selector, Store, Sub, WriteOptions,
};

fn store() -> Store {
    Store::new(StoreOptions::default())
}

fn none() -> WriteOptions {
    WriteOptions::default()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

fn service(name: &str, spec: Value) -> Value {
    let mut s =
        json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    for (key, value) in spec.as_object().unwrap() {
        s["spec"][key] = value.clone();
    }
    s
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> u16 {
    result.unwrap_err().code
}

#[test]
fn an_update_of_an_old_version_is_refused() {
    let s = store();
    let first = s.create(&PODS, "default", pod("p"), &none()).unwrap();
    let mut mine = (*first).clone();
    s.modify(&PODS, "default", "p", Sub::Main, |p| set(p, &["metadata", "labels", "x"], json!("1"))).unwrap();
    set(&mut mine, &["metadata", "labels", "y"], json!("2"));
    let error = s.update(&PODS, Sub::Main, mine, &none()).unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    let other = json!({"metadata": {"name": "p", "namespace": "default", "uid": "another"}});
    assert_eq!(code(s.update(&PODS, Sub::Main, other, &none())), 409);
}

#[test]
fn generation_counts_wanted_changes_only() {
    let s = store();
    s.create(&DEPLOYMENTS, "default", deployment("d"), &none()).unwrap();
    let generation = || int_at(&s.get(&DEPLOYMENTS, "default", "d").unwrap(), &["metadata", "generation"]);
    assert_eq!(generation(), Some(1));
    s.modify(&DEPLOYMENTS, "default", "d", Sub::Main, |d| set(d, &["metadata", "labels", "x"], json!("y")))
        .unwrap();
    s.modify(&DEPLOYMENTS, "default", "d", Sub::Status, |d| set(d, &["status", "replicas"], json!(1)))
        .unwrap();
    assert_eq!(generation(), Some(1));
    s.modify(&DEPLOYMENTS, "default", "d", Sub::Main, |d| set(d, &["spec", "replicas"], json!(3))).unwrap();
    assert_eq!(generation(), Some(2));
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let s = store();
    s.create(&PODS, "default", pod("p"), &none()).unwrap();
    s.modify(&PODS, "default", "p", Sub::Main, |p| set(p, &["status", "phase"], json!("Running"))).unwrap();
    assert_eq!(str_at(&s.get(&PODS, "default", "p").unwrap(), &["status", "phase"]), "Pending");
    s.modify(&PODS, "default", "p", Sub::Status, |p| {
        set(p, &["status", "phase"], json!("Running"));
        set(p, &["spec", "nodeName"], json!("n"));
    })
    .unwrap();
    let p = s.get(&PODS, "default", "p").unwrap();
    assert_eq!((str_at(&p, &["status", "phase"]), str_at(&p, &["spec", "nodeName"])), ("Running", ""));
}

#[test]
fn a_write_that_changes_nothing_is_no_change() {
    let s = store();
    let p = s.create(&PODS, "default", pod("p"), &none()).unwrap();
    let before = s.revision();
    s.update(&PODS, Sub::Main, (*p).clone(), &none()).unwrap();
    s.patch(&PODS, "default", "p", Sub::Main, &Patch::Merge(json!({"metadata": {"labels": null}})), &none())
        .unwrap();
    assert_eq!(s.revision(), before);
    let dry = WriteOptions { dry_run: true, ..none() };
    let shown = s
        .patch(
            &PODS,
            "default",
            "p",
            Sub::Main,
            &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})),
            &dry,
        )
        .unwrap();
    assert_eq!(str_at(&shown, &["metadata", "labels", "a"]), "b");
    assert_eq!(s.revision(), before);
}

#[test]
fn bad_objects_are_refused_with_the_field() {
    let s = store();
    let check = |r: &Gr, object: Value, expect_code: u16, expect: &str| {
        let error = s.create(r, "default", object, &none()).unwrap_err();
        assert_eq!(error.code, expect_code, "{error}");
        assert!(error.message.contains(expect), "{error} has no {expect}");
    };
    check(
        &PODS,
        json!({"metadata": {"name": "P!"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        422,
        "metadata.name",
    );
    check(&PODS, json!({"metadata": {"name": "p"}, "spec": {}}), 422, "spec.containers: Required value");
    check(&PODS, json!({"metadata": {"name": "p"}, "spec": {"containers": "x"}}), 400, "spec.containers");
    check(
        &PODS,
        json!({"metadata": {"name": "p", "resourceVersion": "5"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        400,
        "resourceVersion",
    );
    check(&PODS, json!({"metadata": {"name": "p", "namespace": "other"}, "spec": {}}), 400, "namespace");
    check(&PODS, json!({"kind": "Service", "metadata": {"name": "p"}}), 400, "kind");
    check(&PODS, json!([1]), 400, "map");
    check(&SERVICES, service("s", json!({"ports": [{"port": 99999}]})), 422, "spec.ports[0].port");
    let mut bad = deployment("d");
    bad["spec"]["template"]["metadata"]["labels"]["a"] = json!("c");
    check(&DEPLOYMENTS, bad, 422, "`selector` does not match template `labels`");
    let error = s.create(&CONFIGMAPS, "nowhere", json!({"metadata": {"name": "m"}}), &none()).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[test]
fn unknown_fields_are_dropped_warned_of_or_refused() {
    let s = store();
    let mut p = pod("p");
    p["spec"]["colour"] = json!("red");
    let with = |v| WriteOptions { field_validation: v, dry_run: true, ..none() };
    let strict = s.create(&PODS, "default", p.clone(), &with(FieldValidation::Strict)).unwrap_err();
    assert!(strict.message.contains("unknown field \"spec.colour\""), "{strict}");
    let warned = s.create_full(&PODS, "default", p.clone(), &with(FieldValidation::Warn)).unwrap();
    assert_eq!(warned.warnings, ["unknown field \"spec.colour\""]);
    assert!(at(&warned.object, &["spec", "colour"]).is_null());
    assert!(s.create_full(&PODS, "default", p, &with(FieldValidation::Ignore)).unwrap().warnings.is_empty());
}

#[test]
fn finalizers_hold_and_propagation_adds_them() {
    let s = store();
    let mut m = json!({"metadata": {"name": "m", "finalizers": ["a.b/hold"]}});
    s.create(&CONFIGMAPS, "default", m.clone(), &none()).unwrap();
    let left = s.delete(&CONFIGMAPS, "default", "m", &DeleteOptions::default()).unwrap().expect("held");
    assert!(at(&left, &["metadata", "deletionTimestamp"]).is_string());
    m["metadata"] = left["metadata"].clone();
    set(&mut m, &["metadata", "finalizers"], json!(["a.b/hold", "new/one"]));
    assert_eq!(
        code(s.update(
            &CONFIGMAPS,
            Sub::Main,
            json!({"metadata": {"name": "m", "namespace": "default", "finalizers": ["a.b/hold", "new/one"]}}),
            &none()
        )),
        422
    );
    s.patch(
        &CONFIGMAPS,
        "default",
        "m",
        Sub::Main,
        &Patch::Merge(json!({"metadata": {"finalizers": null}})),
        &none(),
    )
    .unwrap();
    assert_eq!(code(s.get(&CONFIGMAPS, "default", "m")), 404);

    s.create(&CONFIGMAPS, "default", json!({"metadata": {"name": "n"}}), &none()).unwrap();
    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    let left = s.delete(&CONFIGMAPS, "default", "n", &foreground).unwrap().expect("waits for dependents");
    assert_eq!(list_at(&left, &["metadata", "finalizers"]), ["foregroundDeletion"]);
    let wrong = DeleteOptions { uid: Some("another".into()), ..DeleteOptions::default() };
    assert_eq!(code(s.delete(&CONFIGMAPS, "default", "n", &wrong)), 409);
}

#[test]
fn pods_get_the_time_to_end_that_they_ask_for() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::new(start));
    let s = Store::new(StoreOptions { clock: clock.clone(), ..StoreOptions::default() });
    s.create(&PODS, "default", pod("unbound"), &none()).unwrap();
    assert!(s.delete(&PODS, "default", "unbound", &DeleteOptions::default()).unwrap().is_none());

    let mut p = pod("p");
    p["spec"]["nodeName"] = json!("n");
    s.create(&PODS, "default", p, &none()).unwrap();
    let left = s.delete(&PODS, "default", "p", &DeleteOptions::default()).unwrap().expect("still ending");
    assert_eq!(str_at(&left, &["metadata", "deletionTimestamp"]), "2026-01-01T00:00:30Z");
    clock.advance(SignedDuration::from_secs(5));
    let sooner = DeleteOptions { grace_period_s: Some(2), ..DeleteOptions::default() };
    let left = s.delete(&PODS, "default", "p", &sooner).unwrap().expect("still ending");
    assert_eq!(str_at(&left, &["metadata", "deletionTimestamp"]), "2026-01-01T00:00:07Z");
    assert!(s.delete(&PODS, "default", "p", &DeleteOptions::now()).unwrap().is_none());
    assert_eq!(code(s.get(&PODS, "default", "p")), 404);
}

#[test]
fn namespaces_end_when_finalized_and_take_nothing_new_before() {
    let s = store();
    s.create(&NAMESPACES, "", json!({"metadata": {"name": "x"}}), &none()).unwrap();
    let left =
        s.delete(&NAMESPACES, "", "x", &DeleteOptions::default()).unwrap().expect("waits for its controller");
    assert_eq!(str_at(&left, &["status", "phase"]), "Terminating");
    assert_eq!(code(s.create(&CONFIGMAPS, "x", json!({"metadata": {"name": "m"}}), &none())), 403);
    s.modify(&NAMESPACES, "", "x", Sub::Finalize, |n| set(n, &["spec", "finalizers"], json!([]))).unwrap();
    assert_eq!(code(s.get(&NAMESPACES, "", "x")), 404);
}

#[test]
fn services_get_addresses_and_node_ports_once() {
    let s = store();
    let a = s
        .create(
            &SERVICES,
            "default",
            service("a", json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack"})),
            &none(),
        )
        .unwrap();
    assert_eq!(list_at(&a, &["spec", "ipFamilies"]), ["IPv4", "IPv6"]);
    assert_eq!(list_at(&a, &["spec", "clusterIPs"]).len(), 2);
    assert_eq!(a["spec"]["clusterIP"], a["spec"]["clusterIPs"][0]);
    let port = int_at(&a["spec"]["ports"][0], &["nodePort"]).unwrap();
    assert!((30000..=32767).contains(&port));
    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    assert_eq!(code(s.create(&SERVICES, "default", taken, &none())), 422);
    let taken = service("b", json!({"clusterIP": a["spec"]["clusterIP"]}));
    assert_eq!(code(s.create(&SERVICES, "default", taken, &none())), 422);
    let headless =
        s.create(&SERVICES, "default", service("h", json!({"clusterIP": "None"})), &none()).unwrap();
    assert_eq!(str_at(&headless, &["spec", "clusterIP"]), "None");
    // Written back without what was given out, the service keeps it.
    let b = s
        .update(
            &SERVICES,
            Sub::Main,
            {
                let mut b = service("a", json!({"type": "NodePort"}));
                set(&mut b, &["metadata", "namespace"], json!("default"));
                b
            },
            &none(),
        )
        .unwrap();
    assert_eq!(b["spec"]["clusterIPs"], a["spec"]["clusterIPs"]);
    assert_eq!(int_at(&b["spec"]["ports"][0], &["nodePort"]), Some(port));
    assert_eq!(
        code(s.modify(&SERVICES, "default", "a", Sub::Main, |x| set(
            x,
            &["spec", "clusterIP"],
            json!("10.96.7.7")
        ))),
        422
    );
}

#[test]
fn balancers_of_local_endpoints_get_a_health_port_and_lose_it() {
    let s = store();
    let spec = |policy: &str| json!({"type": "LoadBalancer", "externalTrafficPolicy": policy});
    let port = |service: &Value| int_at(service, &["spec", "healthCheckNodePort"]);
    let a = s.create(&SERVICES, "default", service("a", spec("Local")), &none()).unwrap();
    let given = port(&a).expect("nodes are asked there");
    assert!((30000..=32767).contains(&given));
    assert_ne!(int_at(&a["spec"]["ports"][0], &["nodePort"]), Some(given));
    let mut taken = service("b", spec("Local"));
    set(&mut taken, &["spec", "healthCheckNodePort"], json!(given));
    assert_eq!(code(s.create(&SERVICES, "default", taken, &none())), 422);
    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": given}]}));
    assert_eq!(code(s.create(&SERVICES, "default", taken, &none())), 422);
    let update = |policy: &str| {
        let mut again = service("a", spec(policy));
        set(&mut again, &["metadata", "namespace"], json!("default"));
        s.update(&SERVICES, Sub::Main, again, &none()).unwrap()
    };
    assert_eq!(port(&update("Local")), Some(given), "written back without it, the service keeps it");
    assert_eq!(port(&update("Cluster")), None);
}

#[test]
fn pages_show_one_moment() {
    let s = store();
    for i in 0..5 {
        s.create(&CONFIGMAPS, "default", json!({"metadata": {"name": format!("m{i}")}}), &none()).unwrap();
    }
    let mut query = ListQuery { namespace: "default".into(), limit: 2, ..ListQuery::default() };
    let first = s.query(&CONFIGMAPS, &query).unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(3)));
    // What happens between the pages does not show.
    s.delete(&CONFIGMAPS, "default", "m3", &DeleteOptions::default()).unwrap();
    s.create(&CONFIGMAPS, "default", json!({"metadata": {"name": "m31"}}), &none()).unwrap();
    let mut names: Vec<String> = first.items.iter().map(|o| name(o).to_owned()).collect();
    let mut token = first.continue_token;
    while let Some(t) = token {
        query.continue_token = t;
        let page = s.query(&CONFIGMAPS, &query).unwrap();
        assert_eq!(page.revision, first.revision);
        names.extend(page.items.iter().map(|o| name(o).to_owned()));
        token = page.continue_token;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    query.continue_token = "nonsense".into();
    assert_eq!(code(s.query(&CONFIGMAPS, &query)), 400);
    let future = ListQuery { not_older: Some(s.revision() + 100), ..ListQuery::default() };
    assert_eq!(code(s.query(&CONFIGMAPS, &future)), 504);
}

#[test]
fn a_log_that_was_outrun_is_gone() {
    let s = Store::new(StoreOptions { log_capacity: 5, ..StoreOptions::default() });
    let start = s.revision();
    let mut watcher = s.watch(&CONFIGMAPS, "default", Selector::everything(), start);
    for i in 0..3 {
        s.create(&CONFIGMAPS, "default", json!({"metadata": {"name": format!("m{i}")}}), &none()).unwrap();
    }
    assert_eq!(watcher.poll().unwrap().len(), 3);
    assert!(watcher.poll().unwrap().is_empty());
    for i in 3..10 {
        s.create(&CONFIGMAPS, "default", json!({"metadata": {"name": format!("m{i}")}}), &none()).unwrap();
    }
    assert_eq!(code(watcher.poll()), 410);
    let old = ListQuery { exact: Some(start), ..ListQuery::default() };
    assert_eq!(code(s.query(&CONFIGMAPS, &old)), 410);
    let kinds: Vec<ChangeKind> = s.changes(s.revision() - 2).unwrap().iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Added]);
}

#[test]
fn apply_makes_and_changes_objects() {
    let s = store();
    let by = |manager: &str, force| WriteOptions { field_manager: Some(manager.into()), force, ..none() };
    let config = |replicas: i64| {
        let mut d = deployment("d");
        d["spec"]["replicas"] = json!(replicas);
        Patch::Apply(d)
    };
    let made = s.patch_full(&DEPLOYMENTS, "default", "d", Sub::Main, &config(1), &by("one", false)).unwrap();
    assert!(made.created);
    let revision = s.revision();
    s.patch(&DEPLOYMENTS, "default", "d", Sub::Main, &config(1), &by("one", false)).unwrap();
    assert_eq!(s.revision(), revision, "the same again is no change");
    let error = s.patch(&DEPLOYMENTS, "default", "d", Sub::Main, &config(2), &by("two", false)).unwrap_err();
    assert_eq!(error.code, 409);
    assert!(error.message.contains(".spec.replicas"), "{error}");
    s.patch(&DEPLOYMENTS, "default", "d", Sub::Main, &config(2), &by("two", true)).unwrap();
    assert_eq!(code(s.patch(&DEPLOYMENTS, "default", "d", Sub::Main, &config(2), &none())), 422);
    // Scaling by another way takes the field over from the last manager.
    let scaled = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let scale = s.patch(&DEPLOYMENTS, "default", "d", Sub::Scale, &scaled, &by("scaler", false)).unwrap();
    assert_eq!((str_at(&scale, &["kind"]), int_at(&scale, &["spec", "replicas"])), ("Scale", Some(5)));
    assert_eq!(code(s.patch(&DEPLOYMENTS, "default", "d", Sub::Main, &config(2), &by("two", false))), 409);
}

fn crd() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"}}},
                    "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
                }}}},
            ],
        },
    })
}

#[test]
fn custom_resources_live_as_long_as_their_definition() {
    let s = store();
    let widgets = Gr::new("example.com", "widgets");
    assert_eq!(code(s.create(&widgets, "default", json!({}), &none())), 404);
    let made = s.create(&CUSTOMRESOURCEDEFINITIONS, "", crd(), &none()).unwrap();
    assert!(sim_api::object::condition_is_true(&made, "Established"));
    assert_eq!(s.resource(&widgets).unwrap().versions[0].name, "v1");

    let widget = |spec: Value| json!({"metadata": {"name": "w", "finalizers": ["a.b/hold"]}, "spec": spec});
    let error = s.create(&widgets, "default", widget(json!({"size": 0, "other": 1})), &none()).unwrap_err();
    assert!(error.message.contains("spec.size"), "{error}");
    assert_eq!(code(s.create(&widgets, "default", widget(json!({})), &none())), 422);
    let w = s.create(&widgets, "default", widget(json!({"size": 1, "other": 1})), &none()).unwrap();
    assert_eq!(w["spec"], json!({"size": 1, "color": "red"}));
    s.modify(&widgets, "default", "w", Sub::Status, |w| set(w, &["status", "ok"], json!(true))).unwrap();
    assert_eq!(
        code(s.patch(&widgets, "default", "w", Sub::Main, &Patch::Strategic(json!({})), &none())),
        415
    );

    s.delete(&CUSTOMRESOURCEDEFINITIONS, "", "widgets.example.com", &DeleteOptions::default()).unwrap();
    assert!(s.get(&CUSTOMRESOURCEDEFINITIONS, "", "widgets.example.com").is_ok(), "it waits for its object");
    s.modify(&widgets, "default", "w", Sub::Main, |w| set(w, &["metadata", "finalizers"], json!([])))
        .unwrap();
    assert_eq!(code(s.get(&CUSTOMRESOURCEDEFINITIONS, "", "widgets.example.com")), 404);
    assert!(s.resource(&widgets).is_none());
}

#[test]
fn pod_cidrs_survive_a_client_that_does_not_know_them() {
    let s = store();
    s.create(&NODES, "", json!({"metadata": {"name": "n"}}), &none()).unwrap();
    s.modify(&NODES, "", "n", Sub::Main, |n| set(n, &["spec", "podCIDR"], json!("10.0.0.0/24"))).unwrap();
    s.update(&NODES, Sub::Main, json!({"metadata": {"name": "n"}}), &none()).unwrap();
    assert_eq!(str_at(&s.get(&NODES, "", "n").unwrap(), &["spec", "podCIDR"]), "10.0.0.0/24");
}

#[test]
fn the_same_history_gives_the_same_objects() {
    let run = |seed| {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let s = Store::new(StoreOptions { clock, seed, ..StoreOptions::default() });
        let mut p = pod("");
        p["metadata"] = json!({"generateName": "p-"});
        s.create(&PODS, "default", p, &none()).unwrap();
        s.list(&PODS, "")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_api_server_has_endpoints() {
    let s = store();
    s.set_api_endpoints(&["172.30.0.254".parse().unwrap()], 6443).unwrap();
    s.set_api_endpoints(&["172.30.1.254".parse().unwrap(), "fd00::fe".parse().unwrap()], 6443).unwrap();
    let slice = s.get(&ENDPOINTSLICES, "default", "kubernetes").unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["172.30.1.254"]));
    assert_eq!(
        str_at(&s.get(&SERVICES, "default", "kubernetes").unwrap(), &["spec", "clusterIP"]),
        "10.96.0.1"
    );
}

#[test]
fn a_request_is_answered_without_a_connection() {
    let store = store();
    let call = |method: &str, path: &str, body: Option<Value>| {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        sim_api::server::call(&store, method, path, media, body.as_ref())
    };
    let services = "/api/v1/namespaces/default/services";
    let (status, made) = call("POST", services, Some(service("a", json!({"type": "NodePort"}))));
    assert_eq!((status, str_at(&made, &["kind"])), (201, "Service"));
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, "spec": {"type": "ClusterIP"}});
    let (status, patched) = call("PATCH", &format!("{services}/a/status"), Some(patch));
    assert_eq!((status, str_at(&patched, &["spec", "type"])), (200, "NodePort"));
    let taken = service("b", json!({"type": "NodePort", "ports": made["spec"]["ports"]}));
    let (status, refused) = call("POST", services, Some(taken));
    assert_eq!(status, 422);
    assert!(str_at(&refused, &["message"]).contains("already allocated"), "{refused}");
    assert_eq!(call("GET", &format!("{services}/b"), None).0, 404);
    assert_eq!(call("DELETE", &format!("{services}?labelSelector=no%3Dbody"), None).0, 200);
    assert_eq!(call("GET", &format!("{services}/a"), None).0, 200);
    assert_eq!(call("GET", "no path", None).0, 400);
}
