//! Server-side apply: merge a configuration into the live object, field by field, with owners.

use serde_json::{Map, Value};

use super::set::element;
use super::{Entry, FieldSet, Writer, compare, decode, encode, owned_fields, strip};
use crate::schema::{ListType, Schema};

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: &'static str,
    /// Version and time of its last write, for updates.
    pub using: String,
    /// The field, for example `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the configuration changes.
    #[error("conflicts with other field managers")]
    Conflicts(Vec<Conflict>),
}

/// Applies `config` to `live` (`Null` if there is no object yet).
///
/// # Errors
/// Another manager owns a field with another value and `force` is not set.
pub fn apply(
    live: &Value,
    config: &Value,
    schema: Schema<'_>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let mut entries = decode(live);
    let wanted = owned_fields(config, schema);
    let mine = entries
        .iter()
        .position(|e| e.apply && e.manager == writer.manager && e.subresource == writer.subresource);
    let before = mine.map(|i| entries.remove(i));

    let mut merged = merge(live, config, schema);
    let (changed, _) = compare(live, &merged, schema);
    let changed = strip(changed);
    let conflicts: Vec<Conflict> = entries.iter().flat_map(|e| conflicts(e, &changed)).collect();
    if !conflicts.is_empty() {
        if !force {
            return Err(ApplyError::Conflicts(conflicts));
        }
        for entry in &mut entries {
            entry.fields = entry.fields.minus(&changed);
        }
    }
    if let Some(before) = &before {
        let keep = entries.iter().fold(wanted.clone(), |all, e| all.union(&e.fields));
        prune(&mut merged, &before.fields.minus(&wanted), Some(&keep), schema);
    }
    // The time stays unless something changed, so that a repeated apply is no change.
    let time = before
        .filter(|b| b.fields == wanted && changed.is_empty())
        .map_or_else(|| writer.time.to_owned(), |b| b.time);
    entries.push(Entry {
        manager: writer.manager.to_owned(),
        apply: true,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time,
        fields: wanted,
    });
    encode(&mut merged, entries);
    Ok(merged)
}

fn conflicts(entry: &Entry, changed: &FieldSet) -> Vec<Conflict> {
    let both = entry.fields.intersection(changed);
    let using = if entry.apply { String::new() } else { format!("{} at {}", entry.api_version, entry.time) };
    both.paths()
        .into_iter()
        .map(|field| Conflict {
            manager: entry.manager.clone(),
            operation: if entry.apply { "Apply" } else { "Update" },
            using: using.clone(),
            field,
        })
        .collect()
}

/// `config` laid over `live`.
fn merge(live: &Value, config: &Value, schema: Schema<'_>) -> Value {
    match (live, config) {
        (Value::Object(a), Value::Object(b)) if !schema.is_atomic_map() => {
            let mut result = a.clone();
            for (key, value) in b {
                let merged = merge(a.get(key).unwrap_or(&Value::Null), value, schema.field_or_open(key));
                result.insert(key.clone(), merged);
            }
            Value::Object(result)
        }
        (Value::Array(a), Value::Array(b)) => match schema.list_type() {
            ListType::Atomic => config.clone(),
            list => merge_list(a, b, &list, schema.items()),
        },
        _ => config.clone(),
    }
}

fn merge_list(live: &[Value], config: &[Value], list: &ListType<'_>, items: Schema<'_>) -> Value {
    let find = |among: &[Value], key: &str| among.iter().find(|v| element(v, list) == key).cloned();
    let mut result: Vec<Value> = live
        .iter()
        .map(|old| match find(config, &element(old, list)) {
            Some(new) => merge(old, &new, items),
            None => old.clone(),
        })
        .collect();
    for new in config {
        if find(live, &element(new, list)).is_none() {
            result.push(new.clone());
        }
    }
    // If the configuration names every element its order counts.
    if config.len() == result.len() {
        let rank = |v: &Value| config.iter().position(|c| element(c, list) == element(v, list));
        result.sort_by_key(rank);
    }
    Value::Array(result)
}

/// Removes the fields in `gone` that `keep` does not have.
fn prune(value: &mut Value, gone: &FieldSet, keep: Option<&FieldSet>, schema: Schema<'_>) {
    match value {
        Value::Object(map) if !schema.is_atomic_map() => prune_map(map, gone, keep, schema),
        Value::Array(list) => {
            let kind = schema.list_type();
            if kind == ListType::Atomic {
                return;
            }
            list.retain_mut(|item| {
                let key = element(item, &kind);
                let Some(gone) = gone.child(&key) else { return true };
                let keep = keep.and_then(|k| k.child(&key));
                if gone.is_member() && keep.is_none_or(FieldSet::is_empty) {
                    return false;
                }
                prune(item, gone, keep, schema.items());
                true
            });
        }
        _ => {}
    }
}

fn prune_map(map: &mut Map<String, Value>, gone: &FieldSet, keep: Option<&FieldSet>, schema: Schema<'_>) {
    let keys: Vec<String> = map.keys().cloned().collect();
    for key in keys {
        let step = format!("f:{key}");
        let Some(gone) = gone.child(&step) else { continue };
        let keep = keep.and_then(|k| k.child(&step));
        if gone.is_member() && keep.is_none_or(FieldSet::is_empty) {
            map.shift_remove(&key);
            continue;
        }
        if let Some(child) = map.get_mut(&key) {
            prune(child, gone, keep, schema.field_or_open(&key));
            // A struct or list that is empty now was there only for the fields that are gone.
            let empty =
                child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
            if empty && keep.is_none_or(FieldSet::is_empty) {
                map.shift_remove(&key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "calls of test tables read better with plain values")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::managed::record_update;

    const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, api_version: "apps/v1", subresource: "", time: "2026-01-01T00:00:00Z" }
    }

    fn applied(live: &Value, config: Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        apply(live, &config, Schema::builtin(DEPLOYMENT), &writer(manager), force)
    }

    fn config(replicas: Option<i64>, labels: Value) -> Value {
        let mut c = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels}, "spec": {}});
        if let Some(r) = replicas {
            c["spec"]["replicas"] = json!(r);
        }
        c
    }

    #[test]
    fn fields_that_are_left_out_later_go_away() {
        let live = applied(&Value::Null, config(Some(2), json!({"a": "1", "b": "2"})), "one", false).unwrap();
        let live = applied(&live, config(None, json!({"a": "1"})), "one", false).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"a": "1"}));
        assert!(live["spec"].get("replicas").is_none());
    }

    #[test]
    fn a_shared_field_stays_until_nobody_wants_it() {
        let live = applied(&Value::Null, config(Some(2), json!({})), "one", false).unwrap();
        let live = applied(&live, config(Some(2), json!({})), "two", false).unwrap();
        let live = applied(&live, config(None, json!({})), "one", false).unwrap();
        assert_eq!(live["spec"]["replicas"], 2);
    }

    #[test]
    fn conflicts_name_manager_and_field_and_force_takes_over() {
        let mut live = applied(&Value::Null, config(Some(2), json!({})), "one", false).unwrap();
        let old = live.clone();
        live["spec"]["replicas"] = json!(5);
        record_update(Some(&old), &mut live, Schema::builtin(DEPLOYMENT), &writer("scaler"));
        let ApplyError::Conflicts(c) = applied(&live, config(Some(2), json!({})), "one", false).unwrap_err();
        assert_eq!(
            (c[0].manager.as_str(), c[0].field.as_str(), c[0].operation),
            ("scaler", ".spec.replicas", "Update")
        );
        let live = applied(&live, config(Some(2), json!({})), "one", true).unwrap();
        assert_eq!(live["spec"]["replicas"], 2);
        assert!(applied(&live, config(Some(2), json!({})), "one", false).is_ok());
    }

    #[test]
    fn repeating_an_apply_changes_nothing() {
        let once = applied(&Value::Null, config(Some(2), json!({"a": "1"})), "one", false).unwrap();
        let later = Writer { time: "2026-01-01T00:01:00Z", ..writer("one") };
        let twice =
            apply(&once, &config(Some(2), json!({"a": "1"})), Schema::builtin(DEPLOYMENT), &later, false)
                .unwrap();
        assert_eq!(once, twice);
    }
}
