//! What every namespace has, and the end of namespaces.

use serde_json::{Value, json};
use sim_api::object::{is_deleting, list_at, name, namespace, set};
use sim_api::resource::{CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS};
use sim_api::{DeleteOptions, Sub, WriteOptions};

use crate::pods::set_condition;
use crate::{Context, tried};

const ROOT_CA: &str = "kube-root-ca.crt";

pub(crate) fn run(ctx: &Context<'_>) {
    for space in ctx.store.list(&NAMESPACES, "") {
        if is_deleting(&space) {
            empty(ctx, &space);
        } else {
            furnish(ctx, name(&space));
        }
    }
}

fn furnish(ctx: &Context<'_>, ns: &str) {
    let options = WriteOptions::default();
    if ctx.store.get(&SERVICEACCOUNTS, ns, "default").is_err() {
        tried(
            "service account",
            ctx.store.create(&SERVICEACCOUNTS, ns, json!({"metadata": {"name": "default"}}), &options),
        );
    }
    if ctx.store.get(&CONFIGMAPS, ns, ROOT_CA).is_err() {
        // The API server speaks plain HTTP, so there is no certificate to publish; pods only look for the file.
        let map = json!({"metadata": {"name": ROOT_CA}, "data": {"ca.crt": ""}});
        tried("root CA", ctx.store.create(&CONFIGMAPS, ns, map, &options));
    }
}

/// Deletes everything in a namespace, and the namespace once nothing is left.
fn empty(ctx: &Context<'_>, space: &Value) {
    let mut left: Vec<String> = Vec::new();
    for def in ctx.store.resources().iter().filter(|d| d.namespaced) {
        for object in ctx.store.list(&def.gr, name(space)) {
            if !is_deleting(&object) {
                let options = DeleteOptions::default();
                tried(
                    "namespace content",
                    ctx.store.delete(&def.gr, namespace(&object), name(&object), &options),
                );
            }
        }
        let count = ctx.store.list(&def.gr, name(space)).len();
        if count > 0 {
            left.push(format!("{} has {count} resource instances", def.gr));
        }
    }
    if left.is_empty() {
        let done = ctx.store.modify(&NAMESPACES, "", name(space), Sub::Finalize, |n| {
            let others: Vec<Value> =
                list_at(n, &["spec", "finalizers"]).iter().filter(|f| *f != "kubernetes").cloned().collect();
            set(n, &["spec", "finalizers"], Value::Array(others));
        });
        tried("namespace end", done);
        return;
    }
    let message = format!("Some resources are remaining: {}", left.join(", "));
    let done = ctx.store.modify(&NAMESPACES, "", name(space), Sub::Status, |n| {
        let mut conditions = list_at(n, &["status", "conditions"]).to_vec();
        set_condition(
            ctx,
            &mut conditions,
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            &message,
            false,
        );
        set(n, &["status", "conditions"], Value::Array(conditions));
    });
    tried("namespace status", done);
}
