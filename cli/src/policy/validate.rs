//! What is wrong with policies.

use super::cluster::take;
use super::documents::{Document, KINDS, by_key};
use agent_control::{Object, ObjectKind};
use agent_crd::Object as _;
use agent_policy::{Config, Policy, Severity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;

/// What is to be said of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validation {
    /// `KIND/NAMESPACE/NAME`.
    pub(crate) object: String,
    /// Where it is written.
    pub(crate) file: String,
    /// The field that is at fault and what is wrong with it: an agent does not take the object.
    pub(crate) refused: Option<String>,
    /// Parts that are not enforced as they are written.
    pub(crate) warnings: Vec<String>,
}

/// Looks at all policies and groups of CIDRs, in order of files. Other objects are none of its concern.
pub(crate) fn validate(documents: &[Document]) -> Vec<Validation> {
    let concerns = |document: &&Document| {
        KINDS.iter().any(|(kind, _)| *kind == document.key.kind)
            && !matches!(document.key.kind.as_str(), "Pod" | "Namespace" | "Node")
    };
    // All of them together, since policies refer to groups.
    let mut all = Policy::new(Config::default());
    for document in by_key(documents.to_vec()).values() {
        let _: Result<(), String> = take(&mut all, document);
    }
    let findings = all.findings();
    documents
        .iter()
        .filter(concerns)
        .map(|document| {
            let object = document.key.to_string();
            // By itself, so that of an object that is written twice each is judged.
            let refused = take(&mut Policy::new(Config::default()), document).err();
            let mut warnings = Vec::new();
            if refused.is_none() {
                let own = findings.iter().filter(|finding| finding.subject == object);
                warnings.extend(
                    own.filter(|finding| finding.severity == Severity::Warning)
                        .map(|finding| finding.message.clone()),
                );
                warnings.extend(unknown(document));
                warnings.extend(for_nodes(&all, &object));
            }
            Validation { object, file: document.origin.clone(), refused, warnings }
        })
        .collect()
}

/// Fields that say nothing, most often because they are misspelt.
fn unknown(document: &Document) -> Vec<String> {
    let Some(kind) = ObjectKind::of(&document.object) else { return Vec::new() };
    let kept = match Object::read(kind, &document.object) {
        Ok(Some(Object::NetworkPolicy(object))) => object.to_json(),
        Ok(Some(Object::CiliumNetworkPolicy(object))) => object.to_json(),
        Ok(Some(Object::CiliumClusterwideNetworkPolicy(object))) => object.to_json(),
        Ok(Some(Object::ClusterNetworkPolicy(object))) => object.to_json(),
        Ok(Some(Object::CidrGroup(object))) => object.to_json(),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for field in document.object.as_object().into_iter().flat_map(serde_json::Map::keys) {
        match field.as_str() {
            "spec" | "specs" => lost(&document.object[field], kept.get(field), field, &mut found),
            "apiVersion" | "kind" | "metadata" | "status" => {}
            _ => found.push(field.clone()),
        }
    }
    found.into_iter().map(|field| format!("{field}: is not known here, it has no effect")).collect()
}

/// What is written and was not read. What is empty says nothing, and is not kept.
fn lost(written: &Value, kept: Option<&Value>, path: &str, found: &mut Vec<String>) {
    let is_empty = match written {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
    };
    match (written, kept) {
        (_, None) if !is_empty => found.push(path.to_owned()),
        (Value::Object(written), Some(kept)) => {
            for (name, field) in written {
                lost(field, kept.get(name), &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(written), Some(kept)) => {
            for (at, item) in written.iter().enumerate() {
                lost(item, kept.get(at), &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

/// Rules that select nodes are not in force everywhere.
fn for_nodes(policies: &Policy, object: &str) -> Option<String> {
    let mut specs = policies.store().specs().filter(|spec| spec.object.to_string() == object);
    specs.any(|spec| spec.host).then(|| {
        "nodeSelector: only agents that run with --host-firewall enforce policies for nodes".to_owned()
    })
}

/// For people.
pub(crate) fn text(list: &[Validation]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for one in list {
        let word = match (&one.refused, one.warnings.len()) {
            (Some(problem), _) => format!("refused: {problem}"),
            (None, 0) => "ok".to_owned(),
            (None, _) => "ok, with warnings".to_owned(),
        };
        let _: std::fmt::Result = writeln!(out, "{} ({}): {word}", one.object, one.file);
        for warning in &one.warnings {
            let _: std::fmt::Result = writeln!(out, "  warning: {warning}");
        }
    }
    let refused = list.iter().filter(|one| one.refused.is_some()).count();
    let _: std::fmt::Result = match list.len() {
        0 => writeln!(out, "no policies in the files"),
        all => writeln!(out, "{all} looked at, {refused} refused"),
    };
    out
}
