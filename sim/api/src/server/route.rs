//! From a request to the code that answers it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::request::{Query, Target, parse_target};
use super::{App, answer, discovery, events, openapi, pods, reviews, verbs, watches};
use crate::error::ApiError;
use crate::faults::{Call, Effect, injected};
use crate::registry::{ResourceDef, Version};
use crate::resource::{EVENTS, Gr, PODS};

/// Bodies above this are refused, as etcd's limit does in a real cluster.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// A request for a resource, understood.
pub(super) struct ResourceCall {
    pub(super) app: App,
    pub(super) def: Arc<ResourceDef>,
    pub(super) version: Version,
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// True if the client speaks events.k8s.io and the store core/v1.
    pub(super) as_events: bool,
    pub(super) effects: Vec<Effect>,
    /// The call as the faults see it.
    pub(super) call: Call,
}

impl ResourceCall {
    /// The resource as the store knows it.
    pub(super) fn gr(&self) -> &Gr {
        &self.def.gr
    }

    /// Who writes, if the request does not say: the first word of the user agent.
    pub(super) fn manager(&self) -> &str {
        user_agent(&self.headers).split(['/', ' ']).next().filter(|w| !w.is_empty()).unwrap_or("unknown")
    }

    /// `apiVersion` of what the client sees.
    pub(super) fn api_version(&self) -> String {
        if self.as_events { "events.k8s.io/v1".into() } else { self.def.api_version(&self.version.name) }
    }

    /// The object in the version of the request.
    pub(super) fn show(&self, object: &Value) -> Value {
        if self.as_events {
            return events::from_core(object);
        }
        let mut shown = object.clone();
        if self.version.name != self.def.storage && shown["kind"] == json!(self.def.kind) {
            shown["apiVersion"] = json!(self.api_version());
        }
        shown
    }

    /// An object from the client in the form the store keeps.
    pub(super) fn take(&self, object: Value) -> Value {
        if self.as_events { events::to_core(&object) } else { object }
    }
}

fn user_agent(headers: &HeaderMap) -> &str {
    headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("")
}

pub(super) async fn handle(app: App, request: Request) -> Response {
    match answer(app, request).await {
        Ok(response) => response,
        Err(error) => answer::failure(&error),
    }
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    if let Some(response) = fixed(&app, &path, request.headers()) {
        return response;
    }
    let Some(target) = parse_target(&path) else { return Ok(nowhere()) };
    if reviews::is_review(&target) {
        let body = read_json(request).await?;
        return reviews::answer(&target, body);
    }
    let as_events = target.gr.group == "events.k8s.io" && target.gr.resource == "events";
    let gr = if as_events { EVENTS } else { target.gr.clone() };
    let def = app.store.resource(&gr);
    let version = match &def {
        Some(def) if as_events => Some(def.storage_version()),
        Some(def) => def.version(&target.version),
        None => None,
    };
    let (Some(def), Some(version)) = (&def, version.cloned()) else {
        let built_in = |def: &ResourceDef| !def.custom && def.gr.group == target.gr.group;
        let known = app.store.resources().iter().any(|def| built_in(def));
        return if known { Err(ApiError::no_such_path()) } else { Ok(nowhere()) };
    };
    let def = Arc::clone(def);
    if def.custom && !def.namespaced && !target.namespace.is_empty() {
        return Ok(nowhere());
    }

    let verb = verb(request.method(), &target, &query);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let call = Call { verb, resource: gr, user_agent: user_agent(request.headers()).to_owned(), peer };
    let effects = app.faults.take(&call);
    let mut lost = None;
    let mut partial = false;
    for effect in &effects {
        match effect {
            Effect::Fail(code) => return Err(injected(*code)),
            Effect::Delay(time) => tokio::time::sleep(*time).await,
            Effect::FailAfter(code) => lost = Some(*code),
            Effect::Gone if verb == "watch" => return Err(injected(410)),
            Effect::PartialList => partial = verb == "list",
            Effect::Unreachable => return Ok(answer::broken(Bytes::new())),
            _ => {}
        }
    }
    let call = ResourceCall {
        call,
        app,
        def,
        version,
        target,
        query,
        headers: request.headers().clone(),
        as_events,
        effects,
    };
    let response = dispatch(call, verb, request).await;
    match lost {
        Some(code) => Err(injected(code)),
        None if partial => break_off(response?).await,
        None => response,
    }
}

/// The answer to paths of groups, and of resources of custom groups, that are not there: nothing like an object.
fn nowhere() -> Response {
    answer::typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
}

/// The first half of an answer, then a broken connection.
async fn break_off(response: Response) -> Result<Response, ApiError> {
    let whole = response.into_body().collect().await.map_err(|_| injected(500))?.to_bytes();
    Ok(answer::broken(whole.slice(..whole.len() / 2)))
}

fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let watches = query.flag("watch");
    let connects = matches!(target.subresource.as_str(), "exec" | "attach" | "portforward");
    match (method.as_str(), target.name.is_empty()) {
        _ if connects => "connect",
        ("GET" | "HEAD", _) if watches => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

async fn dispatch(call: ResourceCall, verb: &'static str, request: Request) -> Result<Response, ApiError> {
    let known = matches!(call.target.subresource.as_str(), "" | "status" | "scale")
        || call.def.extra.contains(&call.target.subresource.as_str());
    if !known {
        return Err(ApiError::no_such_path());
    }
    if *call.gr() == PODS && !call.target.name.is_empty() {
        match call.target.subresource.as_str() {
            "exec" | "attach" | "portforward" => return super::streams::connect(call, request).await,
            "log" => return super::logs::answer(call).await,
            "binding" | "eviction" => return pods::answer(&call, &read_json(request).await?),
            _ => {}
        }
    }
    match verb {
        "get" => verbs::get(&call),
        "list" => verbs::list(&call),
        "watch" => watches::watch(call),
        "create" => verbs::create(&call, read_json(request).await?),
        "update" => verbs::update(&call, read_json(request).await?),
        "patch" => {
            let kind = media_type(request.headers());
            verbs::patch(&call, &kind, read_json(request).await?)
        }
        "delete" => verbs::delete(&call, &read_json(request).await?),
        "deletecollection" => verbs::delete_collection(&call, &read_json(request).await?),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Paths that are not resources.
fn fixed(app: &App, path: &str, headers: &HeaderMap) -> Option<Result<Response, ApiError>> {
    let path = path.trim_end_matches('/');
    let ok = |value: &Value| Some(Ok(answer::json(StatusCode::OK, value)));
    match path {
        "" => ok(
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        ),
        "/healthz" | "/livez" | "/readyz" => {
            Some(Ok(answer::typed(StatusCode::OK, "text/plain; charset=utf-8", "ok")))
        }
        "/version" => ok(&discovery::version()),
        _ => discovery::answer(&app.store, path, headers)
            .or_else(|| openapi::answer(&app.store, path, headers))
            .map(Ok),
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_lowercase()
}

/// Reads a JSON or YAML body; `Null` if it is empty.
async fn read_json(request: Request<Body>) -> Result<Value, ApiError> {
    let kind = media_type(request.headers());
    let body = http_body_util::Limited::new(request.into_body(), MAX_BODY_BYTES);
    let bytes = body.collect().await.map_err(|e| {
        let mut error = ApiError::bad_request(format!("error reading the request body: {e}"));
        if e.is::<http_body_util::LengthLimitError>() {
            error.code = 413;
            error.reason = "RequestEntityTooLarge";
        }
        error
    })?;
    let bytes = bytes.to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match kind.as_str() {
        ""
        | "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_request(format!("error decoding the request body: {e}"))),
        // JSON is YAML, but the JSON parser is better at it.
        "application/yaml" | "application/apply-patch+yaml" => serde_json::from_slice(&bytes)
            .or_else(|_| serde_yaml_ng::from_slice(&bytes))
            .map_err(|e| ApiError::bad_request(format!("error decoding the request body: {e}"))),
        "application/vnd.kubernetes.protobuf" => crate::protobuf::decode(&bytes)
            .map_err(|e| ApiError::bad_request(format!("error decoding the request body: {e}"))),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other}) - accepted media types include: application/json, application/yaml"
        ))),
    }
}
