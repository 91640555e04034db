//! Tables of custom resources: the printer columns of their CRD.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age, column};
use crate::object::{at, name};
use crate::registry::Version;

pub(super) fn columns(version: &Version) -> Vec<Column> {
    let mut all = vec![column("Name", 0)];
    if version.columns.is_empty() {
        all.push(column("Age", 0));
    }
    all.extend(version.columns.iter().map(|c| Column {
        name: c.name.clone(),
        kind: c.kind.clone(),
        format: c.format.clone(),
        description: c.description.clone(),
        priority: c.priority,
    }));
    all
}

pub(super) fn cells(version: &Version, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = vec![json!(name(object))];
    if version.columns.is_empty() {
        all.push(json!(age(at(object, &["metadata", "creationTimestamp"]), now)));
    }
    for c in &version.columns {
        let found = select(object, &c.path);
        all.push(match (c.kind.as_str(), found.as_slice()) {
            (_, []) => Value::Null,
            ("date", [first, ..]) => json!(age(first, now)),
            ("string", [Value::String(one)]) => json!(one),
            ("string", [one]) => json!(one.to_string()),
            ("string", many) => {
                let list: Vec<String> =
                    many.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
                json!(list.join(","))
            }
            (_, [first, ..]) => (*first).clone(),
        });
    }
    all
}

/// The values at a JSON path of the simple kind that printer columns use: `.a.b`, `.a['b']`, `.a[0]`, `.a[*].b`,
/// `.a[?(@.type=="Ready")].status`.
fn select<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut here = vec![object];
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('.') {
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            // A dot in a field name is written as `\.`.
            let mut end = end;
            while end < tail.len() && tail[..end].ends_with('\\') {
                end = tail[end + 1..].find(['.', '[']).map_or(tail.len(), |e| end + 1 + e);
            }
            let key = tail[..end].replace('\\', "");
            if !key.is_empty() {
                here = here.into_iter().filter_map(|v| v.get(&key)).collect();
            }
            rest = &tail[end..];
        } else if let Some(tail) = rest.strip_prefix('[') {
            let Some(end) = tail.find(']') else { return Vec::new() };
            here = bracket(&here, &tail[..end]);
            rest = &tail[end + 1..];
        } else {
            return Vec::new();
        }
    }
    here.retain(|v| !v.is_null());
    here
}

fn bracket<'a>(here: &[&'a Value], inside: &str) -> Vec<&'a Value> {
    let lists = here.iter().filter_map(|v| v.as_array());
    if inside == "*" {
        return lists.flatten().collect();
    }
    if let Some(condition) = inside.strip_prefix("?(@.").and_then(|c| c.strip_suffix(')')) {
        let Some((key, wanted)) = condition.split_once("==") else { return Vec::new() };
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        return lists
            .flatten()
            .filter(|v| v.get(key.trim()).and_then(Value::as_str) == Some(wanted))
            .collect();
    }
    if let Ok(index) = inside.parse::<usize>() {
        return lists.filter_map(|l| l.get(index)).collect();
    }
    let key = inside.trim_matches(['"', '\'']);
    here.iter().filter_map(|v| v.get(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_paths() {
        let o = json!({"spec": {"n": 3, "a.b": "x", "l": [{"t": "A", "s": 1}, {"t": "B", "s": 2}]}});
        assert_eq!(select(&o, ".spec.n"), [&json!(3)]);
        assert_eq!(select(&o, ".spec.l[?(@.t==\"B\")].s"), [&json!(2)]);
        assert_eq!(select(&o, ".spec.l[*].s"), [&json!(1), &json!(2)]);
        assert_eq!(select(&o, ".spec.l[1].t"), [&json!("B")]);
        assert_eq!(select(&o, ".spec.a\\.b"), [&json!("x")]);
        assert!(select(&o, ".spec.a\\").is_empty());
        assert_eq!(select(&o, ".spec['a.b']"), [&json!("x")]);
        assert!(select(&o, ".spec.nothing.x").is_empty());
    }
}
