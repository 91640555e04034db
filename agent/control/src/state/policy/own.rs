//! Endpoints of this node: which identity they have, and what is in force for them.

use agent_api::cni::PodRef;
use agent_crd::IdentityLabels;
use agent_crd::identity_labels::PodFacts;
use agent_policy::{Endpoint, EndpointId as PolicyEndpoint, Enforcement, Label, LabelSet};
use dataplane_abi::Identity;

use super::{InForce, PolicyState};
use crate::objects::{ObjectName, PodObject};
use crate::state::endpoints::{EndpointId, EndpointRecord};
use crate::time::Now;

/// An endpoint of this node, as far as its identity goes.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) name: String,
    pub(super) pod: Option<PodRef>,
    /// It is a container that is no pod. Of one whose document is lost nobody knows.
    is_no_pod: bool,
    /// The labels that its identity shall have, once they are known.
    wanted: Option<IdentityLabels>,
    pub(super) identity: Identity,
    labels: LabelSet,
}

impl PolicyState {
    /// An endpoint of this node is there. `restored`: what the rows of an earlier agent say of it.
    /// `until`: how long a new one waits for its identity.
    pub(crate) fn add_own(&mut self, record: &EndpointRecord, restored: Option<InForce>, until: Option<Now>) {
        if !self.enabled {
            return;
        }
        if let Some(pod) = &record.pod {
            self.by_pod.entry(ObjectName::new(&pod.namespace, &pod.name)).or_default().insert(record.id);
        }
        let identity = restored.map_or(Identity::INIT, |restored| restored.identity);
        let own = Own {
            name: record.display_name(),
            pod: record.pod.clone(),
            is_no_pod: record.pod.is_none() && record.attachment.is_some(),
            wanted: None,
            identity,
            labels: self.labels_of(identity),
        };
        self.own.insert(record.id, own);
        if let Some(restored) = restored {
            self.restored.insert(record.id, restored);
        } else if let Some(until) = until.filter(|_| record.pod.is_some()) {
            self.waiting.insert(record.id, until);
        }
        self.refresh(record.id);
    }

    /// An endpoint of this node is gone, and so are its rows.
    pub(crate) fn remove_own(&mut self, id: EndpointId) {
        let Some(own) = self.own.remove(&id) else { return };
        self.users_left = true;
        if let Some(pod) = &own.pod {
            let name = ObjectName::new(&pod.namespace, &pod.name);
            if let Some(ids) = self.by_pod.get_mut(&name) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_pod.remove(&name);
                }
            }
        }
        self.set_wanted(id, own.wanted, None);
        self.restored.remove(&id);
        self.waiting.remove(&id);
        if let Some(engine) = self.engine_mut() {
            engine.remove_endpoint(PolicyEndpoint(u32::from(id)));
        }
    }

    fn set_wanted(&mut self, id: EndpointId, before: Option<IdentityLabels>, now: Option<&IdentityLabels>) {
        if before.as_ref() == now {
            return;
        }
        if let Some(before) = before
            && let Some(ids) = self.by_wanted.get_mut(&before)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_wanted.remove(&before);
            }
        }
        if let Some(now) = now {
            self.by_wanted.entry(now.clone()).or_default().insert(id);
        }
    }

    fn labels_of(&self, identity: Identity) -> LabelSet {
        match self.identities.get(&identity.0) {
            Some(labels) => LabelSet::from(&**labels),
            None => identity.reserved_name().map(Label::reserved).into_iter().collect(),
        }
    }

    /// The pod object of an endpoint, if it is that of this very pod.
    fn pod_of(&self, pod: &PodRef) -> Option<&PodObject> {
        let object = self.pods.get(&ObjectName::new(&pod.namespace, &pod.name))?;
        pod.uid.as_ref().is_none_or(|uid| *uid == object.uid).then_some(object)
    }

    /// Finds the identity of an endpoint of this node, and tells the engine of it.
    ///
    /// While the labels are not known, or have no number yet, it keeps the one that it has: a pod is never taken for another.
    pub(crate) fn refresh(&mut self, id: EndpointId) {
        let Some(own) = self.own.get(&id) else { return };
        let pod = own.pod.as_ref().and_then(|pod| self.pod_of(pod));
        let wanted = pod.and_then(|pod| {
            Some(IdentityLabels::of_pod(&PodFacts {
                labels: &pod.labels,
                namespace: &pod.namespace,
                namespace_labels: self.namespaces.get(&pod.namespace)?,
                service_account: &pod.service_account,
                cluster: &self.cluster,
            }))
        });
        let named_ports = pod.map(|pod| pod.named_ports.clone()).unwrap_or_default();
        let number = wanted.as_ref().and_then(|labels| self.numbers.get(labels)?.first().copied());
        let identity = number.map_or(own.identity, Identity);
        let known = self.identities.contains_key(&identity.0) || own.labels.is_empty();
        let labels =
            if known || identity != own.identity { self.labels_of(identity) } else { own.labels.clone() };
        let is_no_pod = own.is_no_pod;
        let name = own.name.clone();
        if identity != Identity::INIT {
            self.waiting.remove(&id);
        }
        self.users_left |= identity != own.identity;
        let before = self.own.get_mut(&id).and_then(|own| {
            own.identity = identity;
            own.labels = labels.clone();
            std::mem::replace(&mut own.wanted, wanted.clone())
        });
        self.set_wanted(id, before, wanted.as_ref());
        let endpoint = Endpoint {
            name,
            identity,
            labels,
            named_ports,
            host: false,
            // A container that is no pod has no labels to wait for.
            enforcement: is_no_pod.then_some(Enforcement::Never),
            audit: false,
        };
        if let Some(engine) = self.engine_mut() {
            engine.upsert_endpoint(PolicyEndpoint(u32::from(id)), endpoint);
        }
    }

    /// New endpoints whose identity has not come in time: they go on without.
    pub(crate) fn stop_waiting(&mut self, now: Now) -> Vec<EndpointId> {
        let late: Vec<EndpointId> =
            self.waiting.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in &late {
            self.waiting.remove(id);
        }
        late
    }

    /// When the first of them stops to wait.
    pub(crate) fn next_wait(&self) -> Option<Now> {
        self.waiting.values().min().copied()
    }

    /// Whether a new endpoint waits for its identity, or for policies to be known.
    pub(crate) fn holds_back(&self, id: EndpointId) -> bool {
        self.enabled && (self.waiting.contains_key(&id) || self.of_endpoint(id).is_none())
    }

    /// What the row of an endpoint says; `None`: it shall have none yet.
    pub(crate) fn of_endpoint(&self, id: EndpointId) -> Option<InForce> {
        if !self.enabled {
            return Some(InForce::OPEN);
        }
        if let Some(restored) = self.restored.get(&id) {
            return Some(*restored);
        }
        if self.waiting.contains_key(&id) {
            return None;
        }
        let own = self.own.get(&id)?;
        let policy = self.engine()?.endpoint(PolicyEndpoint(u32::from(id)))?;
        Some(InForce::new(own.identity, policy))
    }

    /// The object of the pod behind an endpoint.
    pub(crate) fn pod(&self, id: EndpointId) -> Option<&PodObject> {
        self.pod_of(self.own.get(&id)?.pod.as_ref()?)
    }
}
