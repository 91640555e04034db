//! Objects of all kinds but nodes, one by one.

use std::borrow::Cow;
use std::sync::Arc;

use agent_control::{EndpointObject, Event, Object, ObjectKind, ObjectName};
use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NetworkPolicy, Object as _,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Source;
use crate::publish::Observed;

/// An object of any kind as it came. That it can always be decoded keeps one bad object from hiding all others of its list.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Name and version; the rest is in the value.
    metadata: ObjectMeta,
    value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |key: &str| value["metadata"][key].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        // Often more than the object itself, and of no use here.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
        }
        Ok(Self { metadata, value })
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Raw {
    fn name(&self) -> ObjectName {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ObjectName::new(text(&self.metadata.namespace), text(&self.metadata.name))
    }

    fn version(&self) -> u64 {
        version(self.metadata.resource_version.as_deref())
    }
}

/// A `resourceVersion` as a number, 0 if it is none.
pub(crate) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The resource of a type of `agent-crd`.
pub(crate) fn resource<T: agent_crd::Object>() -> ApiResource {
    ApiResource {
        group: T::GROUP.to_owned(),
        version: T::VERSION.to_owned(),
        api_version: T::api_version(),
        kind: T::KIND.to_owned(),
        plural: T::PLURAL.to_owned(),
    }
}

/// All objects of a kind; of pods those of one node.
#[derive(Debug)]
pub(super) struct Objects {
    kind: ObjectKind,
    node: String,
    observed: Arc<Observed>,
}

impl Objects {
    /// Pods are those of the node `node`; `observed` is told of all endpoints.
    pub(super) fn new(kind: ObjectKind, node: &str, observed: Arc<Observed>) -> Self {
        Self { kind, node: node.to_owned(), observed }
    }

    fn read(&self, value: Value) -> Result<Option<Object>, String> {
        if self.kind == ObjectKind::Endpoint {
            let endpoint = CiliumEndpoint::from_json(value).map_err(|error| error.source.to_string())?;
            let object = EndpointObject::from(&endpoint);
            self.observed.seen(endpoint);
            return Ok(Some(Object::Endpoint(object)));
        }
        Object::read(self.kind, &value).map_err(|error| error.to_string())
    }

    fn upsert(&self, raw: Raw) -> Option<Event> {
        let (name, version) = (raw.name(), raw.version());
        match self.read(raw.value) {
            Ok(object) => object.map(|object| Event::Upsert { object: Box::new(object), version }),
            Err(error) => Some(Event::Unreadable { kind: self.kind, name, error }),
        }
    }
}

impl Source for Objects {
    type Object = Raw;

    fn name(&self) -> &'static str {
        match self.kind {
            ObjectKind::Pod => "pods",
            ObjectKind::Namespace => "namespaces",
            ObjectKind::Identity => "ciliumidentities.cilium.io",
            ObjectKind::Endpoint => "ciliumendpoints.cilium.io",
            ObjectKind::CidrGroup => "ciliumcidrgroups.cilium.io",
            ObjectKind::NetworkPolicy => "networkpolicies.networking.k8s.io",
            ObjectKind::CiliumNetworkPolicy => "ciliumnetworkpolicies.cilium.io",
            ObjectKind::CiliumClusterwideNetworkPolicy => "ciliumclusterwidenetworkpolicies.cilium.io",
            ObjectKind::ClusterNetworkPolicy => "clusternetworkpolicies.policy.networking.k8s.io",
            ObjectKind::Service => "services",
            ObjectKind::EndpointSlice => "endpointslices.discovery.k8s.io",
        }
    }

    fn api(&self, client: Client) -> Api<Raw> {
        let resource = match self.kind {
            ObjectKind::Identity => resource::<CiliumIdentity>(),
            ObjectKind::Endpoint => resource::<CiliumEndpoint>(),
            ObjectKind::CidrGroup => resource::<CiliumCIDRGroup>(),
            ObjectKind::NetworkPolicy => resource::<NetworkPolicy>(),
            ObjectKind::CiliumNetworkPolicy => resource::<CiliumNetworkPolicy>(),
            ObjectKind::CiliumClusterwideNetworkPolicy => resource::<CiliumClusterwideNetworkPolicy>(),
            ObjectKind::ClusterNetworkPolicy => resource::<ClusterNetworkPolicy>(),
            ObjectKind::Pod => ApiResource::erase::<Pod>(&()),
            ObjectKind::Namespace => ApiResource::erase::<Namespace>(&()),
            ObjectKind::Service => ApiResource::erase::<Service>(&()),
            ObjectKind::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
        };
        Api::all_with(client, &resource)
    }

    fn config(&self) -> watcher::Config {
        match self.kind {
            ObjectKind::Pod => watcher::Config::default().fields(&format!("spec.nodeName={}", self.node)),
            _ => watcher::Config::default(),
        }
    }

    fn is_optional(&self) -> bool {
        self.kind == ObjectKind::ClusterNetworkPolicy
    }

    fn event(&self, event: watcher::Event<Raw>) -> Option<Event> {
        let is_endpoint = self.kind == ObjectKind::Endpoint;
        Some(match event {
            watcher::Event::Init => {
                if is_endpoint {
                    self.observed.list_started();
                }
                Event::ListStarted(self.kind)
            }
            watcher::Event::InitApply(raw) | watcher::Event::Apply(raw) => return self.upsert(raw),
            watcher::Event::InitDone => {
                if is_endpoint {
                    self.observed.list_synced();
                }
                Event::ListSynced(self.kind)
            }
            watcher::Event::Delete(raw) => {
                let (name, version) = (raw.name(), raw.version());
                if is_endpoint {
                    self.observed.gone(&name, version);
                }
                Event::Delete { kind: self.kind, name, version }
            }
        })
    }
}
