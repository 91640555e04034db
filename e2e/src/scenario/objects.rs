//! Kubernetes objects of scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use lab::Cluster;
use lab::image::echo::READY_FILE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sim_scenario::model::{ObjectRef, Pod as PodSpec, Request};
use sim_scenario::object::is_never_ready;

/// Annotation that is changed to see that a watch is alive.
const SEEN: &str = "e2e.bristle.io/seen";

/// A pod of few words as an object; it is ready when all of its ports listen.
pub(super) fn pod(pod: &PodSpec) -> Value {
    let mut object = pod.to_object();
    if !pod.ready {
        return object;
    }
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

/// Namespaces that a cluster has before a scenario begins.
const OWN: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "bristle-system"];

/// Deletes services, endpoints, pods and namespaces that a cluster has not of itself.
pub(super) async fn delete_all(client: &Client) -> anyhow::Result<()> {
    for service in everywhere::<Service>(client).await? {
        remove(client, service, &DeleteParams::default()).await?;
    }
    for endpoints in everywhere::<Endpoints>(client).await? {
        remove(client, endpoints, &DeleteParams::default()).await?;
    }
    for pod in everywhere::<Pod>(client).await? {
        remove(client, pod, &DeleteParams::default().grace_period(0)).await?;
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    for namespace in namespaces.list(&ListParams::default()).await.context("list namespaces")? {
        let name = namespace.metadata.name.unwrap_or_default();
        if !OWN.contains(&name.as_str()) {
            namespaces.delete(&name, &DeleteParams::default()).await.context("delete a namespace")?;
        }
    }
    Ok(())
}

/// All objects of a kind but those of the cluster itself.
async fn everywhere<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    let of_a_case = |object: &K| {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let is_api = namespace == "default" && meta.name.as_deref() == Some("kubernetes");
        !is_api && (namespace == "default" || !OWN.contains(&namespace))
    };
    Ok(list.context("list what is there")?.items.into_iter().filter(of_a_case).collect())
}

/// Deletes an object; one that is gone meanwhile is as good.
async fn remove<K>(client: &Client, object: K, params: &DeleteParams) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    match Api::<K>::namespaced(client.clone(), namespace).delete(name, params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("delete {namespace}/{name}")),
    }
}

/// Asks the API server; what is wrong with its answer is the error.
pub(super) async fn request(client: &Client, of: &Request) -> anyhow::Result<()> {
    let body = of.body.as_ref().map(Value::to_string).unwrap_or_default();
    let request = http::Request::builder()
        .method(of.method.word())
        .uri(&of.path)
        .header(http::header::CONTENT_TYPE, of.method.media_type())
        .body(body.into_bytes())
        .context("make the request")?;
    let (status, answer) = match client.request::<Value>(request).await {
        Ok(answer) => (200, answer),
        Err(kube::Error::Api(status)) => (status.code, serde_json::to_value(&status)?),
        Err(error) => return Err(error).with_context(|| format!("{} {}", of.method.word(), of.path)),
    };
    of.wrong(status, &answer).map_or(Ok(()), |why| bail!(why))
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

    /// Pods that are not what they shall become, or not yet gone; with `lingering`, those that go on to serve until they end are not
    /// among them.
    pub(super) fn restless(&self, lingering: bool) -> Vec<String> {
        let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() || lingering && lingers(pod);
        let restless = |pod: &&Pod| !is_as_ready_as_it_gets(pod) || !stays(pod);
        self.0.iter().filter(restless).map(full_name).collect()
    }

    /// All pods by `namespace/name` with their addresses.
    pub(super) fn addresses(&self) -> Vec<(String, Vec<IpAddr>)> {
        self.0.iter().map(|pod| (full_name(pod), addresses_of(pod))).collect()
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

/// Whether a pod is ready, has ended, or runs and never becomes ready.
fn is_as_ready_as_it_gets(pod: &Pod) -> bool {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Failed" | "Succeeded") => true,
        Some("Running") if serde_json::to_value(pod).is_ok_and(|pod| is_never_ready(&pod)) => true,
        _ => is_ready(pod),
    }
}

/// Whether a pod goes on to serve after it was deleted.
fn lingers(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.args.iter().flatten()).any(|arg| arg == "--linger")
}

fn addresses_of(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    ips.into_iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect()
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
    Ok(addresses_of(&Api::<Pod>::namespaced(client.clone(), namespace).get(name).await?))
}

/// Cluster addresses of a service; none if it is gone.
pub(super) async fn service_addresses(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    let service = Api::<Service>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let ips = service.and_then(|service| service.spec?.cluster_ips).unwrap_or_default();
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
            namespace: "x".into(),
            node: Some("node-2".into()),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            serve: ["http:8080", "tcp:9000", "udp:5353"].map(|s| s.parse().expect("a server")).into(),
            ..PodSpec::new("a")
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
