//! Kinds that are asked and never kept: access reviews, token reviews, tokens. Everybody may do everything.

use axum::response::Response;
use base64::Engine as _;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::answer;
use super::request::Target;
use crate::clock::rfc3339;
use crate::error::ApiError;
use crate::object::{int_at, set, str_at};
use crate::store::Store;

/// Group, version, plural, kind, namespaced.
pub(super) const REVIEWS: &[(&str, &str, &str, &str, bool)] = &[
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", false),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", false),
    ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false),
];

fn find(target: &Target) -> Option<&'static str> {
    REVIEWS
        .iter()
        .find(|r| target.gr.group == r.0 && target.version == r.1 && target.gr.resource == r.2)
        .map(|r| r.3)
}

pub(super) fn is_review(target: &Target) -> bool {
    find(target).is_some()
}

pub(super) fn answer(target: &Target, body: Value) -> Result<Response, ApiError> {
    let kind = find(target).ok_or_else(ApiError::no_such_path)?;
    if !body.is_object() {
        return Err(ApiError::method_not_allowed());
    }
    let user = json!({"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]});
    let status = match kind {
        "SelfSubjectReview" => json!({"userInfo": user}),
        "TokenReview" => json!({"authenticated": true, "user": user}),
        "SelfSubjectRulesReview" => json!({
            "incomplete": false,
            "resourceRules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
            "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
        }),
        _ => json!({"allowed": true, "reason": "everybody may do everything here"}),
    };
    let mut review = body;
    review["kind"] = json!(kind);
    review["apiVersion"] = json!(format!("{}/{}", target.gr.group, target.version));
    set(&mut review, &["status"], status);
    Ok(answer::json(StatusCode::CREATED, &review))
}

/// A token for a service account: it has the form of one and nobody checks it.
pub(super) fn token(store: &Store, ns: &str, account: &str, body: Value) -> Response {
    let mut request = if body.is_object() { body } else { json!({}) };
    let seconds = int_at(&request, &["spec", "expirationSeconds"]).unwrap_or(3600);
    let end = store.now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or_else(|_| store.now());
    let part = |v: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
    let head = part(&json!({"alg": "none", "typ": "JWT"}));
    let claims =
        part(&json!({"sub": format!("system:serviceaccount:{ns}:{account}"), "exp": end.as_second()}));
    if str_at(&request, &["kind"]).is_empty() {
        request["kind"] = json!("TokenRequest");
    }
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    set(&mut request, &["metadata"], json!({"name": account, "namespace": ns}));
    set(&mut request, &["spec", "expirationSeconds"], json!(seconds));
    set(
        &mut request,
        &["status"],
        json!({"token": format!("{head}.{claims}."), "expirationTimestamp": rfc3339(end)}),
    );
    answer::json(StatusCode::CREATED, &request)
}
