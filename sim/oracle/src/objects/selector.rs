//! meta/v1 LabelSelector.

use std::collections::BTreeSet;

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::Labels;

/// A label selector: all requirements must hold, so an empty one selects every object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

/// What must hold for the label of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: BTreeSet<String>,
}

/// How a label is compared with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

impl Selector {
    pub(crate) fn read(selector: &Field<'_>) -> Result<Self, OracleError> {
        Ok(Self { requirements: requirements(selector)? })
    }

    /// Whether an object with these labels is selected.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected whose label `value` says by its key.
    pub(crate) fn matches_by<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(value(&requirement.key)))
    }
}

/// The requirements of a selector, first the pairs of `matchLabels`: each is the same as a requirement with operator In and this one value.
pub(crate) fn requirements(selector: &Field<'_>) -> Result<Vec<Requirement>, OracleError> {
    let mut requirements: Vec<Requirement> = selector
        .at("matchLabels")?
        .texts()?
        .into_iter()
        .map(|(key, value)| Requirement { key, operator: Operator::In, values: BTreeSet::from([value]) })
        .collect();
    for item in selector.at("matchExpressions")?.items()? {
        requirements.push(requirement(&item)?);
    }
    Ok(requirements)
}

impl Requirement {
    /// In wants the label with one of the values. NotIn is its opposite, so it also holds where the label is missing.
    /// Exists wants the label with any value, DoesNotExist wants it missing.
    fn holds(&self, value: Option<&str>) -> bool {
        let is_listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_listed,
            Operator::NotIn => !is_listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// In and NotIn need values, Exists and DoesNotExist must have none.
fn requirement(item: &Field<'_>) -> Result<Requirement, OracleError> {
    let key = item.at("key")?.required_text()?.to_owned();
    let operator = item.at("operator")?;
    let operator = operator.word(OPERATORS)?.ok_or_else(|| operator.wrong("must be set"))?;
    let list = item.at("values")?;
    let mut values = BTreeSet::new();
    for value in list.items()? {
        values.insert(value.text()?.unwrap_or_default().to_owned());
    }
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => Err(list.wrong("must not be empty")),
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => Err(list.wrong("must be empty")),
        _ => Ok(Requirement { key, operator, values }),
    }
}
