//! What users rely on: objects in, objects out, by stepping the controllers to rest.
#![forbid(unsafe_code)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sim_api::object::{annotation, condition_is_true, list_at, name, set, str_at};
use sim_api::resource::{
    DAEMONSETS, DEPLOYMENTS, ENDPOINTS, ENDPOINTSLICES, EVENTS, LEASES, NAMESPACES, NODES, PODS, REPLICASETS,
    SERVICES,
};
use sim_api::{DeleteOptions, Gr, ManualClock, Object, Propagation, Store, StoreOptions, Sub, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};

struct World {
    store: Store,
    controllers: Controllers,
    clock: Arc<ManualClock>,
}

fn world() -> World {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let store = Store::new(StoreOptions { clock: clock.clone(), ..StoreOptions::default() });
    let options = ControllerOptions {
        pod_cidrs: vec![("10.11.0.0/16".parse().unwrap(), 24), ("fd00:11::/48".parse().unwrap(), 64)],
        node_grace_s: 40,
    };
    let controllers = Controllers::new(store.clone(), options);
    World { store, controllers, clock }
}

impl World {
    fn settle(&mut self) {
        assert!(self.controllers.settle(200), "the controllers never came to rest");
    }

    fn create(&self, r: &Gr, namespace: &str, object: Value) -> Object {
        self.store.create(r, namespace, object, &WriteOptions::default()).unwrap()
    }

    /// A node whose kubelet reports it ready.
    fn node(&mut self, node: &str) {
        self.create(
            &NODES,
            "",
            json!({"metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}}),
        );
        self.ready_node(node, "True");
        self.settle();
    }

    fn ready_node(&self, node: &str, status: &str) {
        self.store
            .modify(&NODES, "", node, Sub::Status, |object| {
                set(object, &["status", "conditions"], json!([{"type": "Ready", "status": status}]));
            })
            .unwrap();
    }

    /// Plays kubelet for every bound pod: Running and ready with an address, or gone if it is being deleted.
    fn kubelet(&mut self) {
        for (number, pod) in self.store.list(&PODS, "").iter().enumerate() {
            if str_at(pod, &["spec", "nodeName"]).is_empty() {
                continue;
            }
            let home = pod["metadata"]["namespace"].as_str().unwrap();
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.store.delete(&PODS, home, name(pod), &DeleteOptions::now()).unwrap();
            } else if !condition_is_true(pod, "Ready") {
                let ips = json!([{"ip": format!("10.11.1.{}", number + 10)}, {"ip": format!("fd00:11:0:1::{number:x}")}]);
                self.store
                    .modify(&PODS, home, name(pod), Sub::Status, |pod| {
                        set(pod, &["status", "phase"], json!("Running"));
                        set(pod, &["status", "podIPs"], ips);
                        set(pod, &["status", "conditions"], json!([{"type": "Ready", "status": "True"}]));
                    })
                    .unwrap();
            }
        }
    }

    /// Controllers and kubelets by turns, until nothing moves.
    fn run(&mut self) {
        for _ in 0..60 {
            let before = self.store.revision();
            self.settle();
            self.kubelet();
            if self.store.revision() == before {
                return;
            }
        }
        panic!("the cluster never came to rest");
    }

    fn pods(&self) -> Vec<Object> {
        self.store.list(&PODS, "default")
    }
}

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(replicas: u32, image: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("web", image),
    }})
}

fn pod(pod: &str, extra: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": pod, "labels": {"name": pod}}, "spec": spec})
}

#[test]
fn nodes_get_pod_cidrs_of_both_families_and_lose_the_first_taint() {
    let mut world = world();
    world.node("a");
    world.node("b");
    let (a, b) = (world.store.get(&NODES, "", "a").unwrap(), world.store.get(&NODES, "", "b").unwrap());
    assert_eq!(a["spec"]["podCIDRs"], json!(["10.11.1.0/24", "fd00:11:0:1::/64"]));
    assert_eq!(b["spec"]["podCIDRs"], json!(["10.11.2.0/24", "fd00:11:0:2::/64"]));
    assert_eq!(b["spec"]["podCIDR"], json!("10.11.2.0/24"));
    assert!(list_at(&a, &["spec", "taints"]).is_empty());
}

#[test]
fn a_freed_pod_cidr_is_given_out_again_and_the_others_stay() {
    let mut world = world();
    for node in ["a", "b", "c"] {
        world.node(node);
    }
    world.store.delete(&NODES, "", "b", &DeleteOptions::default()).unwrap();
    world.node("d");
    assert_eq!(world.store.get(&NODES, "", "d").unwrap()["spec"]["podCIDR"], json!("10.11.2.0/24"));
    assert_eq!(world.store.get(&NODES, "", "c").unwrap()["spec"]["podCIDR"], json!("10.11.3.0/24"));
}

#[test]
fn a_node_without_leases_becomes_unknown_and_takes_no_pods() {
    let mut world = world();
    world.node("a");
    world.create(
        &LEASES,
        "kube-node-lease",
        json!({"metadata": {"name": "a"}, "spec": {"renewTime": "1970-01-01T00:00:00.000000Z"}}),
    );
    world.settle();
    assert_eq!(world.controllers.next_deadline(), Some(Timestamp::from_second(40).unwrap()));
    world.clock.advance(SignedDuration::from_secs(41));
    world.settle();
    let node = world.store.get(&NODES, "", "a").unwrap();
    assert!(!condition_is_true(&node, "Ready"));
    world.create(&PODS, "default", pod("p", &json!({})));
    world.settle();
    let pod = world.store.get(&PODS, "default", "p").unwrap();
    assert_eq!(str_at(&pod, &["spec", "nodeName"]), "");
}

#[test]
fn pods_spread_and_affinities_of_the_matrix_hold() {
    let mut world = world();
    world.node("a");
    world.node("b");
    let term = |kind: &str| {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"name": "client"}}, "topologyKey": "kubernetes.io/hostname",
        }]}}})
    };
    // The one that wants to be near waits until there is somebody to be near to.
    world.create(&PODS, "default", pod("near", &term("podAffinity")));
    world.settle();
    let waiting = world.store.get(&PODS, "default", "near").unwrap();
    assert_eq!(str_at(&waiting, &["spec", "nodeName"]), "");
    let condition = sim_api::object::condition(&waiting, "PodScheduled").unwrap();
    assert_eq!(
        str_at(condition, &["message"]),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    );
    world.create(&PODS, "default", pod("client", &json!({"nodeSelector": {"kubernetes.io/hostname": "b"}})));
    world.create(&PODS, "default", pod("far", &term("podAntiAffinity")));
    world.settle();
    let node = |pod: &str| {
        str_at(&world.store.get(&PODS, "default", pod).unwrap(), &["spec", "nodeName"]).to_owned()
    };
    assert_eq!((node("client"), node("near"), node("far")), ("b".into(), "b".into(), "a".into()));
}

#[test]
fn taints_and_cordons_keep_pods_away_until_they_are_lifted() {
    let mut world = world();
    world.node("a");
    world
        .store
        .modify(&NODES, "", "a", Sub::Main, |n| set(n, &["spec", "unschedulable"], json!(true)))
        .unwrap();
    world.settle();
    world.create(&PODS, "default", pod("p", &json!({})));
    world.settle();
    let events = world.store.list(&EVENTS, "default");
    let refused =
        events.iter().find(|e| str_at(e, &["reason"]) == "FailedScheduling").expect("an event says why");
    assert_eq!(str_at(refused, &["message"]), "0/1 nodes are available: 1 node(s) were unschedulable.");
    world
        .store
        .modify(&NODES, "", "a", Sub::Main, |n| drop(sim_api::object::remove(n, &["spec", "unschedulable"])))
        .unwrap();
    world.settle();
    assert_eq!(str_at(&world.store.get(&PODS, "default", "p").unwrap(), &["spec", "nodeName"]), "a");
}

#[test]
fn a_deployment_rolls_out_scales_and_rolls_over_to_a_new_template() {
    let mut world = world();
    world.node("a");
    world.create(&DEPLOYMENTS, "default", deployment(3, "one"));
    world.run();
    let web = world.store.get(&DEPLOYMENTS, "default", "web").unwrap();
    assert_eq!(
        (web["status"]["availableReplicas"].as_i64(), annotation(&web, "deployment.kubernetes.io/revision")),
        (Some(3), Some("1"))
    );
    assert!(condition_is_true(&web, "Available") && condition_is_true(&web, "Progressing"));

    world
        .store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| {
            set(d, &["spec", "template"], template("web", "two"))
        })
        .unwrap();
    world.run();
    let images: Vec<String> = world
        .pods()
        .iter()
        .map(|p| p["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(images, ["two", "two", "two"]);
    let web = world.store.get(&DEPLOYMENTS, "default", "web").unwrap();
    assert_eq!(annotation(&web, "deployment.kubernetes.io/revision"), Some("2"));
    assert_eq!(web["status"]["observedGeneration"], web["metadata"]["generation"]);
    assert_eq!(world.store.list(&REPLICASETS, "default").len(), 2);

    world
        .store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| set(d, &["spec", "replicas"], json!(1)))
        .unwrap();
    world.run();
    assert_eq!(world.pods().len(), 1);
}

#[test]
fn a_rolling_update_never_has_fewer_available_than_it_may() {
    let mut world = world();
    world.node("a");
    world.create(&DEPLOYMENTS, "default", deployment(4, "one"));
    world.run();
    world
        .store
        .modify(&DEPLOYMENTS, "default", "web", Sub::Main, |d| {
            set(d, &["spec", "template"], template("web", "two"))
        })
        .unwrap();
    for _ in 0..60 {
        world.controllers.step();
        let available = world
            .pods()
            .iter()
            .filter(|p| condition_is_true(p, "Ready") && p["metadata"]["deletionTimestamp"].is_null())
            .count();
        assert!(available >= 3, "only {available} of 4 pods are available in the middle of the update");
        assert!(world.pods().iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count() <= 5);
        world.kubelet();
    }
    assert!(world.pods().iter().all(|p| p["spec"]["containers"][0]["image"] == json!("two")));
}

#[test]
fn a_daemonset_follows_the_nodes() {
    let mut world = world();
    world.node("a");
    world.create(
        &DAEMONSETS,
        "default",
        json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "i"),
        }}),
    );
    world.run();
    world.node("b");
    world.run();
    let mut on: Vec<String> =
        world.pods().iter().map(|p| str_at(p, &["spec", "nodeName"]).to_owned()).collect();
    on.sort();
    assert_eq!(on, ["a", "b"]);
    let status = world.store.get(&DAEMONSETS, "default", "agent").unwrap()["status"].clone();
    assert_eq!(
        (status["desiredNumberScheduled"].as_i64(), status["numberReady"].as_i64()),
        (Some(2), Some(2))
    );
    world.store.delete(&NODES, "", "a", &DeleteOptions::default()).unwrap();
    world.run();
    assert_eq!(world.pods().len(), 1);
}

#[test]
fn endpoint_slices_hold_ready_pods_by_family_with_named_ports() {
    let mut world = world();
    world.node("a");
    let mut backend = pod("b", &json!({}));
    backend["spec"]["containers"][0]["ports"] =
        json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    world.create(&PODS, "default", backend);
    world.create(
        &SERVICES,
        "default",
        json!({"metadata": {"name": "svc"}, "spec": {
            "selector": {"name": "b"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "web", "port": 80, "targetPort": "http"}],
        }}),
    );
    world.run();
    let slices = world.store.list(&ENDPOINTSLICES, "default");
    let ours: Vec<&Object> = slices
        .iter()
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == json!("svc"))
        .collect();
    assert_eq!(ours.len(), 2);
    for slice in ours {
        assert_eq!(slice["ports"][0]["port"], json!(8080));
        assert_eq!(
            slice["endpoints"][0]["conditions"],
            json!({"ready": true, "serving": true, "terminating": false})
        );
        let v6 = slice["addressType"] == json!("IPv6");
        assert_eq!(slice["endpoints"][0]["addresses"][0].as_str().unwrap().contains(':'), v6);
    }
    let endpoints = world.store.get(&ENDPOINTS, "default", "svc").unwrap();
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], json!(8080));
    world.store.delete(&SERVICES, "default", "svc", &DeleteOptions::default()).unwrap();
    world.run();
    assert!(
        world
            .store
            .list(&ENDPOINTSLICES, "default")
            .iter()
            .all(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] != json!("svc"))
    );
}

#[test]
fn deletion_with_propagation_works_as_documented() {
    for (propagation, pods_left, sets_left) in
        [(Propagation::Background, 0, 0), (Propagation::Foreground, 0, 0), (Propagation::Orphan, 2, 1)]
    {
        let mut world = world();
        world.node("a");
        world.create(&DEPLOYMENTS, "default", deployment(2, "one"));
        world.run();
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        world.store.delete(&DEPLOYMENTS, "default", "web", &options).unwrap();
        world.run();
        assert!(
            world.store.get(&DEPLOYMENTS, "default", "web").is_err(),
            "{propagation:?}: the deployment is still there"
        );
        assert_eq!(
            (world.pods().len(), world.store.list(&REPLICASETS, "default").len()),
            (pods_left, sets_left),
            "{propagation:?}"
        );
    }
}

#[test]
fn a_namespace_has_its_account_and_takes_everything_with_it() {
    let mut world = world();
    world.node("a");
    world.create(&NAMESPACES, "", json!({"metadata": {"name": "team"}}));
    world.run();
    assert!(world.store.get(&Gr::new("", "serviceaccounts"), "team", "default").is_ok());
    world.create(&DEPLOYMENTS, "team", deployment(2, "one"));
    world.run();
    world.store.delete(&NAMESPACES, "", "team", &DeleteOptions::default()).unwrap();
    world.run();
    assert!(world.store.get(&NAMESPACES, "", "team").is_err());
    assert!(world.store.list(&PODS, "team").is_empty());
}

#[test]
fn controllers_that_start_again_change_nothing() {
    let mut world = world();
    world.node("a");
    world.create(&DEPLOYMENTS, "default", deployment(3, "one"));
    world.run();
    let before = world.store.revision();
    let options =
        ControllerOptions { pod_cidrs: vec![("10.11.0.0/16".parse().unwrap(), 24)], node_grace_s: 40 };
    let mut again = Controllers::new(world.store.clone(), options);
    assert!(!again.step(), "a new controller manager wrote something into a cluster at rest");
    assert_eq!(world.store.revision(), before);
}
