//! Objects as the API gives them, and what the operator reads of them. A mistake in one object never stops a watch.

use std::borrow::Cow;

use agent_crd::cilium_network_policy::PolicyStatus;
use agent_crd::{
    CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NodePolicyStatus, Object,
};
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

use crate::core::validity::Validity;
use crate::core::{self, Endpoint, Kind, Policy, Seen};

/// The parts of a core/v1 Pod that the operator reads. The rest is skipped while decoding.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    service_account_name: String,
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl kube::Resource for Pod {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

pub(super) fn pod(pod: Pod) -> Seen {
    Seen::Pod(core::Pod {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        labels: pod.metadata.labels.unwrap_or_default(),
        service_account: pod.spec.service_account_name,
        host_network: pod.spec.host_network,
        finished: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
    })
}

pub(super) fn namespace(namespace: k8s_openapi::api::core::v1::Namespace) -> Seen {
    Seen::Namespace(core::Namespace {
        name: namespace.metadata.name.unwrap_or_default(),
        labels: namespace.metadata.labels.unwrap_or_default(),
    })
}

/// How the API calls a kind of ours.
pub(super) fn resource<T: Object>() -> ApiResource {
    ApiResource {
        group: T::GROUP.to_owned(),
        version: T::VERSION.to_owned(),
        api_version: T::api_version(),
        kind: T::KIND.to_owned(),
        plural: T::PLURAL.to_owned(),
    }
}

/// How the API calls a kind of policy.
pub(super) fn policy_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::NamespacedPolicy => resource::<CiliumNetworkPolicy>(),
        Kind::ClusterPolicy => resource::<ClusterNetworkPolicy>(),
        _ => resource::<CiliumClusterwideNetworkPolicy>(),
    }
}

fn json(object: &DynamicObject) -> Value {
    // It has been made from JSON.
    serde_json::to_value(object).unwrap_or_default()
}

/// An identity. One that cannot be read has no labels, but its number is taken all the same.
pub(super) fn read_identity(object: &DynamicObject) -> CiliumIdentity {
    CiliumIdentity::from_json(json(object))
        .unwrap_or_else(|_| CiliumIdentity { metadata: metadata(object), ..CiliumIdentity::default() })
}

pub(super) fn identity(object: &DynamicObject) -> Seen {
    Seen::Identity(read_identity(object))
}

pub(super) fn endpoint(object: &DynamicObject) -> Seen {
    // Only this is read, so that nothing else in it can hide that it has an identity.
    let number = object.data.pointer("/status/identity/id").and_then(Value::as_i64);
    let metadata = metadata(object);
    Seen::Endpoint(Endpoint {
        namespace: metadata.namespace,
        name: metadata.name,
        identity: number.and_then(|number| u32::try_from(number).ok()),
    })
}

/// How the API calls endpoints.
pub(super) fn endpoint_resource() -> ApiResource {
    resource::<CiliumEndpoint>()
}

pub(super) fn namespaced_policy(object: &DynamicObject) -> Seen {
    policy(Kind::NamespacedPolicy, object, Validity::of_namespaced(json(object)))
}

pub(super) fn clusterwide_policy(object: &DynamicObject) -> Seen {
    policy(Kind::ClusterwidePolicy, object, Validity::of_clusterwide(json(object)))
}

pub(super) fn cluster_policy(object: &DynamicObject) -> Seen {
    policy(Kind::ClusterPolicy, object, Validity::of_cluster(json(object)))
}

/// What an agent says of policies. One that cannot be read says that none is in force there.
pub(super) fn node_status(object: &DynamicObject) -> Seen {
    Seen::NodeStatus(
        NodePolicyStatus::from_json(json(object)).unwrap_or_else(|_| NodePolicyStatus {
            metadata: metadata(object),
            ..NodePolicyStatus::default()
        }),
    )
}

fn policy(kind: Kind, object: &DynamicObject, validity: Validity) -> Seen {
    let status = object.data.get("status").cloned().unwrap_or_default();
    Seen::Policy(Policy {
        kind,
        metadata: metadata(object),
        validity,
        status: serde_json::from_value::<PolicyStatus>(status).unwrap_or_default(),
    })
}

fn metadata(object: &DynamicObject) -> agent_crd::ObjectMeta {
    agent_crd::ObjectMeta {
        name: object.metadata.name.clone().unwrap_or_default(),
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        ..agent_crd::ObjectMeta::default()
    }
}
