//! What the agent tells the cluster: a `CiliumEndpoint` for each pod of this node, and which policies are in force: by a number on
//! the Node object, and in a `NodePolicyStatus`.
//!
//! The objects are made equal to what the agent wants whenever one or the other changes. Objects of other nodes are never touched,
//! and nothing is removed before all is known and as long as the pod still has its endpoint here.

mod attempt;
mod node_status;
mod observed;
#[cfg(test)]
mod tests;

pub(crate) use observed::Observed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_control::{Agent, ObjectName};
use agent_crd::{CiliumEndpoint, NodePolicyStatus, Object as _};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tracing::debug;

use crate::watch::{Connector, Pause, call_failed, resource, version};
use attempt::{Attempts, Due};
use node_status::NodeStatus;

/// Annotation of the own Node: the latest `resourceVersion` of a policy up to which all are in force on this node.
pub(crate) const REVISION_ANNOTATION: &str = "bristle.io/policy-revision";

/// Who the fields of the objects belong to, the same on all nodes: a pod of the same name may come up on another one.
const MANAGER: &str = "bristle-agent";

/// What shall be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// The objects of this node's pods.
    pub(crate) wanted: BTreeMap<ObjectName, CiliumEndpoint>,
    /// Pods that have an endpoint here, whatever its state.
    pub(crate) present: BTreeSet<ObjectName>,
    /// Addresses of this node.
    pub(crate) own: Vec<IpAddr>,
    /// The revision of policy, once it is known.
    pub(crate) revision: Option<u64>,
    /// What holds for policies on this node, once it is known.
    pub(crate) status: Option<NodePolicyStatus>,
    /// All that the agent rests on has been heard, so that what is not wanted is to go.
    pub(crate) synced: bool,
}

impl Told {
    /// Whether the agent has heard all that it rests on.
    pub(crate) fn is_synced(agent: &Agent) -> bool {
        agent.policies_synced() && agent.nodes_synced() && agent.policy().is_some()
    }

    /// As the agent has it now. `status` may be a little older.
    pub(crate) fn by(agent: &Agent, status: Option<NodePolicyStatus>) -> Self {
        let synced = Self::is_synced(agent);
        Self {
            wanted: agent.published(),
            present: agent
                .endpoints()
                .into_iter()
                .map(|endpoint| ObjectName::new(endpoint.namespace, endpoint.pod))
                .collect(),
            own: agent.network().node_ips,
            revision: synced.then(|| agent.policy_revision()),
            status: status.filter(|_| synced),
            synced,
        }
    }
}

/// Tells the cluster until the agent ends.
pub(crate) async fn run(
    node: String,
    mut told: watch::Receiver<Told>,
    observed: Arc<Observed>,
    connector: Arc<Connector>,
) {
    let mut publisher = Publisher {
        node,
        observed,
        connector,
        attempts: Attempts::default(),
        status: NodeStatus::new(),
        pause: Pause::new(),
        client: None,
    };
    loop {
        let now = told.borrow_and_update().clone();
        let wait = publisher.publish(&now).await.unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = publisher.observed.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Publisher {
    node: String,
    observed: Arc<Observed>,
    connector: Arc<Connector>,
    attempts: Attempts,
    status: NodeStatus,
    /// Between tries while the server does not answer.
    pause: Pause,
    client: Option<(u64, Client)>,
}

/// The server does not answer, or not to us.
struct OutOfReach;

impl Publisher {
    /// Makes the difference. Returns when to try again what did not work, if anything.
    async fn publish(&mut self, told: &Told) -> Option<Duration> {
        self.observed.set_own(&told.own);
        match self.round(told).await {
            Ok(next) => {
                self.pause = Pause::new();
                next.map(|at| at.saturating_duration_since(Instant::now()))
            }
            Err(OutOfReach) => self.pause.next(),
        }
    }

    async fn round(&mut self, told: &Told) -> Result<Option<Instant>, OutOfReach> {
        if !told.synced && told.wanted.is_empty() {
            return Ok(None);
        }
        let client = self.client().await?;
        let (mut next, mut seen) = (None, self.observed.ours());
        self.attempts.keep(|name| told.wanted.contains_key(name) || seen.contains_key(name));
        if let Some(revision) = told.revision {
            let at = self.annotate(&client, revision).await?;
            next = earlier(next, at);
        }
        if let Some(status) = &told.status {
            let at = self.tell_status(&client, status).await?;
            next = earlier(next, Some(at));
        }
        for (name, wanted) in &told.wanted {
            let is = seen.remove(name);
            if is.as_ref().is_some_and(|is| is_as_wanted(is, wanted)) {
                self.attempts.forget(name);
                continue;
            }
            let version = is.map(|is| is.metadata.resource_version).unwrap_or_default();
            match self.attempts.due(name, Some(wanted), &version) {
                Due::Now => self.apply(&client, name, wanted).await?,
                Due::At(at) => next = earlier(next, Some(at)),
                Due::Never => {}
            }
            next = earlier(next, self.attempts.next(name));
        }
        // What is left belongs to this node, and no pod of it wants it.
        if told.synced && self.observed.is_synced() {
            for (name, is) in seen.iter().filter(|(name, _)| !told.present.contains(name)) {
                match self.attempts.due(name, None, &is.metadata.resource_version) {
                    Due::Now => self.delete(&client, name, is).await?,
                    Due::At(at) => next = earlier(next, Some(at)),
                    Due::Never => {}
                }
                next = earlier(next, self.attempts.next(name));
            }
        }
        self.connector.status().answered("publishing");
        Ok(next)
    }

    async fn client(&mut self) -> Result<Client, OutOfReach> {
        if let Some((_, client)) = &self.client {
            return Ok(client.clone());
        }
        // Whether there is a configuration the watches say.
        let numbered = self.connector.client(0).await.map_err(|_| OutOfReach)?;
        Ok(self.client.insert(numbered).1.clone())
    }

    async fn apply(
        &mut self,
        client: &Client,
        name: &ObjectName,
        wanted: &CiliumEndpoint,
    ) -> Result<(), OutOfReach> {
        let api = endpoints(client, name);
        let patch = Patch::Apply(wanted.to_json());
        let result = api.patch(&name.name, &PatchParams::apply(MANAGER).force(), &patch).await;
        let version = match result {
            Ok(object) => {
                debug!(pod = wanted.metadata.key(), "endpoint told");
                self.pause = Pause::new();
                let mut is = wanted.clone();
                is.metadata.resource_version = object.metadata.resource_version.unwrap_or_default();
                is.metadata.uid = object.metadata.uid.unwrap_or_default();
                let version = is.metadata.resource_version.clone();
                self.observed.wrote(is);
                Some(version)
            }
            Err(problem) => {
                self.failed("write CiliumEndpoint objects", &problem)?;
                None
            }
        };
        self.attempts.made(name, Some(wanted), version);
        Ok(())
    }

    async fn delete(
        &mut self,
        client: &Client,
        name: &ObjectName,
        is: &CiliumEndpoint,
    ) -> Result<(), OutOfReach> {
        // Only this very object as it was seen: meanwhile it may have become that of a pod on another node.
        let preconditions = Preconditions {
            uid: Some(is.metadata.uid.clone()).filter(|uid| !uid.is_empty()),
            resource_version: Some(is.metadata.resource_version.clone())
                .filter(|version| !version.is_empty()),
        };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match endpoints(client, name).delete(&name.name, &parameters).await {
            Ok(_) => {
                debug!(pod = is.metadata.key(), "endpoint taken back");
                self.pause = Pause::new();
                self.observed.forget(name);
                self.attempts.made(name, None, Some(is.metadata.resource_version.clone()));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => self.observed.forget(name),
            Err(problem) => {
                self.failed("delete CiliumEndpoint objects", &problem)?;
                self.attempts.made(name, None, None);
            }
        }
        Ok(())
    }

    async fn annotate(&mut self, client: &Client, revision: u64) -> Result<Option<Instant>, OutOfReach> {
        let wanted = revision.to_string();
        if self.observed.node_revision().as_ref() == Some(&wanted) {
            self.attempts.annotation_stays();
            return Ok(None);
        }
        match self.attempts.annotation_due(revision) {
            Due::Now => {}
            Due::At(at) => return Ok(Some(at)),
            Due::Never => return Ok(None),
        }
        self.attempts.annotated(revision);
        let patch = json!({"metadata": {"annotations": {REVISION_ANNOTATION: wanted}}});
        let api = Api::<Node>::all(client.clone());
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(&self.node, &parameters, &Patch::Merge(patch)).await {
            Ok(node) => {
                self.pause = Pause::new();
                self.observed.wrote_node(wanted, version(node.metadata.resource_version.as_deref()));
                Ok(None)
            }
            Err(problem) => {
                self.failed("annotate its Node", &problem)?;
                Ok(match self.attempts.annotation_due(revision) {
                    Due::At(at) => Some(at),
                    Due::Now | Due::Never => Some(Instant::now()),
                })
            }
        }
    }

    /// Returns when it is to be looked at again.
    async fn tell_status(
        &mut self,
        client: &Client,
        status: &NodePolicyStatus,
    ) -> Result<Instant, OutOfReach> {
        let wanted = node_status::owned(status, self.observed.node_uid());
        let due = self.status.due(&wanted, Instant::now());
        if due > Instant::now() {
            return Ok(due);
        }
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource::<NodePolicyStatus>());
        let patch = Patch::Apply(wanted.to_json());
        match api.patch(&self.node, &PatchParams::apply(MANAGER).force(), &patch).await {
            Ok(_) => {
                self.pause = Pause::new();
                self.status.done(wanted.clone(), Instant::now());
            }
            Err(problem) => {
                self.status.failed(Instant::now());
                // What nobody needs for the network to work must not keep the rest from being told: an older cluster may
                // not have the definition, or not allow it.
                match problem {
                    kube::Error::Api(refused) if refused.code < 500 && refused.code != 429 => {
                        debug!("cannot write its NodePolicyStatus: {}", refused.message);
                    }
                    problem => self.failed("write its NodePolicyStatus", &problem)?,
                }
            }
        }
        Ok(self.status.due(&wanted, Instant::now()))
    }

    /// What cannot be mended by waiting for one object ends the round.
    fn failed(&mut self, what: &str, problem: &kube::Error) -> Result<(), OutOfReach> {
        match problem {
            // The pod or its namespace is about to go, or has gone, or another write came between.
            kube::Error::Api(status)
                if matches!(status.code, 404 | 409) || status.message.contains("being terminated") =>
            {
                debug!("cannot {what}: {}", status.message);
                Ok(())
            }
            kube::Error::Api(status) if status.code < 500 && !matches!(status.code, 401 | 403 | 429) => {
                tracing::warn!("cannot {what}: {}", status.message);
                Ok(())
            }
            problem => {
                self.connector.status().failed("publishing", call_failed(what, problem));
                // The next round asks for one whose configuration may be newer.
                self.client = None;
                Err(OutOfReach)
            }
        }
    }
}

fn endpoints(client: &Client, name: &ObjectName) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &name.namespace, &resource::<CiliumEndpoint>())
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Whether an object says what it shall; others may have added labels and owners of theirs.
fn is_as_wanted(is: &CiliumEndpoint, wanted: &CiliumEndpoint) -> bool {
    let owners = &is.metadata.owner_references;
    is.status == wanted.status
        && is.metadata.labels == wanted.metadata.labels
        && wanted.metadata.owner_references.iter().all(|owner| owners.contains(owner))
}
