//! Which labels make up the identity of a pod. Everybody who needs that set (operator, agents) takes it from here:
//! two sets that differ are two identities.

use std::collections::BTreeMap;

use crate::label_filter::LabelFilter;

/// Key of the label that names a pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// What precedes the keys of the labels of a pod's namespace, with a dot behind it.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// Key of the label that names a pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Key of the label that names the cluster.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Name of a cluster that has been given none.
pub const DEFAULT_CLUSTER: &str = "default";

/// Longest value of a label of an object, and longest key without its prefix.
const LONGEST: usize = 63;

/// What the identity of a pod depends on.
#[derive(Clone, Copy, Debug)]
pub struct PodFacts<'a> {
    /// Labels of the pod.
    pub labels: &'a BTreeMap<String, String>,
    /// Name of its namespace.
    pub namespace: &'a str,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Name of its service account; empty: none.
    pub service_account: &'a str,
    /// Name of its cluster.
    pub cluster: &'a str,
    /// Which labels count.
    pub filter: &'a LabelFilter,
}

/// The labels of an identity: `source:key` with their values, sorted. Agents hold those of a whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityLabels(Box<[(Box<str>, Box<str>)]>);

impl IdentityLabels {
    /// The labels of a pod's identity.
    ///
    /// Labels by which pods could claim to be in another namespace or cluster, or to have another service account, are
    /// those of the facts and never those that the pod has been given.
    pub fn of_pod(facts: &PodFacts<'_>) -> Self {
        let own = facts.labels.iter().filter(|(key, _)| !is_given_by_us(key) && facts.filter.counts(key));
        let mut labels: BTreeMap<String, String> =
            own.map(|(key, value)| (format!("k8s:{key}"), value.clone())).collect();
        for (key, value) in facts.namespace_labels {
            let key = format!("{NAMESPACE_LABELS}.{key}");
            if facts.filter.counts_of_namespace(&key) {
                labels.insert(format!("k8s:{key}"), value.clone());
            }
        }
        labels.insert(format!("k8s:{POD_NAMESPACE}"), facts.namespace.to_owned());
        labels.insert(format!("k8s:{CLUSTER}"), facts.cluster.to_owned());
        if !facts.service_account.is_empty() {
            labels.insert(format!("k8s:{SERVICE_ACCOUNT}"), facts.service_account.to_owned());
        }
        Self::sorted(labels.into_iter())
    }

    /// From labels in the order of their keys, each key once.
    fn sorted(labels: impl Iterator<Item = (impl Into<Box<str>>, impl Into<Box<str>>)>) -> Self {
        Self(labels.map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The labels of a `security-labels` field.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self::sorted(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// The labels for a `security-labels` field.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// The labels for the identity's object, so that it can be selected by them: those from Kubernetes, without
    /// those of the namespace, and without what is too long for a label of an object.
    pub fn object_labels(&self) -> BTreeMap<String, String> {
        let short = |key: &str, value: &str| {
            value.len() <= LONGEST && key.rsplit('/').next().is_some_and(|name| name.len() <= LONGEST)
        };
        self.iter()
            .filter(|(source, key, value)| {
                *source == "k8s" && !key.starts_with(NAMESPACE_LABELS) && short(key, value)
            })
            .map(|(_, key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Source, key and value of every label, in the order of sources and keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|(key, value)| {
            let (source, key) = key.split_once(':').unwrap_or(("", key));
            (source, key, &**value)
        })
    }

    /// The value of `source:key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Every label as `source:key=value`, sorted.
    pub fn to_list(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// True without any label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Labels that say where a pod belongs; a pod's own ones of these keys count for nothing.
fn is_given_by_us(key: &str) -> bool {
    key == POD_NAMESPACE || key == CLUSTER || key == SERVICE_ACCOUNT || key.starts_with(NAMESPACE_LABELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn of(labels: &BTreeMap<String, String>, namespace_labels: &BTreeMap<String, String>) -> IdentityLabels {
        IdentityLabels::of_pod(&PodFacts {
            labels,
            namespace: "shop",
            namespace_labels,
            service_account: "cart",
            cluster: DEFAULT_CLUSTER,
            filter: LabelFilter::DEFAULT,
        })
    }

    #[test]
    fn a_pods_identity_names_where_it_belongs() {
        let labels = of(&map([("app", "cart")]), &map([("kubernetes.io/metadata.name", "shop")]));
        assert_eq!(
            labels.to_list(),
            [
                "k8s:app=cart",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
                "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=cart",
                "k8s:io.kubernetes.pod.namespace=shop",
            ]
        );
    }

    #[test]
    fn a_pod_cannot_claim_to_be_another() {
        let honest = of(&map([]), &map([("team", "a")]));
        let claims = map([
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.policy.cluster", "other"),
            ("io.cilium.k8s.policy.serviceaccount", "admin"),
            ("io.cilium.k8s.namespace.labels.team", "b"),
            ("io.cilium.k8s.namespace.labels.more", "c"),
        ]);
        assert_eq!(of(&claims, &map([("team", "a")])), honest);
    }

    #[test]
    fn objects_get_only_labels_that_they_can_have() {
        let long = "x".repeat(64);
        let namespace_labels = map([("team", "a")]);
        let labels = IdentityLabels::of_pod(&PodFacts {
            labels: &map([("app", "cart")]),
            namespace: "shop",
            namespace_labels: &namespace_labels,
            service_account: &long,
            cluster: DEFAULT_CLUSTER,
            filter: LabelFilter::DEFAULT,
        });
        let of_object = labels.object_labels();
        assert_eq!(of_object.keys().collect::<Vec<_>>(), ["app", CLUSTER, POD_NAMESPACE]);
        assert_eq!(IdentityLabels::from_map(&labels.to_map()), labels, "the identity keeps all of them");
    }
}
