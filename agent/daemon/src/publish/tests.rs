//! What is told, against a simulated API server.

use super::{Observed, Told};
use crate::control::Control;
use crate::testing::ApiServer;
use agent_control::ObjectName;
use agent_crd::{CiliumEndpoint, NodePolicyStatus, Object as _};
use sim_api::faults::{CallMatch, Effect};
use sim_api::resource::{CUSTOMRESOURCEDEFINITIONS, Gr, NODES};
use sim_api::store::StoreOptions;
use sim_api::{DeleteOptions, Store, WriteOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const ENDPOINTS: Gr = Gr::new("cilium.io", "ciliumendpoints");
const OWN: &str = "172.30.1.1";

fn endpoint(name: &str, identity: i64, node: &str) -> CiliumEndpoint {
    CiliumEndpoint::from_json(serde_json::json!({
        "metadata": {
            "name": name, "namespace": "default", "labels": {"app": name},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": format!("uid-{name}")}],
        },
        "status": {
            "id": 7,
            "identity": {"id": identity, "labels": [format!("k8s:app={name}")]},
            "networking": {"addressing": [{"ipv4": "10.1.0.7"}], "node": node},
            "state": "ready",
        },
    }))
    .unwrap()
}

struct Cluster {
    api: ApiServer,
    told: watch::Sender<Told>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Cluster {
    /// A cluster with these objects, and the agent of the node `n1` in it.
    fn with(objects: &[CiliumEndpoint]) -> Self {
        let store = Store::new(StoreOptions::default());
        let node = serde_json::json!({"metadata": {"name": "n1"}});
        store.create(&NODES, "", node, &WriteOptions::default()).unwrap();
        for definition in agent_crd::crd::needed() {
            store.create(&CUSTOMRESOURCEDEFINITIONS, "", definition, &WriteOptions::default()).unwrap();
        }
        for object in objects {
            store.create(&ENDPOINTS, "default", object.to_json(), &WriteOptions::default()).unwrap();
        }
        let api = ApiServer::start(store);
        let observed = Arc::new(Observed::default());
        let mut tasks = crate::watch::start(&api.connector, &Control::nobody(), "n1", Some(&observed), false);
        let (told, receiver) = watch::channel(Told::default());
        tasks.push(tokio::spawn(super::run("n1".into(), receiver, observed, Arc::clone(&api.connector))));
        Self { api, told, tasks }
    }

    /// The agent wants these objects from now on; all is known.
    fn want(&self, objects: &[CiliumEndpoint], revision: u64) {
        let name = |object: &CiliumEndpoint| ObjectName::new("default", &object.metadata.name);
        self.told.send_replace(Told {
            wanted: objects.iter().map(|object| (name(object), object.clone())).collect(),
            present: objects.iter().map(name).collect(),
            own: vec![OWN.parse().unwrap()],
            revision: Some(revision),
            status: Some(NodePolicyStatus {
                metadata: agent_crd::ObjectMeta::named("n1"),
                revisions: [("NetworkPolicy".to_owned(), revision)].into(),
                ..NodePolicyStatus::default()
            }),
            synced: true,
        });
    }

    /// Names and identities of all objects.
    fn objects(&self) -> Vec<(String, i64)> {
        let all = self.api.store.list(&ENDPOINTS, "");
        let read = |object: &sim_api::Object| {
            let object = CiliumEndpoint::from_json((**object).clone()).unwrap();
            (
                object.metadata.name,
                object.status.identity.and_then(|identity| identity.id).unwrap_or_default(),
            )
        };
        all.iter().map(read).collect()
    }

    fn version(&self, name: &str) -> String {
        let object = self.api.store.get(&ENDPOINTS, "default", name).unwrap();
        object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    fn revision(&self) -> Option<String> {
        let node = self.api.store.get(&NODES, "", "n1").unwrap();
        node["metadata"]["annotations"][super::REVISION_ANNOTATION].as_str().map(str::to_owned)
    }

    /// What the cluster knows of policies on the node: the revision of NetworkPolicy objects, and the UID of the Node behind it.
    fn status(&self) -> Option<(u64, String)> {
        let object = self.api.store.get(&Gr::new("bristle.io", "nodepolicystatuses"), "", "n1").ok()?;
        let status = NodePolicyStatus::from_json((*object).clone()).unwrap();
        let owner = status.metadata.owner_references.first().map(|owner| owner.uid.clone());
        Some((status.revisions["NetworkPolicy"], owner.unwrap_or_default()))
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !is_so(self) {
            let now = (self.objects(), self.revision(), self.api.status.get());
            assert!(since.elapsed() < Duration::from_secs(20), "{what}: {now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_objects(&self, objects: &[(&str, i64)]) {
        let wanted: Vec<(String, i64)> = objects.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect();
        self.until(&format!("{wanted:?}"), |cluster| cluster.objects() == wanted).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_follow_what_is_wanted_and_others_are_left_alone() {
    let elsewhere = endpoint("elsewhere", 500, "172.30.1.2");
    let cluster = Cluster::with(&[elsewhere, endpoint("left", 400, OWN)]);
    cluster.want(&[endpoint("a", 300, OWN), endpoint("b", 301, OWN)], 0);
    cluster.until_objects(&[("a", 300), ("b", 301), ("elsewhere", 500)]).await;
    cluster.want(&[endpoint("a", 302, OWN)], 0);
    cluster.until_objects(&[("a", 302), ("elsewhere", 500)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_never_answered_is_made_again() {
    let cluster = Cluster::with(&[]);
    let writing = CallMatch { verb: Some("patch"), resource: Some(ENDPOINTS), ..CallMatch::default() };
    cluster.api.faults.inject(writing, Effect::Delay(Duration::from_hours(1)), Some(1));
    cluster.want(&[endpoint("a", 300, OWN)], 0);
    cluster.until_objects(&[("a", 300)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_wanted_is_not_written_again() {
    let cluster = Cluster::with(&[endpoint("a", 300, OWN)]);
    let version = cluster.version("a");
    cluster.until("the lists", |cluster| cluster.api.status.get().synced).await;
    cluster.want(&[endpoint("a", 300, OWN), endpoint("b", 301, OWN)], 0);
    cluster.until_objects(&[("a", 300), ("b", 301)]).await;
    cluster.until("the annotation", |cluster| cluster.revision().is_some()).await;
    assert_eq!(cluster.version("a"), version);
    let written = cluster.version("b");
    cluster.want(&[endpoint("a", 300, OWN), endpoint("b", 301, OWN)], 1);
    cluster.until("the new revision", |cluster| cluster.revision().as_deref() == Some("1")).await;
    assert_eq!((cluster.version("a"), cluster.version("b")), (version, written));
}

/// A pod that came back on this node under its old name has the object of its earlier self.
#[tokio::test(flavor = "multi_thread")]
async fn the_object_of_a_pod_that_was_elsewhere_is_taken_over() {
    let cluster = Cluster::with(&[endpoint("web-0", 500, "172.30.1.2")]);
    cluster.want(&[endpoint("web-0", 300, OWN)], 0);
    cluster.until_objects(&[("web-0", 300)]).await;
    // And once it has moved on, it is not this node's to remove.
    let moved = endpoint("web-0", 501, "172.30.1.2").to_json();
    cluster.api.store.delete(&ENDPOINTS, "default", "web-0", &DeleteOptions::default()).unwrap();
    cluster.want(&[endpoint("other", 302, OWN)], 0);
    cluster.api.store.create(&ENDPOINTS, "default", moved, &WriteOptions::default()).unwrap();
    cluster.until_objects(&[("other", 302), ("web-0", 501)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_before_all_is_known_or_while_the_pod_is_here() {
    let cluster = Cluster::with(&[endpoint("a", 300, OWN), endpoint("b", 301, OWN)]);
    cluster.until("the lists", |cluster| cluster.api.status.get().synced).await;
    let own = vec![OWN.parse().unwrap()];
    cluster.told.send_replace(Told { own: own.clone(), ..Told::default() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.until_objects(&[("a", 300), ("b", 301)]).await;
    let present = [ObjectName::new("default", "a")].into();
    cluster.told.send_replace(Told { own, present, synced: true, ..Told::default() });
    cluster.until_objects(&[("a", 300)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_spoil_or_remove_is_put_back() {
    let cluster = Cluster::with(&[]);
    cluster.want(&[endpoint("a", 300, OWN)], 0);
    cluster.until_objects(&[("a", 300)]).await;
    cluster.api.store.delete(&ENDPOINTS, "default", "a", &DeleteOptions::default()).unwrap();
    cluster.until_objects(&[("a", 300)]).await;
    let patch = serde_json::json!({"status": {"identity": {"id": 999}}});
    let patch = sim_api::options::Patch::Merge(patch);
    let main = sim_api::options::Sub::Main;
    cluster.api.store.patch(&ENDPOINTS, "default", "a", main, &patch, &WriteOptions::default()).unwrap();
    cluster.until_objects(&[("a", 300)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn which_policies_are_in_force_is_told_in_an_object_that_goes_with_the_node() {
    let cluster = Cluster::with(&[]);
    let uid = |cluster: &Cluster| {
        let node = cluster.api.store.get(&NODES, "", "n1").unwrap();
        node["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let says = |revision: u64| move |cluster: &Cluster| cluster.status() == Some((revision, uid(cluster)));
    cluster.want(&[], 42);
    cluster.until("the status", says(42)).await;
    cluster.want(&[], 43);
    cluster.until("the next status", says(43)).await;
    cluster.api.store.delete(&NODES, "", "n1", &DeleteOptions::default()).unwrap();
    let node = serde_json::json!({"metadata": {"name": "n1"}});
    cluster.api.store.create(&NODES, "", node, &WriteOptions::default()).unwrap();
    cluster.until("the status of the new Node", says(43)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_annotation_comes_back_on_a_node_that_lost_it() {
    let cluster = Cluster::with(&[]);
    cluster.want(&[], 42);
    let says_42 = |cluster: &Cluster| cluster.revision().as_deref() == Some("42");
    cluster.until("the annotation", says_42).await;
    let patch = serde_json::json!({"metadata": {"annotations": {super::REVISION_ANNOTATION: null}}});
    let patch = sim_api::options::Patch::Merge(patch);
    let main = sim_api::options::Sub::Main;
    cluster.api.store.patch(&NODES, "", "n1", main, &patch, &WriteOptions::default()).unwrap();
    cluster.until("the annotation after its removal", says_42).await;
    cluster.api.store.delete(&NODES, "", "n1", &DeleteOptions::default()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let node = serde_json::json!({"metadata": {"name": "n1"}});
    cluster.api.store.create(&NODES, "", node, &WriteOptions::default()).unwrap();
    cluster.until("the annotation of the new Node", says_42).await;
    let version = |cluster: &Cluster| {
        let node = cluster.api.store.get(&NODES, "", "n1").unwrap();
        node["metadata"]["resourceVersion"].clone()
    };
    let written = version(&cluster);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(version(&cluster), written, "what is as it shall be is not written again");
}

#[rstest::rstest]
#[case::out_of_reach(Effect::Unreachable)]
#[case::broken(Effect::Fail(500))]
#[case::refused(Effect::Fail(403))]
#[case::conflict(Effect::Fail(409))]
#[case::done_but_not_answered(Effect::FailAfter(500))]
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again(#[case] effect: Effect) {
    let cluster = Cluster::with(&[endpoint("left", 400, OWN)]);
    cluster.until("the lists", |cluster| cluster.api.status.get().synced).await;
    for verb in ["patch", "delete"] {
        let calls = CallMatch { verb: Some(verb), ..CallMatch::default() };
        cluster.api.faults.inject(calls, effect.clone(), Some(3));
    }
    cluster.want(&[endpoint("a", 300, OWN)], 42);
    cluster.until_objects(&[("a", 300)]).await;
    cluster.until("the revision", |cluster| cluster.revision().as_deref() == Some("42")).await;
    cluster.until("no error", |cluster| cluster.api.status.get().error.is_none()).await;
}
