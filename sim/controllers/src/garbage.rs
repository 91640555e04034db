//! Objects whose owners are gone, and owners that wait for theirs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sim_api::object::{is_deleting, list_at, name, namespace, set, str_at, uid};
use sim_api::store::Object;
use sim_api::{DeleteOptions, Gr, Propagation, Sub};

use crate::{Context, tried};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(crate) fn run(ctx: &Context<'_>) {
    let mut all: Vec<(Gr, Object)> = Vec::new();
    for def in ctx.store.resources() {
        all.extend(ctx.store.list(&def.gr, "").into_iter().map(|o| (def.gr.clone(), o)));
    }
    let present: BTreeSet<&str> = all.iter().map(|(_, o)| uid(o)).collect();
    let mut dependents: BTreeMap<&str, Vec<&(Gr, Object)>> = BTreeMap::new();
    for entry in &all {
        for owner in list_at(&entry.1, &["metadata", "ownerReferences"]) {
            dependents.entry(str_at(owner, &["uid"])).or_default().push(entry);
        }
    }
    for (r, object) in &all {
        let owners = list_at(object, &["metadata", "ownerReferences"]);
        if !owners.is_empty()
            && !is_deleting(object)
            && owners.iter().all(|o| !present.contains(str_at(o, &["uid"])))
        {
            delete(ctx, r, object, Propagation::Background);
        }
        if is_deleting(object) {
            let theirs = dependents.get(uid(object)).map_or(&[][..], Vec::as_slice);
            release(ctx, r, object, theirs);
        }
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list_at(object, &["metadata", "finalizers"]).iter().any(|f| f == finalizer)
}

/// Lets an owner go that waits for its dependents.
fn release(ctx: &Context<'_>, r: &Gr, owner: &Value, dependents: &[&(Gr, Object)]) {
    if has_finalizer(owner, ORPHAN) {
        for (dr, dependent) in dependents {
            let done = ctx.store.modify(dr, namespace(dependent), name(dependent), Sub::Main, |d| {
                let others: Vec<Value> = list_at(d, &["metadata", "ownerReferences"])
                    .iter()
                    .filter(|o| str_at(o, &["uid"]) != uid(owner))
                    .cloned()
                    .collect();
                set(d, &["metadata", "ownerReferences"], Value::Array(others));
            });
            tried("orphan", done);
        }
        remove_finalizer(ctx, r, owner, ORPHAN);
    } else if has_finalizer(owner, FOREGROUND) {
        for (dr, dependent) in dependents.iter().filter(|(_, d)| !is_deleting(d)) {
            delete(ctx, dr, dependent, Propagation::Foreground);
        }
        let still_there = dependents
            .iter()
            .any(|(dr, d)| ctx.store.get(dr, namespace(d), name(d)).is_ok_and(|now| uid(&now) == uid(d)));
        if !still_there {
            remove_finalizer(ctx, r, owner, FOREGROUND);
        }
    }
}

fn remove_finalizer(ctx: &Context<'_>, r: &Gr, object: &Value, finalizer: &str) {
    let done = ctx.store.modify(r, namespace(object), name(object), Sub::Main, |o| {
        let others: Vec<Value> =
            list_at(o, &["metadata", "finalizers"]).iter().filter(|f| *f != finalizer).cloned().collect();
        set(o, &["metadata", "finalizers"], Value::Array(others));
    });
    tried("finalizer", done);
}

fn delete(ctx: &Context<'_>, r: &Gr, object: &Value, propagation: Propagation) {
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(uid(object).to_owned()),
        ..DeleteOptions::default()
    };
    tried("garbage", ctx.store.delete(r, namespace(object), name(object), &options));
}
