//! Watches: objects become events, and nothing else happens here.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use agent_crd::{CiliumIdentity, NodePolicyStatus};
use futures::StreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::http::Shared;
use super::objects;
use crate::core::{Event, Key, Kind, Seen};

/// Reads an object of a kind that the API server does not know by itself.
type Read = fn(&DynamicObject) -> Seen;

/// Starts a watch for each kind; they end when the set is dropped.
pub(super) fn start(client: &Client, events: &Sender<Event>, shared: &Arc<Shared>) -> JoinSet<()> {
    let mut set = JoinSet::new();
    let all = |resource| Api::<DynamicObject>::all_with(client.clone(), &resource);
    set.spawn(watch(Api::all(client.clone()), Kind::Pod, objects::pod, events.clone(), Arc::clone(shared)));
    set.spawn(watch(
        Api::all(client.clone()),
        Kind::Namespace,
        objects::namespace,
        events.clone(),
        Arc::clone(shared),
    ));
    let custom: [(_, Kind, Read); 6] = [
        (objects::resource::<CiliumIdentity>(), Kind::Identity, objects::identity),
        (objects::endpoint_resource(), Kind::Endpoint, objects::endpoint),
        (
            objects::policy_resource(Kind::NamespacedPolicy),
            Kind::NamespacedPolicy,
            objects::namespaced_policy,
        ),
        (
            objects::policy_resource(Kind::ClusterwidePolicy),
            Kind::ClusterwidePolicy,
            objects::clusterwide_policy,
        ),
        (objects::policy_resource(Kind::ClusterPolicy), Kind::ClusterPolicy, objects::cluster_policy),
        (objects::resource::<NodePolicyStatus>(), Kind::NodeStatus, objects::node_status),
    ];
    for (resource, kind, read) in custom {
        set.spawn(watch(
            all(resource),
            kind,
            move |object| read(&object),
            events.clone(),
            Arc::clone(shared),
        ));
    }
    set
}

async fn watch<K>(
    api: Api<K>,
    kind: Kind,
    read: impl Fn(K) -> Seen,
    events: Sender<Event>,
    shared: Arc<Shared>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut last_problem = String::new();
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => Event::ListStarted(kind),
            Ok(watcher::Event::InitDone) => {
                last_problem.clear();
                Event::ListSynced(kind)
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                Event::Upsert(read(object))
            }
            Ok(watcher::Event::Delete(object)) => {
                let meta = object.meta();
                Event::Deleted(Key {
                    kind,
                    namespace: meta.namespace.clone().unwrap_or_default(),
                    name: meta.name.clone().unwrap_or_default(),
                })
            }
            // Nothing has failed: the server does not remember that far, as after its restart, and all is listed anew.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {
                debug!(kind = kind.plural(), "{}; listing anew", status.message);
                continue;
            }
            // A cluster need not have the kind; then there are none, until it is asked again.
            Err(problem) if kind.is_optional() && is_unknown(&problem) => {
                if events.send(Event::ListStarted(kind)).await.is_err() {
                    return;
                }
                Event::ListSynced(kind)
            }
            Err(problem) => {
                shared.watch_failed(kind);
                let problem = explain(kind, &problem);
                // One line for each kind of failure, not for each try.
                if problem != last_problem {
                    warn!(kind = kind.plural(), "{problem}; trying again");
                    last_problem = problem;
                }
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Whether the API server does not know the kind.
fn is_unknown(problem: &watcher::Error) -> bool {
    match problem {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// One sentence with what to do, for the failures that operators meet.
fn explain(kind: Kind, problem: &watcher::Error) -> String {
    let source = match problem {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => Some(source),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    };
    let plural = kind.plural();
    match source {
        Some(kube::Error::Api(status)) if status.code == 403 => format!(
            "the API server refuses to list {plural} ({}); apply deploy/operator-rbac.yaml",
            status.message
        ),
        Some(kube::Error::Api(status)) if status.code == 404 => {
            format!("the API server does not know {plural}; apply deploy/crds, or leave --install-crds on")
        }
        Some(source) => format!("watching {plural} failed ({})", super::act::chain(source)),
        None => format!("watching {plural} failed ({})", super::act::chain(problem)),
    }
}
