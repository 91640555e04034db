//! What the cases need in the cluster: namespace, clients, echo servers, services, helpers on the nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Family, HOSTNAME_LABEL, NodeFacts};
use crate::exec::{self, Place};
use crate::matrix::{Image, PolicySpec, ServiceSpec, Topology, Workload};

/// API group of policies.
pub const POLICY_GROUP: &str = "cilium.io";
/// `apiVersion` of policies.
pub const POLICY_VERSION: &str = "cilium.io/v2";
/// `kind` of policies.
pub const POLICY_KIND: &str = "CiliumNetworkPolicy";

/// Name under which objects are applied.
const MANAGER: &str = "bristle-e2e";
/// Label that all our pods and Deployments carry.
const OWNER_LABEL: &str = "bristle.io/e2e";

/// Images that the workloads run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Shell, curl, ping, nslookup, tcpdump; its default command sleeps.
    pub client: String,
    /// HTTP server on 8080.
    pub echo: String,
}

impl Default for Images {
    /// Those that a lab has built in.
    fn default() -> Self {
        Self { client: "bristle/client".to_owned(), echo: "bristle/http-echo".to_owned() }
    }
}

/// A running test pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Where commands are run in it.
    pub place: Place,
    /// Its node's name.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A service as the API server completed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Cluster addresses; empty if the cluster gave none.
    pub addresses: Vec<IpAddr>,
    /// Node port, if the cluster gave one.
    pub node_port: Option<u16>,
    /// The port that it and its pods serve.
    pub port: u16,
}

/// Everything that is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// Real nodes by letter.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// Pods by workload.
    pub pods: BTreeMap<String, PodFacts>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceFacts>,
    /// Helper pods in the nodes' own network, by letter, where they came up.
    pub helpers: BTreeMap<String, PodFacts>,
}

impl Deployed {
    /// The families in which all test pods have an address.
    pub fn families(&self) -> Vec<Family> {
        Family::ALL
            .into_iter()
            .filter(|family| {
                !self.pods.is_empty() && self.pods.values().all(|pod| family.pick(&pod.addresses).is_some())
            })
            .collect()
    }
}

/// Applies all objects and waits until the pods are ready, at most `limit`.
pub async fn deploy(
    client: &Client,
    topology: &Topology,
    images: &Images,
    nodes: &[NodeFacts],
    limit: Duration,
) -> anyhow::Result<Deployed> {
    let nodes: BTreeMap<String, NodeFacts> =
        topology.nodes.iter().cloned().zip(nodes.iter().cloned()).collect();
    let namespace = &topology.namespace;
    wait_until_not_terminating(client, namespace, limit).await?;
    apply(&Api::<Namespace>::all(client.clone()), namespace, &namespace_object(namespace)).await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    for (name, workload) in &topology.workloads {
        let node = nodes.get(&workload.node).with_context(|| format!("no node for {name}"))?;
        apply(&deployments, name, &deployment(name, workload, images, &node.hostname)).await?;
    }
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    for (name, spec) in &topology.services {
        apply(&services, name, &service(name, spec)).await?;
    }
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    for (letter, node) in &nodes {
        let name = helper_name(letter);
        apply(&pods, &name, &helper(&name, images, &node.hostname)).await?;
    }

    let deadline = Instant::now() + limit;
    let mut running = BTreeMap::new();
    for (name, workload) in &topology.workloads {
        let selector = format!("{OWNER_LABEL}=workload,name={name}");
        let pod =
            wait_for_pod(&pods, &selector, deadline).await.with_context(|| format!("workload {name}"))?;
        let wanted = &nodes[&workload.node].name;
        if &pod.node != wanted {
            bail!("workload {name} was put on node {}, and its case needs it on {wanted}", pod.node);
        }
        running.insert(name.clone(), pod);
    }
    // Helpers only add to what is seen: a cluster that forbids pods in the node's network can be tested without them.
    let mut helpers = BTreeMap::new();
    for letter in nodes.keys() {
        let selector = format!("{OWNER_LABEL}=helper,name={}", helper_name(letter));
        let soon = Instant::now() + Duration::from_secs(10);
        match wait_for_pod(&pods, &selector, soon.min(deadline.max(Instant::now()))).await {
            Ok(pod) => {
                helpers.insert(letter.clone(), pod);
            }
            Err(error) => tracing::warn!(node = letter, "no captures on the node itself: {error:#}"),
        }
    }
    let mut facts = BTreeMap::new();
    for (name, spec) in &topology.services {
        let service = services.get(name).await.with_context(|| format!("read service {name}"))?;
        facts.insert(name.clone(), service_facts(&service, spec));
    }
    Ok(Deployed { nodes, pods: running, services: facts, helpers })
}

/// Deletes the namespace and waits until it is gone, at most `limit`.
pub async fn remove(client: &Client, namespace: &str, limit: Duration) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    match namespaces.delete(namespace, &DeleteParams::default()).await {
        Ok(_) => wait_until_not_terminating(client, namespace, limit).await,
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("delete the namespace {namespace}")),
    }
}

/// Waits until a cluster name resolves in a pod; the resolver's last complaint if it does not within `limit`.
pub async fn wait_for_name(
    pods: &Api<Pod>,
    place: &Place,
    name: &str,
    limit: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let command = ["nslookup".to_owned(), name.to_owned()];
    loop {
        let complaint = match exec::run(pods, place, &command, Duration::from_secs(10)).await {
            Ok(output) if output.code == 0 => return Ok(()),
            Ok(output) => last_line(&output.stdout).unwrap_or_else(|| output.complaint()),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(complaint);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn last_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

async fn wait_until_not_terminating(client: &Client, namespace: &str, limit: Duration) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let deadline = Instant::now() + limit;
    loop {
        let found =
            namespaces.get_opt(namespace).await.with_context(|| format!("read the namespace {namespace}"))?;
        if found.is_none_or(|found| found.metadata.deletion_timestamp.is_none()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the namespace {namespace} is still being deleted after {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn apply<K>(api: &Api<K>, name: &str, object: &Value) -> anyhow::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(object)).await.with_context(|| format!("apply {name}"))?;
    Ok(())
}

async fn wait_for_pod(pods: &Api<Pod>, selector: &str, deadline: Instant) -> anyhow::Result<PodFacts> {
    let params = ListParams::default().labels(selector);
    loop {
        let list = pods.list(&params).await.context("list the pods")?;
        let alive: Vec<&Pod> =
            list.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        let state = match alive.as_slice() {
            [pod] => match ready_pod(pod) {
                Some(facts) => return Ok(facts),
                None => pod_state(pod),
            },
            [] => "there is no pod yet".to_owned(),
            more => format!("there are {} pods, one is wanted", more.len()),
        };
        if Instant::now() >= deadline {
            bail!("not ready in time: {state}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn ready_pod(pod: &Pod) -> Option<PodFacts> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_ref()?;
    if !conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return None;
    }
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let spec = pod.spec.as_ref()?;
    Some(PodFacts {
        place: Place { pod: pod.metadata.name.clone()?, container: spec.containers.first()?.name.clone() },
        node: spec.node_name.clone()?,
        addresses,
    })
}

/// The pod's phase and the first thing that its conditions or containers complain about.
fn pod_state(pod: &Pod) -> String {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
    let waiting = status.container_statuses.unwrap_or_default().into_iter().find_map(|container| {
        let waiting = container.state?.waiting?;
        Some(format!("{} {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
    });
    let unmet = status.conditions.unwrap_or_default().into_iter().find_map(|condition| {
        let message = condition.message.filter(|message| !message.is_empty())?;
        (condition.status == "False").then_some(message)
    });
    let why = waiting.or(unmet).unwrap_or_default();
    format!("pod {name} is {phase} {}", why.trim()).trim_end().to_owned()
}

fn service_facts(service: &Service, spec: &ServiceSpec) -> ServiceFacts {
    let found = service.spec.clone().unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        found.cluster_ips.iter().flatten().filter_map(|address| address.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(found.cluster_ip.and_then(|address| address.parse::<IpAddr>().ok()));
    }
    let port = found.ports.unwrap_or_default().into_iter().next();
    ServiceFacts {
        addresses,
        node_port: port.and_then(|port| port.node_port).and_then(|port| u16::try_from(port).ok()),
        port: spec.port,
    }
}

pub(crate) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn deployment(name: &str, workload: &Workload, images: &Images, hostname: &str) -> Value {
    let mut labels = json!(workload.labels);
    labels[OWNER_LABEL] = json!("workload");
    let mut container = container(match workload.image {
        Image::Client => &images.client,
        Image::Echo => &images.echo,
    });
    if let Some(port) = workload.port {
        container["ports"] = json!([{"name": "http", "containerPort": port, "protocol": "TCP"}]);
        container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": port}, "periodSeconds": 1});
    }
    let peers = |other: &String| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"name": other}},
            "topologyKey": HOSTNAME_LABEL,
        }]})
    };
    let mut affinity = json!({});
    if let Some(other) = &workload.near {
        affinity["podAffinity"] = peers(other);
    }
    if let Some(other) = &workload.away_from {
        affinity["podAntiAffinity"] = peers(other);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"name": name, OWNER_LABEL: "workload"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {HOSTNAME_LABEL: hostname},
                    "affinity": affinity,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [container],
                },
            },
        },
    })
}

pub(crate) fn service(name: &str, spec: &ServiceSpec) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": spec.labels},
        "spec": {
            "type": spec.kind,
            "selector": spec.selector,
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": "http", "port": spec.port, "targetPort": spec.port, "protocol": "TCP"}],
        },
    })
}

pub(crate) fn policy(name: &str, namespace: &str, policy: &PolicySpec) -> Value {
    json!({
        "apiVersion": POLICY_VERSION,
        "kind": POLICY_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": policy.spec,
    })
}

fn helper_name(letter: &str) -> String {
    format!("node-{letter}")
}

fn helper(name: &str, images: &Images, hostname: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"name": name, OWNER_LABEL: "helper"}},
        "spec": {
            "hostNetwork": true,
            "nodeSelector": {HOSTNAME_LABEL: hostname},
            "terminationGracePeriodSeconds": 0,
            "containers": [container(&images.client)],
        },
    })
}

fn container(image: &str) -> Value {
    json!({"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;

    fn images() -> Images {
        Images { client: "client:1".into(), echo: "echo:1".into() }
    }

    #[test]
    fn deployments_are_objects_that_kubernetes_knows() {
        let matrix = Matrix::built_in().expect("the matrix that is compiled in can be read");
        let workload = &matrix.topology.workloads["echo-other-node"];
        let object = deployment("echo-other-node", workload, &images(), "host-b");
        let typed: Deployment = serde_json::from_value(object).expect("a Deployment");
        let template = typed.spec.expect("has a spec").template;
        let labels = template.metadata.expect("has metadata").labels.expect("has labels");
        assert_eq!(labels["kind"], "echo");
        let pod = template.spec.expect("has a spec");
        assert_eq!(pod.node_selector.expect("is pinned")[HOSTNAME_LABEL], "host-b");
        assert_eq!(pod.containers[0].image.as_deref(), Some("echo:1"));
        let rule = pod.affinity.expect("has rules").pod_anti_affinity.expect("keeps away");
        let term = &rule.required_during_scheduling_ignored_during_execution.expect("required")[0];
        let selector = term.label_selector.clone().expect("selects").match_labels.expect("by labels");
        assert_eq!(selector["name"], "client");
    }

    #[test]
    fn a_pod_counts_when_it_is_ready_and_with_all_its_addresses() {
        let mut json = json!({
            "metadata": {"name": "client-1"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": "10.11.0.5",
                "podIPs": [{"ip": "10.11.0.5"}, {"ip": "fd00::5"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let pod: Pod = serde_json::from_value(json.clone()).expect("a pod");
        let facts = ready_pod(&pod).expect("is ready");
        assert_eq!(facts.addresses.len(), 2);
        assert_eq!(facts.place, Place { pod: "client-1".into(), container: "main".into() });
        json["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "message": "containers with unready status: [main]"}]);
        let pod: Pod = serde_json::from_value(json).expect("a pod");
        assert_eq!(ready_pod(&pod), None);
        assert_eq!(pod_state(&pod), "pod client-1 is Running containers with unready status: [main]");
    }

    #[test]
    fn services_without_addresses_are_read_as_such() {
        let spec =
            ServiceSpec { selector: [].into(), labels: [].into(), kind: "NodePort".into(), port: 8080 };
        let read = |json| service_facts(&serde_json::from_value(json).expect("a service"), &spec);
        let full = read(json!({"spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
            "ports": [{"port": 8080, "nodePort": 31234}]}}));
        assert_eq!((full.addresses.len(), full.node_port), (2, Some(31234)));
        let bare = read(json!({"spec": {"ports": [{"port": 8080}]}}));
        assert_eq!((bare.addresses.len(), bare.node_port), (0, None));
    }
}
