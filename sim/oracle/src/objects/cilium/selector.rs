//! Selectors whose keys may have a source.

use std::collections::BTreeSet;

use crate::error::OracleError;
use crate::field::Field;
use crate::identity::{NAMESPACE, NAMESPACE_LABELS};
use crate::objects::selector::{self, Operator};

/// A selector of labels with sources: all requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    pub(crate) requirements: Vec<Requirement>,
}

/// A requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) source: Source,
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: BTreeSet<String>,
}

/// Where a label comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From anywhere: what a key without a source means.
    Any,
    /// From Kubernetes.
    K8s,
    /// What stands for an end without labels of its own.
    Reserved,
    /// From a Node.
    Node,
    /// Some other, which no end here has.
    Other,
}

impl LabelSelector {
    /// Whether a requirement is about this reserved label.
    pub(crate) fn names_reserved(&self, key: &str) -> bool {
        self.requirements
            .iter()
            .any(|requirement| requirement.source == Source::Reserved && requirement.key == key)
    }

    /// Whether it says by itself which namespaces it is about.
    fn names_namespaces(&self) -> bool {
        self.requirements.iter().any(|requirement| {
            matches!(requirement.source, Source::Any | Source::K8s)
                && (requirement.key == NAMESPACE || requirement.key.starts_with(NAMESPACE_LABELS))
        })
    }

    fn names_any_reserved(&self) -> bool {
        self.requirements.iter().any(|requirement| requirement.source == Source::Reserved)
    }

    fn require(&mut self, source: Source, key: &str, operator: Operator, values: &[&str]) {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.requirements.push(Requirement { source, key: key.to_owned(), operator, values });
    }
}

/// A selector as it stands there.
pub(crate) fn plain(field: &Field<'_>) -> Result<LabelSelector, OracleError> {
    with_sources(field, split)
}

fn with_sources(field: &Field<'_>, split: fn(&str) -> (Source, &str)) -> Result<LabelSelector, OracleError> {
    let requirements = selector::requirements(field)?
        .into_iter()
        .map(|requirement| {
            let (source, key) = split(&requirement.key);
            Requirement {
                source,
                key: key.to_owned(),
                operator: requirement.operator,
                values: requirement.values,
            }
        })
        .collect();
    Ok(LabelSelector { requirements })
}

/// A key may begin with its source and a colon.
fn split(key: &str) -> (Source, &str) {
    match key.split_once(':') {
        None => (Source::Any, key),
        Some(("any", key)) => (Source::Any, key),
        Some(("k8s", key)) => (Source::K8s, key),
        Some(("reserved", key)) => (Source::Reserved, key),
        Some(("node", key)) => (Source::Node, key),
        Some((_, key)) => (Source::Other, key),
    }
}

/// The endpointSelector of a policy of a namespace always selects in this namespace: another one that it asks for by `matchLabels` is overwritten.
pub(crate) fn of_subject(field: &Field<'_>, namespace: Option<&str>) -> Result<LabelSelector, OracleError> {
    let mut selector = plain(field)?;
    if let Some(namespace) = namespace {
        // Pairs of matchLabels come first.
        let pairs = field.at("matchLabels")?.texts()?.len();
        let mut place = 0;
        selector.requirements.retain(|requirement| {
            place += 1;
            place > pairs || requirement.source != Source::K8s || requirement.key != NAMESPACE
        });
        selector.require(Source::K8s, NAMESPACE, Operator::In, &[namespace]);
    }
    Ok(selector)
}

/// A selector of peers. Unless it says which namespaces it is about, it is about that of the policy; in a policy of the cluster about all that have
/// one, so about pods. One with reserved labels is taken as it stands, in either kind: these belong to no namespace.
pub(crate) fn of_peers(
    field: &Field<'_>,
    namespace: Option<&str>,
    selects_init: bool,
) -> Result<LabelSelector, OracleError> {
    let mut selector = plain(field)?;
    if selector.names_namespaces() || selector.names_any_reserved() {
        return Ok(selector);
    }
    match namespace {
        Some(namespace) => selector.require(Source::K8s, NAMESPACE, Operator::In, &[namespace]),
        None if selects_init => {}
        None => selector.require(Source::K8s, NAMESPACE, Operator::Exists, &[]),
    }
    Ok(selector)
}

/// A selector of other nodes, by their labels.
pub(crate) fn of_nodes(field: &Field<'_>) -> Result<LabelSelector, OracleError> {
    let mut selector = with_sources(field, |key| (Source::Node, key.strip_prefix("node:").unwrap_or(key)))?;
    selector.require(Source::Reserved, "remote-node", Operator::Exists, &[]);
    Ok(selector)
}

/// The labels of a service's selector: pods of its namespace.
pub(crate) fn of_pairs<'a>(
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    namespace: &str,
) -> LabelSelector {
    let mut selector = LabelSelector { requirements: Vec::new() };
    for (key, value) in pairs {
        selector.require(Source::K8s, key, Operator::In, &[value]);
    }
    selector.require(Source::K8s, NAMESPACE, Operator::In, &[namespace]);
    selector
}
