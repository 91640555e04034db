//! Labels of identities, as selectors of Cilium's policies see them: each has a source, and some labels of pods are not among them.

use crate::cluster::Cluster;
use crate::objects::cilium::selector::{LabelSelector, Requirement, Source};
use crate::objects::node::Node;
use crate::objects::selector::Operator;
use crate::party::Party;

/// Key of the namespace of a pod.
pub(crate) const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Keys of the labels of its namespace begin so.
pub(crate) const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Key of its service account.
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Key of its cluster.
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The name of a cluster unless it is configured.
const CLUSTER_NAME: &str = "default";

impl Cluster {
    /// Whether all requirements hold for the labels of `party`, seen from `subject`: whether a node is the host or a remote one depends on that.
    pub(crate) fn label_selector_matches(
        &self,
        selector: &LabelSelector,
        subject: Party<'_>,
        party: Party<'_>,
    ) -> bool {
        !matches!(party, Party::Nobody)
            && selector.requirements.iter().all(|requirement| self.holds(requirement, subject, party))
    }

    /// As with selectors of Kubernetes: NotIn and DoesNotExist also hold where the label is missing.
    fn holds(&self, requirement: &Requirement, subject: Party<'_>, party: Party<'_>) -> bool {
        let has = |is_it: &dyn Fn(&str) -> bool| {
            self.has_label(requirement.source, &requirement.key, subject, party, is_it)
        };
        let is_listed = |value: &str| requirement.values.contains(value);
        match requirement.operator {
            Operator::In => has(&is_listed),
            Operator::NotIn => !has(&is_listed),
            Operator::Exists => has(&|_| true),
            Operator::DoesNotExist => !has(&|_| true),
        }
    }

    /// Whether there is a label with this key of this source whose value `is_it`. Reserved labels have empty values.
    fn has_label(
        &self,
        source: Source,
        key: &str,
        subject: Party<'_>,
        party: Party<'_>,
        is_it: &dyn Fn(&str) -> bool,
    ) -> bool {
        let of = |wanted: Source| source == wanted || source == Source::Any;
        match party {
            Party::Pod { .. } => of(Source::K8s) && pod_label(party, key).is_some_and(is_it),
            Party::Node { node, .. } => {
                let is_reserved = || match key {
                    "host" => subject.has_own_node(party),
                    "remote-node" => !subject.has_own_node(party),
                    "kube-apiserver" => self.is_api_server(party),
                    _ => false,
                };
                let label = || node.and_then(|node| node.labels.get(key));
                (of(Source::Reserved) && is_reserved() && is_it(""))
                    || (of(Source::Node) && label().is_some_and(|value| is_it(value)))
            }
            Party::Outside(address) => {
                let is_reserved = || match key {
                    "world" => true,
                    "world-ipv4" => address.is_ipv4(),
                    "world-ipv6" => address.is_ipv6(),
                    "kube-apiserver" => self.is_api_server(party),
                    _ => false,
                };
                of(Source::Reserved) && is_reserved() && is_it("")
            }
            Party::Nobody => false,
        }
    }
}

/// Whether a nodeSelector selects a node: its own labels come from Kubernetes, and it is a host.
pub(crate) fn node_matches(selector: &LabelSelector, node: Option<&Node>) -> bool {
    selector.requirements.iter().all(|requirement| {
        let of = |wanted: Source| requirement.source == wanted || requirement.source == Source::Any;
        let label = node.and_then(|node| node.labels.get(&requirement.key)).filter(|_| of(Source::K8s));
        let is_host = of(Source::Reserved) && requirement.key == "host";
        let values: Vec<&str> = label.map(String::as_str).into_iter().chain(is_host.then_some("")).collect();
        let is_listed = values.iter().any(|value| requirement.values.contains(*value));
        match requirement.operator {
            Operator::In => is_listed,
            Operator::NotIn => !is_listed,
            Operator::Exists => !values.is_empty(),
            Operator::DoesNotExist => values.is_empty(),
        }
    })
}

/// A label of a pod's identity: the relevant ones of its own, and what is derived from where it is.
fn pod_label<'a>(party: Party<'a>, key: &str) -> Option<&'a str> {
    let Party::Pod { key: name, pod, namespace, .. } = party else {
        return None;
    };
    if let Some(label) = key.strip_prefix(NAMESPACE_LABELS) {
        return match namespace {
            Some(labels) => labels.get(label).map(String::as_str),
            None => (label == crate::party::NAMESPACE_NAME).then_some(name.namespace.as_str()),
        };
    }
    match key {
        NAMESPACE => Some(&name.namespace),
        SERVICE_ACCOUNT => pod.service_account.as_deref(),
        CLUSTER => Some(CLUSTER_NAME),
        _ => pod.identity_labels.get(key).map(String::as_str),
    }
}

/// Begins of keys that are not relevant. All others are, `app.kubernetes.io` among them.
const IRRELEVANT: &[&str] = &[
    "io.kubernetes",
    "kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "k8s.io",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "controller-uid",
    "annotation",
    "etcd_node",
    "topology.kubernetes.io",
    // A pod cannot give itself what is derived from where it is.
    "io.cilium.k8s.namespace.labels",
    "io.cilium.k8s.policy.serviceaccount",
    "io.cilium.k8s.policy.cluster",
];

/// Whether a label of a pod is part of its identity, by the default filter.
pub(crate) fn is_relevant(key: &str) -> bool {
    // This one wherever it stands in the key.
    !key.contains("beta.kubernetes.io") && !IRRELEVANT.iter().any(|begin| key.starts_with(begin))
}
