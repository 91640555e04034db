//! Events about objects.

use serde_json::{Value, json};
use sim_api::clock::rfc3339;
use sim_api::object::{int_at, name, namespace, set, str_at, uid};
use sim_api::resource::EVENTS;
use sim_api::{Sub, WriteOptions};

use crate::{Context, tried};

/// FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Records that something happened to an object; the same again counts up.
pub(crate) fn record(
    ctx: &Context<'_>,
    component: &str,
    about: &Value,
    kind: &str,
    reason: &str,
    message: &str,
) {
    let ns = if namespace(about).is_empty() { "default" } else { namespace(about) };
    let event_name = format!("{}.{:016x}", name(about), hash(&format!("{}{reason}{message}", uid(about))));
    let now = rfc3339(ctx.now);
    if ctx.store.get(&EVENTS, ns, &event_name).is_ok() {
        let counted = ctx.store.modify(&EVENTS, ns, &event_name, Sub::Main, |e| {
            let count = int_at(e, &["count"]).unwrap_or(1).saturating_add(1);
            set(e, &["count"], json!(count));
            set(e, &["lastTimestamp"], json!(now));
        });
        tried("event", counted);
        return;
    }
    let event = json!({
        "metadata": {"name": event_name, "namespace": ns},
        "involvedObject": {
            "apiVersion": str_at(about, &["apiVersion"]), "kind": str_at(about, &["kind"]), "name": name(about),
            "namespace": namespace(about), "uid": uid(about), "resourceVersion": about["metadata"]["resourceVersion"],
        },
        "type": kind, "reason": reason, "message": message, "source": {"component": component},
        "reportingComponent": component, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    });
    // Without the field an empty namespace would stand there for nodes.
    let mut event = event;
    if namespace(about).is_empty() {
        sim_api::object::remove(&mut event, &["involvedObject", "namespace"]);
    }
    tried("event", ctx.store.create(&EVENTS, ns, event, &WriteOptions::default()));
}
