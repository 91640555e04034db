//! Binds pods to nodes.

mod affinity;
mod node;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sim_api::Sub;
use sim_api::object::{condition, is_deleting, list_at, name, namespace, set, str_at};
use sim_api::resource::{NAMESPACES, NODES, PODS};
use sim_api::store::Object;

use crate::event::record;
use crate::pods::{has_ended, set_condition};
use crate::{Context, tried};

pub(crate) use node::fits_node;

const NAME: &str = "default-scheduler";

/// The cluster as the scheduler sees it; grows with every pod it binds.
struct View {
    nodes: Vec<Object>,
    namespaces: Vec<Object>,
    /// Pods that are bound and have not ended, by node.
    placed: BTreeMap<String, Vec<Object>>,
}

pub(crate) fn run(ctx: &Context<'_>) {
    let mut waiting = Vec::new();
    let mut view = View {
        nodes: ctx.store.list(&NODES, ""),
        namespaces: ctx.store.list(&NAMESPACES, ""),
        placed: BTreeMap::new(),
    };
    for pod in ctx.store.list(&PODS, "") {
        let node = str_at(&pod, &["spec", "nodeName"]);
        if !node.is_empty() {
            if !has_ended(&pod) {
                view.placed.entry(node.to_owned()).or_default().push(pod);
            }
        } else if !is_deleting(&pod) && !has_ended(&pod) && str_at(&pod, &["spec", "schedulerName"]) == NAME {
            waiting.push(pod);
        }
    }
    waiting.sort_by_key(|p| {
        (str_at(p, &["metadata", "creationTimestamp"]).to_owned(), sim_api::object::resource_version(p))
    });
    for pod in waiting {
        if list_at(&pod, &["spec", "schedulingGates"]).is_empty() {
            schedule(ctx, &mut view, &pod);
        }
    }
}

fn schedule(ctx: &Context<'_>, view: &mut View, pod: &Value) {
    match choose(view, pod) {
        Ok(node) => {
            let bound = ctx.store.modify(&PODS, namespace(pod), name(pod), Sub::Main, |p| {
                set(p, &["spec", "nodeName"], json!(node));
            });
            if let Some(bound) = tried("binding", bound) {
                mark(ctx, &bound, "True", "", "");
                let message = format!("Successfully assigned {}/{} to {node}", namespace(pod), name(pod));
                record(ctx, NAME, pod, "Normal", "Scheduled", &message);
                view.placed.entry(node).or_default().push(bound);
            }
        }
        Err(message) => {
            let old = condition(pod, "PodScheduled").map_or("", |c| str_at(c, &["message"]));
            if old != message {
                mark(ctx, pod, "False", "Unschedulable", &message);
                record(ctx, NAME, pod, "Warning", "FailedScheduling", &message);
            }
        }
    }
}

fn mark(ctx: &Context<'_>, pod: &Value, status: &str, reason: &str, message: &str) {
    let done = ctx.store.modify(&PODS, namespace(pod), name(pod), Sub::Status, |p| {
        let mut conditions = list_at(p, &["status", "conditions"]).to_vec();
        set_condition(ctx, &mut conditions, "PodScheduled", status, reason, message, false);
        if reason.is_empty() {
            for c in conditions.iter_mut().filter(|c| str_at(c, &["type"]) == "PodScheduled") {
                sim_api::object::remove(c, &["reason"]);
                sim_api::object::remove(c, &["message"]);
            }
        }
        set(p, &["status", "conditions"], Value::Array(conditions));
    });
    tried("pod condition", done);
}

/// The best node, or why there is none.
fn choose(view: &View, pod: &Value) -> Result<String, String> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, &str)> = None;
    for node in &view.nodes {
        let there = view.placed.get(name(node)).map_or(&[][..], Vec::as_slice);
        let fits = fits_node(pod, node)
            .and_then(|()| node::has_room(pod, node, there))
            .and_then(|()| affinity::fits(view, pod, node));
        match fits {
            Err(reason) => *reasons.entry(reason).or_default() += 1,
            Ok(()) => {
                let score = score(view, pod, node, there);
                if best
                    .is_none_or(|(s, n)| (score, std::cmp::Reverse(name(node))) > (s, std::cmp::Reverse(n)))
                {
                    best = Some((score, name(node)));
                }
            }
        }
    }
    if let Some((_, node)) = best {
        return Ok(node.to_owned());
    }
    if view.nodes.is_empty() {
        return Err("no nodes available to schedule pods".into());
    }
    let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Err(format!(
        "0/{} nodes are available: {}. preemption: not supported.",
        view.nodes.len(),
        list.join(", ")
    ))
}

/// Higher is better: wishes of the pod first, then an even spread of what belongs together, then of all pods.
fn score(view: &View, pod: &Value, node: &Value, there: &[Object]) -> i64 {
    let wishes = node::preference(pod, node) + affinity::preference(view, pod, node);
    let owner = sim_api::object::controller_of(pod).map(|o| str_at(o, &["uid"]));
    let siblings = there
        .iter()
        .filter(|p| {
            owner.is_some() && sim_api::object::controller_of(p).map(|o| str_at(o, &["uid"])) == owner
        })
        .count();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX / 4096);
    wishes * 1_000_000 - count(siblings) * 1000 - count(there.len())
}
