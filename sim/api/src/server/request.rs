//! Paths and queries of requests.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;
use crate::options::{DeleteOptions, FieldValidation, Propagation, WriteOptions};
use crate::resource::Gr;

/// A path below `/api` or `/apis`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) gr: Gr,
    pub(super) version: String,
    /// Empty for resources of the cluster and for "all namespaces".
    pub(super) namespace: String,
    /// Empty for the collection.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

/// Takes a resource path apart; `None` if it is none.
pub(super) fn parse_target(path: &str) -> Option<Target> {
    let mut parts =
        path.trim_matches('/').split('/').map(decode).collect::<Vec<String>>().into_iter().peekable();
    let group = match parts.next()?.as_str() {
        "api" => String::new(),
        "apis" => parts.next()?,
        _ => return None,
    };
    let version = parts.next()?;
    let rest: Vec<String> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        // `namespaces/x` and its subresources are about the namespace itself.
        [first, ns, third, ..]
            if first == "namespaces"
                && !(group.is_empty()
                    && matches!(third.as_str(), "status" | "finalize")
                    && rest.len() == 3) =>
        {
            (ns.clone(), &rest[2..])
        }
        all => (String::new(), all),
    };
    let (resource, name, subresource) = match rest {
        [r] => (r.clone(), String::new(), String::new()),
        [r, n] => (r.clone(), n.clone(), String::new()),
        [r, n, s] => (r.clone(), n.clone(), s.clone()),
        _ => return None,
    };
    Some(Target { gr: Gr::of(group, resource), version, namespace, name, subresource })
}

/// Percent-decoding.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The query of a request; keys may repeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |t: &str| decode(&t.replace('+', " "));
            map.entry(plus(key)).or_default().push(plus(value));
        }
        Self(map)
    }

    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|v| v.first()).map_or("", String::as_str)
    }

    pub(super) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "true" | "1") || self.has(key) && self.get(key).is_empty()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        match self.get(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_request(format!("invalid value for {key}: \"{text}\""))),
        }
    }

    /// Options of a write; `manager` is used if the request names none.
    pub(super) fn write_options(&self, manager: &str) -> WriteOptions {
        let named = self.get("fieldManager");
        WriteOptions {
            dry_run: self.get("dryRun") == "All",
            field_manager: Some(if named.is_empty() { manager } else { named }.to_owned()),
            force: self.flag("force"),
            field_validation: match self.get("fieldValidation") {
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                _ => FieldValidation::Warn,
            },
        }
    }

    /// Options of a delete, from the query and a `DeleteOptions` body.
    pub(super) fn delete_options(&self, body: &Value) -> Result<DeleteOptions, ApiError> {
        let text = |key: &str| {
            body.get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .or_else(|| Some(self.get(key).to_owned()).filter(|s| !s.is_empty()))
        };
        let propagation = match text("propagationPolicy").as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                return Err(ApiError::bad_request(format!("invalid propagationPolicy: \"{other}\"")));
            }
        };
        let orphan = body
            .get("orphanDependents")
            .and_then(Value::as_bool)
            .unwrap_or_else(|| self.flag("orphanDependents"));
        let grace = match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
            Some(n) => Some(n),
            None => self.number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok()),
        };
        let precondition = |key: &str| {
            body.get("preconditions").and_then(|p| p.get(key)).and_then(Value::as_str).map(str::to_owned)
        };
        let dry = body.get("dryRun").and_then(Value::as_array).is_some_and(|d| !d.is_empty());
        Ok(DeleteOptions {
            grace_period_s: grace,
            propagation: propagation.or(orphan.then_some(Propagation::Orphan)),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: dry || self.get("dryRun") == "All",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expect: [&str; 6]| {
            let t = parse_target(path).unwrap();
            let got = [
                t.gr.group.as_ref(),
                &t.version,
                t.gr.resource.as_ref(),
                &t.namespace,
                &t.name,
                &t.subresource,
            ];
            assert_eq!(got, expect, "{path}");
        };
        check("/api/v1/pods", ["", "v1", "pods", "", "", ""]);
        check("/api/v1/namespaces/x/pods/p/log", ["", "v1", "pods", "x", "p", "log"]);
        check("/api/v1/namespaces/x", ["", "v1", "namespaces", "", "x", ""]);
        check("/api/v1/namespaces/x/finalize", ["", "v1", "namespaces", "", "x", "finalize"]);
        check("/api/v1/namespaces/x/status", ["", "v1", "namespaces", "", "x", "status"]);
        check("/apis/apps/v1/namespaces/x/deployments", ["apps", "v1", "deployments", "x", "", ""]);
        check("/api/v1/nodes/a%2Fb", ["", "v1", "nodes", "", "a/b", ""]);
        assert_eq!(parse_target("/healthz"), None);
        assert_eq!(parse_target("/api/v1"), None);
    }

    #[test]
    fn queries() {
        let q = Query::parse("labelSelector=a%3Db%2Cc&command=ls&command=-l&stdin&watch=1&x=a+b");
        assert_eq!(q.get("labelSelector"), "a=b,c");
        assert_eq!(q.all("command"), ["ls", "-l"]);
        assert!(q.flag("stdin") && q.flag("watch") && !q.flag("tty"));
        assert_eq!(q.get("x"), "a b");
        assert!(Query::parse("limit=x").number("limit").is_err());
    }
}
