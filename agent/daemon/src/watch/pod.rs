//! Pods of the own node: what the agent reads of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use agent_control::{Event, Object, ObjectKind, ObjectName, PodObject, named_port};
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::Deserialize;

use super::Source;
use super::object::version;

/// The pods of a node that have a network of their own.
#[derive(Debug)]
pub(super) struct Pods {
    selector: String,
}

impl Pods {
    /// Those of the node `node`.
    pub(super) fn of(node: &str) -> Self {
        Self { selector: format!("spec.nodeName={node}") }
    }
}

impl Source for Pods {
    type Object = Pod;

    fn name(&self) -> &'static str {
        "pods"
    }

    fn api(&self, client: Client) -> Api<Pod> {
        Api::all(client)
    }

    fn config(&self) -> watcher::Config {
        watcher::Config::default().fields(&self.selector)
    }

    fn is_optional(&self) -> bool {
        false
    }

    fn event(&self, event: watcher::Event<Pod>) -> Option<Event> {
        Some(match event {
            watcher::Event::Init => Event::ListStarted(ObjectKind::Pod),
            watcher::Event::InitDone => Event::ListSynced(ObjectKind::Pod),
            // Pods in the node's network have no endpoint: their packets are the node's.
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) | watcher::Event::Delete(pod)
                if pod.spec.host_network =>
            {
                return None;
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let version = version(pod.metadata.resource_version.as_deref());
                Event::Upsert { object: Box::new(Object::Pod(pod.into())), version }
            }
            watcher::Event::Delete(pod) => Event::Delete {
                kind: ObjectKind::Pod,
                version: version(pod.metadata.resource_version.as_deref()),
                name: ObjectName::new(
                    pod.metadata.namespace.unwrap_or_default(),
                    pod.metadata.name.unwrap_or_default(),
                ),
            },
        })
    }
}

/// The parts of a core/v1 Pod that the agent reads. The rest is skipped while decoding.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    host_network: bool,
    service_account_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
    restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerPort {
    name: String,
    protocol: String,
    #[serde(rename = "containerPort")]
    number: u16,
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

impl From<Pod> for PodObject {
    fn from(pod: Pod) -> Self {
        // Init containers that stay serve beside the others; those that end do not.
        let stays = pod.spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
        let ports = pod.spec.containers.iter().chain(stays).flat_map(|container| &container.ports);
        Self {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            labels: pod.metadata.labels.map(BTreeMap::from_iter).unwrap_or_default(),
            service_account: pod.spec.service_account_name,
            named_ports: ports
                .filter_map(|port| named_port(&port.name, &port.protocol, port.number))
                .collect(),
        }
    }
}
