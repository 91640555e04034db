//! Definitions of the built-in kinds, generated from the types of `k8s-openapi`, and how their lists merge, which
//! those types do not carry.

use std::sync::OnceLock;

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// All built-in definitions by full name (`io.k8s.api.core.v1.Pod`), in OpenAPI 3.0 form.
pub fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(generate)
}

macro_rules! generate_all {
    ($generator:ident; $($t:ty),* $(,)?) => { $(let _ = $generator.subschema_for::<$t>();)* };
}

fn generate() -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    generate_all!(generator;
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy,
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
        api::apps::v1::ControllerRevision, api::apps::v1::DaemonSet, api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet, api::apps::v1::StatefulSet,
        api::authentication::v1::TokenRequest, api::authentication::v1::TokenReview,
        api::authentication::v1::SelfSubjectReview,
        api::authorization::v1::SelfSubjectAccessReview, api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview, api::authorization::v1::LocalSubjectAccessReview,
        api::autoscaling::v1::Scale, api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob, api::batch::v1::Job,
        api::certificates::v1::CertificateSigningRequest,
        api::coordination::v1::Lease,
        api::core::v1::Binding, api::core::v1::ConfigMap, api::core::v1::Endpoints, api::core::v1::Event,
        api::core::v1::LimitRange, api::core::v1::Namespace, api::core::v1::Node,
        api::core::v1::PersistentVolume, api::core::v1::PersistentVolumeClaim, api::core::v1::Pod,
        api::core::v1::PodTemplate, api::core::v1::ReplicationController, api::core::v1::ResourceQuota,
        api::core::v1::Secret, api::core::v1::Service, api::core::v1::ServiceAccount,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
        api::networking::v1::IPAddress, api::networking::v1::Ingress, api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy, api::networking::v1::ServiceCIDR,
        api::node::v1::RuntimeClass,
        api::policy::v1::Eviction, api::policy::v1::PodDisruptionBudget,
        api::rbac::v1::ClusterRole, api::rbac::v1::ClusterRoleBinding, api::rbac::v1::Role, api::rbac::v1::RoleBinding,
        api::scheduling::v1::PriorityClass,
        api::storage::v1::CSIDriver, api::storage::v1::CSINode, api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass, api::storage::v1::VolumeAttachment,
        apiextensions::CustomResourceDefinition,
        apiregistration::APIService,
        meta::DeleteOptions, meta::Status,
    );
    let mut definitions = generator.take_definitions(true);
    for (name, definition) in &mut definitions {
        add_merge_rules(name, definition);
    }
    definitions
}

/// Lists that merge: type, field, strategic merge key, keys for apply. An empty merge key means that a strategic
/// merge patch replaces the list; no keys for apply mean that it is a set of scalars.
#[rustfmt::skip]
const LISTS: &[(&str, &str, &str, &[&str])] = &[
    ("ObjectMeta", "finalizers", "", &[]),
    ("ObjectMeta", "ownerReferences", "uid", &["uid"]),
    ("Container", "env", "name", &["name"]),
    ("Container", "ports", "containerPort", &["containerPort", "protocol"]),
    ("Container", "volumeDevices", "devicePath", &["devicePath"]),
    ("Container", "volumeMounts", "mountPath", &["mountPath"]),
    ("EphemeralContainer", "env", "name", &["name"]),
    ("EphemeralContainer", "ports", "containerPort", &["containerPort", "protocol"]),
    ("EphemeralContainer", "volumeDevices", "devicePath", &["devicePath"]),
    ("EphemeralContainer", "volumeMounts", "mountPath", &["mountPath"]),
    ("PodSpec", "containers", "name", &["name"]),
    ("PodSpec", "ephemeralContainers", "name", &["name"]),
    ("PodSpec", "hostAliases", "ip", &["ip"]),
    ("PodSpec", "imagePullSecrets", "name", &["name"]),
    ("PodSpec", "initContainers", "name", &["name"]),
    ("PodSpec", "resourceClaims", "name", &["name"]),
    ("PodSpec", "schedulingGates", "name", &["name"]),
    ("PodSpec", "topologySpreadConstraints", "topologyKey", &["topologyKey", "whenUnsatisfiable"]),
    ("PodSpec", "volumes", "name", &["name"]),
    ("PodStatus", "hostIPs", "ip", &["ip"]),
    ("PodStatus", "podIPs", "ip", &["ip"]),
    ("PodStatus", "resourceClaimStatuses", "name", &["name"]),
    ("NodeSpec", "podCIDRs", "", &[]),
    ("NodeStatus", "addresses", "type", &["type"]),
    ("ResourceRequirements", "claims", "", &["name"]),
    ("ServiceAccount", "secrets", "name", &["name"]),
    ("ServiceAccount", "imagePullSecrets", "", &["name"]),
    ("ServiceSpec", "ports", "port", &["port", "protocol"]),
    ("StatefulSetSpec", "volumeClaimTemplates", "", &["metadata.name"]),
    ("Endpoint", "addresses", "", &[]),
    ("MutatingWebhookConfiguration", "webhooks", "name", &["name"]),
    ("ValidatingWebhookConfiguration", "webhooks", "name", &["name"]),
    ("MutatingWebhook", "matchConditions", "name", &["name"]),
    ("ValidatingWebhook", "matchConditions", "name", &["name"]),
    ("ValidatingAdmissionPolicySpec", "matchConditions", "name", &["name"]),
    ("ValidatingAdmissionPolicySpec", "variables", "name", &["name"]),
    ("CSINodeSpec", "drivers", "name", &["name"]),
];

/// Lists of scalars that a strategic merge patch adds to.
const MERGED_SETS: &[(&str, &str)] = &[("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs")];

/// Maps of fields that apply replaces as a whole.
const ATOMIC: &[&str] = &[
    "LabelSelector",
    "LocalObjectReference",
    "ObjectReference",
    "TypedLocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "SecretReference",
    "EndpointAddress",
    "EndpointPort",
    "OwnerReference",
    "RoleRef",
    "Subject",
    "ScopeSelector",
    "NodeConfigSource",
    "TopologySelectorTerm",
    "TypedObjectReference",
];

/// Plain maps that apply replaces as a whole.
const ATOMIC_FIELDS: &[(&str, &str)] = &[
    ("ServiceSpec", "selector"),
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
    ("Scheduling", "nodeSelector"),
];

/// Structs of which a strategic merge patch keeps only the fields it names.
const RETAIN_KEYS: &[(&str, &str)] = &[("DeploymentSpec", "strategy"), ("PodSpec", "volumes")];

/// Types of any shape.
const OPEN: &[&str] = &[
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
    "RawExtension",
    "FieldsV1",
];

fn add_merge_rules(full_name: &str, definition: &mut Value) {
    let kind = full_name.rsplit('.').next().unwrap_or(full_name);
    if OPEN.contains(&kind) {
        let description = definition["description"].clone();
        *definition = json!({"description": description, "x-kubernetes-preserve-unknown-fields": true});
        return;
    }
    if ATOMIC.contains(&kind) {
        definition["x-kubernetes-map-type"] = json!("atomic");
    }
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (_, field, merge_key, keys) in LISTS.iter().filter(|l| l.0 == kind) {
        let Some(node) = properties.get_mut(*field) else { continue };
        if keys.is_empty() {
            node["x-kubernetes-list-type"] = json!("set");
        } else {
            node["x-kubernetes-list-type"] = json!("map");
            node["x-kubernetes-list-map-keys"] = json!(keys);
        }
        if !merge_key.is_empty() {
            node["x-kubernetes-patch-merge-key"] = json!(merge_key);
            node["x-kubernetes-patch-strategy"] = json!("merge");
        }
    }
    // Conditions of all built-in status types are told apart by their type.
    if let Some(node) = properties.get_mut("conditions").filter(|_| kind.ends_with("Status")) {
        node["x-kubernetes-list-type"] = json!("map");
        node["x-kubernetes-list-map-keys"] = json!(["type"]);
        node["x-kubernetes-patch-merge-key"] = json!("type");
        node["x-kubernetes-patch-strategy"] = json!("merge");
    }
    for (_, field) in MERGED_SETS.iter().filter(|l| l.0 == kind) {
        if let Some(node) = properties.get_mut(*field) {
            node["x-kubernetes-patch-strategy"] = json!("merge");
        }
    }
    for (_, field) in ATOMIC_FIELDS.iter().filter(|l| l.0 == kind) {
        if let Some(node) = properties.get_mut(*field) {
            node["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    for (_, field) in RETAIN_KEYS.iter().filter(|l| l.0 == kind) {
        if let Some(node) = properties.get_mut(*field) {
            let both = if node.get("x-kubernetes-patch-strategy").is_some() {
                "merge,retainKeys"
            } else {
                "retainKeys"
            };
            node["x-kubernetes-patch-strategy"] = json!(both);
        }
    }
}
