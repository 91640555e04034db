//! One pod of a DaemonSet on every node that it fits.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sim_api::WriteOptions;
use sim_api::object::{at, bool_at, int_at, is_deleting, list_at, name, namespace, set, str_at};
use sim_api::resource::{CONTROLLERREVISIONS, DAEMONSETS, NODES};
use sim_api::store::Object;

use crate::pods::{
    add_label, controller_reference, create_pod, delete_pod, has_ended, is_available, is_ready, label,
    owned_pods, pod_from_template, template_hash, write_status,
};
use crate::quantity::of_total;
use crate::scheduler::fits_node;
use crate::{Context, tried};

const NAME: &str = "daemonset-controller";
const HASH: &str = "controller-revision-hash";

pub(crate) fn run(ctx: &Context<'_>) {
    let nodes = ctx.store.list(&NODES, "");
    for daemon in ctx.store.list(&DAEMONSETS, "") {
        if !is_deleting(&daemon) {
            reconcile(ctx, &daemon, &nodes);
        }
    }
}

/// The node a pod is for: the one it is bound to or pinned to.
fn node_of(pod: &Value) -> &str {
    let bound = str_at(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let terms = list_at(
        pod,
        &[
            "spec",
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
        ],
    );
    let fields = terms.iter().flat_map(|t| list_at(t, &["matchFields"]));
    fields.flat_map(|f| list_at(f, &["values"])).find_map(Value::as_str).unwrap_or("")
}

fn reconcile(ctx: &Context<'_>, daemon: &Value, nodes: &[Object]) {
    let hash = template_hash(at(daemon, &["spec", "template"]));
    keep_revision(ctx, daemon, &hash);
    let pods = owned_pods(ctx, daemon);
    let mut by_node: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for pod in &pods {
        by_node.entry(node_of(pod)).or_default().push(pod);
    }
    let probe = pod_for(daemon, "", &hash);
    let wanted: Vec<&Object> = nodes.iter().filter(|n| fits_node(&probe, n).is_ok()).collect();
    let is_wanted = |node: &str| wanted.iter().any(|n| name(n) == node);

    for node in &wanted {
        let there = by_node.get(name(node)).map_or(&[][..], Vec::as_slice);
        let mut alive = there.iter().filter(|p| !has_ended(p));
        if alive.next().is_none() {
            // What has ended makes place for its successor.
            there.iter().filter(|p| !is_deleting(p)).for_each(|p| delete_pod(ctx, NAME, daemon, p));
            create_pod(ctx, NAME, daemon, pod_for(daemon, name(node), &hash));
        }
        alive.filter(|p| !is_deleting(p)).for_each(|p| delete_pod(ctx, NAME, daemon, p));
    }
    for (_, there) in by_node.iter().filter(|(n, _)| !is_wanted(n)) {
        there.iter().filter(|p| !is_deleting(p)).for_each(|p| delete_pod(ctx, NAME, daemon, p));
    }
    if str_at(daemon, &["spec", "updateStrategy", "type"]) != "OnDelete" {
        update(ctx, daemon, &pods, wanted.len(), &hash);
    }
    report(ctx, daemon, nodes, &wanted, &hash);
}

/// Replaces pods of older templates, as many at a time as may be missing.
fn update(ctx: &Context<'_>, daemon: &Value, pods: &[Object], wanted: usize, hash: &str) {
    let total = i64::try_from(wanted).unwrap_or(0);
    let allowed =
        of_total(at(daemon, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]), total, true)
            .unwrap_or(1)
            .max(1);
    let min_ready = int_at(daemon, &["spec", "minReadySeconds"]).unwrap_or(0);
    let available = pods.iter().filter(|p| !is_deleting(p) && is_available(ctx, p, min_ready)).count();
    let missing = total - i64::try_from(available).unwrap_or(0);
    let mut left = (allowed - missing).max(0);
    for pod in pods.iter().filter(|p| !is_deleting(p) && label(p, HASH) != hash) {
        // Pods that are not available cost nothing.
        if is_available(ctx, pod, min_ready) {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        delete_pod(ctx, NAME, daemon, pod);
    }
}

/// Remembers the template, for `kubectl rollout history` and `undo`.
fn keep_revision(ctx: &Context<'_>, daemon: &Value, hash: &str) {
    let ns = namespace(daemon);
    let revision_name = format!("{}-{hash}", name(daemon));
    if ctx.store.get(&CONTROLLERREVISIONS, ns, &revision_name).is_ok() {
        return;
    }
    let number = ctx
        .store
        .list(&CONTROLLERREVISIONS, ns)
        .iter()
        .filter(|r| crate::pods::is_controlled_by(r, daemon))
        .filter_map(|r| int_at(r, &["revision"]))
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let mut template = at(daemon, &["spec", "template"]).clone();
    template["$patch"] = json!("replace");
    let mut labels = at(daemon, &["spec", "template", "metadata", "labels"]).clone();
    labels[HASH] = json!(hash);
    let revision = json!({
        "metadata": {"name": revision_name, "namespace": ns, "labels": labels, "ownerReferences": [controller_reference(daemon)]},
        "data": {"spec": {"template": template}}, "revision": number,
    });
    tried(
        "controller revision",
        ctx.store.create(&CONTROLLERREVISIONS, ns, revision, &WriteOptions::default()),
    );
}

fn pod_for(daemon: &Value, node: &str, hash: &str) -> Value {
    let mut pod = pod_from_template(daemon);
    add_label(&mut pod, &["metadata", "labels"], HASH, hash);
    let mut tolerations = list_at(&pod, &["spec", "tolerations"]).to_vec();
    let mut tolerate = |key: &str, effect: &str| {
        tolerations.push(
            json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect}),
        );
    };
    tolerate("not-ready", "NoExecute");
    tolerate("unreachable", "NoExecute");
    for key in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        tolerate(key, "NoSchedule");
    }
    if bool_at(&pod, &["spec", "hostNetwork"]) {
        tolerate("network-unavailable", "NoSchedule");
    }
    set(&mut pod, &["spec", "tolerations"], Value::Array(tolerations));
    if !node.is_empty() {
        // The pod goes through the scheduler like any other, but only one node will do.
        let path = [
            "spec",
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
        ];
        let here = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
        let mut terms = list_at(&pod, &path).to_vec();
        if terms.is_empty() {
            terms.push(json!({}));
        }
        for term in &mut terms {
            term["matchFields"] = here.clone();
        }
        set(&mut pod, &path, Value::Array(terms));
    }
    pod
}

fn report(ctx: &Context<'_>, daemon: &Value, nodes: &[Object], wanted: &[&Object], hash: &str) {
    let pods = owned_pods(ctx, daemon);
    let min_ready = int_at(daemon, &["spec", "minReadySeconds"]).unwrap_or(0);
    let on = |node: &Value| pods.iter().find(|p| node_of(p) == name(node) && !is_deleting(p));
    let there: Vec<&Object> = wanted.iter().filter_map(|n| on(n)).collect();
    let count = |f: &dyn Fn(&Value) -> bool| there.iter().filter(|p| f(p)).count();
    let misplaced =
        nodes.iter().filter(|n| !wanted.iter().any(|w| name(w) == name(n)) && on(n).is_some()).count();
    let available = count(&|p| is_available(ctx, p, min_ready));
    let mut status = json!({
        "currentNumberScheduled": there.len(), "numberMisscheduled": misplaced, "desiredNumberScheduled": wanted.len(),
        "numberReady": count(&|p| is_ready(p)), "observedGeneration": daemon["metadata"]["generation"],
    });
    for (key, n) in [
        ("updatedNumberScheduled", count(&|p| label(p, HASH) == hash)),
        ("numberAvailable", available),
        ("numberUnavailable", wanted.len() - available.min(wanted.len())),
    ] {
        if n > 0 {
            status[key] = json!(n);
        }
    }
    write_status(ctx, &DAEMONSETS, daemon, status);
}
