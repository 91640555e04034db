//! Random policies on standing pods, beside the oracle.
//!
//! The pods, namespaces and services are those of one random cluster, and each node has its labels and a pod in its network, which is the node
//! to policies. Each case takes the policies of its seed's own random cluster and puts them there, where namespaces, labels and ports come from
//! the same small vocabulary. The oracle is told the objects that the API server then shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use lab::probe::Target;
use serde_json::{Value, json};
use sim_oracle::{Attempt, Cluster, End, Options as Reading, Protocol};
use sim_policy::connectivity::PLACE;
use sim_policy::suite::Pod;
use sim_policy::{Feature, Plan};

use super::objects::Reference;
use super::question::{Question, complaint, kind};
use super::standing::Standing;
use super::{Options, finish, report};
use crate::cluster::{Family, usable_nodes};
use crate::report::{self as reports, Report};

/// The word for it on the command line and in reports.
pub const NAME: &str = "generated";

/// What cases do not ask for: host policies, which agents of labs do not put in force unless they are told to, and what the API server refuses.
const NOT_ASKED: [Feature; 2] = [Feature::HostPolicies, Feature::Invalid];
/// What is taken from a case's random cluster.
const POLICIES: [&str; 5] = [
    "CiliumCIDRGroup",
    "NetworkPolicy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "ClusterNetworkPolicy",
];
/// Kinds that the oracle has to know besides.
const SURROUNDINGS: [(&str, &str); 5] = [
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
];
/// Labels of the nodes in turn.
const NODES: [&[(&str, &str)]; 3] =
    [&[("zone", "east")], &[("zone", "west"), ("disk", "ssd")], &[("disk", "ssd")]];
/// Every pod's ports.
const TCP: [u16; 5] = [80, 81, 5432, 8080, 8085];
const UDP: [u16; 2] = [53, 80];
/// How many namespaces the standing pods are in: all that policies can be in.
const NAMESPACES: usize = 4;
/// How many pods stand.
const LEAST_PODS: usize = 9;
const MOST_PODS: u64 = 14;
/// How long policies of several kinds may take after the agents have said that they have the newest: kinds are watched one by one.
const OTHER_KINDS: Duration = Duration::from_secs(3);

/// Makes the pods and runs the cases of the seeds.
///
/// # Errors
/// When the run itself cannot be made.
pub async fn run(
    client: &Client,
    seeds: &[u64],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let nodes = usable_nodes(client).await?;
    let mut objects = surroundings().context("no seed makes a cluster that is large enough")?;
    objects.extend((0..nodes.len()).map(node_pod));
    let pods: Vec<Pod> = objects
        .iter()
        .filter(|object| object["kind"] == "Pod")
        .map(|object| {
            let Reference { namespace, name, .. } = Reference::of(object);
            Pod { namespace, name }
        })
        .collect();
    let mut standing = Standing::make(client, &objects, &nodes, options.ready_limit).await?;
    for (place, node) in nodes.iter().enumerate() {
        let node = Reference::new("v1", "Node", "", &node.name);
        standing.objects.label(&node, &node_labels(place)).await?;
    }
    progress(&format!("{} pods are ready after {:.1} s", pods.len(), started.elapsed().as_secs_f64()));
    let mut session =
        Session { standing, pods, families: options.families.clone(), in_force: BTreeSet::new() };
    let mut reports = Vec::new();
    for seed in seeds {
        let started = Instant::now();
        let (told, reason) = match session.case(*seed).await {
            Ok(tally) => (tally, None),
            Err(why) => (String::new(), Some(format!("{why:#}"))),
        };
        let report = report(*seed, NAME, format!("seed {seed}{told}"), reason, started.elapsed());
        progress(&reports::case_line(&report));
        reports.push(report);
    }
    finish(client, &nodes, options, reports, started).await
}

struct Session {
    standing: Standing,
    pods: Vec<Pod>,
    families: Vec<Family>,
    in_force: BTreeSet<Reference>,
}

impl Session {
    /// Puts the policies in force and compares; what was compared, in words.
    async fn case(&mut self, seed: u64) -> anyhow::Result<String> {
        let policies = policies(seed);
        self.put_in_force(&policies).await?;
        let oracle = self.oracle(&policies).await?;
        let questions = self.questions(seed, &oracle)?;
        let deadline = Instant::now() + OTHER_KINDS;
        let (mut late, mut wrong) = ("", self.standing.wrong(&questions).await?);
        while !wrong.is_empty() && Instant::now() < deadline {
            late = ", late";
            wrong = self.standing.wrong(&questions).await?;
        }
        let allowed = questions.iter().filter(|question| question.expected).count();
        let told = format!(": {} policies, {allowed} of {} allowed{late}", policies.len(), questions.len());
        match complaint(&wrong, questions.len()) {
            Some(why) => anyhow::bail!("{why} ({} policies in force)", policies.len()),
            None => Ok(told),
        }
    }

    async fn put_in_force(&mut self, policies: &[Value]) -> anyhow::Result<()> {
        let standing = &mut self.standing;
        let before = standing.revisions().await.map_err(anyhow::Error::msg)?;
        let wanted: BTreeSet<Reference> = policies.iter().map(Reference::of).collect();
        let (mut least, mut changed) = (0, false);
        for old in self.in_force.difference(&wanted) {
            standing.objects.delete(old).await?;
            changed |= old.kind != "CiliumCIDRGroup";
        }
        // Also if only some are taken: what is there is to go before the next case.
        self.in_force.clone_from(&wanted);
        for policy in policies {
            let version = standing.objects.apply(policy).await?;
            // The revision tells of policies alone, and a policy that is as it was has an old version.
            if policy["kind"] != "CiliumCIDRGroup" {
                changed |= before.values().any(|revision| version > *revision);
                least = least.max(version);
            }
        }
        if changed {
            standing.wait(&before, least).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// An oracle that knows what there is.
    async fn oracle(&mut self, policies: &[Value]) -> anyhow::Result<Cluster> {
        let mut oracle = Cluster::with_options(Reading::by_identity());
        for (api_version, kind) in SURROUNDINGS {
            for object in self.standing.objects.list(api_version, kind).await? {
                oracle.set(&object).with_context(|| format!("tell the oracle of a {kind}"))?;
            }
        }
        // As the server has them: what it once wrote into one for want of a word, as `policyTypes`, stays when the next case changes it.
        let kinds: BTreeSet<(String, String)> =
            policies.iter().map(Reference::of).map(|own| (own.api_version, own.kind)).collect();
        for (api_version, kind) in kinds {
            for policy in self.standing.objects.list(&api_version, &kind).await? {
                oracle
                    .set(&policy)
                    .with_context(|| format!("tell the oracle of {}", Reference::of(&policy)))?;
            }
        }
        Ok(oracle)
    }

    /// Whether it is a pod in the network of its node. What such a pod sends back by UDP comes from the address that its node has on
    /// the way, which need not be the one that was asked.
    fn is_node(&self, end: &End) -> bool {
        pod(end).is_some_and(|pod| self.standing.is_node(&pod))
    }

    fn questions(&self, seed: u64, oracle: &Cluster) -> anyhow::Result<Vec<Question>> {
        let ends: Vec<End> = self.pods.iter().map(end).collect();
        let question = |attempt: Attempt| {
            let (from, to) = (pod(&attempt.from)?, pod(&attempt.to)?);
            let family = match attempt.family {
                sim_oracle::Family::V4 => Family::V4,
                sim_oracle::Family::V6 => Family::V6,
            };
            let port = attempt.port.filter(|_| attempt.protocol != Protocol::Icmp).unwrap_or_default();
            let target =
                Target { kind: kind(attempt.protocol), to: self.standing.address(&to, family)?, port };
            Some(Question { from, to, target, expected: oracle.judge(&attempt).allowed })
        };
        attempts(seed, &ends, &self.families)
            .into_iter()
            .filter(|attempt| attempt.protocol != Protocol::Udp || !self.is_node(&attempt.to))
            .map(|attempt| {
                let text = attempt.to_string();
                question(attempt).with_context(|| format!("an end has no address: {text}"))
            })
            .collect()
    }
}

/// Every end to every other in every family: TCP 80, another port of TCP, one of UDP, and a ping.
pub(super) fn attempts(seed: u64, ends: &[End], families: &[Family]) -> Vec<Attempt> {
    let pick = |ports: &[u16]| ports[usize::try_from(seed).unwrap_or_default() % ports.len()];
    let mut attempts = Vec::new();
    for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
        if from == to {
            continue;
        }
        for family in families {
            let (family, echo) = match family {
                Family::V4 => (sim_oracle::Family::V4, 8),
                Family::V6 => (sim_oracle::Family::V6, 128),
            };
            for (protocol, port) in [
                (Protocol::Tcp, TCP[0]),
                (Protocol::Tcp, pick(&TCP[1..])),
                (Protocol::Udp, pick(&UDP)),
                (Protocol::Icmp, echo),
            ] {
                let (from, to) = (from.clone(), to.clone());
                attempts.push(Attempt { from, to, family, protocol, port: Some(port) });
            }
        }
    }
    attempts
}

fn end(pod: &Pod) -> End {
    End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() }
}

fn pod(end: &End) -> Option<Pod> {
    let End::Pod { namespace, name } = end else { return None };
    Some(Pod::new(namespace, name))
}

fn plan() -> Plan {
    NOT_ASKED.into_iter().fold(Plan { attempts: 0, most_pods: MOST_PODS, ..Plan::default() }, Plan::without)
}

/// The labels of the node of this place.
pub(super) fn node_labels(place: usize) -> Value {
    let labels: BTreeMap<&str, &str> = NODES[place % NODES.len()].iter().copied().collect();
    json!(labels)
}

/// The policies of a seed's random cluster, and the groups of addresses that they speak of.
pub(super) fn policies(seed: u64) -> Vec<Value> {
    let objects = sim_policy::generate(seed, &plan()).objects;
    objects.into_iter().filter(|object| POLICIES.iter().any(|kind| object["kind"] == *kind)).collect()
}

/// Namespaces, services and pods of the first random cluster that is large enough.
pub(super) fn surroundings() -> Option<Vec<Value>> {
    let is = |object: &Value, kind: &str| object["kind"] == kind && object["spec"]["hostNetwork"] != true;
    (1..1000).find_map(|seed| {
        let objects = sim_policy::generate(seed, &plan()).objects;
        let namespaces: Vec<Value> =
            objects.iter().filter(|object| is(object, "Namespace")).cloned().collect();
        let is_service = |object: &&Value| {
            object["kind"] == "Service"
                || (object["kind"] == "EndpointSlice" && object["metadata"]["namespace"] != "default")
        };
        let services: Vec<Value> = objects.iter().filter(is_service).cloned().collect();
        let pods: Vec<Value> = objects.iter().filter(|object| is(object, "Pod")).cloned().collect();
        let pods: Vec<Value> = alike(pods).iter().map(serving).collect();
        (namespaces.len() == NAMESPACES && pods.len() >= LEAST_PODS)
            .then(|| [namespaces, services, pods].concat())
    })
}

/// Pods of a namespace give a name to the same port: rules about pods elsewhere go by identities, and an identity has one set of names.
fn alike(mut pods: Vec<Value>) -> Vec<Value> {
    let mut first: BTreeMap<String, Value> = BTreeMap::new();
    for pod in &mut pods {
        let namespace = pod["metadata"]["namespace"].to_string();
        let containers = first.entry(namespace).or_insert_with(|| pod["spec"]["containers"].clone());
        pod["spec"]["containers"] = containers.clone();
    }
    pods
}

/// A pod in the network of the node of this place: as an end it is the node.
fn node_pod(place: usize) -> Value {
    let mut pod = serving(&json!({
        "metadata": {
            "namespace": "tools", "name": format!("node-{place}"), "annotations": {PLACE: place.to_string()},
        },
        "spec": {"containers": [{"ports": []}]},
    }));
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

/// The pod as one that runs in a lab and answers at all ports.
fn serving(pod: &Value) -> Value {
    let tcp = TCP.iter().flat_map(|port| ["--tcp".to_owned(), port.to_string()]);
    let args: Vec<String> =
        tcp.chain(UDP.iter().flat_map(|port| ["--udp".to_owned(), port.to_string()])).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"],
        "spec": {
            "serviceAccountName": pod["spec"]["serviceAccountName"],
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "bristle/echo", "args": args,
                "ports": pod["spec"]["containers"][0]["ports"],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_all_seeds_are_in_the_namespaces_that_stand() {
        let standing = surroundings().expect("a cluster");
        let namespaces: BTreeSet<&str> = standing
            .iter()
            .filter(|object| object["kind"] == "Namespace")
            .filter_map(|object| object["metadata"]["name"].as_str())
            .collect();
        let mut seen = BTreeSet::new();
        for seed in 1..=100 {
            for policy in policies(seed) {
                let Reference { kind, namespace, .. } = Reference::of(&policy);
                assert!(namespace.is_empty() || namespaces.contains(namespace.as_str()), "{seed} {policy}");
                seen.insert(kind);
            }
        }
        assert_eq!(seen, POLICIES.map(str::to_owned).into());
    }

    #[test]
    fn policies_speak_of_everything_that_stands() {
        let standing = surroundings().expect("a cluster");
        let has = |kind: &str| standing.iter().any(|object| object["kind"] == kind);
        assert!(has("Service") && has("EndpointSlice"));
        // The cluster's own is not to be replaced by a drawn one.
        let is_api_server = |object: &&Value| object["metadata"]["name"] == "kubernetes-1";
        assert_eq!(standing.iter().find(is_api_server), None);
        let text: String = (1..=100).flat_map(policies).map(|policy| policy.to_string()).collect();
        for word in ["toServices", "fromNodes", "toNodes", "\"kube-apiserver\"", "\"port\":\"web\""] {
            assert!(text.contains(word), "no policy has {word}");
        }
    }

    #[test]
    fn pods_of_a_namespace_name_the_same_port_alike() {
        let standing = surroundings().expect("a cluster");
        let mut ports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in standing.iter().filter(|object| object["kind"] == "Pod") {
            let own = pod["spec"]["containers"][0]["ports"].to_string();
            ports.entry(pod["metadata"]["namespace"].to_string()).or_default().insert(own);
        }
        assert!(ports.values().all(|sets| sets.len() == 1), "{ports:?}");
        assert!(ports.values().flatten().any(|set| set.contains("web")), "{ports:?}");
    }
}
