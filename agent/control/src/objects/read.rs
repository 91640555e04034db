//! Objects as the API has them, read into what the agent keeps of them.

mod service;

use std::collections::BTreeMap;

use agent_crd::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy,
    ClusterNetworkPolicy, NetworkPolicy, Object as _,
};
use serde::Deserialize;
use serde_json::Value;

use service::{Service, Slice};

use super::{EndpointObject, NamespaceObject, Object, ObjectKind, PodObject, named_port};

/// An object that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(String);

/// The parts of core/v1 Pod that matter.
#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    service_account_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
    restart_policy: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerPort {
    name: String,
    #[serde(rename = "containerPort")]
    number: u16,
    protocol: String,
}

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

impl Object {
    /// Reads an object of a kind. `None`: it is of no concern, as a pod in its node's own network is.
    ///
    /// # Errors
    /// With what is wrong, for the object's owner. Nothing of it is taken then.
    pub fn read(kind: ObjectKind, object: &Value) -> Result<Option<Self>, ReadError> {
        let wrong = |error: agent_crd::ReadError| ReadError(error.source.to_string());
        Ok(Some(match kind {
            ObjectKind::Pod => {
                let pod: Pod = plain(object)?;
                if pod.spec.host_network {
                    return Ok(None);
                }
                Self::Pod(pod.into())
            }
            ObjectKind::Namespace => {
                let Namespace { metadata } = plain(object)?;
                Self::Namespace(NamespaceObject { name: metadata.name, labels: metadata.labels })
            }
            ObjectKind::Identity => Self::Identity(CiliumIdentity::from_json(object.clone()).map_err(wrong)?),
            ObjectKind::Endpoint => Self::Endpoint(EndpointObject::from(
                &CiliumEndpoint::from_json(object.clone()).map_err(wrong)?,
            )),
            ObjectKind::Service => Self::Service(plain::<Service>(object)?.into()),
            ObjectKind::EndpointSlice => Self::EndpointSlice(plain::<Slice>(object)?.into()),
            ObjectKind::CidrGroup => {
                Self::CidrGroup(CiliumCIDRGroup::from_json(object.clone()).map_err(wrong)?)
            }
            ObjectKind::NetworkPolicy => {
                Self::NetworkPolicy(NetworkPolicy::from_json(object.clone()).map_err(wrong)?)
            }
            ObjectKind::CiliumNetworkPolicy => {
                Self::CiliumNetworkPolicy(CiliumNetworkPolicy::from_json(object.clone()).map_err(wrong)?)
            }
            ObjectKind::CiliumClusterwideNetworkPolicy => Self::CiliumClusterwideNetworkPolicy(
                CiliumClusterwideNetworkPolicy::from_json(object.clone()).map_err(wrong)?,
            ),
            ObjectKind::ClusterNetworkPolicy => {
                Self::ClusterNetworkPolicy(ClusterNetworkPolicy::from_json(object.clone()).map_err(wrong)?)
            }
        }))
    }
}

fn plain<T: for<'de> Deserialize<'de>>(object: &Value) -> Result<T, ReadError> {
    T::deserialize(object).map_err(|error| ReadError(error.to_string()))
}

impl From<Pod> for PodObject {
    fn from(pod: Pod) -> Self {
        let Pod { metadata, spec } = pod;
        // Init containers that restart run beside the others for the pod's whole life.
        let sidecars = spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: metadata.labels,
            service_account: spec.service_account_name,
            named_ports: ports
                .filter_map(|port| named_port(&port.name, &port.protocol, port.number))
                .collect(),
        }
    }
}

impl ObjectKind {
    /// The kind of an object by its `apiVersion` and `kind`.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        Some(match (text("apiVersion"), text("kind")) {
            ("v1", "Pod") => Self::Pod,
            ("v1", "Namespace") => Self::Namespace,
            ("v1", "Service") => Self::Service,
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::EndpointSlice,
            ("cilium.io/v2", "CiliumIdentity") => Self::Identity,
            ("cilium.io/v2", "CiliumEndpoint") => Self::Endpoint,
            ("cilium.io/v2", "CiliumCIDRGroup") => Self::CidrGroup,
            ("networking.k8s.io/v1", "NetworkPolicy") => Self::NetworkPolicy,
            ("cilium.io/v2", "CiliumNetworkPolicy") => Self::CiliumNetworkPolicy,
            ("cilium.io/v2", "CiliumClusterwideNetworkPolicy") => Self::CiliumClusterwideNetworkPolicy,
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => Self::ClusterNetworkPolicy,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_with_the_ports_of_what_runs_for_its_whole_life() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "labels": {"app": "web"}},
            "spec": {
                "serviceAccountName": "robot",
                "containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}],
                "initContainers": [
                    {"ports": [{"name": "early", "containerPort": 1}]},
                    {"restartPolicy": "Always", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                ],
            },
        });
        assert_eq!(ObjectKind::of(&object), Some(ObjectKind::Pod));
        let Some(Object::Pod(pod)) = Object::read(ObjectKind::Pod, &object).unwrap() else { panic!() };
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("shop", "web-1", "u"));
        let ports: Vec<_> =
            pod.named_ports.iter().map(|port| (port.name.as_str(), port.proto, port.port)).collect();
        assert_eq!(ports, [("http", 6, 80), ("dns", 17, 53)]);
    }

    #[test]
    fn pods_in_the_nodes_network_do_not_matter_and_nonsense_is_told() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true}});
        assert_eq!(Object::read(ObjectKind::Pod, &object).unwrap(), None);
        let object = json!({"metadata": {"name": "a"}, "spec": {"podSelector": 7}});
        assert!(Object::read(ObjectKind::NetworkPolicy, &object).is_err());
    }
}
