//! Lists: in pages, at a revision, selected.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use serde_json::{Value, json};

use super::core::{Core, Key};
use super::{ChangeKind, Object};
use crate::error::ApiError;
use crate::object::{int_at, name, namespace, str_at};
use crate::resource::Gr;
use crate::selector::Selector;

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this namespace; all if empty.
    pub namespace: String,
    /// Only these objects.
    pub selector: Selector,
    /// At most this many; 0: all.
    pub limit: usize,
    /// Where the page before ended.
    pub continue_token: String,
    /// The state of exactly this revision.
    pub exact: Option<u64>,
    /// The state of this revision or a later one.
    pub not_older: Option<u64>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListResult {
    /// By namespace and name.
    pub items: Vec<Object>,
    /// The revision whose state it is.
    pub revision: u64,
    /// Where the next page begins, if there is more.
    pub continue_token: Option<String>,
    /// How many more there are (only for lists without selector).
    pub remaining: Option<usize>,
}

impl Core {
    pub(super) fn list(&self, r: &Gr, namespace: &str) -> Vec<Object> {
        let Some(all) = self.objects.get(r) else { return Vec::new() };
        if namespace.is_empty() {
            return all.values().cloned().collect();
        }
        let from: Key = (namespace.to_owned(), String::new());
        all.range(from..).take_while(|((n, _), _)| n == namespace).map(|(_, o)| o.clone()).collect()
    }

    pub(super) fn query(&self, r: &Gr, query: &ListQuery) -> Result<ListResult, ApiError> {
        self.def(r)?;
        let start = if query.continue_token.is_empty() { None } else { Some(decode(&query.continue_token)?) };
        let current = self.revision();
        let wanted = start.as_ref().map(|(rev, _)| *rev).or(query.exact);
        if let Some(revision) = wanted.or(query.not_older).filter(|rev| *rev > current) {
            return Err(ApiError {
                code: 504,
                reason: "Timeout",
                message: format!("Too large resource version: {revision}, current: {current}"),
                details: Some(Box::new(
                    json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1}),
                )),
                retry_after_s: Some(1),
            });
        }
        let revision = wanted.unwrap_or(current);
        let then;
        let state = if revision == current {
            self.objects.get(r)
        } else {
            then = self.state_at(r, revision).map_err(|e| match &start {
                Some(_) => ApiError::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."),
                None => e,
            })?;
            Some(&then)
        };
        let from = start.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key));
        let range = state.into_iter().flat_map(|s| s.range((from.clone(), Bound::Unbounded)));
        let mut matching = range
            .map(|(_, o)| o)
            .filter(|o| query.namespace.is_empty() || namespace(o) == query.namespace)
            .filter(|o| query.selector.matches(o));
        let items: Vec<Object> = if query.limit == 0 {
            matching.by_ref().cloned().collect()
        } else {
            matching.by_ref().take(query.limit).cloned().collect()
        };
        let rest = matching.count();
        let continue_token = items.last().filter(|_| rest > 0).map(|last| encode(revision, last));
        let remaining = (rest > 0 && query.selector.is_everything()).then_some(rest);
        Ok(ListResult { items, revision, continue_token, remaining })
    }

    /// The objects of a resource as they were at a revision, by undoing what came after.
    fn state_at(&self, r: &Gr, revision: u64) -> Result<BTreeMap<Key, Object>, ApiError> {
        let mut state = self.objects.get(r).cloned().unwrap_or_default();
        for change in self.changes(revision)?.rev().filter(|c| c.resource == *r) {
            let key = (namespace(&change.object).to_owned(), name(&change.object).to_owned());
            match (&change.kind, &change.previous) {
                (ChangeKind::Added, _) | (_, None) => {
                    state.remove(&key);
                }
                (_, Some(previous)) => {
                    state.insert(key, previous.clone());
                }
            }
        }
        Ok(state)
    }
}

fn encode(revision: u64, last: &Value) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "ns": namespace(last), "start": name(last)});
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode(token: &str) -> Result<(u64, Key), ApiError> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok();
    let value: Option<Value> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
    let value = value.ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
    let revision = int_at(&value, &["rv"])
        .and_then(|n| u64::try_from(n).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
    Ok((revision, (str_at(&value, &["ns"]).to_owned(), str_at(&value, &["start"]).to_owned())))
}
