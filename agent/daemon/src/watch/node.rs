//! Node objects: what the agent reads of them.

use std::borrow::Cow;
use std::sync::Arc;

use agent_control::{Event, NodeObject};
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::Deserialize;

use super::{Source, version};
use crate::publish::{Observed, REVISION_ANNOTATION};

/// All Node objects.
#[derive(Debug)]
pub(super) struct Nodes {
    own: String,
    observed: Option<Arc<Observed>>,
}

impl Nodes {
    /// `observed` is told of the Node `own`.
    pub(super) fn new(own: &str, observed: Option<Arc<Observed>>) -> Self {
        Self { own: own.to_owned(), observed }
    }

    fn observe(&self, node: &Node) {
        if let Some(observed) =
            self.observed.as_ref().filter(|_| node.metadata.name.as_ref() == Some(&self.own))
        {
            let annotations = node.metadata.annotations.as_ref();
            let revision = annotations.and_then(|annotations| annotations.get(REVISION_ANNOTATION)).cloned();
            let version = version(node.metadata.resource_version.as_deref());
            observed.seen_node(node.metadata.uid.clone(), revision, version);
        }
    }
}

impl Source for Nodes {
    type Object = Node;

    fn name(&self) -> &'static str {
        "nodes"
    }

    fn api(&self, client: Client) -> Api<Node> {
        Api::all(client)
    }

    fn is_optional(&self) -> bool {
        false
    }

    fn event(&self, event: watcher::Event<Node>) -> Option<Event> {
        Some(match event {
            watcher::Event::Init => {
                if let Some(observed) = &self.observed {
                    observed.node_list_started();
                }
                Event::NodeListStarted
            }
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                self.observe(&node);
                Event::NodeUpsert(node.into())
            }
            watcher::Event::InitDone => Event::NodeListSynced,
            watcher::Event::Delete(node) => {
                Event::NodeDelete { name: node.metadata.name.unwrap_or_default() }
            }
        })
    }
}

/// The parts of a core/v1 Node that the agent reads. The rest is skipped while decoding, so that the status of big
/// nodes (images, conditions) never takes memory here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl kube::Resource for Node {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<Node> for NodeObject {
    fn from(node: Node) -> Self {
        let pod_cidrs = match (node.spec.pod_cidrs.is_empty(), node.spec.pod_cidr.is_empty()) {
            (true, false) => vec![node.spec.pod_cidr],
            _ => node.spec.pod_cidrs,
        };
        let internal = |address: NodeAddress| (address.kind == "InternalIP").then_some(address.address);
        Self {
            name: node.metadata.name.unwrap_or_default(),
            uid: node.metadata.uid.unwrap_or_default(),
            created_s: node
                .metadata
                .creation_timestamp
                .map_or(0, |time| u64::try_from(time.0.as_second()).unwrap_or(0)),
            pod_cidrs,
            internal_ips: node.status.addresses.into_iter().filter_map(internal).collect(),
            labels: node.metadata.labels.unwrap_or_default(),
        }
    }
}
