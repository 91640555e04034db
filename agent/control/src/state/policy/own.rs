//! Endpoints of this node: which identity they have, and what is in force for them.

use agent_api::cni::PodRef;
use agent_api::{EndpointConfig, PolicyAuditMode, PolicyEnforcement};
use agent_crd::IdentityLabels;
use agent_crd::identity_labels::PodFacts;
use agent_policy::{Endpoint, EndpointId as PolicyEndpoint, Enforcement, Label, LabelSet};
use dataplane_abi::Identity;

use super::{InForce, PolicyState};
use crate::finding::Finding;
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
    /// What is set for it alone.
    config: EndpointConfig,
}

impl Own {
    /// When it is isolated, if that is not as for the node.
    fn enforcement(&self) -> Option<Enforcement> {
        match self.config.policy_enforcement {
            // A container that is no pod has no labels to wait for.
            PolicyEnforcement::Node => self.is_no_pod.then_some(Enforcement::Never),
            PolicyEnforcement::Default => Some(Enforcement::Default),
            PolicyEnforcement::Always => Some(Enforcement::Always),
            PolicyEnforcement::Never => Some(Enforcement::Never),
        }
    }

    fn audit(&self) -> Option<bool> {
        match self.config.policy_audit_mode {
            PolicyAuditMode::Node => None,
            PolicyAuditMode::Enabled => Some(true),
            PolicyAuditMode::Disabled => Some(false),
        }
    }
}

impl PolicyState {
    /// An endpoint of this node is there. `restored`: what the rows of an earlier agent say of it.
    /// `until`: how long a new one waits for its identity.
    pub(crate) fn add_own(
        &mut self,
        now: Now,
        record: &EndpointRecord,
        restored: Option<InForce>,
        until: Option<Now>,
    ) {
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
            config: record.config,
        };
        self.own.insert(record.id, own);
        if let Some(restored) = restored {
            self.restored.insert(record.id, restored);
        } else if let Some(until) = until.filter(|_| record.pod.is_some()) {
            self.waiting.insert(record.id, until);
        }
        self.refresh(now, record.id);
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
        self.changing.remove(&id);
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
            Some(known) => LabelSet::from(&*known.labels),
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
    /// So it does while others may not have heard of the number: see [`Self::keeps_identity`].
    pub(crate) fn refresh(&mut self, now: Now, id: EndpointId) {
        let Some(own) = self.own.get(&id) else { return };
        let pod = own.pod.as_ref().and_then(|pod| self.pod_of(pod));
        let wanted = pod.and_then(|pod| {
            Some(IdentityLabels::of_pod(&PodFacts {
                labels: &pod.labels,
                namespace: &pod.namespace,
                namespace_labels: self.namespaces.get(&pod.namespace)?,
                service_account: &pod.service_account,
                cluster: &self.cluster,
                filter: &self.labels,
            }))
        });
        let named_ports = pod.map(|pod| pod.named_ports.clone()).unwrap_or_default();
        let number = wanted.as_ref().and_then(|labels| self.numbers.get(labels)?.first().copied());
        let next = number.map_or(own.identity, Identity);
        let until = self.keeps_identity(own, next).filter(|until| *until > now);
        let identity = if until.is_some() { own.identity } else { next };
        let known = self.identities.contains_key(&identity.0) || own.labels.is_empty();
        let labels =
            if known || identity != own.identity { self.labels_of(identity) } else { own.labels.clone() };
        let (enforcement, audit) = (own.enforcement(), own.audit());
        let name = own.name.clone();
        match until {
            Some(until) => drop(self.changing.insert(id, until)),
            None => drop(self.changing.remove(&id)),
        }
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
        let endpoint = Endpoint { name, identity, labels, named_ports, host: false, enforcement, audit };
        if let Some(engine) = self.engine_mut() {
            engine.upsert_endpoint(PolicyEndpoint(u32::from(id)), endpoint);
        }
    }

    /// Something else is set for an endpoint alone.
    pub(crate) fn configure(&mut self, now: Now, id: EndpointId, config: EndpointConfig) {
        if let Some(own) = self.own.get_mut(&id) {
            own.config = config;
            self.refresh(now, id);
        }
    }

    /// When an endpoint is isolated, if that is not as for the node.
    pub(crate) fn enforcement_of(&self, id: EndpointId) -> Option<Enforcement> {
        self.own.get(&id).and_then(Own::enforcement)
    }

    /// Whether what policies deny to an endpoint passes, if that is not as for the node.
    pub(crate) fn audit_of(&self, id: EndpointId) -> Option<bool> {
        self.own.get(&id).and_then(Own::audit)
    }

    /// What is to be said of endpoints for which something else is set than for the node.
    pub(super) fn findings_of_own(&self) -> impl Iterator<Item = Finding> {
        self.own.iter().filter_map(|(id, own)| {
            let what = match (own.config.policy_enforcement, own.config.policy_audit_mode) {
                (PolicyEnforcement::Never, _) => "PolicyEnforcement=never: no policy is enforced on it",
                (_, PolicyAuditMode::Enabled) => "PolicyAuditMode=Enabled: what policies deny to it passes",
                _ => return None,
            };
            let message = format!("{} has {what}, until that is set back or the pod goes", own.name);
            Some(Finding::warning(format!("endpoint/{id}"), message))
        })
    }

    /// Until when an endpoint keeps the identity that it has although `next` is that of its labels; `None`: it has no other.
    ///
    /// Its packets carry its identity to nodes that may not have heard of a new one yet, and what is not known there falls to what
    /// holds for everybody: they would drop what both identities are allowed. An identity that has been known for a while by this
    /// node is known by all. Who has none of his own has nothing to keep, and whose identity nobody can explain must not go on with it.
    fn keeps_identity(&self, own: &Own, next: Identity) -> Option<Now> {
        // While lists are under way it may still come.
        let is_explained =
            !self.engine.started || !own.labels.is_empty() || self.identities.contains_key(&own.identity.0);
        let known = self.identities.get(&next.0)?;
        (own.identity != next && !own.identity.is_reserved() && is_explained)
            .then(|| known.since.plus(self.change_grace))
    }

    /// New endpoints whose identity has not come in time: they go on without. And those that have kept theirs long enough.
    pub(crate) fn stop_waiting(&mut self, now: Now) -> Vec<EndpointId> {
        let is_over = |(id, until): (&EndpointId, &Now)| (*until <= now).then_some(*id);
        let mut late: Vec<EndpointId> = self.waiting.iter().filter_map(is_over).collect();
        for id in &late {
            self.waiting.remove(id);
        }
        let change: Vec<EndpointId> = self.changing.iter().filter_map(is_over).collect();
        for id in &change {
            self.refresh(now, *id);
        }
        late.extend(change);
        late
    }

    /// When the first of them stops to wait.
    pub(crate) fn next_wait(&self) -> Option<Now> {
        self.waiting.values().chain(self.changing.values()).min().copied()
    }

    /// How many endpoints have another identity than their labels ask for, for a while.
    pub(crate) fn changing(&self) -> usize {
        self.changing.len()
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
