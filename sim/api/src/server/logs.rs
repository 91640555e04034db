//! `pods/log`.

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::answer;
use super::route::ResourceCall;
use super::streams::{choose_container, pod_ref, runtime_error};
use crate::error::ApiError;
use crate::object::{list_at, name, str_at};
use crate::resource::PODS;
use crate::runtime::{LogLine, LogRequest};

pub(super) async fn answer(call: ResourceCall) -> Result<Response, ApiError> {
    let query = &call.query;
    let pod = call.app.store.get(&PODS, &call.target.namespace, &call.target.name)?;
    let container = choose_container(&pod, query.get("container"))?;
    let since = match (query.get("sinceTime"), query.number("sinceSeconds")?) {
        ("", None) => None,
        ("", Some(seconds)) => {
            let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            call.app.store.now().checked_sub(back).ok()
        }
        (time, _) => Some(
            time.parse::<Timestamp>()
                .map_err(|e| ApiError::bad_request(format!("invalid sinceTime: {e}")))?,
        ),
    };
    let request = LogRequest {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: query.number("tailLines")?,
        since,
        container: container.clone(),
    };
    let timestamps = query.flag("timestamps");
    let limit = query.number("limitBytes")?;
    if !request.previous
        && let Some(reason) = waiting(&pod, &container)
    {
        return Err(ApiError::bad_request(format!(
            "container \"{container}\" in pod \"{}\" is waiting to start: {reason}",
            name(&pod)
        )));
    }
    let lines = call.app.runtime.logs(pod_ref(&pod)?, request).await.map_err(|e| runtime_error(&e))?;
    let text = lines.map(move |line| encode(&line, timestamps));
    let body = match limit {
        None => Body::from_stream(text.map(Ok::<Bytes, std::io::Error>)),
        Some(limit) => {
            let cut = stream::unfold(
                (Box::pin(text), usize::try_from(limit).unwrap_or(usize::MAX)),
                |(mut text, left)| async move {
                    if left == 0 {
                        return None;
                    }
                    let mut piece = text.next().await?;
                    piece.truncate(left);
                    let left = left - piece.len();
                    Some((Ok::<Bytes, std::io::Error>(piece), (text, left)))
                },
            );
            Body::from_stream(cut)
        }
    };
    Ok(answer::typed(StatusCode::OK, "text/plain", body))
}

fn encode(line: &LogLine, timestamps: bool) -> Bytes {
    if !timestamps {
        return line.text.clone();
    }
    let mut out = BytesMut::from(line.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
    out.extend_from_slice(&line.text);
    out.freeze()
}

/// Why a container has not started, if it has not.
fn waiting(pod: &serde_json::Value, container: &str) -> Option<String> {
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let mut all = statuses.iter().flat_map(|s| list_at(pod, &["status", s]));
    let status = all.find(|c| str_at(c, &["name"]) == container)?;
    let reason = str_at(status, &["state", "waiting", "reason"]);
    let ran = status["lastState"].get("terminated").is_some();
    (!reason.is_empty() && !ran).then(|| reason.to_owned())
}
