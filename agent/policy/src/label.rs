//! Labels with their source, and sorted sets of them.

use std::fmt;

use agent_crd::IdentityLabels;

/// Sources of labels.
pub mod source {
    /// Labels of Kubernetes objects.
    pub const K8S: &str = "k8s";
    /// In selectors: a label of any source.
    pub const ANY: &str = "any";
    /// Reserved identities.
    pub const RESERVED: &str = "reserved";
    /// CIDR identities.
    pub const CIDR: &str = "cidr";
    /// Groups of CIDRs.
    pub const CIDR_GROUP: &str = "cidrgroup";
    /// Nodes.
    pub const NODE: &str = "node";
    /// Every source that a selector may name.
    pub const KNOWN: &[&str] = &[K8S, ANY, RESERVED, "container", CIDR, CIDR_GROUP, "fqdn", NODE, "unspec"];
}

/// Key of the label that tells a pod's namespace.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the labels that repeat those of a pod's namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Key of the label that tells a pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Key of the label that tells the cluster.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";

/// A label, printed as `source:key=value`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Key.
    pub key: String,
    /// Where it is from, see [`source`].
    pub source: String,
    /// Value.
    pub value: String,
}

impl Label {
    /// A label.
    pub fn new(source: &str, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { source: source.to_owned(), key: key.into(), value: value.into() }
    }

    /// A label of a Kubernetes object.
    pub fn k8s(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(source::K8S, key, value)
    }

    /// A label of a reserved identity.
    pub fn reserved(name: &str) -> Self {
        Self::new(source::RESERVED, name, "")
    }

    /// From `source:key` and a value, as CiliumIdentity objects have them. Without a source it is `unspec`.
    pub fn from_pair(key: &str, value: &str) -> Self {
        let (source, key) = split_source(key).unwrap_or(("unspec", key));
        Self::new(source, key, value)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

/// Source and key of `source:key`, if the source is one of [`source::KNOWN`].
pub fn split_source(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(source, _)| source::KNOWN.contains(source))
}

/// Labels, sorted by key, then source; one value for each source and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LabelSet(Vec<Label>);

impl LabelSet {
    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// Those with this key, whatever their source.
    pub fn with_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Label> {
        let start = self.0.partition_point(|label| label.key.as_str() < key);
        self.0[start..].iter().take_while(move |label| label.key == key)
    }

    /// Whether there is one of this source and key.
    pub fn has(&self, source: &str, key: &str) -> bool {
        self.with_key(key).any(|label| label.source == source)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Label> for LabelSet {
    /// Of several values for one source and key the last one given holds.
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut labels: Vec<Label> = labels.into_iter().collect();
        labels.sort_by(|a, b| (&a.key, &a.source).cmp(&(&b.key, &b.source)));
        // The sort keeps the order of equals, so the last of a run is the last that was given.
        labels.reverse();
        labels.dedup_by(|a, b| a.key == b.key && a.source == b.source);
        labels.reverse();
        Self(labels)
    }
}

impl From<&IdentityLabels> for LabelSet {
    /// The labels of a pod, or of a CiliumIdentity.
    fn from(labels: &IdentityLabels) -> Self {
        labels
            .iter()
            .map(|(source, key, value)| {
                Label::new(if source.is_empty() { "unspec" } else { source }, key, value)
            })
            .collect()
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.0.iter().enumerate() {
            write!(f, "{}{label}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_crd::identity_labels::PodFacts;

    use super::*;

    #[test]
    fn sets_are_sorted_and_the_last_value_holds() {
        let set: LabelSet =
            [Label::k8s("b", "1"), Label::k8s("a", "1"), Label::new("node", "b", "x"), Label::k8s("b", "2")]
                .into_iter()
                .collect();
        assert_eq!(set.to_string(), "k8s:a=1,k8s:b=2,node:b=x");
        assert_eq!(set.with_key("b").count(), 2);
        assert!(set.has("node", "b") && !set.has("node", "a"));
    }

    #[test]
    fn the_labels_of_a_pod_are_those_of_its_identity() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let labels = IdentityLabels::of_pod(&PodFacts {
            labels: &text(&[("app", "web"), ("pod-template-hash", "1"), (NAMESPACE, "kube-system")]),
            namespace: "shop",
            namespace_labels: &text(&[("env", "prod")]),
            service_account: "sa",
            cluster: "default",
            filter: agent_crd::LabelFilter::DEFAULT,
        });
        assert_eq!(
            LabelSet::from(&labels).to_string(),
            format!(
                "k8s:app=web,k8s:{NAMESPACE_LABELS}env=prod,k8s:{CLUSTER}=default,k8s:{SERVICE_ACCOUNT}=sa,k8s:{NAMESPACE}=shop"
            )
        );
    }

    #[test]
    fn only_known_sources_are_split_off() {
        assert_eq!(split_source("k8s:app"), Some(("k8s", "app")));
        assert_eq!(split_source("app"), None);
        assert_eq!(split_source("cidr:fd00::/8"), Some(("cidr", "fd00::/8")));
        assert_eq!(split_source("fd00::/8"), None);
        assert_eq!(Label::from_pair("k8s:app", "a").to_string(), "k8s:app=a");
    }
}
