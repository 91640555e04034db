//! Random policies on standing pods, beside the oracle.
//!
//! The pods and namespaces are those of one random cluster; each case takes the policies of its seed's own random cluster and puts them there,
//! where namespaces, labels and ports come from the same small vocabulary. The oracle is told the objects that the API server then shows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use lab::probe::Target;
use serde_json::{Value, json};
use sim_oracle::{Attempt, Cluster, End, Options as Reading, Protocol};
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

/// What cases do not ask for: what agents do not do yet (host policies, services and the API server as peers, nodes by their labels), what the
/// API server refuses, and names of ports, which standing pods give to other ports than the policies' own.
const NOT_ASKED: [Feature; 6] = [
    Feature::HostPolicies,
    Feature::Services,
    Feature::ApiServer,
    Feature::Nodes,
    Feature::Invalid,
    Feature::NamedPorts,
];
/// What is taken from a case's random cluster.
const POLICIES: [&str; 5] = [
    "CiliumCIDRGroup",
    "NetworkPolicy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "ClusterNetworkPolicy",
];
/// Kinds that the oracle has to know besides.
const SURROUNDINGS: [&str; 3] = ["Namespace", "Node", "Pod"];
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
    let objects = surroundings().context("no seed makes a cluster that is large enough")?;
    let pods: Vec<Pod> = objects
        .iter()
        .filter(|object| object["kind"] == "Pod")
        .map(|object| {
            let Reference { namespace, name, .. } = Reference::of(object);
            Pod { namespace, name }
        })
        .collect();
    let standing = Standing::make(client, &objects, &nodes, options.ready_limit).await?;
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
        for kind in SURROUNDINGS {
            for object in self.standing.objects.list("v1", kind).await? {
                oracle.set(&object).with_context(|| format!("tell the oracle of a {kind}"))?;
            }
        }
        for policy in policies {
            oracle.set(policy).with_context(|| format!("tell the oracle of {}", Reference::of(policy)))?;
        }
        Ok(oracle)
    }

    /// Every pod to every other in every family: TCP 80, another port of TCP, one of UDP, and a ping.
    fn questions(&self, seed: u64, oracle: &Cluster) -> anyhow::Result<Vec<Question>> {
        let pick = |ports: &[u16]| ports[usize::try_from(seed).unwrap_or_default() % ports.len()];
        let mut questions = Vec::new();
        for (from, to) in self.pods.iter().flat_map(|from| self.pods.iter().map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            for family in &self.families {
                let (of_oracle, echo) = match family {
                    Family::V4 => (sim_oracle::Family::V4, 8),
                    Family::V6 => (sim_oracle::Family::V6, 128),
                };
                let address = self.standing.address(to, *family);
                let address = address.with_context(|| format!("pod {} has no address", to.name))?;
                for (protocol, port) in [
                    (Protocol::Tcp, TCP[0]),
                    (Protocol::Tcp, pick(&TCP[1..])),
                    (Protocol::Udp, pick(&UDP)),
                    (Protocol::Icmp, echo),
                ] {
                    let attempt = Attempt {
                        from: end(from),
                        to: end(to),
                        family: of_oracle,
                        protocol,
                        port: Some(port),
                    };
                    let kind = kind(protocol);
                    let port = if protocol == Protocol::Icmp { 0 } else { port };
                    questions.push(Question {
                        from: from.clone(),
                        to: to.clone(),
                        target: Target { kind, to: address, port },
                        expected: oracle.judge(&attempt).allowed,
                    });
                }
            }
        }
        Ok(questions)
    }
}

fn end(pod: &Pod) -> End {
    End::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() }
}

fn plan() -> Plan {
    NOT_ASKED.into_iter().fold(Plan { attempts: 0, most_pods: MOST_PODS, ..Plan::default() }, Plan::without)
}

/// The policies of a seed's random cluster, and the groups of addresses that they speak of.
fn policies(seed: u64) -> Vec<Value> {
    let objects = sim_policy::generate(seed, &plan()).objects;
    objects.into_iter().filter(|object| POLICIES.iter().any(|kind| object["kind"] == *kind)).collect()
}

/// Namespaces and pods of the first random cluster that is large enough.
fn surroundings() -> Option<Vec<Value>> {
    let is = |object: &Value, kind: &str| object["kind"] == kind && object["spec"]["hostNetwork"] != true;
    (1..1000).find_map(|seed| {
        let objects = sim_policy::generate(seed, &plan()).objects;
        let namespaces: Vec<Value> =
            objects.iter().filter(|object| is(object, "Namespace")).cloned().collect();
        let pods: Vec<Value> = objects.iter().filter(|object| is(object, "Pod")).map(serving).collect();
        (namespaces.len() == NAMESPACES && pods.len() >= LEAST_PODS).then(|| [namespaces, pods].concat())
    })
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
            "containers": [{"name": "main", "image": "bristle/echo", "args": args}],
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
}
