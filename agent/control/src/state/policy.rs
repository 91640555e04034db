//! What identity and policy rest on: the objects, the identities of this node's pods, and the engine that turns them into rows.

mod elsewhere;
mod lists;
mod own;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_crd::{CiliumIdentity, IdentityLabels, LabelFilter};
use agent_policy::{Changes, Endpoint, EndpointPolicy, Families, Kind, LabelSet, Node, ObjectRef, Policy};
use dataplane_abi::Identity;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags};
use ipnet::IpNet;

use elsewhere::Elsewhere;
use lists::Lists;
use own::Own;
use told::{Versions, mark};

use super::endpoints::EndpointId;
use super::host::{ALLOW_API_CUT, Cuts, HostState, NODE};
use super::nodes::{NodeRecord, Nodes};
use super::services::{Services, api_server};
use crate::config::PolicyConfig;
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

/// The engine, which is too large to print.
///
/// Policies and what they refer to it takes from the first object on, for they take the least room there. It is asked for
/// nothing, and knows no identities and endpoints, before everything that it needs has been heard once.
struct Engine {
    policy: Policy,
    started: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// An identity of the cluster.
#[derive(Debug)]
struct Known {
    labels: Arc<IdentityLabels>,
    /// When it was heard of.
    since: Now,
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
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
#[derive(Debug)]
pub(crate) struct PolicyState {
    enabled: bool,
    /// Name of the cluster, which is a label of every identity.
    cluster: String,
    /// Which labels are part of identities.
    labels: LabelFilter,
    engine: Engine,
    lists: Lists,
    pods: BTreeMap<ObjectName, PodObject>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    identities: BTreeMap<u32, Known>,
    /// Numbers of a set of labels. Two can have been given out by two operators; the lower one is used.
    numbers: BTreeMap<Arc<IdentityLabels>, BTreeSet<u32>>,
    /// Identities whose object is gone, as long as somebody has them.
    lingering: BTreeSet<u32>,
    /// Identities that came after the tables last held what was asked for: older rows say nothing of them.
    fresh: BTreeSet<u32>,
    /// Somebody has lost an identity, or an identity its object.
    users_left: bool,
    elsewhere: Elsewhere,
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
    /// Endpoints that keep the identity which they have for a while, and until when.
    changing: BTreeMap<EndpointId, Now>,
    /// How long an identity is known before an endpoint changes to it.
    change_grace: Duration,
    services: Services,
    /// The node as an endpoint.
    pub(crate) host: HostState,
    /// CIDRs that policies tell apart.
    cidrs: BTreeMap<IpNet, Identity>,
    /// Policies that could not be read at all.
    unreadable: BTreeMap<(ObjectKind, ObjectName), String>,
    /// Somebody wants to know what cookies stand for.
    names_wanted: bool,
    /// The tables have held what the engine asked for at least once, so that no cookie of an earlier agent is in them.
    has_settled: bool,
    /// The engine tells what cookies stand for.
    names_followed: bool,
    /// By kind, the earliest version at which what is missing in the present list can have gone.
    since: BTreeMap<ObjectKind, u64>,
    /// What tells a changed policy from one of which only the status is another.
    marks: BTreeMap<(ObjectKind, Arc<ObjectName>), u64>,
    /// Counts what may make another thing of what is said of policies.
    news: u64,
    /// The same, once the tables hold what was heard.
    pending_news: bool,
    /// Versions of policies that were heard, and those that are in force.
    heard: Versions,
    in_force: Versions,
}

impl PolicyState {
    /// Nothing known. Without a configuration nothing will be, and nothing is enforced.
    pub(crate) fn new(config: Option<&PolicyConfig>) -> Self {
        let enabled = config.is_some();
        let config = config.cloned().unwrap_or_default();
        Self {
            enabled,
            cluster: config.engine.cluster.clone(),
            labels: config.labels,
            engine: Engine { policy: Policy::new(config.engine), started: false },
            lists: Lists::new(),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            identities: BTreeMap::new(),
            numbers: BTreeMap::new(),
            fresh: BTreeSet::new(),
            lingering: BTreeSet::new(),
            users_left: false,
            elsewhere: Elsewhere::default(),
            own: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            by_wanted: BTreeMap::new(),
            restored: BTreeMap::new(),
            restored_nodes: BTreeMap::new(),
            nodes_moved: true,
            waiting: BTreeMap::new(),
            changing: BTreeMap::new(),
            change_grace: config.identity_change_grace_period,
            services: Services::default(),
            host: HostState::new(enabled && config.host_firewall),
            cidrs: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            names_wanted: false,
            has_settled: false,
            names_followed: false,
            since: BTreeMap::new(),
            marks: BTreeMap::new(),
            news: 0,
            pending_news: false,
            heard: Versions::default(),
            in_force: Versions::default(),
        }
    }

    /// Whether identities and policies are looked at.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether every kind of object has been heard whole, or none is needed.
    pub(crate) fn synced(&self) -> bool {
        !self.enabled || self.lists.missing().next().is_none()
    }

    /// Whether services and slices have been heard whole.
    pub(crate) fn services_synced(&self) -> bool {
        [ObjectKind::Service, ObjectKind::EndpointSlice].into_iter().all(|kind| self.lists.has_heard(kind))
    }

    /// Services and their slices.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// See [`Services::take_touched`].
    pub(crate) fn take_touched_services(&mut self) -> BTreeSet<Arc<ObjectName>> {
        self.services.take_touched()
    }

    /// Kinds of which no whole list has been heard.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        if self.enabled { self.lists.missing().map(ObjectKind::name).collect() } else { Vec::new() }
    }

    /// The engine, once all that it needs has been heard.
    pub(crate) fn engine(&self) -> Option<&Policy> {
        self.engine.started.then_some(&self.engine.policy)
    }

    /// As [`Self::engine`], to be told of identities and endpoints.
    fn engine_mut(&mut self) -> Option<&mut Policy> {
        self.engine.started.then_some(&mut self.engine.policy)
    }

    fn start(&mut self, now: Now, families: Families) {
        self.engine.policy.set_families(families);
        self.engine.started = true;
        for number in self.identities.keys().copied().collect::<Vec<_>>() {
            self.tell_identity(number);
        }
        for name in self.services.names().cloned().collect::<Vec<_>>() {
            self.tell_service(&name);
        }
        for id in self.own.keys().copied().collect::<Vec<_>>() {
            self.refresh(now, id);
        }
    }

    /// CIDRs that policies tell apart.
    pub(crate) fn cidrs(&self) -> &BTreeMap<IpNet, Identity> {
        &self.cidrs
    }

    /// A list begins.
    pub(crate) fn list_started(&mut self, kind: ObjectKind) {
        self.lists.started(kind);
        let since = self.heard.of.get(&kind).copied().unwrap_or_default() + 1;
        self.since.insert(kind, since);
    }

    /// A list is complete: what was not heard in it is gone.
    pub(crate) fn list_synced(&mut self, kind: ObjectKind) -> Touched {
        let mut touched = Touched::default();
        let gone = self.lists.synced(kind);
        if kind.is_of_policy() && !gone.is_empty() {
            // Nobody says at which version they went. It was later than all that this watch had told, and who
            // waits for it shall see that something has changed.
            self.heard.newest += 1;
            self.policy_heard(kind, self.since.get(&kind).copied().unwrap_or_default());
        }
        for name in gone {
            touched.merge(self.delete(kind, &name, 0));
        }
        touched
    }

    /// An object as it is now.
    pub(crate) fn upsert(&mut self, now: Now, object: Object, version: u64) -> Touched {
        let kind = object.kind();
        let name = self.lists.heard(kind, object.name());
        self.readable(kind, &name);
        self.note_mark(kind, &name, mark(&object));
        match object {
            Object::Pod(pod) => {
                self.pods.insert((*name).clone(), pod);
                self.of_pod(&name)
            }
            Object::Namespace(namespace) => self.set_namespace(namespace),
            Object::Identity(identity) => self.set_identity(now, &identity),
            Object::Endpoint(endpoint) => self.set_endpoint(&name, Some(endpoint)),
            Object::Service(service) => {
                self.services.set_service(&name, Some(service));
                self.tell_service(&name);
                Touched::default()
            }
            Object::EndpointSlice(slice) => self.set_slice(&name, Some(slice)),
            Object::CidrGroup(group) => {
                match agent_policy::cidr_group(&group) {
                    Ok(group) => self.engine.policy.set_cidr_group(&name.name, Some(group)),
                    Err(error) => drop(self.unreadable.insert((kind, (*name).clone()), error.to_string())),
                }
                self.policy_heard(kind, version)
            }
            policy => {
                if let Object::CiliumClusterwideNetworkPolicy(policy) = &policy {
                    let consents = policy.metadata.annotations.get(ALLOW_API_CUT);
                    self.host.set_consent(&name.name, consents.is_some_and(|value| value == "true"));
                }
                if let Some(policy) = policy.as_policy() {
                    // What is wrong with it becomes a finding of the engine's.
                    let _: Result<(), agent_policy::Mistakes> = self.engine.policy.upsert(policy);
                }
                self.policy_heard(kind, version)
            }
        }
    }

    /// An object of which only the name could be read. Its last good version stays.
    pub(crate) fn unreadable(&mut self, kind: ObjectKind, name: ObjectName, error: String) {
        let name = self.lists.heard(kind, name);
        self.news += 1;
        self.unreadable.insert((kind, (*name).clone()), error);
    }

    fn readable(&mut self, kind: ObjectKind, name: &ObjectName) {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&(kind, name.clone()));
        }
    }

    /// An object is gone.
    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &ObjectName, version: u64) -> Touched {
        self.lists.forget(kind, name);
        self.readable(kind, name);
        self.forget_mark(kind, name);
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
            ObjectKind::Endpoint => return self.set_endpoint(&Arc::new(name.clone()), None),
            ObjectKind::Service => {
                self.services.set_service(&Arc::new(name.clone()), None);
                self.tell_service(name);
                return Touched::default();
            }
            ObjectKind::EndpointSlice => return self.set_slice(&Arc::new(name.clone()), None),
            ObjectKind::CidrGroup => {
                self.engine.policy.set_cidr_group(&name.name, None);
                return self.policy_heard(kind, version);
            }
            ObjectKind::NetworkPolicy => policy(Kind::NetworkPolicy),
            ObjectKind::CiliumNetworkPolicy => policy(Kind::CiliumNetworkPolicy),
            ObjectKind::CiliumClusterwideNetworkPolicy => {
                self.host.set_consent(&name.name, false);
                policy(Kind::CiliumClusterwideNetworkPolicy)
            }
            ObjectKind::ClusterNetworkPolicy => policy(Kind::ClusterNetworkPolicy),
        };
        self.engine.policy.delete(&policy);
        self.policy_heard(kind, version)
    }

    fn policy_heard(&mut self, kind: ObjectKind, version: u64) -> Touched {
        self.heard.newest = self.heard.newest.max(version);
        let of = self.heard.of.entry(kind).or_default();
        *of = version.max(*of);
        Touched::default()
    }

    fn set_slice(&mut self, name: &Arc<ObjectName>, slice: Option<SliceObject>) -> Touched {
        for service in self.services.set_slice(name, slice) {
            self.tell_service(&service);
            self.nodes_moved |= *service == api_server();
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

    /// What selectors can know of a node.
    pub(crate) fn facts_of_node(&self, record: &NodeRecord) -> Node {
        facts_of_node(record, &self.services.api_server())
    }

    /// Tells the engine of nodes and API servers as they are now.
    fn tell_nodes(&mut self, nodes: &Nodes) {
        if !self.engine.started {
            return;
        }
        let engine = &mut self.engine.policy;
        let mut servers = self.services.api_server();
        let api_server = servers.clone();
        let mut others = BTreeMap::new();
        for (name, record) in nodes.iter() {
            let node = facts_of_node(record, &api_server);
            servers.retain(|address| !record.internal_ips.contains(address));
            if record.claimant.remote {
                others.insert(name.clone(), node);
            } else {
                engine.set_host(&node);
                self.host.set_labels(node.subject_labels());
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
                            audit: None,
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
        if self.engine.started {
            self.engine.policy.set_service(&name.namespace, &name.name, self.services.get(name));
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

    /// Whether rows that are there and shall not be may say nothing of an identity.
    pub(crate) fn is_fresh(&self, identity: Identity) -> bool {
        self.fresh.contains(&identity.0)
    }

    fn set_identity(&mut self, now: Now, object: &CiliumIdentity) -> Touched {
        let Some(number) = object.number() else { return Touched::default() };
        let labels = Arc::new(object.labels());
        self.lingering.remove(&number);
        if self.identities.get(&number).is_some_and(|known| known.labels == labels) {
            return Touched::default();
        }
        let known = Known { labels: Arc::clone(&labels), since: now };
        let before = self.identities.insert(number, known);
        self.fresh.insert(number);
        let mut endpoints = BTreeSet::new();
        if let Some(before) = before {
            endpoints.extend(self.forget_number(&before.labels, number));
        }
        self.numbers.entry(Arc::clone(&labels)).or_default().insert(number);
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
        let Some(known) = self.identities.remove(&number) else { return Touched::default() };
        self.lingering.insert(number);
        self.users_left = true;
        Touched { endpoints: self.forget_number(&known.labels, number), ..Touched::default() }
    }

    /// Tells the engine of an identity as it is now.
    fn tell_identity(&mut self, number: u32) {
        let Some(known) = self.identities.get(&number).filter(|_| self.engine.started) else { return };
        let ports = self.elsewhere.named_ports(number);
        self.engine.policy.upsert_identity(Identity(number), LabelSet::from(&*known.labels), &ports);
    }

    /// What an agent says of an endpoint; `None`: it is gone.
    fn set_endpoint(&mut self, name: &Arc<ObjectName>, object: Option<EndpointObject>) -> Touched {
        let moved = self.elsewhere.set(name, object);
        self.users_left |= moved.left;
        for number in moved.ports {
            self.tell_identity(number);
        }
        Touched { addresses: moved.addresses, ..Touched::default() }
    }

    /// Addresses that objects say something of.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.elsewhere.addresses()
    }

    /// Those of them in a CIDR.
    pub(crate) fn addresses_in(&self, cidr: &IpNet) -> impl Iterator<Item = &IpAddr> {
        self.elsewhere.addresses_in(cidr)
    }

    /// Whom an address elsewhere is said to belong to. Of several the latest has it: the others are of pods that are gone.
    pub(crate) fn endpoint_at(&self, address: &IpAddr) -> Option<&EndpointObject> {
        self.elsewhere.at(address)
    }

    /// What the agent of another node says of a pod.
    pub(crate) fn endpoint_named(&self, pod: &ObjectName) -> Option<&EndpointObject> {
        self.elsewhere.named(pod)
    }

    /// Endpoints of a pod of this node.
    pub(crate) fn endpoints_of(&self, pod: &ObjectName) -> impl Iterator<Item = EndpointId> {
        self.by_pod.get(pod).into_iter().flatten().copied()
    }

    /// Numbers that labels have in the cluster.
    pub(crate) fn identity_numbers(&self) -> impl Iterator<Item = u32> {
        self.identities.keys().copied()
    }

    /// Identities without an object go with the last who has them.
    fn remove_unused_identities(&mut self) {
        let has = |number: &u32| self.own.values().any(|own| own.identity.0 == *number);
        let is_used = |number: &u32| self.elsewhere.has_users(*number) || has(number);
        let unused: Vec<u32> = self.lingering.iter().copied().filter(|number| !is_used(number)).collect();
        for number in unused {
            self.lingering.remove(&number);
            self.engine.policy.remove_identity(Identity(number));
        }
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
        let Some(engine) = self.engine() else { return false };
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
                    Some(server.ip()),
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
            let own = self.node_policies(engine).collect();
            cuts.is_unknown = !self.host.is_meant(&own);
        }
        self.host.set_cuts(cuts)
    }

    /// Works out what was heard, once all of it is known; `None` before. Endpoints of this node are in the changes by number.
    pub(crate) fn commit(&mut self, now: Now, families: Families, nodes: &Nodes) -> Option<Changes> {
        if !self.enabled {
            return None;
        }
        if !self.engine.started {
            // Which families there are the own Node object says, and the engine keeps what it was begun with.
            if !self.synced() || !nodes.synced() || !(families.v4 || families.v6) {
                return None;
            }
            self.start(now, families);
        }
        if std::mem::take(&mut self.nodes_moved) {
            self.tell_nodes(nodes);
        }
        if std::mem::take(&mut self.users_left) {
            self.remove_unused_identities();
        }
        let changes = self.engine.policy.commit();
        self.news += u64::from(!changes.is_empty());
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

    /// Policies for this node.
    fn node_policies(&self, engine: &Policy) -> impl Iterator<Item = ObjectRef> {
        let specs = engine.store().specs().filter(|spec| self.host.is_subject_of(spec));
        let objects: BTreeSet<_> = specs.map(|spec| &spec.object).collect();
        objects.into_iter().map(|object| (**object).clone()).collect::<Vec<_>>().into_iter()
    }

    /// What is wrong with the objects.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        // Without policy nothing is heard but what somebody else needs, and that the engine does not know.
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
        let of_nodes = self.engine().map(|engine| self.host.findings(self.node_policies(engine)));
        let of_nodes = of_nodes.into_iter().flatten();
        of_engine.chain(unreadable).chain(of_nodes).chain(self.findings_of_own()).collect()
    }
}

fn facts_of_node(record: &NodeRecord, api_servers: &BTreeSet<IpAddr>) -> Node {
    let api_server = record.internal_ips.iter().any(|address| api_servers.contains(address));
    Node { labels: record.labels.clone(), api_server }
}

impl Touched {
    pub(crate) fn merge(&mut self, other: Self) {
        self.endpoints.extend(other.endpoints);
        self.addresses.extend(other.addresses);
    }
}
