//! Selectors: requirements on labels, or a CIDR with exceptions, in a form in which equal ones are equal.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::label::{CLUSTER, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, source};
use crate::pool::Pool;

/// Values of a label, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Values(Box<[Box<str>]>);

impl Values {
    /// Whether the value is among them.
    pub fn contains(&self, value: &str) -> bool {
        self.0.binary_search_by(|own| (**own).cmp(value)).is_ok()
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|value| &**value)
    }

    fn join(&self) -> String {
        self.iter().collect::<Vec<_>>().join(",")
    }
}

impl<S: AsRef<str>> FromIterator<S> for Values {
    fn from_iter<I: IntoIterator<Item = S>>(values: I) -> Self {
        let mut values: Vec<Box<str>> = values.into_iter().map(|value| value.as_ref().into()).collect();
        values.sort();
        values.dedup();
        Self(values.into())
    }
}

/// What is demanded of the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// The label is there with one of the values.
    In(Values),
    /// It is not there, or with none of the values.
    NotIn(Values),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

/// What is demanded of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Its key.
    pub key: String,
    /// Its source; [`source::ANY`]: whatever it is.
    pub source: String,
    /// What is demanded.
    pub op: Op,
}

impl Requirement {
    /// The label is there.
    pub fn exists(source: &str, key: impl Into<String>) -> Self {
        Self { source: source.to_owned(), key: key.into(), op: Op::Exists }
    }

    /// The label is there with this value.
    pub fn equals(source: &str, key: impl Into<String>, value: impl AsRef<str>) -> Self {
        Self {
            source: source.to_owned(),
            key: key.into(),
            op: Op::In([value.as_ref()].into_iter().collect()),
        }
    }

    /// Whether labels meet it.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        let mut values = labels
            .with_key(&self.key)
            .filter(|label| self.source == source::ANY || label.source == self.source)
            .map(|label| label.value.as_str());
        match &self.op {
            Op::In(wanted) => values.any(|value| wanted.contains(value)),
            Op::NotIn(unwanted) => !values.any(|value| unwanted.contains(value)),
            Op::Exists => values.next().is_some(),
            Op::Absent => values.next().is_none(),
        }
    }

    /// Whether labels without the key fail it.
    pub fn needs_key(&self) -> bool {
        matches!(self.op, Op::In(_) | Op::Exists)
    }
}

/// Selectors, sorted, each once. Many policies have the same ones, which need not be there more than once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Selectors(Vec<Arc<Selector>>);

impl Selectors {
    /// Puts one among them.
    pub fn insert(&mut self, selector: impl Into<Arc<Selector>>) {
        let selector = selector.into();
        if let Err(at) = self.0.binary_search(&selector) {
            self.0.insert(at, selector);
        }
    }

    /// The selectors in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Selector>> {
        self.0.iter()
    }

    /// Takes those of the pool in the place of equal ones.
    pub(crate) fn share(&mut self, pool: &mut Pool<Selector>) {
        self.0.shrink_to_fit();
        self.0.iter_mut().for_each(|selector| pool.share(selector));
    }
}

impl<S: Into<Arc<Selector>>> Extend<S> for Selectors {
    fn extend<I: IntoIterator<Item = S>>(&mut self, selectors: I) {
        for selector in selectors {
            self.insert(selector);
        }
    }
}

/// A selector of peers or of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Labels: every requirement holds. Sorted, without repetition; see [`Selector::labels`].
    Labels(Vec<Requirement>),
    /// Addresses of a CIDR that are not those of nodes, and of pods only where [`crate::Spec::blocks`] says so.
    Cidr {
        /// The CIDR.
        net: IpNet,
        /// Parts of it that are not meant, sorted, none within another; see [`Selector::cidr`].
        except: Vec<IpNet>,
    },
}

impl Selector {
    /// Every requirement holds.
    pub fn labels(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let sorted: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self::Labels(sorted.into_iter().collect())
    }

    /// A CIDR without the exceptions. Exceptions outside of it say nothing and are left out; one around it leaves nothing of it.
    pub fn cidr(net: IpNet, except: impl IntoIterator<Item = IpNet>) -> Self {
        let net = net.trunc();
        let cut = |except: IpNet| match except.trunc() {
            around if around.contains(&net) => net,
            except => except,
        };
        let inside: Vec<IpNet> = except.into_iter().map(cut).filter(|except| net.contains(except)).collect();
        let widest: BTreeSet<IpNet> = inside
            .iter()
            .filter(|except| !inside.iter().any(|other| other != *except && other.contains(*except)))
            .copied()
            .collect();
        Self::Cidr { net, except: widest.into_iter().collect() }
    }

    /// Whether it selects a peer with these labels, that stands for this CIDR if it stands for one.
    pub fn matches(&self, labels: &LabelSet, prefix: Option<&IpNet>) -> bool {
        match self {
            Self::Labels(requirements) => requirements.iter().all(|requirement| requirement.matches(labels)),
            Self::Cidr { .. } => prefix.is_some_and(|prefix| self.has(prefix)),
        }
    }

    /// Whether it is a CIDR that has all addresses of this one.
    pub fn has(&self, prefix: &IpNet) -> bool {
        match self {
            Self::Labels(_) => false,
            Self::Cidr { net, except } => {
                net.contains(prefix) && !except.iter().any(|except| except.contains(prefix))
            }
        }
    }

    /// Whether other nodes may differ by their labels in whether it selects them. What asks for a label of a pod, or for the host, selects
    /// none of them.
    pub fn is_about_nodes(&self) -> bool {
        let Self::Labels(requirements) = self else { return false };
        let of_pods = |r: &Requirement| {
            [NAMESPACE, SERVICE_ACCOUNT, CLUSTER].contains(&r.key.as_str())
                || r.key.starts_with(NAMESPACE_LABELS)
        };
        let by_label =
            |r: &Requirement| matches!(r.source.as_str(), source::NODE | source::ANY) && !of_pods(r);
        let of_nodes = |r: &Requirement| {
            by_label(r)
                || (r.source == source::RESERVED
                    && matches!(r.key.as_str(), "remote-node" | "kube-apiserver"))
        };
        requirements.iter().any(by_label) && requirements.iter().all(|r| of_nodes(r) || !r.needs_key())
    }

    /// The CIDRs that must be told apart for it: its own and its exceptions.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let (net, except) = match self {
            Self::Labels(_) => (None, &[][..]),
            Self::Cidr { net, except } => (Some(*net), &except[..]),
        };
        net.into_iter().chain(except.iter().copied())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Op::In(values) if values.0.len() == 1 => {
                write!(f, "{}:{}={}", self.source, self.key, values.join())
            }
            Op::In(values) => write!(f, "{}:{} in ({})", self.source, self.key, values.join()),
            Op::NotIn(values) => write!(f, "{}:{} notin ({})", self.source, self.key, values.join()),
            Op::Exists => write!(f, "{}:{}", self.source, self.key),
            Op::Absent => write!(f, "!{}:{}", self.source, self.key),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels(requirements) => {
                for (i, requirement) in requirements.iter().enumerate() {
                    write!(f, "{}{requirement}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Cidr { net, except } => {
                write!(f, "{net}")?;
                except.iter().try_for_each(|except| write!(f, " without {except}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::label::Label;

    fn values(values: &[&str]) -> Values {
        values.iter().collect()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("any", "app", Op::In(values(&["web"])), true)]
    #[case("k8s", "app", Op::In(values(&["web", "db"])), true)]
    #[case("node", "app", Op::In(values(&["web"])), false)]
    #[case("any", "app", Op::NotIn(values(&["web"])), false)]
    #[case("node", "app", Op::NotIn(values(&["web"])), true)]
    #[case("any", "tier", Op::NotIn(values(&["x"])), true)]
    #[case("any", "app", Op::Exists, true)]
    #[case("any", "tier", Op::Exists, false)]
    #[case("k8s", "tier", Op::Absent, true)]
    #[case("k8s", "app", Op::Absent, false)]
    fn requirements(#[case] source: &str, #[case] key: &str, #[case] op: Op, #[case] expected: bool) {
        let labels: LabelSet = [Label::k8s("app", "web")].into_iter().collect();
        let requirement = Requirement { source: source.into(), key: key.into(), op };
        assert_eq!(requirement.matches(&labels), expected);
    }

    #[test]
    fn equal_selectors_are_equal() {
        let a = || Requirement::equals("any", "a", "1");
        let b = || Requirement::exists("k8s", "b");
        assert_eq!(Selector::labels([a(), b(), a()]), Selector::labels([b(), a()]));
        assert_eq!(
            Selector::cidr(net("10.1.2.3/8"), [net("10.1.0.0/16"), net("10.1.2.0/24"), net("11.0.0.0/8")]),
            Selector::cidr(net("10.0.0.0/8"), [net("10.1.0.0/16")])
        );
    }

    #[rstest]
    #[case("10.0.0.0/8", true)]
    #[case("10.2.0.0/16", true)]
    #[case("10.1.0.0/16", false)]
    #[case("10.1.2.0/24", false)]
    #[case("0.0.0.0/0", false)]
    #[case("fd00::/8", false)]
    fn a_cidr_selects_what_is_inside_and_not_excepted(#[case] prefix: &str, #[case] expected: bool) {
        let selector = Selector::cidr(net("10.0.0.0/8"), [net("10.1.0.0/16")]);
        assert_eq!(selector.matches(&LabelSet::default(), Some(&net(prefix))), expected);
        assert!(!selector.matches(&LabelSet::default(), None));
    }
}
