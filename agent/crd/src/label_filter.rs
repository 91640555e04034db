//! Which labels of pods and namespaces are part of identities: the default, and what is configured beside it.

use std::fmt;

use regex::Regex;
use thiserror::Error;

use crate::identity_labels::NAMESPACE_LABELS;

/// Source of all labels that come from Kubernetes.
const K8S: &str = "k8s";

/// Which labels count.
///
/// A pattern is a regular expression that begins where the key begins and may end before it: `app` is about `app` and `application`.
/// A `!` in front leaves labels out, else they are taken; a source and a colon in front of both (`k8s:!job-name`) make it one for
/// labels of that source. Of patterns that are about a label the shortest match that leaves it out and the longest that takes it
/// count, and it is taken if the latter is longer. A label that no pattern is about is taken, unless patterns that take labels have
/// been given; then it is left out.
///
/// Patterns that are given come beside the default ones. What says where a pod belongs (namespace, service account, cluster) always
/// counts.
#[derive(Clone, Default)]
pub struct LabelFilter {
    patterns: Vec<Pattern>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("label pattern `{pattern}`: {problem}")]
pub struct LabelFilterError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Clone)]
struct Pattern {
    /// As it was given.
    text: String,
    is_for_k8s: bool,
    takes: bool,
    key: Regex,
}

impl Pattern {
    fn read(text: &str) -> Result<Self, LabelFilterError> {
        let wrong =
            |problem: &str| LabelFilterError { pattern: text.to_owned(), problem: problem.to_owned() };
        let (source, rest) = text.split_once(':').unwrap_or(("", text));
        let (takes, key) = rest.strip_prefix('!').map_or((true, rest), |key| (false, key));
        if key.is_empty() {
            return Err(wrong("it names no key"));
        }
        let key = Regex::new(&format!("^(?:{key})")).map_err(|_| {
            wrong("what is behind the source and `!` is no regular expression; a colon ends the source")
        })?;
        Ok(Self { text: text.to_owned(), is_for_k8s: matches!(source, "" | K8S), takes, key })
    }

    /// How far it reaches into the key of a label from Kubernetes, if it is about it.
    fn reach(&self, key: &str) -> Option<usize> {
        let found = self.key.find(key).filter(|_| self.is_for_k8s)?;
        Some(found.end()).filter(|reach| *reach > 0)
    }
}

impl LabelFilter {
    /// The default alone.
    pub const DEFAULT: &'static Self = &Self::new();

    const fn new() -> Self {
        Self { patterns: Vec::new() }
    }

    /// Patterns with white space between them, as Cilium's option `labels` has them.
    ///
    /// # Errors
    /// With the first pattern that cannot be used.
    pub fn read(text: &str) -> Result<Self, LabelFilterError> {
        Ok(Self { patterns: text.split_whitespace().map(Pattern::read).collect::<Result<_, _>>()? })
    }

    fn reach(&self, takes: bool, key: &str) -> impl Iterator<Item = usize> {
        self.patterns.iter().filter(move |pattern| pattern.takes == takes).filter_map(|p| p.reach(key))
    }

    fn decide(&self, taken: Option<usize>, out: Option<usize>) -> bool {
        match (taken, out) {
            (Some(taken), Some(out)) => taken > out,
            (taken, None) => taken.is_some() || !self.patterns.iter().any(|pattern| pattern.takes),
            (None, Some(_)) => false,
        }
    }

    /// Whether a pod's own label counts.
    pub(crate) fn counts(&self, key: &str) -> bool {
        let of_default = |rules: &'static [Place]| rules.iter().filter_map(|rule| rule.reach(key));
        let out = of_default(LEFT_OUT).chain(self.reach(false, key)).min();
        let taken = of_default(TAKEN).chain(self.reach(true, key)).max();
        self.decide(taken, out)
    }

    /// Whether a label of a pod's namespace counts, by the key that it has in identities. By default all do.
    pub(crate) fn counts_of_namespace(&self, key: &str) -> bool {
        let taken = self.reach(true, key).chain([NAMESPACE_LABELS.len()]).max();
        self.decide(taken, self.reach(false, key).min())
    }
}

impl PartialEq for LabelFilter {
    fn eq(&self, other: &Self) -> bool {
        let texts =
            |filter: &Self| filter.patterns.iter().map(|pattern| pattern.text.clone()).collect::<Vec<_>>();
        texts(self) == texts(other)
    }
}

impl Eq for LabelFilter {}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.patterns.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}", pattern.text)?;
        }
        Ok(())
    }
}

impl fmt::Debug for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabelFilter({self})")
    }
}

/// Where a text stands in keys that a rule of the default is about.
enum Place {
    Start(&'static str),
    /// The same, and the rule reaches to the end.
    Whole(&'static str),
    Anywhere(&'static str),
}

impl Place {
    /// How far the rule reaches into the key, if it is about it.
    fn reach(&self, key: &str) -> Option<usize> {
        match self {
            Self::Start(text) => key.starts_with(text).then_some(text.len()),
            Self::Whole(text) => key.starts_with(text).then_some(key.len()),
            Self::Anywhere(text) => key.rfind(text).map(|at| at + text.len()),
        }
    }
}

/// Keys that count although a rule of [`LEFT_OUT`] is about them, if this one reaches further.
const TAKEN: &[Place] = &[Place::Start("app.kubernetes.io")];

/// Keys that do not count: those that systems set, many of them different for each pod.
const LEFT_OUT: &[Place] = &[
    Place::Start("io.kubernetes"),
    Place::Start("kubernetes.io"),
    Place::Start("statefulset.kubernetes.io/pod-name"),
    Place::Start("apps.kubernetes.io/pod-index"),
    Place::Start("batch.kubernetes.io/job-completion-index"),
    Place::Start("batch.kubernetes.io/controller-uid"),
    Place::Anywhere("beta.kubernetes.io"),
    Place::Start("k8s.io"),
    Place::Start("pod-template-generation"),
    Place::Start("pod-template-hash"),
    Place::Start("controller-revision-hash"),
    Place::Start("controller-uid"),
    Place::Whole("annotation"),
    Place::Start("etcd_node"),
    Place::Start("topology.kubernetes.io"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    // Nothing that is given: the default.
    #[case("", "app", true)]
    #[case("", "app.kubernetes.io/name", true)]
    #[case("", "example.com/k8s.io", true)]
    #[case("", "name.kubernetes.io/x", true)]
    #[case("", "io.kubernetes.container.name", false)]
    #[case("", "kubernetes.io/os", false)]
    #[case("", "statefulset.kubernetes.io/pod-name", false)]
    #[case("", "apps.kubernetes.io/pod-index", false)]
    #[case("", "batch.kubernetes.io/job-completion-index", false)]
    #[case("", "batch.kubernetes.io/controller-uid", false)]
    #[case("", "batch.kubernetes.io/job-name", true)]
    #[case("", "beta.kubernetes.io/arch", false)]
    #[case("", "failure-domain.beta.kubernetes.io/zone", false)]
    #[case("", "k8s.io/x", false)]
    #[case("", "pod-template-hash", false)]
    #[case("", "pod-template-generation", false)]
    #[case("", "controller-revision-hash", false)]
    #[case("", "controller-uid", false)]
    #[case("", "annotation.kubernetes.io/x", false)]
    #[case("", "etcd_node", false)]
    #[case("", "topology.kubernetes.io/zone", false)]
    // Only these, and what the default takes by name.
    #[case("k8s:app k8s:role", "app", true)]
    #[case("k8s:app k8s:role", "application", true)]
    #[case("k8s:app k8s:role", "role", true)]
    #[case("k8s:app k8s:role", "team", false)]
    #[case("k8s:role", "app.kubernetes.io/name", true)]
    #[case("k8s:app$", "application", false)]
    #[case("k8s:example\\.com", "my.example.com/x", false)]
    #[case("k8s:.*example\\.com", "my.example.com/x", true)]
    // All but these.
    #[case("k8s:!job-name k8s:!team", "app", true)]
    #[case("k8s:!job-name k8s:!team", "job-name", false)]
    #[case("!team", "team", false)]
    #[case("!team", "teamwork", false)]
    #[case("!team teamwork", "teamwork", true)]
    #[case("!team teamwork", "app", false)]
    // Against the default: further than it.
    #[case("kubernetes\\.io/os", "kubernetes.io/os", true)]
    #[case("kubernetes\\.io", "kubernetes.io/os", false)]
    #[case("annotation\\.example", "annotation.example/x", false)]
    #[case("!app\\.kubernetes\\.io/version", "app.kubernetes.io/version", false)]
    #[case("!app\\.kubernetes\\.io/version", "app.kubernetes.io/name", true)]
    // Of another source.
    #[case("container:!app", "app", true)]
    #[case("reserved:.*", "app", false)]
    fn a_label_of_a_pod_counts(#[case] filter: &str, #[case] key: &str, #[case] counts: bool) {
        assert_eq!(LabelFilter::read(filter).unwrap().counts(key), counts);
    }

    #[rstest]
    #[case("", "team", true)]
    #[case("", "beta.kubernetes.io/x", true)]
    #[case("k8s:app", "team", true)]
    #[case("k8s:!io\\.cilium\\.k8s\\.namespace\\.labels\\.team", "team", false)]
    #[case("k8s:!io\\.cilium\\.k8s\\.namespace\\.labels\\.team", "stage", true)]
    #[case("k8s:!io\\.cilium\\.k8s\\.namespace\\.labels", "stage", false)]
    #[case(
        "k8s:!io\\.cilium\\.k8s\\.namespace\\.labels k8s:io\\.cilium\\.k8s\\.namespace\\.labels\\.team",
        "team",
        true
    )]
    fn a_label_of_a_namespace_counts(#[case] filter: &str, #[case] key: &str, #[case] counts: bool) {
        let key = format!("{NAMESPACE_LABELS}.{key}");
        assert_eq!(LabelFilter::read(filter).unwrap().counts_of_namespace(&key), counts);
    }

    #[rstest]
    #[case("k8s:", "names no key")]
    #[case("app k8s:!", "names no key")]
    #[case("k8s:[a", "regular expression")]
    #[case("(?:a|b)", "a colon ends the source")]
    fn what_cannot_be_used_is_named(#[case] filter: &str, #[case] why: &str) {
        let error = LabelFilter::read(filter).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn it_is_told_as_it_was_given() {
        let text = "k8s:app k8s:!job-name";
        let filter = LabelFilter::read(&format!(" {text}\n")).unwrap();
        assert_eq!((filter.to_string().as_str(), &filter), (text, &LabelFilter::read(text).unwrap()));
        assert_ne!(&filter, LabelFilter::DEFAULT);
    }
}
