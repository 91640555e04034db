//! Pods on nodes that are gone, and old events.

use jiff::Timestamp;
use sim_api::DeleteOptions;
use sim_api::object::{name, namespace, str_at};
use sim_api::resource::{EVENTS, NODES, PODS};

use crate::{Context, tried};

/// Events older than this are forgotten, as in a real cluster.
const EVENT_TTL_S: i64 = 3600;

pub(crate) fn run(ctx: &Context<'_>) {
    for pod in ctx.store.list(&PODS, "") {
        let node = str_at(&pod, &["spec", "nodeName"]);
        if !node.is_empty() && ctx.store.get(&NODES, "", node).is_err() {
            tried(
                "pod of a lost node",
                ctx.store.delete(&PODS, namespace(&pod), name(&pod), &DeleteOptions::now()),
            );
        }
    }
    for event in ctx.store.list(&EVENTS, "") {
        let last = [&event["lastTimestamp"], &event["metadata"]["creationTimestamp"]];
        let last = last.iter().find_map(|t| t.as_str()?.parse::<Timestamp>().ok());
        if last.is_some_and(|t| ctx.now.as_second() - t.as_second() > EVENT_TTL_S) {
            tried(
                "old event",
                ctx.store.delete(&EVENTS, namespace(&event), name(&event), &DeleteOptions::default()),
            );
        }
    }
}
