//! Pods that stand while policies come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::api::ListParams;
use kube::{Api, Client};
use lab::image::echo::READY_FILE;
use lab::machine::rootfs::BIN_DIR;
use lab::probe::Answer;
use serde_json::{Value, json};
use sim_policy::connectivity::PLACE;
use sim_policy::suite::Pod;

use super::objects::{Objects, Reference};
use super::question::{Question, Wrong};
use crate::cluster::{Family, HOSTNAME_LABEL, NodeFacts};
use crate::exec::{self, Place};
use crate::policy;

/// How long a try may take. What is dropped takes as long, so it is short; what must be answered gets a second, longer try.
const FIRST_TRY: Duration = Duration::from_secs(1);
const SECOND_TRY: Duration = Duration::from_secs(4);
/// How long all tries of a pod may take together.
const TRIES_LIMIT: Duration = Duration::from_secs(30);

/// The pods.
pub(super) struct Standing {
    pub(super) client: Client,
    pub(super) objects: Objects,
    pods: BTreeMap<Pod, Facts>,
}

struct Facts {
    /// It has no endpoint of its own.
    host_network: bool,
    addresses: Vec<IpAddr>,
    place: Place,
}

impl Standing {
    /// Makes namespaces and pods, the pods on the nodes that they name or in turn, and waits until they are ready and known by their identities everywhere.
    pub(super) async fn make(
        client: &Client,
        objects: &[Value],
        nodes: &[NodeFacts],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let mut standing =
            Self { client: client.clone(), objects: Objects::new(client), pods: BTreeMap::new() };
        let mut wanted = Vec::new();
        for object in objects {
            let mut object = object.clone();
            if object["kind"] == "Pod" {
                let place = object["metadata"]["annotations"][PLACE].as_str();
                let place = place.and_then(|place| place.parse().ok()).unwrap_or(wanted.len());
                pin(&mut object, &nodes[place % nodes.len()].hostname);
                let Reference { namespace, name, .. } = Reference::of(&object);
                wanted.push(Pod { namespace, name });
            }
            standing.objects.apply(&object).await?;
        }
        let deadline = Instant::now() + limit;
        loop {
            let missing = standing.look(&wanted).await?;
            let Some(missing) = missing else { return Ok(standing) };
            if Instant::now() >= deadline {
                bail!("not ready in time: {missing}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes in the pods; what is still missing, if anything.
    async fn look(&mut self, wanted: &[Pod]) -> anyhow::Result<Option<String>> {
        let endpoints = self.objects.list("cilium.io/v2", "CiliumEndpoint").await?;
        let known: BTreeMap<Pod, bool> = endpoints
            .iter()
            .map(|object| {
                let Reference { namespace, name, .. } = Reference::of(object);
                (Pod { namespace, name }, object.pointer("/status/identity/id").is_some())
            })
            .collect();
        let api = Api::<KubePod>::all(self.client.clone());
        let list = api.list(&ListParams::default()).await.context("list the pods")?;
        self.pods = list.items.iter().filter_map(facts).collect();
        let missing = |pod: &&Pod| {
            let is_known = known.get(pod).copied().unwrap_or(false);
            self.pods.get(pod).is_none_or(|facts| !facts.host_network && !is_known)
        };
        let missing: Vec<String> =
            wanted.iter().filter(missing).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
        Ok((!missing.is_empty()).then(|| missing.join(", ")))
    }

    /// The address of a pod in a family.
    pub(super) fn address(&self, pod: &Pod, family: Family) -> Option<IpAddr> {
        family.pick(&self.pods.get(pod)?.addresses)
    }

    /// Whether a pod is in the network of its node.
    pub(super) fn is_node(&self, pod: &Pod) -> bool {
        self.pods.get(pod).is_some_and(|facts| facts.host_network)
    }

    /// Every agent's policy revision.
    pub(super) async fn revisions(&self) -> Result<BTreeMap<String, u64>, String> {
        policy::revisions(&self.client).await
    }

    /// Waits until every agent has a newer revision than before, and at least this one.
    pub(super) async fn wait(&self, before: &BTreeMap<String, u64>, least: u64) -> Result<(), String> {
        policy::wait_for_agents(&self.client, before, least).await
    }

    /// Asks all questions at the same time; the wrong answers. What must be answered and is not is tried once more with more time.
    pub(super) async fn wrong(&self, questions: &[Question]) -> anyhow::Result<Vec<Wrong>> {
        let (again, mut wrong): (Vec<Wrong>, Vec<Wrong>) = self
            .ask(questions, FIRST_TRY)
            .await?
            .into_iter()
            .partition(|wrong| wrong.question.expected && wrong.answer == Answer::Silent);
        if !again.is_empty() {
            let again: Vec<Question> = again.into_iter().map(|wrong| wrong.question).collect();
            wrong.extend(self.ask(&again, SECOND_TRY).await?);
        }
        Ok(wrong)
    }

    async fn ask(&self, questions: &[Question], timeout: Duration) -> anyhow::Result<Vec<Wrong>> {
        let mut by_sender: BTreeMap<&Pod, Vec<&Question>> = BTreeMap::new();
        for question in questions {
            by_sender.entry(&question.from).or_default().push(question);
        }
        let asked = by_sender.iter().map(|(from, questions)| self.ask_from(from, questions, timeout));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    async fn ask_from(
        &self,
        from: &Pod,
        questions: &[&Question],
        timeout: Duration,
    ) -> anyhow::Result<Vec<Wrong>> {
        let pod = &self.pods.get(from).with_context(|| format!("there is no pod {}", from.name))?;
        let program = Path::new(BIN_DIR).join("bristle-lab").display().to_string();
        let mut command =
            vec![program, "probe".to_owned(), "--timeout-us".to_owned(), timeout.as_micros().to_string()];
        command.extend(questions.iter().map(|question| question.target.to_string()));
        let pods = Api::<KubePod>::namespaced(self.client.clone(), &from.namespace);
        let output = exec::run(&pods, &pod.place, &command, TRIES_LIMIT).await?;
        if output.code != 0 {
            bail!("the tries of {}/{} could not be made: {}", from.namespace, from.name, output.complaint());
        }
        let answers: Vec<Answer> = serde_json::from_str(&output.stdout)
            .with_context(|| format!("the tries of {} said `{}`", from.name, output.stdout.trim()))?;
        if answers.len() != questions.len() {
            bail!("{} questions got {} answers", questions.len(), answers.len());
        }
        let wrong = |(question, answer): (&&Question, Answer)| {
            (!question.is_right(answer)).then(|| Wrong { question: (*question).clone(), answer })
        };
        Ok(questions.iter().zip(answers).filter_map(wrong).collect())
    }
}

/// Onto a node, ready once all of its ports listen.
fn pin(pod: &mut Value, hostname: &str) {
    pod["spec"]["nodeSelector"] = json!({HOSTNAME_LABEL: hostname});
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", READY_FILE]}, "periodSeconds": 60});
}

fn facts(pod: &KubePod) -> Option<(Pod, Facts)> {
    let status = pod.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && pod.metadata.deletion_timestamp.is_none()
    });
    let (namespace, name) = (pod.metadata.namespace.clone()?, pod.metadata.name.clone()?);
    let host_network = pod.spec.as_ref()?.host_network.unwrap_or_default();
    let container = pod.spec.as_ref()?.containers.first()?.name.clone();
    let addresses = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    let place = Place { pod: name.clone(), container };
    ready.then_some((Pod { namespace, name }, Facts { host_network, addresses, place }))
}
