//! What the controllers make of objects, step by step and without a clock.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests: a panic is the report")]

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};
use sim_api::object::{at, condition, int_at, list_at, name, set, str_at};
use sim_api::resource::{
    CONFIGMAPS, DAEMONSETS, DEPLOYMENTS, ENDPOINTS, ENDPOINTSLICES, EVENTS, LEASES, NAMESPACES, NODES, PODS,
    REPLICASETS, SERVICEACCOUNTS, SERVICES,
};
use sim_api::store::{Object, StoreOptions};
use sim_api::{DeleteOptions, ManualClock, Propagation, Store, Sub, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    controllers: Controllers,
}

fn world(nodes: &[&str]) -> World {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let store = Store::new(StoreOptions { clock: clock.clone(), ..StoreOptions::default() });
    let cidr = |c: &str| c.parse().unwrap();
    let options = ControllerOptions {
        pod_cidrs: vec![(cidr("10.0.0.0/16"), 24), (cidr("fd00::/104"), 112)],
        node_grace_s: 40,
    };
    let controllers = Controllers::new(store.clone(), options);
    let mut w = World { store, clock, controllers };
    for node in nodes {
        let object = json!({
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "20"}},
        });
        w.make(&NODES, "", object);
    }
    w.settle();
    w
}

impl World {
    fn make(&self, r: &sim_api::Gr, ns: &str, object: Value) -> Object {
        self.store.create(r, ns, object, &WriteOptions::default()).unwrap()
    }

    fn settle(&mut self) {
        assert!(self.controllers.settle(200), "the controllers do not come to rest");
    }

    /// Bound pods run and are ready, deleted ones are gone; until nothing moves.
    fn run(&mut self) {
        for _ in 0..100 {
            self.settle();
            let mut moved = false;
            for pod in self.store.list(&PODS, "") {
                let ns = sim_api::object::namespace(&pod);
                if sim_api::object::is_deleting(&pod) {
                    self.store.delete(&PODS, ns, name(&pod), &DeleteOptions::now()).unwrap();
                    moved = true;
                } else if !str_at(&pod, &["spec", "nodeName"]).is_empty()
                    && str_at(&pod, &["status", "phase"]) == "Pending"
                {
                    let ip = format!("10.0.0.{}", sim_api::object::resource_version(&pod) % 250);
                    self.store.modify(&PODS, ns, name(&pod), Sub::Status, |p| {
                        set(p, &["status", "phase"], json!("Running"));
                        set(p, &["status", "podIP"], json!(ip));
                        set(p, &["status", "podIPs"], json!([{"ip": ip}]));
                        set(p, &["status", "conditions"], json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]));
                    }).unwrap();
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn pods(&self) -> Vec<Object> {
        self.store.list(&PODS, "default")
    }

    fn node_of(&self, pod: &str) -> String {
        str_at(&self.store.get(&PODS, "default", pod).unwrap(), &["spec", "nodeName"]).to_owned()
    }
}

fn pod(name: &str, label: &str, spec: Value) -> Value {
    let mut p = json!({"metadata": {"name": name, "labels": {"app": label}}, "spec": {"containers": [{"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 8080}]}]}});
    for (key, value) in spec.as_object().unwrap() {
        p["spec"][key] = value.clone();
    }
    p
}

fn deployment(image: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    }})
}

fn near(label: &str) -> Value {
    json!([{"labelSelector": {"matchLabels": {"app": label}}, "topologyKey": "kubernetes.io/hostname"}])
}

#[test]
fn nodes_get_pod_cidrs_of_both_families() {
    let w = world(&["a", "b"]);
    let cidrs = |n: &str| w.store.get(&NODES, "", n).unwrap()["spec"]["podCIDRs"].clone();
    assert_eq!(cidrs("a"), json!(["10.0.0.0/24", "fd00::/112"]));
    assert_eq!(cidrs("b"), json!(["10.0.1.0/24", "fd00::1:0/112"]));
}

#[test]
fn pods_are_placed_as_the_matrix_needs() {
    let mut w = world(&["a", "b", "c"]);
    w.make(
        &PODS,
        "default",
        pod("client", "client", json!({"nodeSelector": {"kubernetes.io/hostname": "b"}})),
    );
    w.make(&PODS, "default", pod("same", "echo", json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": near("client")}}})));
    w.make(&PODS, "default", pod("other", "echo", json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": near("client")}}})));
    w.settle();
    assert_eq!((w.node_of("client"), w.node_of("same")), ("b".into(), "b".into()));
    assert_ne!(w.node_of("other"), "b");
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_waits() {
    let mut w = world(&["a"]);
    w.store
        .modify(&NODES, "", "a", Sub::Main, |n| {
            set(n, &["spec", "taints"], json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
        })
        .unwrap();
    w.make(&PODS, "default", pod("p", "x", json!({})));
    w.make(
        &PODS,
        "default",
        pod("tolerant", "x", json!({"tolerations": [{"key": "k", "operator": "Exists"}]})),
    );
    w.settle();
    let p = w.store.get(&PODS, "default", "p").unwrap();
    let scheduled = condition(&p, "PodScheduled").unwrap();
    assert_eq!((str_at(scheduled, &["status"]), str_at(scheduled, &["reason"])), ("False", "Unschedulable"));
    assert!(
        str_at(scheduled, &["message"])
            .starts_with("0/1 nodes are available: 1 node(s) had untolerated taint {k: v}"),
        "{scheduled}"
    );
    assert!(w.store.list(&EVENTS, "default").iter().any(|e| str_at(e, &["reason"]) == "FailedScheduling"));
    assert_eq!(w.node_of("tolerant"), "a");
    w.store
        .modify(&NODES, "", "a", Sub::Main, |n| drop(sim_api::object::remove(n, &["spec", "taints"])))
        .unwrap();
    w.settle();
    assert_eq!(w.node_of("p"), "a");
}

#[test]
fn nodes_that_are_not_ready_or_silent_take_no_pods() {
    let mut w = world(&["a"]);
    w.make(&NODES, "", json!({"metadata": {"name": "young"}}));
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    w.make(&LEASES, "kube-node-lease", lease);
    w.settle();
    let taints = |n: &str| {
        list_at(&w.store.get(&NODES, "", n).unwrap(), &["spec", "taints"])
            .iter()
            .map(|t| str_at(t, &["key"]).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(taints("young"), ["node.kubernetes.io/not-ready"]);
    assert!(taints("a").is_empty());
    w.clock.advance(SignedDuration::from_secs(60));
    w.controllers.settle(50);
    assert_eq!(taints("a"), ["node.kubernetes.io/unreachable", "node.kubernetes.io/unreachable"]);
}

#[test]
fn a_deployment_rolls_without_losing_availability() {
    let mut w = world(&["a", "b"]);
    w.make(&DEPLOYMENTS, "default", deployment("i:1", 4));
    w.run();
    assert_eq!(w.pods().len(), 4);
    w.store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
        })
        .unwrap();
    // One move of the cluster at a time; never fewer than three ready, never more than five at all.
    for _ in 0..200 {
        w.controllers.step();
        let pods = w.pods();
        let ready = pods
            .iter()
            .filter(|p| sim_api::object::condition_is_true(p, "Ready") && !sim_api::object::is_deleting(p))
            .count();
        let alive = pods.iter().filter(|p| !sim_api::object::is_deleting(p)).count();
        assert!(ready >= 3 && alive <= 5, "{ready} ready of {alive}");
        let next = pods.iter().find(|p| {
            sim_api::object::is_deleting(p)
                || str_at(p, &["status", "phase"]) == "Pending"
                    && !str_at(p, &["spec", "nodeName"]).is_empty()
        });
        if let Some(next) = next {
            if sim_api::object::is_deleting(next) {
                w.store.delete(&PODS, "default", name(next), &DeleteOptions::now()).unwrap();
            } else {
                w.store
                    .modify(&PODS, "default", name(next), Sub::Status, |p| {
                        set(p, &["status", "phase"], json!("Running"));
                        set(p, &["status", "conditions"], json!([{"type": "Ready", "status": "True"}]));
                    })
                    .unwrap();
            }
        }
    }
    assert!(w.pods().iter().all(|p| str_at(&p["spec"]["containers"][0], &["image"]) == "i:2"));
    let d = w.store.get(&DEPLOYMENTS, "default", "web").unwrap();
    assert_eq!(int_at(&d, &["status", "updatedReplicas"]), Some(4));
    assert_eq!(d["status"]["observedGeneration"], d["metadata"]["generation"]);
    assert_eq!(str_at(condition(&d, "Progressing").unwrap(), &["reason"]), "NewReplicaSetAvailable");
    assert_eq!(w.store.list(&REPLICASETS, "default").len(), 2);
}

#[test]
fn replicas_are_replaced_scaled_and_removed_with_their_owner() {
    let mut w = world(&["a"]);
    w.make(&DEPLOYMENTS, "default", deployment("i:1", 3));
    w.run();
    let victim = w.pods()[0].clone();
    w.store.delete(&PODS, "default", name(&victim), &DeleteOptions::now()).unwrap();
    w.run();
    assert_eq!(w.pods().len(), 3);
    w.store.modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| d["spec"]["replicas"] = json!(1)).unwrap();
    w.run();
    assert_eq!(w.pods().len(), 1);
    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    w.store.delete(&DEPLOYMENTS, "default", "web", &foreground).unwrap();
    w.run();
    assert!(
        w.pods().is_empty()
            && w.store.list(&REPLICASETS, "").is_empty()
            && w.store.list(&DEPLOYMENTS, "").is_empty()
    );
}

#[test]
fn orphans_stay_and_are_adopted_again() {
    let mut w = world(&["a"]);
    w.make(&DEPLOYMENTS, "default", deployment("i:1", 2));
    w.run();
    let set_name = name(&w.store.list(&REPLICASETS, "default")[0]).to_owned();
    w.store.delete(&DEPLOYMENTS, "default", "web", &DeleteOptions::default()).unwrap();
    let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    w.store.delete(&REPLICASETS, "default", &set_name, &orphan).unwrap();
    w.run();
    let before: Vec<String> = w.pods().iter().map(|p| sim_api::object::uid(p).to_owned()).collect();
    assert_eq!(before.len(), 2);
    w.make(&DEPLOYMENTS, "default", deployment("i:1", 2));
    w.run();
    let after: Vec<String> = w.pods().iter().map(|p| sim_api::object::uid(p).to_owned()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_daemon_runs_once_on_every_node_that_fits() {
    let mut w = world(&["a", "b"]);
    let daemon = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }});
    w.make(&DAEMONSETS, "default", daemon);
    w.run();
    let mut nodes: Vec<String> =
        w.pods().iter().map(|p| str_at(p, &["spec", "nodeName"]).to_owned()).collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b"]);
    w.store
        .modify(&DAEMONSETS, "default", "d", Sub::Main, |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
        })
        .unwrap();
    w.run();
    assert!(w.pods().iter().all(|p| str_at(&p["spec"]["containers"][0], &["image"]) == "i:2"));
    let d = w.store.get(&DAEMONSETS, "default", "d").unwrap();
    assert_eq!(
        (int_at(&d, &["status", "updatedNumberScheduled"]), int_at(&d, &["status", "numberAvailable"])),
        (Some(2), Some(2))
    );
    w.store.delete(&NODES, "", "b", &DeleteOptions::default()).unwrap();
    w.run();
    assert_eq!(w.pods().len(), 1);
}

#[test]
fn endpoints_follow_pods() {
    let mut w = world(&["a"]);
    w.make(&SERVICES, "default", json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "http"}]}}));
    w.make(&PODS, "default", pod("p", "x", json!({})));
    w.make(&PODS, "default", pod("q", "y", json!({})));
    w.run();
    let slices = || {
        w.store
            .list(&ENDPOINTSLICES, "default")
            .into_iter()
            .filter(|s| name(s).starts_with("s-"))
            .collect::<Vec<_>>()
    };
    let slice = slices()[0].clone();
    assert_eq!(slice["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(list_at(&slice, &["endpoints"]).len(), 1);
    assert_eq!(
        slice["endpoints"][0]["conditions"],
        json!({"ready": true, "serving": true, "terminating": false})
    );
    assert_eq!(str_at(&slice["endpoints"][0], &["targetRef", "name"]), "p");
    w.store
        .modify(&PODS, "default", "p", Sub::Status, |p| {
            p["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        })
        .unwrap();
    w.settle();
    let slice =
        w.store.list(&ENDPOINTSLICES, "default").into_iter().find(|s| name(s).starts_with("s-")).unwrap();
    assert_eq!(at(&slice["endpoints"][0], &["conditions", "ready"]), &json!(false));
    let endpoints = w.store.get(&ENDPOINTS, "default", "s").unwrap();
    assert_eq!(list_at(&endpoints["subsets"][0], &["notReadyAddresses"]).len(), 1);
    w.store.delete(&PODS, "default", "p", &DeleteOptions::now()).unwrap();
    w.settle();
    let endpoints = w.store.get(&ENDPOINTS, "default", "s").unwrap();
    assert_eq!(endpoints.get("subsets"), None, "an empty list is left out");
    w.store.delete(&SERVICES, "default", "s", &DeleteOptions::default()).unwrap();
    w.settle();
    assert!(w.store.get(&ENDPOINTS, "default", "s").is_err());
    assert!(!w.store.list(&ENDPOINTSLICES, "default").iter().any(|s| name(s).starts_with("s-")));
}

#[test]
fn ports_of_init_containers_are_found_by_their_names() {
    let mut w = world(&["a"]);
    w.make(&SERVICES, "default", json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "side"}]}}));
    let side = json!({"name": "side", "image": "i", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9090}]});
    w.make(&PODS, "default", pod("p", "x", json!({"initContainers": [side]})));
    w.run();
    let slices = w.store.list(&ENDPOINTSLICES, "default");
    let slice = slices.iter().find(|s| name(s).starts_with("s-")).unwrap();
    assert_eq!(slice["ports"], json!([{"name": "", "port": 9090, "protocol": "TCP"}]));
}

#[test]
fn a_namespace_is_furnished_and_emptied() {
    let mut w = world(&["a"]);
    w.make(&NAMESPACES, "", json!({"metadata": {"name": "x"}}));
    w.settle();
    assert!(
        w.store.get(&SERVICEACCOUNTS, "x", "default").is_ok()
            && w.store.get(&CONFIGMAPS, "x", "kube-root-ca.crt").is_ok()
    );
    w.make(&PODS, "x", pod("p", "x", json!({})));
    w.run();
    w.store.delete(&NAMESPACES, "", "x", &DeleteOptions::default()).unwrap();
    w.run();
    assert!(w.store.get(&NAMESPACES, "", "x").is_err());
    assert!(w.store.list(&PODS, "x").is_empty());
}

#[test]
fn the_same_history_gives_the_same_cluster() {
    let run = || {
        let mut w = world(&["a", "b", "c"]);
        w.make(&DEPLOYMENTS, "default", deployment("i:1", 5));
        w.run();
        w.store
            .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| {
                d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
            })
            .unwrap();
        w.run();
        w.store.resources().iter().flat_map(|d| w.store.list(&d.gr, "")).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn odd_numbers_do_not_stop_the_controllers() {
    let mut w = world(&["a"]);
    let mut odd = deployment("i:1", 2);
    odd["spec"]["strategy"] =
        json!({"rollingUpdate": {"maxSurge": i64::MAX, "maxUnavailable": "99999999999%"}});
    w.make(&DEPLOYMENTS, "default", odd);
    w.run();
    let set_name = name(&w.store.list(&REPLICASETS, "default")[0]).to_owned();
    w.store
        .modify(&REPLICASETS, "default", &set_name, Sub::Main, |s| {
            set(
                s,
                &["metadata", "annotations", "deployment.kubernetes.io/revision"],
                json!(i64::MAX.to_string()),
            );
        })
        .unwrap();
    w.store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
        })
        .unwrap();
    w.run();
    assert_eq!(w.pods().len(), 2);
    let too_big = w
        .store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| d["spec"]["replicas"] = json!(i64::MAX));
    assert_eq!(too_big.unwrap_err().code, 400);
}
