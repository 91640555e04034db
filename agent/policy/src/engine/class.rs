//! What the number of an endpoint's policy comes from.
//!
//! Endpoints for which the same rules are share one policy, and the same rules are for those that the same selectors select.
//! So the number stands for selectors and not for rules: a rule more for endpoints that a selector of others selects already,
//! or for all of them, changes rows where decisions change, and no endpoint gets another number.

use std::sync::Arc;

use super::Prefix;
use crate::endpoint::Endpoint;
use crate::label::{NAMESPACE, source};
use crate::numbers::{Digest, Hash};
use crate::ports::NamedPort;
use crate::selector::{Op, Requirement, Selector, Values};

/// What an endpoint is, as far as selectors are concerned that select all of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sort {
    /// It is the node: other rules are for it than for pods.
    host: bool,
    /// It has a namespace, as pods have of which is known what they are.
    has_namespace: bool,
}

impl Sort {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host, has_namespace: endpoint.labels.has(source::K8S, NAMESPACE) }
    }
}

/// What makes the policy of an endpoint: who has the same has the same number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PolicyId {
    /// That of the rules that are for it.
    OfRules {
        sort: Sort,
        /// Selectors of those rules, sorted, without those that select all of its sort.
        subjects: Vec<Arc<Selector>>,
        /// Those of its named ports that the rules name.
        ports: Vec<NamedPort>,
        /// It is isolated, whatever the rules say.
        closed: bool,
    },
    /// That under which nothing passes, for who cannot have its own.
    Nothing,
}

impl PolicyId {
    /// Named ports, and whether endpoints are isolated anyway.
    pub(super) fn parts(&self) -> (&[NamedPort], bool) {
        match self {
            Self::OfRules { ports, closed, .. } => (ports, *closed),
            Self::Nothing => (&[], true),
        }
    }
}

/// Whether a selector selects all endpoints, or all with a namespace: then it does not tell those of one sort apart.
pub(super) fn selects_by_sort(selector: &Selector) -> bool {
    let is_any_pod = |requirement: &Requirement| {
        requirement.op == Op::Exists && requirement.source == source::K8S && requirement.key == NAMESPACE
    };
    matches!(selector, Selector::Labels(requirements) if requirements.iter().all(is_any_pod))
}

impl Digest for PolicyId {
    fn digest(&self, hash: &mut Hash) {
        let Self::OfRules { sort, subjects, ports, closed } = self else { return };
        hash.number(u64::from(sort.host) + 2 * u64::from(sort.has_namespace));
        for subject in subjects {
            subject.digest(hash);
        }
        for port in ports {
            hash.bytes(port.name.as_bytes());
            hash.number(u64::from(port.proto));
            hash.number(u64::from(port.port));
        }
        hash.number(u64::from(*closed));
    }
}

impl Digest for Selector {
    fn digest(&self, hash: &mut Hash) {
        match self {
            Self::Labels(requirements) => {
                for Requirement { key, source, op } in requirements {
                    hash.bytes(key.as_bytes());
                    hash.bytes(source.as_bytes());
                    let (kind, values) = match op {
                        Op::In(values) => (1, Some(values)),
                        Op::NotIn(values) => (2, Some(values)),
                        Op::Exists => (3, None),
                        Op::Absent => (4, None),
                    };
                    hash.number(kind);
                    for value in values.into_iter().flat_map(Values::iter) {
                        hash.bytes(value.as_bytes());
                    }
                }
                hash.number(requirements.len() as u64);
            }
            Self::Cidr { net, except } => {
                for net in std::iter::once(net).chain(except) {
                    Prefix(*net).digest(hash);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::everything(&[], true)]
    #[case::any_pod(&[Requirement::exists(source::K8S, NAMESPACE)], true)]
    #[case::pods_of_a_namespace(&[Requirement::equals(source::K8S, NAMESPACE, "n")], false)]
    #[case::some_pods(&[Requirement::exists(source::K8S, NAMESPACE), Requirement::exists(source::K8S, "app")], false)]
    #[case::whatever_has_it(&[Requirement::exists(source::ANY, NAMESPACE)], false)]
    fn only_selectors_that_tell_no_endpoints_apart_are_left_out(
        #[case] requirements: &[Requirement],
        #[case] expected: bool,
    ) {
        assert_eq!(selects_by_sort(&Selector::labels(requirements.iter().cloned())), expected);
    }
}
