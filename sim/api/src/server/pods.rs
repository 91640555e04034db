//! Subresources of pods that change them: binding and eviction.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer;
use super::route::ResourceCall;
use crate::error::ApiError;
use crate::object::{at, int_at, is_deleting, set, str_at};
use crate::options::Sub;
use crate::resource::{PODDISRUPTIONBUDGETS, PODS};
use crate::selector::Selector;

pub(super) fn answer(call: &ResourceCall, body: &Value) -> Result<Response, ApiError> {
    if call.target.subresource == "binding" { bind(call, body) } else { evict(call, body) }
}

fn success() -> Response {
    answer::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

fn bind(call: &ResourceCall, body: &Value) -> Result<Response, ApiError> {
    let (ns, name) = (&call.target.namespace, &call.target.name);
    let node = str_at(body, &["target", "name"]);
    if node.is_empty() {
        return Err(ApiError::bad_request("a binding needs a target"));
    }
    let pod = call.app.store.get(&PODS, ns, name)?;
    let bound = str_at(&pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return Err(ApiError::conflict(
            &PODS,
            name,
            &format!("pod {name} is already assigned to node \"{bound}\""),
        ));
    }
    if is_deleting(&pod) {
        return Err(ApiError::conflict(
            &PODS,
            name,
            &format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    call.app.store.modify(&PODS, ns, name, Sub::Main, |p| set(p, &["spec", "nodeName"], json!(node)))?;
    Ok(success())
}

/// Deletes a pod unless a disruption budget forbids it (Kubernetes documentation, "API-initiated Eviction").
fn evict(call: &ResourceCall, body: &Value) -> Result<Response, ApiError> {
    let (ns, name) = (&call.target.namespace, &call.target.name);
    let store = &call.app.store;
    let pod = store.get(&PODS, ns, name)?;
    let ended = matches!(str_at(&pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending");
    if !ended && !is_deleting(&pod) {
        for budget in store.list(&PODDISRUPTIONBUDGETS, ns) {
            let covers = Selector::from_label_selector(at(&budget, &["spec", "selector"])).matches(&pod);
            if covers && int_at(&budget, &["status", "disruptionsAllowed"]).unwrap_or(0) <= 0 {
                let cause = json!({"causes": [{"reason": "DisruptionBudget", "message": format!("The disruption budget {} needs to keep its pods and none may go now", crate::object::name(&budget))}]});
                return Err(ApiError::too_many_requests(
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    10,
                )
                .with_details(cause));
            }
        }
    }
    let options = call.query.delete_options(at(body, &["deleteOptions"]))?;
    store.delete(&PODS, ns, name, &options)?;
    Ok(success())
}
