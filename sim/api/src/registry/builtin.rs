//! The built-in resources.

use super::{ResourceDef, ScalePaths, SchemaSource, Version};
use crate::resource::Gr;

/// One row: what the API documentation says about a resource.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    shorts: &'static [&'static str],
    flags: &'static str,
    extra: &'static [&'static str],
    definition: &'static str,
}

/// Flags: `n` namespaced, `s` status subresource, `c` scale subresource, `g` counts generations, `a` in category `all`,
/// `e` in category `api-extensions`.
const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    shorts: &'static [&'static str],
    flags: &'static str,
    definition: &'static str,
) -> Row {
    Row { group, version, plural, kind, shorts, flags, extra: &[], definition }
}

impl Row {
    const fn with(mut self, extra: &'static [&'static str]) -> Self {
        self.extra = extra;
        self
    }
}

const POD_SUBRESOURCES: &[&str] =
    &["attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "resize"];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("", "v1", "configmaps", "ConfigMap", &["cm"], "n", "io.k8s.api.core.v1.ConfigMap"),
    row("", "v1", "endpoints", "Endpoints", &["ep"], "n", "io.k8s.api.core.v1.Endpoints"),
    row("", "v1", "events", "Event", &["ev"], "n", "io.k8s.api.core.v1.Event"),
    row("", "v1", "limitranges", "LimitRange", &["limits"], "n", "io.k8s.api.core.v1.LimitRange"),
    row("", "v1", "namespaces", "Namespace", &["ns"], "s", "io.k8s.api.core.v1.Namespace").with(&["finalize"]),
    row("", "v1", "nodes", "Node", &["no"], "s", "io.k8s.api.core.v1.Node"),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], "ns", "io.k8s.api.core.v1.PersistentVolumeClaim"),
    row("", "v1", "persistentvolumes", "PersistentVolume", &["pv"], "s", "io.k8s.api.core.v1.PersistentVolume"),
    row("", "v1", "pods", "Pod", &["po"], "nsga", "io.k8s.api.core.v1.Pod").with(POD_SUBRESOURCES),
    row("", "v1", "podtemplates", "PodTemplate", &[], "n", "io.k8s.api.core.v1.PodTemplate"),
    row("", "v1", "replicationcontrollers", "ReplicationController", &["rc"], "nscga", "io.k8s.api.core.v1.ReplicationController"),
    row("", "v1", "resourcequotas", "ResourceQuota", &["quota"], "ns", "io.k8s.api.core.v1.ResourceQuota"),
    row("", "v1", "secrets", "Secret", &[], "n", "io.k8s.api.core.v1.Secret"),
    row("", "v1", "serviceaccounts", "ServiceAccount", &["sa"], "n", "io.k8s.api.core.v1.ServiceAccount").with(&["token"]),
    row("", "v1", "services", "Service", &["svc"], "nsa", "io.k8s.api.core.v1.Service"),
    row("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &[], "ge", "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration"),
    row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", &[], "gse", "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy"),
    row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", &[], "ge", "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding"),
    row("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", &[], "ge", "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration"),
    row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", &["crd", "crds"], "sge", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"),
    row("apiregistration.k8s.io", "v1", "apiservices", "APIService", &[], "se", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"),
    row("apps", "v1", "controllerrevisions", "ControllerRevision", &[], "n", "io.k8s.api.apps.v1.ControllerRevision"),
    row("apps", "v1", "daemonsets", "DaemonSet", &["ds"], "nsga", "io.k8s.api.apps.v1.DaemonSet"),
    row("apps", "v1", "deployments", "Deployment", &["deploy"], "nscga", "io.k8s.api.apps.v1.Deployment"),
    row("apps", "v1", "replicasets", "ReplicaSet", &["rs"], "nscga", "io.k8s.api.apps.v1.ReplicaSet"),
    row("apps", "v1", "statefulsets", "StatefulSet", &["sts"], "nscga", "io.k8s.api.apps.v1.StatefulSet"),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "nsa", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
    row("batch", "v1", "cronjobs", "CronJob", &["cj"], "nsga", "io.k8s.api.batch.v1.CronJob"),
    row("batch", "v1", "jobs", "Job", &[], "nsga", "io.k8s.api.batch.v1.Job"),
    row("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", &["csr"], "s", "io.k8s.api.certificates.v1.CertificateSigningRequest").with(&["approval"]),
    row("coordination.k8s.io", "v1", "leases", "Lease", &[], "n", "io.k8s.api.coordination.v1.Lease"),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", &[], "ng", "io.k8s.api.discovery.v1.EndpointSlice"),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", &[], "g", "io.k8s.api.networking.v1.IngressClass"),
    row("networking.k8s.io", "v1", "ingresses", "Ingress", &["ing"], "nsg", "io.k8s.api.networking.v1.Ingress"),
    row("networking.k8s.io", "v1", "ipaddresses", "IPAddress", &["ip"], "", "io.k8s.api.networking.v1.IPAddress"),
    row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", &["netpol"], "ng", "io.k8s.api.networking.v1.NetworkPolicy"),
    row("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", &[], "s", "io.k8s.api.networking.v1.ServiceCIDR"),
    row("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", &[], "", "io.k8s.api.node.v1.RuntimeClass"),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], "nsg", "io.k8s.api.policy.v1.PodDisruptionBudget"),
    row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", &[], "", "io.k8s.api.rbac.v1.ClusterRoleBinding"),
    row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", &[], "", "io.k8s.api.rbac.v1.ClusterRole"),
    row("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", &[], "n", "io.k8s.api.rbac.v1.RoleBinding"),
    row("rbac.authorization.k8s.io", "v1", "roles", "Role", &[], "n", "io.k8s.api.rbac.v1.Role"),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", &["pc"], "", "io.k8s.api.scheduling.v1.PriorityClass"),
    row("storage.k8s.io", "v1", "csidrivers", "CSIDriver", &[], "", "io.k8s.api.storage.v1.CSIDriver"),
    row("storage.k8s.io", "v1", "csinodes", "CSINode", &[], "", "io.k8s.api.storage.v1.CSINode"),
    row("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity", &[], "n", "io.k8s.api.storage.v1.CSIStorageCapacity"),
    row("storage.k8s.io", "v1", "storageclasses", "StorageClass", &["sc"], "", "io.k8s.api.storage.v1.StorageClass"),
    row("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", &[], "s", "io.k8s.api.storage.v1.VolumeAttachment"),
];

/// Fields that may stand in field selectors (Kubernetes documentation, "Field selectors", and the kinds' strategies).
fn selectable(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("apps", "replicasets") | ("", "replicationcontrollers") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", _) => &["spec.signerName"],
        _ => &[],
    }
}

pub(super) fn definitions() -> Vec<ResourceDef> {
    ROWS.iter().map(definition).collect()
}

fn definition(row: &Row) -> ResourceDef {
    let flag = |c: char| row.flags.contains(c);
    let scale = flag('c').then(|| ScalePaths {
        spec: "spec.replicas".into(),
        status: "status.replicas".into(),
        selector: None,
    });
    let mut categories = Vec::new();
    if flag('a') {
        categories.push("all".to_owned());
    }
    if flag('e') {
        categories.push("api-extensions".to_owned());
    }
    let version = |name: &str, definition| Version {
        name: name.to_owned(),
        schema: SchemaSource::Builtin(definition),
        status: flag('s'),
        scale: scale.clone(),
        columns: Vec::new(),
    };
    ResourceDef {
        gr: Gr::new(row.group, row.plural),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        singular: row.kind.to_lowercase(),
        short_names: row.shorts.iter().map(|&s| s.to_owned()).collect(),
        categories,
        namespaced: flag('n'),
        versions: vec![version(row.version, row.definition)],
        storage: row.version.to_owned(),
        generation: flag('g'),
        custom: false,
        extra: row.extra,
        selectable: selectable(row.group, row.plural).iter().map(|&s| s.to_owned()).collect(),
    }
}
