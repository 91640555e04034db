//! Keeps as many pods as a ReplicaSet wants.

use serde_json::{Value, json};
use sim_api::Selector;
use sim_api::object::{int_at, is_deleting, str_at};
use sim_api::resource::REPLICASETS;
use sim_api::store::Object;

use crate::Context;
use crate::pods::{
    create_pod, delete_pod, is_active, is_available, is_ready, owned_pods, pod_from_template, write_status,
};

const NAME: &str = "replicaset-controller";
/// Pods made in one go for one set; the rest follows in the next step.
const BURST: i64 = 500;

pub(crate) fn run(ctx: &Context<'_>) {
    for set in ctx.store.list(&REPLICASETS, "") {
        reconcile(ctx, &set);
    }
}

fn reconcile(ctx: &Context<'_>, set: &Value) {
    let active = |pods: Vec<Object>| pods.into_iter().filter(|p| is_active(p)).collect::<Vec<_>>();
    let mut pods = active(owned_pods(ctx, set));
    let wanted = int_at(set, &["spec", "replicas"]).unwrap_or(1).max(0);
    let have = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    if !is_deleting(set) && have != wanted {
        if have < wanted {
            for _ in 0..(wanted - have).min(BURST) {
                create_pod(ctx, NAME, set, pod_from_template(set));
            }
        } else {
            pods.sort_by_key(|p| rank(p));
            for pod in pods.iter().take(usize::try_from(have - wanted).unwrap_or(0)) {
                delete_pod(ctx, NAME, set, pod);
            }
        }
        pods = active(owned_pods(ctx, set));
    }
    let min_ready = int_at(set, &["spec", "minReadySeconds"]).unwrap_or(0);
    let template = Selector::from_map(
        sim_api::object::at(set, &["spec", "template", "metadata", "labels"])
            .as_object()
            .unwrap_or(&serde_json::Map::new()),
    );
    let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| f(p)).count();
    let mut status = json!({"replicas": pods.len()});
    for (key, n) in [
        ("fullyLabeledReplicas", count(&|p| template.matches(p))),
        ("readyReplicas", count(&|p| is_ready(p))),
        ("availableReplicas", count(&|p| is_available(ctx, p, min_ready))),
    ] {
        if n > 0 {
            status[key] = json!(n);
        }
    }
    status["observedGeneration"] = set["metadata"]["generation"].clone();
    write_status(ctx, &REPLICASETS, set, status);
}

/// Which pod goes first: not bound, not running, not ready, then the youngest.
fn rank(pod: &Value) -> (bool, bool, bool, std::cmp::Reverse<String>, String) {
    let phase = str_at(pod, &["status", "phase"]);
    let made = str_at(pod, &["metadata", "creationTimestamp"]).to_owned();
    (
        !str_at(pod, &["spec", "nodeName"]).is_empty(),
        phase == "Running",
        is_ready(pod),
        std::cmp::Reverse(made),
        sim_api::object::name(pod).to_owned(),
    )
}
