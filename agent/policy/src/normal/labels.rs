//! Label selectors of objects as requirements.

use agent_crd::{LabelSelector, SelectorOperator};

use crate::error::{InvalidPolicy, Problem};
use crate::label::{NAMESPACE, NAMESPACE_LABELS, source, split_source};
use crate::selector::{Op, Requirement};

/// How keys of a selector become keys of labels.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    /// Labels of pods or services.
    Plain,
    /// Labels of namespaces, as pods have them.
    Namespace,
    /// They may name their source; otherwise it is this one.
    WithSource(&'static str),
}

impl Keys {
    fn read(self, key: &str) -> Result<(String, String), Problem> {
        let (source, key) = match self {
            Self::Plain => (source::K8S, key.to_owned()),
            Self::Namespace => (source::K8S, format!("{NAMESPACE_LABELS}{key}")),
            Self::WithSource(default) => {
                let (source, key) = split_source(key).unwrap_or((default, key));
                (source, key.to_owned())
            }
        };
        if key.is_empty() || key == NAMESPACE_LABELS {
            Err(Problem::NoKey)
        } else {
            Ok((source.to_owned(), key))
        }
    }
}

/// The requirements of a selector.
pub(super) fn requirements(selector: &LabelSelector, keys: Keys) -> Result<Vec<Requirement>, InvalidPolicy> {
    let mut found = Vec::new();
    for (key, value) in &selector.match_labels {
        let (source, key) = keys.read(key).map_err(|problem| problem.of("matchLabels"))?;
        found.push(Requirement::equals(&source, key, value.as_str()));
    }
    for (at, expression) in selector.match_expressions.iter().enumerate() {
        let field = |name: &str| format!("matchExpressions[{at}].{name}");
        let (source, key) = keys.read(&expression.key).map_err(|problem| problem.of(field("key")))?;
        let values = || expression.values.iter().collect();
        let with_values = matches!(expression.operator, SelectorOperator::In | SelectorOperator::NotIn);
        let op = match &expression.operator {
            SelectorOperator::In => Op::In(values()),
            SelectorOperator::NotIn => Op::NotIn(values()),
            SelectorOperator::Exists => Op::Exists,
            SelectorOperator::DoesNotExist => Op::Absent,
            SelectorOperator::Other(word) => return Err(Problem::Unknown(word.clone()).of(field("operator"))),
        };
        if with_values == expression.values.is_empty() {
            let problem = Problem::Values(expression.operator.to_string(), expression.values.len());
            return Err(problem.of(field("values")));
        }
        found.push(Requirement { key, source, op });
    }
    Ok(found)
}

/// The pods of a namespace.
pub(super) fn in_namespace(namespace: &str) -> Requirement {
    Requirement::equals(source::K8S, NAMESPACE, namespace)
}

/// The pods of any namespace, and nobody else.
pub(super) fn any_pod() -> Requirement {
    Requirement::exists(source::K8S, NAMESPACE)
}
