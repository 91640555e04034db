//! Deployments: one ReplicaSet per template, moved over step by step.

use serde_json::{Value, json};
use sim_api::object::{
    annotation, at, bool_at, int_at, is_deleting, list_at, map_mut, name, namespace, set, str_at,
};
use sim_api::resource::{DEPLOYMENTS, REPLICASETS};
use sim_api::store::Object;
use sim_api::{DeleteOptions, Sub, WriteOptions};

use crate::event::record;
use crate::pods::{
    add_label, controller_reference, is_controlled_by, label, owned_pods, set_condition, template_hash,
    write_status,
};
use crate::quantity::of_total;
use crate::{Context, tried};

const NAME: &str = "deployment-controller";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(crate) fn run(ctx: &Context<'_>) {
    for deployment in ctx.store.list(&DEPLOYMENTS, "") {
        if !is_deleting(&deployment) {
            reconcile(ctx, &deployment);
        }
    }
}

fn revision(set: &Value) -> i64 {
    annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn replicas(set: &Value) -> i64 {
    int_at(set, &["spec", "replicas"]).unwrap_or(0)
}

fn status(set: &Value, key: &str) -> i64 {
    int_at(set, &["status", key]).unwrap_or(0)
}

fn owned_sets(ctx: &Context<'_>, deployment: &Value) -> Vec<Object> {
    ctx.store
        .list(&REPLICASETS, namespace(deployment))
        .into_iter()
        .filter(|s| is_controlled_by(s, deployment))
        .collect()
}

fn reconcile(ctx: &Context<'_>, deployment: &Value) {
    let hash = template_hash(at(deployment, &["spec", "template"]));
    let sets = owned_sets(ctx, deployment);
    let paused = bool_at(deployment, &["spec", "paused"]);
    let current = sets.iter().find(|s| label(s, HASH) == hash).cloned();
    let latest = sets.iter().map(|s| revision(s)).max().unwrap_or(0);
    let current = match current {
        Some(set) => {
            // An old template has come back: its set becomes the newest again.
            if revision(&set) < latest && !paused {
                set_revision(ctx, &set, latest.saturating_add(1))
            } else {
                Some(set)
            }
        }
        None if paused => None,
        None => create_set(ctx, deployment, &hash, latest.saturating_add(1)),
    };
    if let Some(current) = &current {
        let number = revision(current).to_string();
        if annotation(deployment, REVISION) != Some(&number) {
            let done =
                ctx.store.modify(&DEPLOYMENTS, namespace(deployment), name(deployment), Sub::Main, |d| {
                    map_mut(d, &["metadata", "annotations"]).insert(REVISION.into(), json!(number));
                });
            tried("deployment revision", done);
        }
        let old: Vec<Object> =
            owned_sets(ctx, deployment).into_iter().filter(|s| name(s) != name(current)).collect();
        if paused {
            keep_scale(ctx, deployment, current);
        } else if str_at(deployment, &["spec", "strategy", "type"]) == "Recreate" {
            recreate(ctx, deployment, current, &old);
        } else {
            roll(ctx, deployment, current, &old);
        }
        if !paused {
            clean_up(ctx, deployment, &old);
        }
    }
    report(ctx, deployment, &hash);
}

fn set_revision(ctx: &Context<'_>, set: &Value, number: i64) -> Option<Object> {
    let done = ctx.store.modify(&REPLICASETS, namespace(set), name(set), Sub::Main, |s| {
        map_mut(s, &["metadata", "annotations"]).insert(REVISION.into(), json!(number.to_string()));
    });
    tried("replica set revision", done)
}

fn create_set(ctx: &Context<'_>, deployment: &Value, hash: &str, number: i64) -> Option<Object> {
    let mut template = at(deployment, &["spec", "template"]).clone();
    add_label(&mut template, &["metadata", "labels"], HASH, hash);
    let mut selector = at(deployment, &["spec", "selector"]).clone();
    add_label(&mut selector, &["matchLabels"], HASH, hash);
    let mut annotations = json!({});
    for (key, value) in at(deployment, &["metadata", "annotations"]).as_object().into_iter().flatten() {
        if key != "kubectl.kubernetes.io/last-applied-configuration" {
            annotations[key] = value.clone();
        }
    }
    annotations[REVISION] = json!(number.to_string());
    annotations["deployment.kubernetes.io/desired-replicas"] = json!(replicas(deployment).to_string());
    annotations["deployment.kubernetes.io/max-replicas"] =
        json!((replicas(deployment) + surge(deployment)).to_string());
    let object = json!({
        "metadata": {
            "name": format!("{}-{hash}", name(deployment)), "namespace": namespace(deployment),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template, "minReadySeconds": int_at(deployment, &["spec", "minReadySeconds"]).unwrap_or(0)},
    });
    tried(
        "replica set",
        ctx.store.create(&REPLICASETS, namespace(deployment), object, &WriteOptions::default()),
    )
}

fn scale(ctx: &Context<'_>, deployment: &Value, set_object: &Value, to: i64) {
    let from = replicas(set_object);
    if from == to {
        return;
    }
    let done = ctx.store.modify(&REPLICASETS, namespace(set_object), name(set_object), Sub::Main, |s| {
        set(s, &["spec", "replicas"], json!(to));
        let annotations = map_mut(s, &["metadata", "annotations"]);
        annotations.insert(
            "deployment.kubernetes.io/desired-replicas".into(),
            json!(replicas(deployment).to_string()),
        );
        annotations.insert(
            "deployment.kubernetes.io/max-replicas".into(),
            json!((replicas(deployment) + surge(deployment)).to_string()),
        );
    });
    if tried("scale", done).is_some() {
        let word = if to > from { "up" } else { "down" };
        let message = format!("Scaled {word} replica set {} from {from} to {to}", name(set_object));
        record(ctx, NAME, deployment, "Normal", "ScalingReplicaSet", &message);
    }
}

fn surge(deployment: &Value) -> i64 {
    if str_at(deployment, &["spec", "strategy", "type"]) == "Recreate" {
        return 0;
    }
    of_total(at(deployment, &["spec", "strategy", "rollingUpdate", "maxSurge"]), replicas(deployment), true)
        .unwrap_or(0)
}

fn max_unavailable(deployment: &Value) -> i64 {
    let n = of_total(
        at(deployment, &["spec", "strategy", "rollingUpdate", "maxUnavailable"]),
        replicas(deployment),
        false,
    )
    .unwrap_or(0);
    // Both zero would mean that nothing may ever move.
    if n == 0 && surge(deployment) == 0 { 1 } else { n }
}

/// While a rollout is paused only the size follows.
fn keep_scale(ctx: &Context<'_>, deployment: &Value, current: &Value) {
    let sets = owned_sets(ctx, deployment);
    if sets.iter().all(|s| name(s) == name(current) || replicas(s) == 0) {
        scale(ctx, deployment, current, replicas(deployment));
    }
}

fn recreate(ctx: &Context<'_>, deployment: &Value, current: &Value, old: &[Object]) {
    old.iter().for_each(|s| scale(ctx, deployment, s, 0));
    let remains = old.iter().any(|s| !owned_pods(ctx, s).iter().all(|p| crate::pods::has_ended(p)));
    if !remains {
        scale(ctx, deployment, current, replicas(deployment));
    }
}

fn roll(ctx: &Context<'_>, deployment: &Value, current: &Value, old: &[Object]) {
    let wanted = replicas(deployment);
    let olds: i64 = old.iter().map(|s| replicas(s)).sum();
    // Up, as far as the surge allows.
    let room = (wanted + surge(deployment) - olds - replicas(current)).max(0);
    let target = if replicas(current) > wanted { wanted } else { wanted.min(replicas(current) + room) };
    scale(ctx, deployment, current, target);
    // Down, as far as enough stay available. A status may lag behind, so no set counts for more than it shall have,
    // and whatever is not known to be available in the new set counts as missing.
    let available_of = |s: &Value| status(s, "availableReplicas").min(replicas(s));
    let least = wanted - max_unavailable(deployment);
    let grown = target.max(replicas(current));
    let mut removable = (olds + grown - least - (grown - available_of(current))).max(0);
    let mut spare = (old.iter().map(|s| available_of(s)).sum::<i64>() + available_of(current) - least).max(0);
    let mut oldest: Vec<&Object> = old.iter().filter(|s| replicas(s) > 0).collect();
    oldest.sort_by_key(|s| revision(s));
    for set in oldest {
        // Pods that are not available go first and cost nothing.
        let unavailable = (replicas(set) - available_of(set)).min(removable);
        removable -= unavailable;
        let healthy = spare.min(available_of(set)).min(removable);
        removable -= healthy;
        spare -= healthy;
        scale(ctx, deployment, set, replicas(set) - unavailable - healthy);
    }
}

fn clean_up(ctx: &Context<'_>, deployment: &Value, old: &[Object]) {
    let keep =
        usize::try_from(int_at(deployment, &["spec", "revisionHistoryLimit"]).unwrap_or(10)).unwrap_or(0);
    let mut empty: Vec<&Object> =
        old.iter().filter(|s| replicas(s) == 0 && status(s, "replicas") == 0 && !is_deleting(s)).collect();
    empty.sort_by_key(|s| revision(s));
    let excess = empty.len().saturating_sub(keep);
    for set in empty.into_iter().take(excess) {
        tried(
            "old replica set",
            ctx.store.delete(&REPLICASETS, namespace(set), name(set), &DeleteOptions::default()),
        );
    }
}

fn report(ctx: &Context<'_>, deployment: &Value, hash: &str) {
    let Ok(deployment) = ctx.store.get(&DEPLOYMENTS, namespace(deployment), name(deployment)) else { return };
    let sets = owned_sets(ctx, &deployment);
    let sum = |key: &str| sets.iter().map(|s| status(s, key)).sum::<i64>();
    let current = sets.iter().find(|s| label(s, HASH) == hash);
    let wanted = replicas(&deployment);
    let (total, updated, available) =
        (sum("replicas"), current.map_or(0, |s| status(s, "replicas")), sum("availableReplicas"));
    let mut new = json!({"observedGeneration": deployment["metadata"]["generation"]});
    for (key, n) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (wanted.max(total) - available).max(0)),
    ] {
        if n > 0 {
            new[key] = json!(n);
        }
    }
    let mut conditions = list_at(&deployment, &["status", "conditions"]).to_vec();
    let enough = available >= wanted - max_unavailable(&deployment);
    if enough {
        set_condition(
            ctx,
            &mut conditions,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            true,
        );
    } else {
        set_condition(
            ctx,
            &mut conditions,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            true,
        );
    }
    // Old pods that are still going belong to nobody's replicas any more; rollout is over when they do not count.
    let complete = updated == wanted && total == wanted && available >= wanted;
    let set_name = current.map_or("", |s| name(s));
    if bool_at(&deployment, &["spec", "paused"]) {
        set_condition(
            ctx,
            &mut conditions,
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused",
            true,
        );
    } else if complete {
        set_condition(
            ctx,
            &mut conditions,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            &format!("ReplicaSet \"{set_name}\" has successfully progressed."),
            true,
        );
    } else if current.is_some() {
        set_condition(
            ctx,
            &mut conditions,
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            &format!("ReplicaSet \"{set_name}\" is progressing."),
            true,
        );
    }
    new["conditions"] = json!(conditions);
    write_status(ctx, &DEPLOYMENTS, &deployment, new);
}
