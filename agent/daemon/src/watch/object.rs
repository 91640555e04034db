//! Objects of all kinds but nodes and pods: read by the types of `agent-crd`, one by one.

use std::borrow::Cow;
use std::sync::Arc;

use agent_control::{EndpointObject, Event, NamespaceObject, Object, ObjectKind, ObjectName};
use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NetworkPolicy,
};
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

/// All objects of a kind.
#[derive(Debug)]
pub(super) struct Objects {
    kind: ObjectKind,
    observed: Arc<Observed>,
}

impl Objects {
    /// `observed` is told of all endpoints.
    pub(super) const fn new(kind: ObjectKind, observed: Arc<Observed>) -> Self {
        Self { kind, observed }
    }

    fn read(&self, value: Value) -> Result<Object, String> {
        fn of<T: agent_crd::Object>(value: Value) -> Result<T, String> {
            T::from_json(value).map_err(|error| error.source.to_string())
        }
        Ok(match self.kind {
            ObjectKind::Identity => Object::Identity(of(value)?),
            ObjectKind::Endpoint => {
                let endpoint: CiliumEndpoint = of(value)?;
                let object = EndpointObject::from(&endpoint);
                self.observed.seen(endpoint);
                Object::Endpoint(object)
            }
            ObjectKind::CidrGroup => Object::CidrGroup(of(value)?),
            ObjectKind::NetworkPolicy => Object::NetworkPolicy(of(value)?),
            ObjectKind::CiliumNetworkPolicy => Object::CiliumNetworkPolicy(of(value)?),
            ObjectKind::CiliumClusterwideNetworkPolicy => Object::CiliumClusterwideNetworkPolicy(of(value)?),
            ObjectKind::ClusterNetworkPolicy => Object::ClusterNetworkPolicy(of(value)?),
            ObjectKind::Namespace | ObjectKind::Pod => {
                let read: Labelled = serde_json::from_value(value).map_err(|error| error.to_string())?;
                Object::Namespace(NamespaceObject { name: read.metadata.name, labels: read.metadata.labels })
            }
        })
    }

    fn upsert(&self, raw: Raw) -> Event {
        let (name, version) = (raw.name(), raw.version());
        match self.read(raw.value) {
            Ok(object) => Event::Upsert { object: Box::new(object), version },
            Err(error) => Event::Unreadable { kind: self.kind, name, error },
        }
    }
}

/// An object of which only names and labels matter.
#[derive(Debug, Deserialize)]
struct Labelled {
    metadata: agent_crd::ObjectMeta,
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
            ObjectKind::Namespace | ObjectKind::Pod => {
                ApiResource::erase::<k8s_openapi::api::core::v1::Namespace>(&())
            }
        };
        Api::all_with(client, &resource)
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
            watcher::Event::InitApply(raw) | watcher::Event::Apply(raw) => self.upsert(raw),
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
