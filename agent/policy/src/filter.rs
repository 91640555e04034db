//! Which labels of a pod are part of its identity.
//!
//! Labels that differ from pod to pod of one workload would give each pod an identity of its own.

use std::collections::BTreeMap;

use crate::label::{CLUSTER, Label, LabelSet, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT};

/// How a pattern of the filter meets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The key begins so.
    Prefix(String),
    /// The key is exactly this.
    Exact(String),
    /// The part of the key before `/`, or all of it, ends so.
    DomainSuffix(String),
}

impl Pattern {
    fn meets(&self, key: &str) -> bool {
        match self {
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Exact(exact) => key == exact,
            Self::DomainSuffix(suffix) => key.split('/').next().unwrap_or(key).ends_with(suffix),
        }
    }
}

/// The filter: what an include pattern meets stays, else what an exclude pattern meets goes, and the rest stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// Kept in any case.
    pub include: Vec<Pattern>,
    /// Left out otherwise.
    pub exclude: Vec<Pattern>,
}

impl Default for LabelFilter {
    /// What Cilium does without configuration.
    fn default() -> Self {
        let prefix = |text: &&str| Pattern::Prefix((*text).to_owned());
        let exact = |text: &&str| Pattern::Exact((*text).to_owned());
        let include = [
            "reserved",
            NAMESPACE,
            "io.cilium.k8s.namespace.labels",
            "app.kubernetes.io",
            CLUSTER,
            SERVICE_ACCOUNT,
        ];
        let prefixes = ["io.kubernetes", "kubernetes.io", "k8s.io", "annotation", "topology.kubernetes.io"];
        let keys = [
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
            "batch.kubernetes.io/job-completion-index",
            "batch.kubernetes.io/controller-uid",
            "pod-template-generation",
            "pod-template-hash",
            "controller-revision-hash",
            "controller-uid",
            "etcd_node",
        ];
        let mut exclude: Vec<Pattern> = prefixes.iter().map(prefix).collect();
        exclude.extend(keys.iter().map(exact));
        exclude.push(Pattern::DomainSuffix("beta.kubernetes.io".to_owned()));
        Self { include: include.iter().map(prefix).collect(), exclude }
    }
}

impl LabelFilter {
    /// Whether a label with this key is part of an identity.
    pub fn keeps(&self, key: &str) -> bool {
        self.include.iter().any(|pattern| pattern.meets(key))
            || !self.exclude.iter().any(|pattern| pattern.meets(key))
    }
}

/// What a pod's identity is made of.
#[derive(Debug, Clone, Copy)]
pub struct PodMeta<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Its service account; empty: none is told.
    pub service_account: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
}

/// The labels of a pod's identity.
///
/// Labels of the pod itself cannot stand in for those that tell namespace, service account or cluster: they are added last.
pub fn pod_labels(filter: &LabelFilter, pod: &PodMeta<'_>) -> LabelSet {
    let own = pod.labels.iter().filter(|(key, _)| {
        let forged = key.as_str() == NAMESPACE
            || key.as_str() == SERVICE_ACCOUNT
            || key.as_str() == CLUSTER
            || key.starts_with(NAMESPACE_LABELS);
        !forged && filter.keeps(key)
    });
    let namespace = pod
        .namespace_labels
        .iter()
        .map(|(key, value)| (format!("{NAMESPACE_LABELS}{key}"), value.as_str()))
        .filter(|(key, _)| filter.keeps(key));
    let mut told = vec![(NAMESPACE, pod.namespace), (CLUSTER, pod.cluster)];
    if !pod.service_account.is_empty() {
        told.push((SERVICE_ACCOUNT, pod.service_account));
    }
    own.map(|(key, value)| Label::k8s(key.clone(), value.clone()))
        .chain(namespace.map(|(key, value)| Label::k8s(key, value)))
        .chain(told.into_iter().map(|(key, value)| Label::k8s(key, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("app", true)]
    #[case("app.kubernetes.io/name", true)]
    #[case("io.kubernetes.pod.namespace", true)]
    #[case("io.kubernetes.container.name", false)]
    #[case("kubernetes.io/hostname", false)]
    #[case("statefulset.kubernetes.io/pod-name", false)]
    #[case("failure-domain.beta.kubernetes.io/zone", false)]
    #[case("pod-template-hash", false)]
    #[case("pod-template-hash-of-mine", true)]
    #[case("k8s.io/x", false)]
    #[case("topology.kubernetes.io/zone", false)]
    #[case("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", true)]
    fn the_default_filter(#[case] key: &str, #[case] kept: bool) {
        assert_eq!(LabelFilter::default().keeps(key), kept);
    }

    #[test]
    fn a_pod_cannot_forge_what_is_told_of_it() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let labels = text(&[
            ("app", "web"),
            ("pod-template-hash", "1"),
            (NAMESPACE, "kube-system"),
            (SERVICE_ACCOUNT, "admin"),
            ("io.cilium.k8s.namespace.labels.team", "root"),
        ]);
        let namespace_labels = text(&[("env", "prod")]);
        let set = pod_labels(
            &LabelFilter::default(),
            &PodMeta {
                namespace: "shop",
                labels: &labels,
                namespace_labels: &namespace_labels,
                service_account: "",
                cluster: "default",
            },
        );
        assert_eq!(
            set.to_string(),
            "k8s:app=web,k8s:io.cilium.k8s.namespace.labels.env=prod,\
             k8s:io.cilium.k8s.policy.cluster=default,k8s:io.kubernetes.pod.namespace=shop"
        );
    }
}
