//! What an agent tells the cluster of its endpoints and of policies, as the daemon does: objects are applied until they are as wanted,
//! and taken back when the endpoint is gone. Objects of other nodes are never touched.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use agent_control::{Agent, ObjectName};
use agent_crd::{CiliumEndpoint, NodePolicyStatus, Object};
use serde_json::Value;
use sim_api::object::{name, namespace, str_at, uid};
use sim_api::store::Object as Stored;
use sim_api::{DeleteOptions, Patch, Sub, WriteOptions};
use sim_scenario::model::ApiFault;

use crate::kinds::{ENDPOINTS, STATUSES};
use crate::queue::{NodeId, Task};
use crate::watch::PAUSES;
use crate::world::World;

/// Something that is to be written.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    Apply(ObjectName, Box<CiliumEndpoint>),
    Delete(ObjectName, String),
    Status(Box<NodePolicyStatus>),
}

/// Objects as they were last read, so that each version is read once.
#[derive(Debug)]
struct Read<T>(RefCell<BTreeMap<ObjectName, (Stored, Rc<T>)>>);

impl<T> Default for Read<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Object> Read<T> {
    /// What is stored, as it is meant; `None`: it cannot be understood.
    fn read(&self, name: &ObjectName, stored: Stored) -> Option<Rc<T>> {
        let mut known = self.0.borrow_mut();
        if let Some((version, object)) = known.get(name)
            && Arc::ptr_eq(version, &stored)
        {
            return Some(Rc::clone(object));
        }
        let object = Rc::new(T::from_json((*stored).clone()).ok()?);
        known.insert(name.clone(), (stored, Rc::clone(&object)));
        Some(object)
    }
}

/// What agents have told, as it was last read.
#[derive(Debug, Default)]
pub(crate) struct Told {
    endpoints: Read<CiliumEndpoint>,
    statuses: Read<NodePolicyStatus>,
}

impl World {
    /// The objects of a node as the API server has them.
    fn told_of(&self, n: NodeId) -> Vec<Stored> {
        let own = |object: &Value| {
            let node: Option<IpAddr> = str_at(object, &["status", "networking", "node"]).parse().ok();
            node.is_some_and(|node| self.nodes[n].addresses.contains(&node))
        };
        self.store.list(&ENDPOINTS, "").into_iter().filter(|object| own(object)).collect()
    }

    fn writes(&self, n: NodeId, agent: &Agent) -> Vec<Write> {
        let wanted = agent.published();
        let mut writes = Vec::new();
        for (name, object) in &wanted {
            let is = self.store.get(&ENDPOINTS, &name.namespace, &name.name).ok();
            let is = is.and_then(|is| self.told.endpoints.read(name, is));
            let as_wanted = is.is_some_and(|is| {
                let owners = &is.metadata.owner_references;
                is.status == object.status
                    && is.metadata.labels == object.metadata.labels
                    && object.metadata.owner_references.iter().all(|owner| owners.contains(owner))
            });
            // Of a pod that is gone nothing is told any more.
            let pod = self.store.get(&sim_api::resource::PODS, &name.namespace, &name.name);
            if !as_wanted && pod.is_ok() {
                writes.push(Write::Apply(name.clone(), Box::new(object.clone())));
            }
        }
        if agent.policies_synced() && agent.nodes_synced() && agent.policy().is_some() {
            writes.extend(
                agent
                    .policy_status()
                    .filter(|wanted| self.is_news(wanted))
                    .map(|wanted| Write::Status(Box::new(wanted))),
            );
            let present: BTreeSet<ObjectName> = agent
                .endpoints()
                .into_iter()
                .map(|endpoint| ObjectName::new(endpoint.namespace, endpoint.pod))
                .collect();
            for object in self.told_of(n) {
                let name = ObjectName::new(namespace(&object), name(&object));
                if !wanted.contains_key(&name) && !present.contains(&name) {
                    writes.push(Write::Delete(name, uid(&object).to_owned()));
                }
            }
        }
        writes
    }

    /// Whether the cluster knows something else of the policies on a node.
    fn is_news(&self, wanted: &NodePolicyStatus) -> bool {
        let name = ObjectName::new("", &wanted.metadata.name);
        let is = self.store.get(&STATUSES, "", &name.name).ok();
        let is = is.and_then(|is| self.told.statuses.read(&name, is));
        is.is_none_or(|is| NodePolicyStatus { metadata: wanted.metadata.clone(), ..(*is).clone() } != *wanted)
    }

    /// Whether the cluster knows everything that an agent has to tell.
    pub(crate) fn has_told_all(&self, n: NodeId) -> bool {
        let process = &self.nodes[n].agent;
        if let Some(known) = process.told.get() {
            return known;
        }
        let Some(agent) = &process.agent else { return false };
        let told = !self.has_identities() || self.writes(n, agent).is_empty();
        process.told.set(Some(told));
        told
    }

    /// Pods or what is told of them have changed: their agents look again.
    pub(crate) fn doubt_what_is_told(&mut self, nodes: &BTreeSet<NodeId>) {
        for n in nodes.iter().copied() {
            self.nodes[n].agent.told.set(None);
            if self.nodes[n].agent.agent.is_some() && !self.has_told_all(n) {
                let after = self.latency(Duration::from_millis(10));
                self.wake_publisher(n, after);
            }
        }
    }

    /// Makes the publisher of an agent look soon.
    pub(crate) fn wake_publisher(&mut self, n: NodeId, after: Duration) {
        let at = self.now + after;
        let silent = !self.has_identities();
        let process = &mut self.nodes[n].agent;
        if silent || !process.alive || process.publisher_due.is_some_and(|due| due <= at) {
            return;
        }
        process.publisher_due = Some(at);
        self.push(at, Task::Publish(n));
    }

    /// The publisher of an agent looks, and writes what differs.
    pub(crate) fn publish(&mut self, n: NodeId, at: Duration) {
        let process = &mut self.nodes[n].agent;
        if !process.alive || process.publisher_due != Some(at) {
            return;
        }
        process.publisher_due = None;
        let stalled = process.stalled_until > self.now;
        if process.running || stalled {
            // It is told when the reconcile ends.
            return;
        }
        let Some(agent) = &self.nodes[n].agent.agent else { return };
        let writes = self.writes(n, agent);
        if writes.is_empty() {
            self.nodes[n].agent.publisher_pause = PAUSES.0;
            self.nodes[n].agent.told.set(Some(true));
            return;
        }
        let faults = self.cluster_faults.api(n);
        if faults.iter().any(|(_, fault)| matches!(fault, ApiFault::Down | ApiFault::Error(_))) {
            let pause = self.nodes[n].agent.publisher_pause;
            self.nodes[n].agent.publisher_pause = (pause * 2).min(PAUSES.1);
            self.wake_publisher(n, pause);
            return;
        }
        // One call after the other, each with its own way; then it looks again.
        let first = self.rng.index(writes.len());
        if let Some(write) = writes.into_iter().nth(first) {
            self.write(write);
            self.note(n, "publishes", first as u64);
        }
        let after = self.latency(Duration::from_millis(10)) + Duration::from_micros(100);
        self.wake_publisher(n, after);
    }

    fn write(&mut self, write: Write) {
        let options = WriteOptions {
            field_manager: Some("bristle-agent".to_owned()),
            force: true,
            ..WriteOptions::default()
        };
        // What is refused is seen to differ, and tried again.
        match write {
            Write::Status(status) => {
                let patch = Patch::Apply(status.to_json());
                let name = &status.metadata.name;
                if let Ok(object) = self.store.patch(&STATUSES, "", name, Sub::Main, &patch, &options) {
                    self.hear_status(&object);
                }
            }
            Write::Apply(name, object) => {
                let patch = Patch::Apply(object.to_json());
                drop(self.store.patch(&ENDPOINTS, &name.namespace, &name.name, Sub::Main, &patch, &options));
            }
            Write::Delete(name, uid) => {
                let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                drop(self.store.delete(&ENDPOINTS, &name.namespace, &name.name, &options));
            }
        }
    }
}
