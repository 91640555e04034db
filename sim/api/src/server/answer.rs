//! Answers: objects, tables, statuses.

use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::error::ApiError;
use crate::table::IncludeObject;

/// The form in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Full,
    /// As rows of a table.
    Table,
    /// Type and metadata only.
    Metadata,
}

/// Chooses the form from `Accept`; the first type we can make wins.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Form, ApiError> {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Ok(Form::Full);
    }
    for media in accept.split(',') {
        let mut parts = media.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        if !matches!(kind, "application/json" | "*/*" | "application/*" | "application/yaml") {
            continue;
        }
        let wanted = parts.find_map(|p| p.strip_prefix("as="));
        match wanted {
            None => return Ok(Form::Full),
            Some("Table") => return Ok(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    Err(ApiError::not_acceptable(
        "only the following media types are accepted: application/json, application/yaml",
    ))
}

/// Which part of the object a table row carries.
pub(super) fn include_object(text: &str) -> Result<IncludeObject, ApiError> {
    match text {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => Err(ApiError::bad_request(format!("invalid includeObject: \"{other}\""))),
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    typed(status, "application/json", value.to_string())
}

/// An answer of a given media type.
pub(super) fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer that breaks off after these bytes.
pub(super) fn broken(bytes: Bytes) -> Response {
    let first = (!bytes.is_empty()).then_some(Ok(bytes));
    let end = Err(io::Error::new(io::ErrorKind::ConnectionReset, "injected fault"));
    let body = Body::from_stream(stream::iter(first.into_iter().chain([end])));
    typed(StatusCode::OK, "application/json", body)
}

/// A failure.
pub(super) fn failure(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &error.to_status());
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers (RFC 7234, code 299), which kubectl and kube-rs show.
pub(super) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
