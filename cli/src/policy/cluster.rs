//! What the files say of the cluster: its pods, its nodes, and the policies in the engine that agents use.

use super::documents::{Document, Documents, KINDS};
use agent_control::{Object, ObjectKind, Services};
use agent_crd::IdentityLabels;
use agent_crd::identity_labels::{DEFAULT_CLUSTER, PodFacts};
use agent_policy::{Config, LabelSet, NamedPort, Node as NodeFacts, Party, Policy, Severity};
use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Label that the API server gives each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Kinds whose objects stand for their pods, with their short names.
const WORKLOADS: &[(&str, &str)] = &[
    ("Deployment", "deploy"),
    ("StatefulSet", "sts"),
    ("DaemonSet", "ds"),
    ("ReplicaSet", "rs"),
    ("Job", "job"),
];

/// A pod, or the pods of a workload.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `pod`, or the short name of the workload's kind.
    pub(crate) kind: &'static str,
    pub(crate) party: Party,
    pub(crate) addresses: Vec<IpAddr>,
    /// The node that it is on; empty: not known.
    pub(crate) node: String,
    /// It has the addresses of its node, and is judged as its node is.
    pub(crate) host_network: bool,
    /// Its namespace is among the objects.
    pub(crate) knows_namespace: bool,
}

impl Pod {
    /// `pod shop/web`
    pub(crate) fn text(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) addresses: Vec<IpAddr>,
    /// What selectors can know of it.
    pub(crate) facts: NodeFacts,
}

/// All of it.
pub(crate) struct Cluster {
    pub(crate) policies: Policy,
    pub(crate) pods: Vec<Pod>,
    /// Nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Addresses of API servers, by the endpoints of their service.
    pub(crate) api_servers: BTreeSet<IpAddr>,
    /// Policies that cannot be taken, with the field and what is wrong.
    pub(crate) refused: Vec<(String, String)>,
}

impl Cluster {
    /// Reads the objects. Policies that are wrong are noted as refused, as an agent does.
    ///
    /// # Errors
    /// When a pod, namespace, service or slice cannot be read: whoever is asked about would not be known for sure.
    pub(crate) fn new(documents: &Documents) -> Result<Self> {
        let mut cluster = Self {
            policies: Policy::new(Config::default()),
            pods: Vec::new(),
            nodes: BTreeMap::new(),
            api_servers: BTreeSet::new(),
            refused: Vec::new(),
        };
        let mut services = Services::default();
        let mut namespaces = BTreeMap::new();
        for document in documents.values().filter(|document| document.key.kind == "Namespace") {
            if let Object::Namespace(mut namespace) = read(document)? {
                let name = document.key.name.clone();
                namespace.labels.entry(NAMESPACE_NAME.to_owned()).or_insert_with(|| name.clone());
                namespaces.insert(name, namespace.labels);
            }
        }
        for document in documents.values() {
            let workload = WORKLOADS.iter().find(|(kind, _)| *kind == document.key.kind);
            match (document.key.kind.as_str(), workload) {
                ("Pod", _) => {
                    cluster.pods.push(pod(document, "pod", &document.object, &namespaces)?);
                }
                (_, Some((_, short))) => {
                    let template = template(document);
                    cluster.pods.push(pod(document, short, &template, &namespaces)?);
                }
                ("Node", _) => {
                    cluster.nodes.insert(document.key.name.clone(), node(&document.object));
                }
                ("Service" | "EndpointSlice", _) => take_service(&mut services, document)?,
                _ => {
                    if let Err(problem) = take(&mut cluster.policies, document) {
                        cluster.refused.push((document.key.to_string(), problem));
                    }
                }
            }
        }
        for name in services.names() {
            cluster.policies.set_service(&name.namespace, &name.name, services.get(name));
        }
        cluster.api_servers = services.api_server();
        for node in cluster.nodes.values_mut() {
            node.facts.api_server =
                node.addresses.iter().any(|address| cluster.api_servers.contains(address));
        }
        Ok(cluster)
    }

    /// What the engine has to say of the policies, but for refusals.
    pub(crate) fn warnings(&self) -> Vec<(String, String)> {
        let findings = self.policies.findings().into_iter();
        findings
            .filter(|finding| finding.severity == Severity::Warning)
            .map(|finding| (finding.subject, finding.message))
            .collect()
    }
}

/// Gives a policy or a group of CIDRs to the engine; other objects are of no concern to it.
///
/// # Errors
/// What is wrong with it, beginning with the field.
pub(crate) fn take(policies: &mut Policy, document: &Document) -> Result<(), String> {
    let Some(kind) = ObjectKind::of(&document.object) else {
        let own = KINDS.iter().find(|(kind, _)| *kind == document.key.kind);
        let version = document.object["apiVersion"].as_str().unwrap_or_default();
        return own.map_or(Ok(()), |(_, wanted)| {
            Err(format!("apiVersion: `{version}` is not read for this kind: write `{wanted}`"))
        });
    };
    let object = Object::read(kind, &document.object).map_err(|error| error.to_string())?;
    if let Some(Object::CidrGroup(group)) = &object {
        let group = agent_policy::cidr_group(group).map_err(|error| error.to_string())?;
        policies.set_cidr_group(&document.key.name, Some(group));
        return Ok(());
    }
    let policy = object.as_ref().and_then(Object::as_policy);
    policy.map_or(Ok(()), |policy| policies.upsert(policy).map_err(|error| error.to_string()))
}

fn read(document: &Document) -> Result<Object> {
    let kind = ObjectKind::of(&document.object);
    let object = kind.map(|kind| Object::read(kind, &document.object));
    match object {
        Some(Ok(Some(object))) => Ok(object),
        Some(Err(error)) => Err(anyhow!("{} ({}): {error}", document.key, document.origin)),
        Some(Ok(None)) | None => {
            let wanted = KINDS.iter().find(|(kind, _)| *kind == document.key.kind);
            let wanted = wanted.map_or("v1", |(_, version)| version);
            Err(anyhow!("{} ({}): apiVersion must be {wanted}", document.key, document.origin))
        }
    }
}

/// The pod that a workload makes.
fn template(document: &Document) -> Value {
    let mut pod = document.object["spec"]["template"].clone();
    if !pod.is_object() {
        pod = serde_json::json!({});
    }
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = document.key.name.clone().into();
    pod["metadata"]["namespace"] = document.key.namespace.clone().into();
    pod
}

fn pod(
    document: &Document,
    kind: &'static str,
    object: &Value,
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
) -> Result<Pod> {
    let host_network = object["spec"]["hostNetwork"] == true;
    let key = &document.key;
    let addresses = object["status"]["podIPs"].as_array().into_iter().flatten();
    let addresses: Vec<IpAddr> = addresses
        .filter_map(|address| address["ip"].as_str())
        .chain(object["status"]["podIP"].as_str())
        .filter_map(|text| text.parse().ok())
        .collect();
    let mut pod = Pod {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        kind,
        party: Party::default(),
        addresses,
        node: object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
        host_network,
        knows_namespace: namespaces.contains_key(&key.namespace),
    };
    if host_network {
        return Ok(pod);
    }
    let as_pod = Document { object: object.clone(), ..document.clone() };
    let Object::Pod(facts) = read(&as_pod).context("read the pods")? else { return Ok(pod) };
    let only_name = BTreeMap::from([(NAMESPACE_NAME.to_owned(), key.namespace.clone())]);
    // The API server gives a pod without service account that of this name.
    let service_account =
        if facts.service_account.is_empty() { "default" } else { facts.service_account.as_str() };
    let labels = IdentityLabels::of_pod(&PodFacts {
        labels: &facts.labels,
        namespace: &facts.namespace,
        namespace_labels: namespaces.get(&key.namespace).unwrap_or(&only_name),
        service_account,
        cluster: DEFAULT_CLUSTER,
        filter: agent_crd::LabelFilter::DEFAULT,
    });
    pod.party.labels = LabelSet::from(&labels);
    let mut ports: Vec<NamedPort> = facts.named_ports;
    ports.sort();
    ports.dedup();
    pod.party.named_ports = ports;
    Ok(pod)
}

fn take_service(services: &mut Services, document: &Document) -> Result<()> {
    let object = read(document)?;
    let name = object.name();
    match object {
        Object::Service(service) => services.set_service(&Arc::new(name), Some(service)),
        Object::EndpointSlice(slice) => drop(services.set_slice(&Arc::new(name), Some(slice))),
        _ => {}
    }
    Ok(())
}

fn node(object: &Value) -> Node {
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Node {
        addresses: addresses
            .filter(|address| address["type"] == "InternalIP")
            .filter_map(|address| address["address"].as_str()?.parse().ok())
            .collect(),
        facts: NodeFacts { labels: labels.filter_map(text).collect(), api_server: false },
    }
}
