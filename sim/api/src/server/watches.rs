//! Watches over HTTP.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{Form, include_object, negotiate};
use super::route::ResourceCall;
use super::shape::Shape;
use super::verbs::selector;
use crate::error::ApiError;
use crate::faults::{Effect, Running};
use crate::store::{ChangeKind, ListQuery, WatchEvent, Watcher};
use crate::table::{IncludeObject, partial_metadata, table};

/// How often a client that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// Longest life of a watch whose client names none; real servers choose between 30 and 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// Marks the bookmark after which a client has everything (KEP-3157).
const INITIAL_END: &str = "k8s.io/initial-events-end";

pub(super) fn watch(call: ResourceCall) -> Result<Response, ApiError> {
    let form = negotiate(&call.headers)?;
    let include = include_object(call.query.get("includeObject"))?;
    let selector = selector(&call)?;
    let store = call.app.store.clone();
    let given = call.query.number("resourceVersion")?;
    let initial = call.query.get("sendInitialEvents") == "true";
    if initial && call.query.get("resourceVersionMatch") != "NotOlderThan" {
        return Err(ApiError::bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let without = call.query.get("sendInitialEvents") == "false";
    let mut first = Vec::new();
    let start = match given {
        // "Get state and start at any": the present objects come as events first.
        None | Some(0) if !without => {
            let list = store.query(
                call.gr(),
                &ListQuery {
                    namespace: call.target.namespace.clone(),
                    selector: selector.clone(),
                    ..ListQuery::default()
                },
            )?;
            let added = |object: &_| WatchEvent {
                kind: ChangeKind::Added,
                object: std::sync::Arc::clone(object),
                revision: list.revision,
            };
            first.extend(list.items.iter().map(added));
            list.revision
        }
        Some(revision) if initial => {
            let list = store.query(
                call.gr(),
                &ListQuery {
                    namespace: call.target.namespace.clone(),
                    selector: selector.clone(),
                    not_older: Some(revision),
                    ..ListQuery::default()
                },
            )?;
            let added = |object: &_| WatchEvent {
                kind: ChangeKind::Added,
                object: std::sync::Arc::clone(object),
                revision: list.revision,
            };
            first.extend(list.items.iter().map(added));
            list.revision
        }
        None | Some(0) => store.revision(),
        // A revision of another life of this server: the client must list again.
        Some(revision) if revision > store.revision() => {
            return Err(ApiError::expired(format!("too large resource version: {revision}")));
        }
        Some(revision) => revision,
    };
    let timeout =
        call.query.number("timeoutSeconds")?.filter(|s| *s > 0).map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let watcher = store.watch(call.gr(), &call.target.namespace, selector, start);
    let copies = if call.effects.contains(&Effect::Duplicate) { 2 } else { 1 };
    let shape = Shape::of(&call.effects);
    let running = call.app.faults.running(call.call.clone());
    let mut queue: Vec<Bytes> = Vec::new();
    let mut encoder = Encoder { form, include, columns: true, copies, call };
    encoder.events(first, &mut queue);
    if initial {
        queue.push(encoder.bookmark(start, true));
    }
    let bookmarks = encoder.call.query.flag("allowWatchBookmarks");
    let over = encoder.call.effects.contains(&Effect::Expired);
    if over {
        let expired = ApiError::expired("injected fault");
        queue = vec![line(&json!({"type": "ERROR", "object": expired.to_status()}))];
    }
    let state = State {
        changed: store.subscribe(),
        running,
        end: Instant::now() + timeout,
        next_bookmark: bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
        watcher,
        encoder,
        queue,
        shape,
        over,
    };
    let body = Body::from_stream(stream::unfold(state, State::next));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct State {
    watcher: Watcher,
    encoder: Encoder,
    changed: watch::Receiver<u64>,
    running: Running,
    end: Instant,
    next_bookmark: Option<Instant>,
    queue: Vec<Bytes>,
    shape: Shape,
    over: bool,
}

impl State {
    /// The next piece of the stream: all events that are waiting, in one write.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if !self.queue.is_empty() {
                let piece = Bytes::from(self.queue.concat());
                self.queue.clear();
                return Some((Ok(piece), self));
            }
            if self.over {
                return None;
            }
            // Marked as seen before polling: a change in between wakes us again.
            self.changed.borrow_and_update();
            match self.watcher.poll() {
                Ok(mut events) => {
                    if !self.shape.gather.is_zero() && !events.is_empty() {
                        tokio::time::sleep(self.shape.gather).await;
                        events.extend(self.watcher.poll().unwrap_or_default());
                    }
                    self.shape.push(events, Instant::now());
                    self.encoder.events(self.shape.due(Instant::now()), &mut self.queue);
                }
                Err(gone) => {
                    self.queue.push(line(&json!({"type": "ERROR", "object": gone.to_status()})));
                    self.over = true;
                }
            }
            if !self.queue.is_empty() {
                continue;
            }
            let late = self.shape.next_due();
            // A bookmark before late events would say that the client has them.
            let bookmark = self.next_bookmark.filter(|_| late.is_none());
            let wake = [bookmark, late].into_iter().flatten().fold(self.end, Instant::min);
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = self.running.cut() => {
                    self.over = true;
                    return Some((Err(io::Error::new(io::ErrorKind::ConnectionReset, "watch cut")), self));
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.end {
                        return None;
                    }
                    if late.is_some() {
                        continue;
                    }
                    let bookmark = self.encoder.bookmark(self.watcher.revision(), false);
                    self.queue.push(bookmark);
                    self.next_bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                }
            }
        }
    }
}

struct Encoder {
    call: ResourceCall,
    form: Form,
    include: IncludeObject,
    /// The next table carries the columns.
    columns: bool,
    copies: usize,
}

impl Encoder {
    fn events(&mut self, events: Vec<WatchEvent>, queue: &mut Vec<Bytes>) {
        for event in events {
            let kind = match event.kind {
                ChangeKind::Added => "ADDED",
                ChangeKind::Modified => "MODIFIED",
                ChangeKind::Deleted => "DELETED",
            };
            let object = self.object(&event.object);
            let text = line(&json!({"type": kind, "object": object}));
            queue.extend(std::iter::repeat_n(text, self.copies));
        }
    }

    fn object(&mut self, object: &Value) -> Value {
        match self.form {
            Form::Full => self.call.show(object),
            Form::Metadata => partial_metadata(object),
            Form::Table => {
                let now = self.call.app.store.now();
                let mut t = table(
                    &self.call.def,
                    &self.call.version,
                    [object].into_iter(),
                    self.include,
                    self.columns,
                    now,
                );
                t["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
                self.columns = false;
                t
            }
        }
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let mut object = json!({"kind": self.call.def.kind, "apiVersion": self.call.api_version(), "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        if initial_end {
            object["metadata"]["annotations"] = json!({INITIAL_END: "true"});
        }
        let object = match self.form {
            Form::Full => object,
            Form::Metadata => partial_metadata(&object),
            Form::Table => {
                let mut t = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": [], "rows": []});
                if initial_end {
                    t["rows"] = json!([{"cells": [], "object": object}]);
                }
                t
            }
        };
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}

fn line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    Bytes::from(text)
}
