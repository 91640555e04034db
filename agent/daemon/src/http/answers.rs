//! Answers that are errors: a status and one sentence.

use super::error;
use crate::control::StoppedError;
use axum::http::StatusCode;
use axum::response::Response;
use dataplane_loader::TableError;

/// What a handler returns.
pub(super) type Answer = Result<Response, Response>;

pub(super) fn not_found(text: &str) -> Response {
    error(StatusCode::NOT_FOUND, text)
}

pub(super) fn bad_request(text: &str) -> Response {
    error(StatusCode::BAD_REQUEST, text)
}

#[expect(clippy::needless_pass_by_value, reason = "used as the function of map_err")]
pub(super) fn stopping(problem: StoppedError) -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, &format!("{problem}; try again when it is back"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as the function of map_err")]
pub(super) fn internal(problem: tokio::task::JoinError) -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, &format!("a mistake in the agent: {problem}"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as the function of map_err")]
pub(super) fn unreadable(problem: TableError) -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, &problem.to_string())
}
