//! Kubernetes objects of scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use lab::Cluster;
use lab::image::echo::READY_FILE;
use serde_json::{Value, json};
use sim_scenario::model::{ObjectRef, Pod as PodSpec};

/// Annotation that is changed to see that a watch is alive.
const SEEN: &str = "e2e.bristle.io/seen";

/// A pod of few words as an object; it is ready when all of its ports listen.
pub(super) fn pod(pod: &PodSpec) -> Value {
    let mut object = pod.to_object();
    object["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", READY_FILE]}, "periodSeconds": 60});
    object
}

/// Makes a pod, and its namespace if it is not there.
pub(super) fn make_pod(cluster: &Cluster, of: &PodSpec) -> anyhow::Result<()> {
    if of.namespace != "default" {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": of.namespace}});
        cluster.apply_object(namespace)?;
    }
    Ok(cluster.apply_object(pod(of))?)
}

/// Deletes a pod by `namespace/name` or by name.
pub(super) async fn delete_pod(client: &Client, name: &str) -> anyhow::Result<()> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    pods.delete(name, &DeleteParams::default()).await.with_context(|| format!("delete pod {name}"))?;
    Ok(())
}

/// Deletes any object.
pub(super) async fn delete(client: &Client, object: &ObjectRef) -> anyhow::Result<()> {
    let (group, version) = object.api_version.split_once('/').unwrap_or(("", &object.api_version));
    let kind = GroupVersionKind::gvk(group, version, &object.kind);
    let what = format!("delete {} {}", object.kind, object.name);
    let (resource, capabilities) =
        kube::discovery::pinned_kind(client, &kind).await.with_context(|| what.clone())?;
    let api: Api<DynamicObject> = match capabilities.scope {
        kube::discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        kube::discovery::Scope::Namespaced => {
            let namespace = object.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    api.delete(&object.name, &DeleteParams::default()).await.with_context(|| what)?;
    Ok(())
}

/// Pods as the API shows them.
pub(super) struct Pods(Vec<Pod>);

impl Pods {
    pub(super) async fn list(client: &Client) -> anyhow::Result<Self> {
        let list = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.context("list pods")?;
        Ok(Self(list.items))
    }

    /// Ready pods as `namespace/name`, by node; those that are being deleted do not count.
    pub(super) fn ready(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.by_node(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
    }

    /// Pods that are not ready, or not yet gone.
    pub(super) fn restless(&self) -> Vec<String> {
        let restless = |pod: &&Pod| !is_ready(pod) || pod.metadata.deletion_timestamp.is_some();
        self.0.iter().filter(restless).map(full_name).collect()
    }

    fn by_node(&self, wanted: impl Fn(&Pod) -> bool) -> BTreeMap<String, BTreeSet<String>> {
        let mut by_node: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in self.0.iter().filter(|pod| wanted(pod)) {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                by_node.entry(node).or_default().insert(full_name(pod));
            }
        }
        by_node
    }
}

fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Workloads whose pods are not all there.
pub(super) async fn incomplete_workloads(client: &Client) -> anyhow::Result<Vec<String>> {
    let all = ListParams::default();
    let mut incomplete = Vec::new();
    let mut note = |kind: &str, name: Option<String>, wanted: i32, ready: Option<i32>| {
        if wanted != ready.unwrap_or(0) {
            incomplete.push(format!("{kind} {}", name.unwrap_or_default()));
        }
    };
    for one in Api::<Deployment>::all(client.clone()).list(&all).await.context("list deployments")? {
        let wanted = one.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        note("Deployment", one.metadata.name, wanted, one.status.and_then(|status| status.ready_replicas));
    }
    for one in Api::<ReplicaSet>::all(client.clone()).list(&all).await.context("list replica sets")? {
        let wanted = one.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        note("ReplicaSet", one.metadata.name, wanted, one.status.and_then(|status| status.ready_replicas));
    }
    for one in Api::<DaemonSet>::all(client.clone()).list(&all).await.context("list daemon sets")? {
        let status = one.status.unwrap_or_default();
        // Before its controller has seen it, it wants no pods.
        let wanted = if status.observed_generation.is_none() { -1 } else { status.desired_number_scheduled };
        note("DaemonSet", one.metadata.name, wanted, Some(status.number_ready));
    }
    Ok(incomplete)
}

/// Addresses of a pod.
pub(super) async fn pod_addresses(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get(name).await?;
    let ips = pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
    Ok(ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect())
}

/// Cluster addresses of a service.
pub(super) async fn service_addresses(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(name).await?;
    let ips = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
    Ok(ips.iter().filter_map(|ip| ip.parse().ok()).collect())
}

/// Changes something about a node that means nothing, so that every watch of nodes has something to tell.
pub(super) async fn touch_node(client: &Client, node: &str, number: u64) -> anyhow::Result<()> {
    let patch = json!({"metadata": {"annotations": {SEEN: number.to_string()}}});
    let nodes = Api::<Node>::all(client.clone());
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await.context("change a node")?;
    Ok(())
}

/// What belongs to each node: its addresses and pod CIDRs as (address, prefix length).
pub(super) async fn node_blocks(client: &Client) -> anyhow::Result<BTreeMap<String, Vec<(IpAddr, u8)>>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list nodes")?;
    let mut blocks = BTreeMap::new();
    for node in nodes {
        let name = node.metadata.name.unwrap_or_default();
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let own = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let own = own.filter_map(|address| address.address.parse::<IpAddr>().ok());
        let mut list: Vec<(IpAddr, u8)> = own.map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 })).collect();
        for cidr in node.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default() {
            let parsed =
                cidr.split_once('/').and_then(|(ip, bits)| Some((ip.parse().ok()?, bits.parse().ok()?)));
            match parsed {
                Some(block) => list.push(block),
                None => bail!("node {name} has a pod CIDR {cidr}"),
            }
        }
        blocks.insert(name, list);
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_serves_what_it_is_told_to() {
        let spec = PodSpec {
            name: "a".into(),
            namespace: "x".into(),
            node: Some("node-2".into()),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            serve: ["http:8080", "tcp:9000", "udp:5353"].map(|s| s.parse().expect("a server")).into(),
        };
        let object = pod(&spec);
        assert_eq!(
            object["spec"]["containers"][0]["args"],
            json!(["--http", "8080", "--tcp", "9000", "--udp", "5353"])
        );
        assert_eq!(
            (&object["spec"]["nodeName"], &object["metadata"]["labels"]["app"]),
            (&json!("node-2"), &json!("web"))
        );
        serde_json::from_value::<Pod>(object).expect("a pod as Kubernetes has it");
    }
}
