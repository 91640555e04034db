//! What controllers need to know about pods.

use serde_json::{Map, Value, json};
use sim_api::clock::rfc3339;
use sim_api::object::{
    at, condition, controller_of, is_deleting, labels, list_at, map_mut, name, namespace, set, str_at, uid,
};
use sim_api::resource::PODS;
use sim_api::store::Object;
use sim_api::{DeleteOptions, Gr, Selector, Sub, WriteOptions};

use crate::event::{hash, record};
use crate::{Context, tried};

/// True unless the pod has ended or is going.
pub(crate) fn is_active(pod: &Value) -> bool {
    !has_ended(pod) && !is_deleting(pod)
}

/// True if the pod has run to its end.
pub(crate) fn has_ended(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// True if the pod takes traffic.
pub(crate) fn is_ready(pod: &Value) -> bool {
    sim_api::object::condition_is_true(pod, "Ready")
}

/// True if the pod has been ready for `min_ready_s`.
pub(crate) fn is_available(ctx: &Context<'_>, pod: &Value, min_ready_s: i64) -> bool {
    if !is_ready(pod) {
        return false;
    }
    let since = condition(pod, "Ready")
        .and_then(|c| str_at(c, &["lastTransitionTime"]).parse::<jiff::Timestamp>().ok());
    min_ready_s == 0 || since.is_some_and(|s| ctx.now.as_second() - s.as_second() >= min_ready_s)
}

/// True if `owner` controls the object.
pub(crate) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller_of(object).is_some_and(|r| str_at(r, &["uid"]) == uid(owner))
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": str_at(owner, &["apiVersion"]), "kind": str_at(owner, &["kind"]), "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The pods that an object controls; pods that match its selector and belong to nobody are adopted.
pub(crate) fn owned_pods(ctx: &Context<'_>, owner: &Value) -> Vec<Object> {
    let selector = Selector::from_label_selector(at(owner, &["spec", "selector"]));
    let mut owned = Vec::new();
    for pod in ctx.store.list(&PODS, namespace(owner)) {
        if is_controlled_by(&pod, owner) {
            owned.push(pod);
        } else if controller_of(&pod).is_none()
            && is_active(&pod)
            && !is_deleting(owner)
            && selector.matches(&pod)
        {
            let adopted = ctx.store.modify(&PODS, namespace(&pod), name(&pod), Sub::Main, |p| {
                let mut owners = list_at(p, &["metadata", "ownerReferences"]).to_vec();
                owners.push(controller_reference(owner));
                set(p, &["metadata", "ownerReferences"], Value::Array(owners));
            });
            owned.extend(tried("adoption", adopted));
        }
    }
    owned
}

/// A pod made from the template of `owner`.
pub(crate) fn pod_from_template(owner: &Value) -> Value {
    let template = at(owner, &["spec", "template"]);
    let mut pod = json!({"metadata": {"generateName": format!("{}-", name(owner)), "namespace": namespace(owner)}, "spec": template["spec"]});
    for key in ["labels", "annotations", "finalizers"] {
        let value = at(template, &["metadata", key]);
        if !value.is_null() {
            set(&mut pod, &["metadata", key], value.clone());
        }
    }
    set(&mut pod, &["metadata", "ownerReferences"], json!([controller_reference(owner)]));
    pod
}

/// Makes a pod for `owner` and says so.
pub(crate) fn create_pod(ctx: &Context<'_>, component: &str, owner: &Value, pod: Value) {
    match ctx.store.create(&PODS, namespace(owner), pod, &WriteOptions::default()) {
        Ok(pod) => record(
            ctx,
            component,
            owner,
            "Normal",
            "SuccessfulCreate",
            &format!("Created pod: {}", name(&pod)),
        ),
        Err(error) => {
            record(ctx, component, owner, "Warning", "FailedCreate", &format!("Error creating: {error}"));
        }
    }
}

/// Deletes a pod of `owner` and says so.
pub(crate) fn delete_pod(ctx: &Context<'_>, component: &str, owner: &Value, pod: &Value) {
    let deleted = ctx.store.delete(&PODS, namespace(pod), name(pod), &DeleteOptions::default());
    if tried("pod deletion", deleted).is_some() {
        record(ctx, component, owner, "Normal", "SuccessfulDelete", &format!("Deleted pod: {}", name(pod)));
    }
}

/// Replaces the status of an object if it differs.
pub(crate) fn write_status(ctx: &Context<'_>, r: &Gr, object: &Value, status: Value) {
    if at(object, &["status"]) != &status {
        tried(
            "status",
            ctx.store
                .modify(r, namespace(object), name(object), Sub::Status, |o| set(o, &["status"], status)),
        );
    }
}

/// Sets a condition in a list; its transition time moves only with its status.
pub(crate) fn set_condition(
    ctx: &Context<'_>,
    conditions: &mut Vec<Value>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    with_update: bool,
) {
    let now = rfc3339(ctx.now);
    let old = conditions.iter().position(|c| str_at(c, &["type"]) == kind);
    let mut new = json!({"type": kind, "status": status, "reason": reason, "message": message});
    if let Some(old) = old.map(|i| &conditions[i]) {
        let same = str_at(old, &["status"]) == status;
        if same && str_at(old, &["reason"]) == reason && str_at(old, &["message"]) == message {
            return;
        }
        new["lastTransitionTime"] = if same { old["lastTransitionTime"].clone() } else { json!(now) };
    } else {
        new["lastTransitionTime"] = json!(now);
    }
    if with_update {
        new["lastUpdateTime"] = json!(now);
    }
    match old {
        Some(i) => conditions[i] = new,
        None => conditions.push(new),
    }
}

/// A short name for a template: the same template gets the same one, whatever the order of its fields.
pub(crate) fn template_hash(template: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                Value::Object(keys.into_iter().map(|k| (k.clone(), sorted(&map[k]))).collect::<Map<_, _>>())
            }
            Value::Array(list) => list.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut n = hash(&sorted(template).to_string());
    let mut out = String::new();
    for _ in 0..10 {
        out.push(char::from(LETTERS[usize::try_from(n % LETTERS.len() as u64).unwrap_or(0)]));
        n /= LETTERS.len() as u64;
    }
    out
}

/// The value of a label.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    labels(object).and_then(|l| l.get(key)).and_then(Value::as_str).unwrap_or("")
}

/// Sets labels on an object being made.
pub(crate) fn add_label(object: &mut Value, path: &[&str], key: &str, value: &str) {
    map_mut(object, path).insert(key.to_owned(), json!(value));
}
