//! get, list, create, update, patch, delete.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Form, include_object, negotiate};
use super::reviews;
use super::route::ResourceCall;
use crate::error::{ApiError, Cause};
use crate::faults::Effect;
use crate::object::{name, namespace, set, str_at};
use crate::options::{Patch, Sub};
use crate::resource::{CUSTOMRESOURCEDEFINITIONS, LEASES, SERVICEACCOUNTS};
use crate::selector::Selector;
use crate::store::{ListQuery, Object, Written};
use crate::table::{partial_metadata, table};

/// The part of an object that the request's path names.
pub(super) fn sub(call: &ResourceCall) -> Result<Sub, ApiError> {
    Ok(match call.target.subresource.as_str() {
        "" => Sub::Main,
        "status" if call.version.status => Sub::Status,
        "scale" if call.version.scale.is_some() => Sub::Scale,
        "finalize" => Sub::Finalize,
        "ephemeralcontainers" => Sub::EphemeralContainers,
        "resize" => Sub::Resize,
        "approval" => Sub::Status,
        _ => return Err(ApiError::no_such_path()),
    })
}

/// The selectors of a request; a named object is selected by its name.
pub(super) fn selector(call: &ResourceCall) -> Result<Selector, ApiError> {
    let mut fields = call.query.get("fieldSelector").to_owned();
    if !call.target.name.is_empty() {
        let by_name = format!("metadata.name={}", call.target.name);
        fields = if fields.is_empty() { by_name } else { format!("{fields},{by_name}") };
    }
    if call.as_events {
        fields = fields
            .replace("regarding.", "involvedObject.")
            .replace("reportingController", "reportingComponent");
    }
    Selector::parse(call.query.get("labelSelector"), &fields, &call.def.selectable)
}

/// One object in the form the client wants.
fn show(call: &ResourceCall, status: StatusCode, object: &Value) -> Result<Response, ApiError> {
    let form = negotiate(&call.headers)?;
    // A Scale is no object of this resource.
    let own_kind = str_at(object, &["kind"]) == call.def.kind;
    let shown = match form {
        Form::Table if own_kind => {
            let include = include_object(call.query.get("includeObject"))?;
            let mut t =
                table(&call.def, &call.version, [object].into_iter(), include, true, call.app.store.now());
            t["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            t
        }
        Form::Metadata if own_kind => partial_metadata(object),
        _ => call.show(object),
    };
    Ok(answer::json(status, &shown))
}

pub(super) fn get(call: &ResourceCall) -> Result<Response, ApiError> {
    let t = &call.target;
    if sub(call)? == Sub::Scale {
        return show(call, StatusCode::OK, &call.app.store.scale(call.gr(), &t.namespace, &t.name)?);
    }
    let object = call.app.store.get(call.gr(), &t.namespace, &t.name)?;
    show(call, StatusCode::OK, &object)
}

pub(super) fn list(call: &ResourceCall) -> Result<Response, ApiError> {
    let form = negotiate(&call.headers)?;
    let version = call.query.number("resourceVersion")?;
    let matching = call.query.get("resourceVersionMatch");
    let mut query = ListQuery {
        namespace: call.target.namespace.clone(),
        selector: selector(call)?,
        limit: usize::try_from(call.query.number("limit")?.unwrap_or(0)).unwrap_or(0),
        continue_token: call.query.get("continue").to_owned(),
        exact: version.filter(|_| matching == "Exact"),
        not_older: version.filter(|_| matching != "Exact"),
    };
    for effect in &call.effects {
        if let Effect::StaleList(behind) = effect {
            query.exact = Some(call.app.store.revision().saturating_sub(*behind));
        }
    }
    let result = call.app.store.query(call.gr(), &query)?;
    let mut metadata = json!({"resourceVersion": result.revision.to_string()});
    if let Some(token) = result.continue_token {
        metadata["continue"] = json!(token);
    }
    if let Some(remaining) = result.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let objects = result.items.iter().map(|o| &**o);
    let shown = match form {
        Form::Table => {
            let include = include_object(call.query.get("includeObject"))?;
            let mut t = table(&call.def, &call.version, objects, include, true, call.app.store.now());
            t["metadata"] = metadata;
            t
        }
        Form::Metadata => {
            let items: Vec<Value> = objects.map(partial_metadata).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        Form::Full => {
            let items: Vec<Value> = objects.map(|o| item(call, o)).collect();
            json!({"kind": call.def.list_kind, "apiVersion": call.api_version(), "metadata": metadata, "items": items})
        }
    };
    Ok(answer::json(StatusCode::OK, &shown))
}

/// An object within a list: of a built-in kind the list alone says which it is.
fn item(call: &ResourceCall, object: &Value) -> Value {
    let mut item = call.show(object);
    if let Some(fields) = item.as_object_mut().filter(|_| !call.def.custom) {
        fields.shift_remove("apiVersion");
        fields.shift_remove("kind");
    }
    item
}

fn written(call: &ResourceCall, w: &Written) -> Result<Response, ApiError> {
    let status = if w.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = show(call, status, &w.object)?;
    answer::warn(&mut response, &w.warnings);
    Ok(response)
}

pub(super) fn create(call: &ResourceCall, body: Value) -> Result<Response, ApiError> {
    let t = &call.target;
    if *call.gr() == SERVICEACCOUNTS && t.subresource == "token" {
        call.app.store.get(call.gr(), &t.namespace, &t.name)?;
        return Ok(reviews::token(&call.app.store, &t.namespace, &t.name, body));
    }
    if !t.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let mut object = call.take(body);
    // Clients may post to the collection of all namespaces if the object says where it belongs.
    let ns = if t.namespace.is_empty() { namespace(&object).to_owned() } else { t.namespace.clone() };
    if call.def.namespaced && ns.is_empty() {
        set(&mut object, &["metadata", "namespace"], Value::Null);
    }
    let w = call.app.store.create_full(call.gr(), &ns, object, &call.query.write_options(call.manager()))?;
    written(call, &w)
}

pub(super) fn update(call: &ResourceCall, body: Value) -> Result<Response, ApiError> {
    let t = &call.target;
    let mut object = call.take(body);
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type map)"));
    }
    let given = name(&object).to_owned();
    if given != t.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            t.name
        )));
    }
    if call.def.namespaced {
        let given = namespace(&object).to_owned();
        if !given.is_empty() && given != t.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        set(&mut object, &["metadata", "namespace"], json!(t.namespace));
    }
    let gr = call.gr();
    let conditional = call.def.custom || *gr == LEASES || *gr == CUSTOMRESOURCEDEFINITIONS;
    if conditional && str_at(&object, &["metadata", "resourceVersion"]).is_empty() {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(ApiError::invalid(&gr.group, &gr.resource, &t.name, &[cause]));
    }
    let w = call.app.store.update_full(
        call.gr(),
        sub(call)?,
        object,
        &call.query.write_options(call.manager()),
    )?;
    written(call, &w)
}

pub(super) fn patch(call: &ResourceCall, media_type: &str, body: Value) -> Result<Response, ApiError> {
    let t = &call.target;
    let patch = match media_type {
        "application/json-patch+json" => Patch::Json(body),
        "application/merge-patch+json" => Patch::Merge(call.take_patch(body)),
        "application/strategic-merge-patch+json" if !call.def.custom => {
            Patch::Strategic(call.take_patch(body))
        }
        "application/apply-patch+yaml" => Patch::Apply(call.take(body)),
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "the body of the request was in an unknown format ({other}) - accepted media types include: application/json-patch+json, \
                 application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
            )));
        }
    };
    let mut options = call.query.write_options(call.manager());
    if matches!(patch, Patch::Apply(_)) {
        // Apply must name its manager.
        options.field_manager = Some(call.query.get("fieldManager").to_owned());
    }
    let w = call.app.store.patch_full(call.gr(), &t.namespace, &t.name, sub(call)?, &patch, &options)?;
    written(call, &w)
}

impl ResourceCall {
    fn take_patch(&self, patch: Value) -> Value {
        if !self.as_events {
            return patch;
        }
        let mut patch = self.take(patch);
        if let Some(map) = patch.as_object_mut() {
            map.shift_remove("apiVersion");
        }
        patch
    }
}

pub(super) fn delete(call: &ResourceCall, body: &Value) -> Result<Response, ApiError> {
    let t = &call.target;
    if !t.subresource.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let options = call.query.delete_options(body)?;
    let before = call.app.store.get(call.gr(), &t.namespace, &t.name)?;
    match call.app.store.delete(call.gr(), &t.namespace, &t.name, &options)? {
        Some(left) => show(call, StatusCode::OK, &left),
        // Pods are shown as they were; everything else is told to be gone.
        None if *call.gr() == crate::resource::PODS => show(call, StatusCode::OK, &before),
        None => Ok(answer::json(StatusCode::OK, &deleted(call, &before))),
    }
}

fn deleted(call: &ResourceCall, object: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name(object), "group": call.def.gr.group, "kind": call.def.gr.resource, "uid": object["metadata"]["uid"]},
    })
}

pub(super) fn delete_collection(call: &ResourceCall, body: &Value) -> Result<Response, ApiError> {
    let options = call.query.delete_options(body)?;
    let query = ListQuery {
        namespace: call.target.namespace.clone(),
        selector: selector(call)?,
        ..ListQuery::default()
    };
    let found: Vec<Object> = call.app.store.query(call.gr(), &query)?.items;
    for object in &found {
        match call.app.store.delete(call.gr(), namespace(object), name(object), &options) {
            // Somebody was faster.
            Err(e) if e.is_not_found() => {}
            other => drop(other?),
        }
    }
    let items: Vec<Value> = found.iter().map(|o| call.show(o)).collect();
    let metadata = json!({"resourceVersion": call.app.store.revision().to_string()});
    Ok(answer::json(
        StatusCode::OK,
        &json!({"kind": call.def.list_kind, "apiVersion": call.api_version(), "metadata": metadata, "items": items}),
    ))
}
