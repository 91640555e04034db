//! What identity and policy rest on: the objects, the identities of this node's pods, and the engine that turns them into rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use agent_api::cni::PodRef;
use agent_crd::identity_labels::{DEFAULT_CLUSTER, PodFacts};
use agent_crd::{CiliumIdentity, IdentityLabels};
use agent_policy::{
    Changes, Endpoint, EndpointId as PolicyEndpoint, EndpointPolicy, Enforcement, Families, Kind, Label,
    LabelSet, NamedPort, Node, ObjectRef, Policy,
};
use dataplane_abi::Identity;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags};
use ipnet::IpNet;

use super::endpoints::{EndpointId, EndpointRecord};
use super::host::{ALLOW_API_CUT, Cuts, HostState, NODE};
use super::nodes::Nodes;
use super::services::{Services, api_server};
use crate::finding::Finding;
use crate::objects::{
    EndpointObject, NamespaceObject, Object, ObjectKind, ObjectName, PodObject, SliceObject,
};
use crate::time::Now;

/// Flags of an endpoint's row that policy sets.
const OF_POLICY: EndpointFlags =
    EndpointFlags::ENFORCE_INGRESS.union(EndpointFlags::ENFORCE_EGRESS).union(AUDIT);

/// Those of them that let pass what it denies.
const AUDIT: EndpointFlags = EndpointFlags::AUDIT.union(EndpointFlags::AUDIT_EGRESS);

/// What policy says in an endpoint's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) identity: Identity,
    /// Number of its policy, 0: nothing is enforced.
    pub(crate) policy: u32,
    pub(crate) flags: EndpointFlags,
}

impl InForce {
    /// An endpoint of which nothing is known and on which nothing is enforced.
    pub(crate) const OPEN: Self = Self { identity: Identity::INIT, policy: 0, flags: EndpointFlags(0) };

    fn new(identity: Identity, policy: EndpointPolicy) -> Self {
        let mut flags = EndpointFlags::empty();
        flags.set(EndpointFlags::ENFORCE_INGRESS, policy.ingress);
        flags.set(EndpointFlags::ENFORCE_EGRESS, policy.egress);
        flags.set(EndpointFlags::AUDIT, policy.audit);
        Self { identity, policy: policy.number, flags }
    }
}

impl From<&EndpointEntry> for InForce {
    fn from(entry: &EndpointEntry) -> Self {
        Self { identity: entry.identity, policy: entry.policy, flags: entry.flags.intersection(OF_POLICY) }
    }
}

/// The engine, which is too large to print. There is none before everything that it needs has been heard once.
struct Engine(Option<Policy>);

/// What the engine is told when there is one.
#[derive(Debug)]
enum Held {
    Policy(Box<Object>),
    Delete(ObjectRef),
    Group(String, Option<agent_policy::CidrGroup>),
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// What has been heard of a kind of object.
#[derive(Debug, Default)]
struct List {
    /// Objects that are there.
    known: BTreeSet<ObjectName>,
    /// Objects heard since a list began; `None`: no list is under way.
    heard: Option<BTreeSet<ObjectName>>,
    /// A whole list has been heard.
    synced: bool,
}

/// An endpoint of this node, as far as its identity goes.
#[derive(Debug)]
struct Own {
    name: String,
    pod: Option<PodRef>,
    /// It is a container that is no pod. Of one whose document is lost nobody knows.
    is_no_pod: bool,
    /// The labels that its identity shall have, once they are known.
    wanted: Option<IdentityLabels>,
    identity: Identity,
    labels: LabelSet,
}

/// What a change touches.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Endpoints of this node whose identity may be another now.
    pub(crate) endpoints: BTreeSet<EndpointId>,
    /// Addresses elsewhere whose identity may be another now.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct PolicyState {
    enabled: bool,
    config: agent_policy::Config,
    engine: Engine,
    held: Vec<Held>,
    lists: BTreeMap<ObjectKind, List>,
    pods: BTreeMap<ObjectName, PodObject>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    identities: BTreeMap<u32, IdentityLabels>,
    /// Numbers of a set of labels. Two can have been given out by two operators; the lower one is used.
    numbers: BTreeMap<IdentityLabels, BTreeSet<u32>>,
    /// Identities whose object is gone, as long as somebody has them.
    lingering: BTreeSet<u32>,
    remote: BTreeMap<ObjectName, EndpointObject>,
    /// Each once. Nearly always one alone, for which a set would take the room of a dozen.
    by_address: BTreeMap<IpAddr, Vec<ObjectName>>,
    /// Who has an identity, and the ports that it has given names.
    users: BTreeMap<u32, BTreeMap<ObjectName, Vec<NamedPort>>>,
    own: BTreeMap<EndpointId, Own>,
    by_pod: BTreeMap<ObjectName, BTreeSet<EndpointId>>,
    by_wanted: BTreeMap<IdentityLabels, BTreeSet<EndpointId>>,
    /// What the rows of an earlier agent said, until all is known that they rest on.
    restored: BTreeMap<EndpointId, InForce>,
    /// The same of the addresses of nodes.
    restored_nodes: BTreeMap<IpAddr, Identity>,
    /// Nodes or API servers are not as the engine has heard.
    nodes_moved: bool,
    /// New endpoints that wait for their identity, and until when.
    waiting: BTreeMap<EndpointId, Now>,
    services: Services,
    /// The node as an endpoint.
    pub(crate) host: HostState,
    /// CIDRs that policies tell apart.
    cidrs: BTreeMap<IpNet, Identity>,
    /// Policies that could not be read at all.
    unreadable: BTreeMap<(ObjectKind, ObjectName), String>,
    /// The latest version of a policy that was heard, and the latest that is in force.
    heard: u64,
    in_force: u64,
}

impl PolicyState {
    /// Nothing known. Not `enabled`: nothing will be, and nothing is enforced.
    pub(crate) fn new(enabled: bool, host_firewall: bool, config: agent_policy::Config) -> Self {
        Self {
            enabled,
            config,
            engine: Engine(None),
            held: Vec::new(),
            lists: ObjectKind::ALL.into_iter().map(|kind| (kind, List::default())).collect(),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            identities: BTreeMap::new(),
            numbers: BTreeMap::new(),
            lingering: BTreeSet::new(),
            remote: BTreeMap::new(),
            by_address: BTreeMap::new(),
            users: BTreeMap::new(),
            own: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            by_wanted: BTreeMap::new(),
            restored: BTreeMap::new(),
            restored_nodes: BTreeMap::new(),
            nodes_moved: true,
            waiting: BTreeMap::new(),
            services: Services::default(),
            host: HostState::new(enabled && host_firewall),
            cidrs: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            heard: 0,
            in_force: 0,
        }
    }

    /// Whether identities and policies are looked at.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether every kind of object has been heard whole, or none is needed.
    pub(crate) fn synced(&self) -> bool {
        !self.enabled || self.lists.values().all(|list| list.synced)
    }

    /// Kinds of which no whole list has been heard.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let missing = self.lists.iter().filter(|(_, list)| !list.synced);
        if self.enabled { missing.map(|(kind, _)| kind.name()).collect() } else { Vec::new() }
    }

    /// The engine, once all that it needs has been heard.
    pub(crate) fn engine(&self) -> Option<&Policy> {
        self.engine.0.as_ref()
    }

    fn start(&mut self, families: Families) {
        let mut engine = Policy::new(agent_policy::Config { families, ..self.config.clone() });
        for held in std::mem::take(&mut self.held) {
            tell(&mut engine, held);
        }
        self.engine.0 = Some(engine);
        for number in self.identities.keys().copied().collect::<Vec<_>>() {
            self.tell_identity(number);
        }
        for name in self.services.names().cloned().collect::<Vec<_>>() {
            self.tell_service(&name);
        }
        for id in self.own.keys().copied().collect::<Vec<_>>() {
            self.refresh(id);
        }
    }

    fn tell(&mut self, held: Held) {
        match &mut self.engine.0 {
            Some(engine) => tell(engine, held),
            None => self.held.push(held),
        }
    }

    /// CIDRs that policies tell apart.
    pub(crate) fn cidrs(&self) -> &BTreeMap<IpNet, Identity> {
        &self.cidrs
    }

    /// A list begins.
    pub(crate) fn list_started(&mut self, kind: ObjectKind) {
        self.lists.entry(kind).or_default().heard = Some(BTreeSet::new());
    }

    /// A list is complete: what was not heard in it is gone.
    pub(crate) fn list_synced(&mut self, kind: ObjectKind) -> Touched {
        let list = self.lists.entry(kind).or_default();
        list.synced = true;
        let mut touched = Touched::default();
        if let Some(heard) = list.heard.take() {
            let gone: Vec<ObjectName> = list.known.difference(&heard).cloned().collect();
            for name in gone {
                touched.merge(self.delete(kind, &name, 0));
            }
        }
        touched
    }

    fn heard(&mut self, kind: ObjectKind, name: &ObjectName) {
        let list = self.lists.entry(kind).or_default();
        list.known.insert(name.clone());
        if let Some(heard) = &mut list.heard {
            heard.insert(name.clone());
        }
    }

    /// An object as it is now.
    pub(crate) fn upsert(&mut self, object: Object, version: u64) -> Touched {
        let (kind, name) = (object.kind(), object.name());
        self.heard(kind, &name);
        self.unreadable.remove(&(kind, name.clone()));
        match object {
            Object::Pod(pod) => {
                self.pods.insert(name.clone(), pod);
                self.of_pod(&name)
            }
            Object::Namespace(namespace) => self.set_namespace(namespace),
            Object::Identity(identity) => self.set_identity(&identity),
            Object::Endpoint(endpoint) => self.set_endpoint(&name, Some(endpoint)),
            Object::Service(service) => {
                self.services.set_service(&name, Some(service));
                self.tell_service(&name);
                Touched::default()
            }
            Object::EndpointSlice(slice) => self.set_slice(&name, Some(slice)),
            Object::CidrGroup(group) => {
                match agent_policy::cidr_group(&group) {
                    Ok(group) => self.tell(Held::Group(name.name, Some(group))),
                    Err(error) => drop(self.unreadable.insert((kind, name), error.to_string())),
                }
                self.policy_heard(version)
            }
            policy => {
                if let Object::CiliumClusterwideNetworkPolicy(policy) = &policy {
                    let consents = policy.metadata.annotations.get(ALLOW_API_CUT);
                    self.host.set_consent(&name.name, consents.is_some_and(|value| value == "true"));
                }
                self.tell(Held::Policy(Box::new(policy)));
                self.policy_heard(version)
            }
        }
    }

    /// An object of which only the name could be read. Its last good version stays.
    pub(crate) fn unreadable(&mut self, kind: ObjectKind, name: ObjectName, error: String) {
        self.heard(kind, &name);
        self.unreadable.insert((kind, name), error);
    }

    /// An object is gone.
    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &ObjectName, version: u64) -> Touched {
        let list = self.lists.entry(kind).or_default();
        list.known.remove(name);
        if let Some(heard) = &mut list.heard {
            heard.remove(name);
        }
        self.unreadable.remove(&(kind, name.clone()));
        let policy = |kind| ObjectRef { kind, namespace: name.namespace.clone(), name: name.name.clone() };
        let policy = match kind {
            ObjectKind::Pod => {
                self.pods.remove(name);
                return self.of_pod(name);
            }
            ObjectKind::Namespace => {
                // Pods that still are there keep what they had.
                self.namespaces.remove(&name.name);
                return Touched::default();
            }
            ObjectKind::Identity => return self.remove_identity(&name.name),
            ObjectKind::Endpoint => return self.set_endpoint(name, None),
            ObjectKind::Service => {
                self.services.set_service(name, None);
                self.tell_service(name);
                return Touched::default();
            }
            ObjectKind::EndpointSlice => return self.set_slice(name, None),
            ObjectKind::CidrGroup => {
                self.tell(Held::Group(name.name.clone(), None));
                return self.policy_heard(version);
            }
            ObjectKind::NetworkPolicy => policy(Kind::NetworkPolicy),
            ObjectKind::CiliumNetworkPolicy => policy(Kind::CiliumNetworkPolicy),
            ObjectKind::CiliumClusterwideNetworkPolicy => {
                self.host.set_consent(&name.name, false);
                policy(Kind::CiliumClusterwideNetworkPolicy)
            }
            ObjectKind::ClusterNetworkPolicy => policy(Kind::ClusterNetworkPolicy),
        };
        self.tell(Held::Delete(policy));
        self.policy_heard(version)
    }

    fn policy_heard(&mut self, version: u64) -> Touched {
        self.heard = self.heard.max(version);
        Touched::default()
    }

    fn set_slice(&mut self, name: &ObjectName, slice: Option<SliceObject>) -> Touched {
        for service in self.services.set_slice(name, slice) {
            self.tell_service(&service);
            self.nodes_moved |= service == api_server();
        }
        Touched::default()
    }

    /// A node is not as it was.
    pub(crate) fn nodes_moved(&mut self) {
        self.nodes_moved = true;
    }

    /// What the rows of an earlier agent say of the addresses of nodes. It goes on until all is known that it rests on.
    pub(crate) fn restore_nodes(&mut self, rows: impl Iterator<Item = (IpAddr, Identity)>) {
        if self.enabled {
            self.restored_nodes = rows.filter(|(_, identity)| identity.is_remote_node()).collect();
        }
    }

    /// The identity of another node that has this address.
    pub(crate) fn identity_of_node(&self, name: &str, address: &IpAddr) -> Identity {
        match self.engine() {
            Some(engine) => engine.node(name),
            None => self.restored_nodes.get(address).copied().unwrap_or(Identity::REMOTE_NODE),
        }
    }

    /// Tells the engine of nodes and API servers as they are now.
    fn tell_nodes(&mut self, nodes: &Nodes) {
        let Some(engine) = &mut self.engine.0 else { return };
        let mut servers = self.services.api_server();
        let api_server = servers.clone();
        let mut others = BTreeMap::new();
        for (name, record) in nodes.iter() {
            let node = Node {
                labels: record.labels.clone(),
                api_server: record.internal_ips.iter().any(|address| api_server.contains(address)),
            };
            servers.retain(|address| !record.internal_ips.contains(address));
            if record.claimant.remote {
                others.insert(name.clone(), node);
            } else {
                engine.set_host(&node);
                if self.host.enabled() {
                    engine.upsert_endpoint(
                        NODE,
                        Endpoint {
                            name: format!("node/{name}"),
                            identity: Identity::HOST,
                            labels: node.subject_labels(),
                            named_ports: Vec::new(),
                            host: true,
                            enforcement: None,
                            audit: false,
                        },
                    );
                }
            }
        }
        engine.set_nodes(others);
        engine.set_api_server(servers);
    }

    /// Tells the engine of a service as it is now.
    fn tell_service(&mut self, name: &ObjectName) {
        if let Some(engine) = &mut self.engine.0 {
            engine.set_service(&name.namespace, &name.name, self.services.get(name));
        }
    }

    fn of_pod(&self, name: &ObjectName) -> Touched {
        let endpoints = self.by_pod.get(name).cloned().unwrap_or_default();
        Touched { endpoints, ..Touched::default() }
    }

    fn set_namespace(&mut self, namespace: NamespaceObject) -> Touched {
        let NamespaceObject { name, labels } = namespace;
        if self.namespaces.get(&name) == Some(&labels) {
            return Touched::default();
        }
        let of = |own: &Own| own.pod.as_ref().is_some_and(|pod| pod.namespace == name);
        let endpoints = self.own.iter().filter(|(_, own)| of(own)).map(|(id, _)| *id).collect();
        self.namespaces.insert(name, labels);
        Touched { endpoints, ..Touched::default() }
    }

    fn set_identity(&mut self, object: &CiliumIdentity) -> Touched {
        let Some(number) = object.number() else { return Touched::default() };
        let labels = object.labels();
        self.lingering.remove(&number);
        let before = self.identities.insert(number, labels.clone());
        if before.as_ref() == Some(&labels) {
            return Touched::default();
        }
        let mut endpoints = BTreeSet::new();
        if let Some(before) = before {
            endpoints.extend(self.forget_number(&before, number));
        }
        self.numbers.entry(labels.clone()).or_default().insert(number);
        endpoints.extend(self.by_wanted.get(&labels).into_iter().flatten());
        self.tell_identity(number);
        Touched { endpoints, ..Touched::default() }
    }

    /// Endpoints that want these labels look for another number.
    fn forget_number(&mut self, labels: &IdentityLabels, number: u32) -> BTreeSet<EndpointId> {
        if let Some(numbers) = self.numbers.get_mut(labels) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.numbers.remove(labels);
            }
        }
        self.by_wanted.get(labels).cloned().unwrap_or_default()
    }

    fn remove_identity(&mut self, name: &str) -> Touched {
        let Ok(number) = name.parse() else { return Touched::default() };
        let Some(labels) = self.identities.remove(&number) else { return Touched::default() };
        self.lingering.insert(number);
        Touched { endpoints: self.forget_number(&labels, number), ..Touched::default() }
    }

    /// Tells the engine of an identity as it is now.
    fn tell_identity(&mut self, number: u32) {
        let (Some(engine), Some(labels)) = (&mut self.engine.0, self.identities.get(&number)) else { return };
        let users = self.users.get(&number).into_iter().flat_map(BTreeMap::values);
        let ports: BTreeSet<&NamedPort> = users.flatten().collect();
        let ports: Vec<NamedPort> = ports.into_iter().cloned().collect();
        engine.upsert_identity(Identity(number), LabelSet::from(labels), &ports);
    }

    fn set_user(&mut self, name: &ObjectName, number: u32, ports: Option<&[NamedPort]>) {
        if number == 0 {
            return;
        }
        let users = self.users.entry(number).or_default();
        let before = match ports {
            Some(ports) => users.insert(name.clone(), ports.to_vec()),
            None => users.remove(name),
        };
        let same = before.unwrap_or_default() == ports.unwrap_or_default();
        if users.is_empty() {
            self.users.remove(&number);
        }
        if !same {
            self.tell_identity(number);
        }
    }

    /// What an agent says of an endpoint; `None`: it is gone.
    fn set_endpoint(&mut self, name: &ObjectName, object: Option<EndpointObject>) -> Touched {
        let before = self.remote.get(name);
        if before == object.as_ref() {
            return Touched::default();
        }
        let before = before.cloned();
        let mut touched = Touched::default();
        if let Some(before) = &before {
            for address in &before.addresses {
                if let Some(names) = self.by_address.get_mut(address) {
                    names.retain(|other| other != name);
                    if names.is_empty() {
                        self.by_address.remove(address);
                    }
                }
            }
            touched.addresses.extend(&before.addresses);
            if object.as_ref().is_none_or(|now| now.identity != before.identity) {
                self.set_user(name, before.identity, None);
            }
        }
        match object {
            Some(object) => {
                for address in &object.addresses {
                    let names = self.by_address.entry(*address).or_default();
                    if !names.contains(name) {
                        names.reserve_exact(1);
                        names.push(name.clone());
                    }
                }
                touched.addresses.extend(&object.addresses);
                self.set_user(name, object.identity, Some(&object.named_ports));
                self.remote.insert(name.clone(), object);
            }
            None => {
                self.remote.remove(name);
            }
        }
        touched
    }

    /// Addresses that objects say something of.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.by_address.keys()
    }

    /// Those of them in a CIDR.
    pub(crate) fn addresses_in(&self, cidr: &IpNet) -> impl Iterator<Item = &IpAddr> {
        let (first, last) = (cidr.network(), cidr.broadcast());
        self.by_address.range(first..=last).map(|(address, _)| address)
    }

    /// Whom an address elsewhere is said to belong to. Of several the latest has it: the others are of pods that are gone.
    pub(crate) fn endpoint_at(&self, address: &IpAddr) -> Option<&EndpointObject> {
        let names = self.by_address.get(address)?;
        names
            .iter()
            .filter_map(|name| self.remote.get(name))
            .max_by_key(|object| (object.created.as_str(), object.namespace.as_str(), object.name.as_str()))
    }

    /// What the agent of another node says of a pod.
    pub(crate) fn endpoint_named(&self, pod: &ObjectName) -> Option<&EndpointObject> {
        self.remote.get(pod)
    }

    /// Endpoints of a pod of this node.
    pub(crate) fn endpoints_of(&self, pod: &ObjectName) -> impl Iterator<Item = EndpointId> {
        self.by_pod.get(pod).into_iter().flatten().copied()
    }

    /// Numbers that labels have in the cluster.
    pub(crate) fn identity_numbers(&self) -> impl Iterator<Item = u32> {
        self.identities.keys().copied()
    }

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
        if let Some(engine) = &mut self.engine.0 {
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
            Some(labels) => LabelSet::from(labels),
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
                cluster: DEFAULT_CLUSTER,
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
        if let Some(engine) = &mut self.engine.0 {
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

    /// What the rows of the node's own addresses say.
    pub(crate) fn of_host(&self) -> InForce {
        let policy = self.engine().and_then(|engine| engine.endpoint(NODE));
        self.host.in_force(policy.map(|policy| InForce::new(Identity::HOST, policy)))
    }

    /// API servers that the node has to reach: those that the agent speaks with, and all that there are.
    pub(crate) fn api_servers(&self) -> BTreeSet<SocketAddr> {
        let name = api_server();
        let of_service = self.services.cluster_ips(&name);
        // The service's own address becomes one of its endpoints' before a packet leaves the node.
        let reached_at = self.host.reached_at().iter().filter(|at| !of_service.contains(&at.ip()));
        reached_at.copied().chain(self.services.sockets(&name)).collect()
    }

    /// Finds out whether policies would cut the node off from an API server. `identity` says who has an address; `None`: packets to it
    /// are not judged. Returns whether something else is in force now.
    pub(crate) fn look_for_cuts(&mut self, identity: impl Fn(&IpAddr) -> Option<Identity>) -> bool {
        let Some(engine) = &self.engine.0 else { return false };
        let judged = engine.endpoint(NODE).is_some_and(|policy| policy.egress && !policy.audit);
        if !judged {
            return self.host.set_cuts(Cuts::default());
        }
        let servers = self.api_servers();
        let mut cuts = Cuts { is_unknown: servers.is_empty(), ..Cuts::default() };
        for server in servers {
            let verdict = identity(&server.ip()).and_then(|identity| {
                engine.look_up(
                    NODE,
                    agent_policy::Direction::Egress,
                    identity,
                    agent_policy::proto::TCP,
                    server.port(),
                )
            });
            let Some(verdict) = verdict.filter(|verdict| !verdict.outcome.passes()) else { continue };
            let origins = engine.origins(verdict.cookie).iter();
            let policies: BTreeSet<ObjectRef> = origins.map(|origin| (*origin.object).clone()).collect();
            if !self.host.is_meant(&policies) {
                cuts.servers.insert(server, policies);
            }
        }
        if cuts.is_unknown {
            let own = node_policies(engine).filter(|object| is_for_node(engine, object)).collect();
            cuts.is_unknown = !self.host.is_meant(&own);
        }
        self.host.set_cuts(cuts)
    }

    /// Works out what was heard, once all of it is known; `None` before. Endpoints of this node are in the changes by number.
    pub(crate) fn commit(&mut self, families: Families, nodes: &Nodes) -> Option<Changes> {
        if !self.enabled {
            return None;
        }
        if self.engine.0.is_none() {
            // Which families there are the own Node object says, and the engine keeps what it was begun with.
            if !self.synced() || !nodes.synced() || !(families.v4 || families.v6) {
                return None;
            }
            self.start(families);
        }
        if std::mem::take(&mut self.nodes_moved) {
            self.tell_nodes(nodes);
        }
        for number in self.lingering.clone() {
            let has = |own: &Own| own.identity.0 == number;
            if !self.users.contains_key(&number) && !self.own.values().any(has) {
                self.lingering.remove(&number);
                if let Some(engine) = &mut self.engine.0 {
                    engine.remove_identity(Identity(number));
                }
            }
        }
        let changes = self.engine.0.as_mut()?.commit();
        self.cidrs.extend(changes.prefixes.iter().copied());
        for (prefix, _) in &changes.prefixes_removed {
            self.cidrs.remove(prefix);
        }
        Some(changes)
    }

    /// From now on rows come from what is known, not from what an earlier agent left. Returns whose rows may be others.
    pub(crate) fn forget_restored(&mut self) -> Vec<EndpointId> {
        self.restored_nodes.clear();
        self.host.forget_restored();
        std::mem::take(&mut self.restored).into_keys().collect()
    }

    /// The tables hold what the last commit asked for.
    pub(crate) fn settle(&mut self) {
        if let Some(engine) = &mut self.engine.0 {
            engine.settle();
        }
        self.in_force = self.heard;
    }

    /// The latest version of a policy that is in force here (`resourceVersion` of the object); 0 before the first.
    pub(crate) fn revision(&self) -> u64 {
        self.in_force
    }

    /// What is wrong with the objects.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        if !self.enabled {
            return Vec::new();
        }
        let severity = |severity| match severity {
            agent_policy::Severity::Warning => crate::finding::Severity::Warning,
            agent_policy::Severity::Error => crate::finding::Severity::Error,
        };
        let of_engine = self.engine().map(Policy::findings).unwrap_or_default();
        let of_engine = of_engine.into_iter().map(|finding| Finding {
            severity: severity(finding.severity),
            subject: finding.subject,
            message: finding.message,
        });
        let unreadable = self.unreadable.iter().map(|((kind, name), error)| {
            let separator = if name.namespace.is_empty() { "" } else { "/" };
            Finding::error(
                format!("{}/{}{separator}{}", kind.name(), name.namespace, name.name),
                format!("it cannot be read: {error}; what was in force of it stays"),
            )
        });
        let of_nodes = self.engine().map(|engine| {
            let all = || node_policies(engine);
            self.host.findings(all(), all().filter(|object| is_for_node(engine, object)))
        });
        of_engine.chain(unreadable).chain(of_nodes.into_iter().flatten()).collect()
    }

    /// The object of the pod behind an endpoint.
    pub(crate) fn pod(&self, id: EndpointId) -> Option<&PodObject> {
        self.pod_of(self.own.get(&id)?.pod.as_ref()?)
    }
}

impl Touched {
    pub(crate) fn merge(&mut self, other: Self) {
        self.endpoints.extend(other.endpoints);
        self.addresses.extend(other.addresses);
    }
}

/// Policies for nodes.
fn node_policies(engine: &Policy) -> impl Iterator<Item = ObjectRef> {
    let objects: BTreeSet<_> =
        engine.store().specs().filter(|spec| spec.host).map(|spec| &spec.object).collect();
    objects.into_iter().map(|object| (**object).clone())
}

fn is_for_node(engine: &Policy, object: &ObjectRef) -> bool {
    engine.selected_by(object).contains(&NODE)
}

fn tell(engine: &mut Policy, held: Held) {
    let object = match held {
        Held::Policy(object) => object,
        Held::Delete(policy) => return engine.delete(&policy),
        Held::Group(name, group) => return engine.set_cidr_group(&name, group),
    };
    let Some(policy) = object.as_policy() else { return };
    // What is wrong with it becomes a finding of the engine's.
    let _: Result<(), agent_policy::Mistakes> = engine.upsert(policy);
}
