//! Taints of nodes that take no pods, and nodes that have gone silent.

use jiff::Timestamp;
use serde_json::{Value, json};
use sim_api::Sub;
use sim_api::clock::rfc3339;
use sim_api::object::{bool_at, condition, int_at, list_at, name, set, str_at};
use sim_api::resource::{LEASES, NODES};

use crate::pods::set_condition;
use crate::{Context, tried};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) fn run(ctx: &Context<'_>) {
    for node in ctx.store.list(&NODES, "") {
        if is_silent(ctx, &node) {
            let done = ctx.store.modify(&NODES, "", name(&node), Sub::Status, |n| {
                let mut conditions = list_at(n, &["status", "conditions"]).to_vec();
                set_condition(
                    ctx,
                    &mut conditions,
                    "Ready",
                    "Unknown",
                    "NodeStatusUnknown",
                    "Kubelet stopped posting node status.",
                    false,
                );
                set(n, &["status", "conditions"], Value::Array(conditions));
            });
            tried("node status", done);
        }
        let Ok(node) = ctx.store.get(&NODES, "", name(&node)) else { continue };
        let wanted = wanted_taints(ctx, &node);
        if wanted != list_at(&node, &["spec", "taints"]) {
            let done = ctx.store.modify(&NODES, "", name(&node), Sub::Main, |n| {
                if wanted.is_empty() {
                    sim_api::object::remove(n, &["spec", "taints"]);
                } else {
                    set(n, &["spec", "taints"], Value::Array(wanted));
                }
            });
            tried("node taints", done);
        }
    }
}

/// True if the node says it is ready but its lease has run out.
fn is_silent(ctx: &Context<'_>, node: &Value) -> bool {
    let grace = i64::from(ctx.options.node_grace_s);
    if grace == 0 || condition(node, "Ready").is_some_and(|c| str_at(c, &["status"]) == "Unknown") {
        return false;
    }
    let Ok(lease) = ctx.store.get(&LEASES, "kube-node-lease", name(node)) else { return false };
    let renewed = str_at(&lease, &["spec", "renewTime"]).parse::<Timestamp>();
    renewed.is_ok_and(|r| {
        ctx.now.as_second() - r.as_second()
            > grace.max(int_at(&lease, &["spec", "leaseDurationSeconds"]).unwrap_or(0))
    })
}

fn wanted_taints(ctx: &Context<'_>, node: &Value) -> Vec<Value> {
    let key = |t: &Value| str_at(t, &["key"]).to_owned();
    let present = list_at(node, &["spec", "taints"]);
    let mut taints: Vec<Value> = present
        .iter()
        .filter(|t| ![NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key(t).as_str()))
        .cloned()
        .collect();
    let mut add = |k: &str, effect: &str| {
        let old = present.iter().find(|t| key(t) == k && str_at(t, &["effect"]) == effect).cloned();
        taints.push(old.unwrap_or_else(|| match effect {
            "NoExecute" => json!({"key": k, "effect": effect, "timeAdded": rfc3339(ctx.now)}),
            _ => json!({"key": k, "effect": effect}),
        }));
    };
    match condition(node, "Ready").map_or("", |c| str_at(c, &["status"])) {
        "True" => {}
        "Unknown" => ["NoSchedule", "NoExecute"].iter().for_each(|e| add(UNREACHABLE, e)),
        "False" => ["NoSchedule", "NoExecute"].iter().for_each(|e| add(NOT_READY, e)),
        // A node that has not said anything yet.
        _ => add(NOT_READY, "NoSchedule"),
    }
    if bool_at(node, &["spec", "unschedulable"]) {
        add(UNSCHEDULABLE, "NoSchedule");
    }
    taints
}
