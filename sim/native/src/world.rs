//! The cluster: nodes, objects, wires, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sim_api::clock::rfc3339;
use sim_api::object::{at, name, namespace, str_at};
use sim_api::resource::{CUSTOMRESOURCEDEFINITIONS, ENDPOINTSLICES, NODES, PODS};
use sim_api::{ChangeKind, ManualClock, Store, StoreOptions, WriteOptions};
use sim_controllers::{ControllerOptions, Controllers};
use sim_net::{Frame, Link, LinkKind, PacketId, Route};
use sim_scenario::model::{Cluster, Enforcement, Families};
use sim_scenario::rng::Rng;

use agent_control::ObjectKind;
use agent_control::ports::{HOST_LINK, NET_LINK, OVERLAY_LINK};

use crate::check::{Checker, Violation};
use crate::fabric::{Fabric, Port};
use crate::faults::ClusterFaults;
use crate::kinds::{DEFINITIONS, KindLog, kind_of};
use crate::kubelet::SandboxId;
use crate::node::{DEVICE, LinkView, NODE_NETS, SimNode, UNDERLAY};
use crate::odd::Odd;
use crate::operator::OperatorProcess;
use crate::outside::{GATEWAYS, Outside, SERVERS};
use crate::queue::{NodeId, Queue, Task};
use crate::run::Said;
use crate::trace::{Hop, Origin, Passport, Trace};
use crate::traffic::TrafficState;
use crate::view::View;
use crate::watch::NodeLog;

/// Moment at which simulations begin, for objects' time stamps: 2026-01-01.
const EPOCH_S: i64 = 1_767_225_600;

/// Port of the API server.
pub(crate) const API_PORT: u16 = 443;

/// What has happened, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Tasks performed.
    pub tasks: u64,
    /// Events that agents took in.
    pub events: u64,
    /// Reconciles of agents.
    pub reconciles: u64,
    /// Runs of programs.
    pub packets: u64,
    /// Packets handed to pods.
    pub delivered: u64,
    /// Packets dropped by programs.
    pub dropped: u64,
    /// Packets dropped by stacks.
    pub dropped_by_stacks: u64,
    /// Frames that wires lost.
    pub lost_on_wire: u64,
}

/// What policies there have been.
#[derive(Default)]
pub(crate) struct Policies {
    /// There were objects that may forbid packets, or all pods are isolated without any.
    pub(crate) any: bool,
    /// Some of them are not in force, and are counted.
    pub(crate) staged: bool,
}

/// The cluster and its time.
pub(crate) struct World {
    /// The present moment.
    pub(crate) now: Duration,
    pub(crate) seed: u64,
    pub(crate) cluster: Cluster,
    pub(crate) store: Store,
    clock: Arc<ManualClock>,
    controllers: Controllers,
    seen_revision: u64,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) nodes_by_address: BTreeMap<IpAddr, NodeId>,
    pub(crate) node_log: NodeLog,
    /// Changes of the objects that identity and policy rest on.
    pub(crate) kinds: BTreeMap<ObjectKind, KindLog>,
    pub(crate) operator: OperatorProcess,
    pub(crate) fabric: Fabric,
    pub(crate) outside: Outside,
    pub(crate) oracle: sim_oracle::Cluster,
    pub(crate) policies: Policies,
    pub(crate) traffic: BTreeMap<String, TrafficState>,
    /// Addresses that services had when they were last called, by `namespace/name`.
    pub(crate) service_addresses: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) cluster_faults: ClusterFaults,
    pub(crate) check: Checker,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    /// What the operator has said of policies.
    pub(crate) said: Vec<Said>,
    pub(crate) violation: Option<Violation>,
    /// Why the end of the run was not at rest, if it was not.
    pub(crate) unrested: String,
    pub(crate) rng: Rng,
    pub(crate) last_packet: u64,
    /// What pods send of their own accord, if they do.
    pub(crate) odd: Option<Odd>,
    queue: Queue,
    order: Rng,
    controllers_due: Option<Duration>,
    /// No time passes between commands, and packets are not looked at: for figures on size.
    bulk: bool,
    /// Agents reconcile after every single event.
    pub(crate) one_by_one: bool,
    /// What agents have told the API server.
    pub(crate) told: crate::publish::Told,
    /// How often the state between two commands could have been looked at.
    pub(crate) between: u64,
    /// How long agents keep addresses back.
    pub(crate) quarantine: Duration,
}

impl World {
    /// A cluster whose nodes are about to boot. `bulk`: see the field.
    pub(crate) fn new(cluster: &Cluster, seed: u64, bulk: bool) -> Self {
        let mtu = u32::from(cluster.mtu);
        let start = Timestamp::from_second(EPOCH_S).unwrap_or(Timestamp::UNIX_EPOCH);
        let clock = Arc::new(ManualClock::new(start));
        let store = Store::new(StoreOptions {
            clock: Arc::clone(&clock) as Arc<dyn sim_api::Clock>,
            log_capacity: 1_000_000,
            seed,
            ..StoreOptions::default()
        });
        if !bulk {
            for definition in DEFINITIONS.iter() {
                let made = store.create(
                    &CUSTOMRESOURCEDEFINITIONS,
                    "",
                    definition.clone(),
                    &WriteOptions::default(),
                );
                debug_assert!(made.is_ok(), "the store is new, and the definitions are valid: {made:?}");
            }
        }
        let host_policies = cluster.host_firewall && cluster.policy && !bulk;
        if host_policies {
            let made = store.create(
                &ENDPOINTSLICES,
                "default",
                api_server(cluster.family),
                &WriteOptions::default(),
            );
            debug_assert!(made.is_ok(), "the store has no such object yet: {made:?}");
        }
        let oracle = sim_oracle::Options {
            host_policies,
            enforcement: crate::modes::of_oracle(cluster.enforcement),
            audit: cluster.audit,
            ..sim_oracle::Options::by_identity()
        };
        let options = ControllerOptions { pod_cidrs: Vec::new(), node_grace_s: 0 };
        let nodes: Vec<SimNode> = (0..usize::from(cluster.nodes))
            .map(|n| SimNode::new(n, cluster.family, mtu, cluster.pod_cidr_bits, seed ^ n as u64))
            .collect();
        Self {
            now: Duration::ZERO,
            seed,
            cluster: cluster.clone(),
            controllers: Controllers::new(store.clone(), options),
            store,
            clock,
            seen_revision: 0,
            nodes_by_address: nodes
                .iter()
                .enumerate()
                .flat_map(|(n, node)| node.addresses.iter().map(move |ip| (*ip, n)))
                .collect(),
            nodes,
            node_log: NodeLog::default(),
            kinds: BTreeMap::new(),
            operator: OperatorProcess::default(),
            fabric: Fabric::new(mtu, seed),
            outside: Outside::new(mtu, seed),
            oracle: sim_oracle::Cluster::with_options(oracle),
            policies: Policies {
                any: cluster.enforcement == Enforcement::Always && cluster.policy && !bulk,
                staged: false,
            },
            traffic: BTreeMap::new(),
            service_addresses: BTreeMap::new(),
            cluster_faults: ClusterFaults::default(),
            check: Checker::new(oracle),
            trace: Trace::default(),
            stats: Stats::default(),
            said: Vec::new(),
            violation: None,
            unrested: String::new(),
            rng: Rng::stream(seed, "world", 0),
            last_packet: 0,
            odd: Some(Odd::new(seed)),
            queue: Queue::default(),
            order: Rng::stream(seed, "order", 0),
            controllers_due: None,
            bulk,
            one_by_one: false,
            told: crate::publish::Told::default(),
            between: 0,
            quarantine: Duration::from_secs(30),
        }
    }

    /// Gives nodes another IPv4 pod CIDR, and those with a /29 an IPv6 one that is full before both are.
    pub(crate) fn use_odd_cidrs(&mut self) {
        let family = self.cluster.family;
        if family == Families::V6 {
            return;
        }
        let small = (self.cluster.pod_cidr_bits, family) == (29, Families::Dual);
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let index = u32::try_from(n).unwrap_or(u32::MAX);
            let more = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + (index << 3));
            node.pod_cidrs.extend(IpNet::new(more.into(), 29));
            for cidr in node.pod_cidrs.iter_mut().filter(|cidr| small && !cidr.addr().is_ipv4()) {
                *cidr = IpNet::new(cidr.addr(), 125).unwrap_or(*cidr);
            }
        }
    }

    /// The nodes come up; nothing has happened before.
    pub(crate) fn boot(&mut self) {
        for (port, mac) in Outside::ports() {
            self.fabric.connect(port, mac);
        }
        for n in 0..self.nodes.len() {
            self.boot_node(n);
        }
        self.follow_store();
        self.start_operator(0);
    }

    /// The wire of a node, its object, and its agent's start.
    fn boot_node(&mut self, n: NodeId) {
        self.fabric.connect(Port::Node(n), self.nodes[n].mac);
        let by_chance = self.rng.chance(0.5);
        // Where flows are noted, programs have to tell them.
        self.nodes[n].listened = by_chance || self.odd.is_none();
        for (table, rows) in self.cluster.tables.clone() {
            self.nodes[n].native.tables_mut().set_capacity(&table, Some(rows));
        }
        if self.cluster.tables.keys().any(|table| !matches!(table.as_str(), "EVENTS")) {
            self.check.table_was_full(n);
        }
        self.follow_links(n);
        // An agent may be there before the object of its node.
        if !self.bulk && self.rng.chance(0.2) {
            let late = self.latency(Duration::from_millis(400));
            self.after(late, Task::Register(n));
        } else {
            self.register(n);
        }
        let after = self.latency(Duration::from_millis(50));
        self.after(after, Task::StartAgent(n, 0));
    }

    /// One more node boots.
    pub(crate) fn join(&mut self) {
        let n = self.nodes.len();
        let (mtu, bits) = (u32::from(self.cluster.mtu), self.cluster.pod_cidr_bits);
        let node = SimNode::new(n, self.cluster.family, mtu, bits, self.seed ^ n as u64);
        self.nodes_by_address.extend(node.addresses.iter().map(|ip| (*ip, n)));
        self.nodes.push(node);
        self.boot_node(n);
        self.follow_store();
    }

    /// The node's object is made.
    pub(crate) fn register(&mut self, n: NodeId) {
        self.nodes[n].registered = true;
        let object = crate::objects::node(&self.nodes[n], &rfc3339(self.store.now()));
        if let Err(error) = self.store.create(&NODES, "", object.clone(), &WriteOptions::default()) {
            self.violate(
                "simulator",
                format!("the object of {} cannot be made: {error}", self.nodes[n].name),
            );
            return;
        }
        let written = self.store.modify(&NODES, "", &self.nodes[n].name, sim_api::Sub::Status, |node| {
            node["status"] = object["status"].clone();
        });
        if let Err(error) = written {
            self.violate(
                "simulator",
                format!("the status of {} cannot be written: {error}", self.nodes[n].name),
            );
        }
    }

    /// The node of that name.
    pub(crate) fn node_named(&self, name: &str) -> Option<NodeId> {
        let number: NodeId = name.strip_prefix("node-")?.parse().ok()?;
        number.checked_sub(1).filter(|n| self.nodes.get(*n).is_some_and(|node| node.name == name))
    }

    // === time ===

    /// Adds a task for a moment.
    pub(crate) fn push(&mut self, at: Duration, task: Task) {
        let tie = self.order.u64();
        self.queue.push(at.max(self.now), tie, task);
    }

    /// Adds a task for so much later.
    pub(crate) fn after(&mut self, after: Duration, task: Task) {
        self.push(self.now + after, task);
    }

    /// Puts a task back that could not be performed at its moment.
    pub(crate) fn put_back(&mut self, at: Duration, task: Task) {
        let tie = self.order.u64();
        // At its own moment, so that it is known again; time does not go back for it.
        self.queue.push(at, tie, task);
    }

    /// Takes the first task due by then, and makes it its moment.
    pub(crate) fn take_due(&mut self, until: Duration) -> Option<(Duration, Task)> {
        let (at, task) = self.queue.pop_until(until)?;
        self.reach(at);
        self.stats.tasks += 1;
        Some((at, task))
    }

    /// It is now at least that moment.
    pub(crate) fn reach(&mut self, at: Duration) {
        if at > self.now {
            let by = at.saturating_sub(self.now);
            self.now = at;
            self.clock.advance(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX));
        }
    }

    /// The moment of the next task.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.queue.next_at()
    }

    /// Whether there is a reason to go no further.
    pub(crate) const fn is_over(&self) -> bool {
        self.violation.is_some()
    }

    /// Up to that much time, usually little of it.
    pub(crate) fn latency(&mut self, most: Duration) -> Duration {
        if self.bulk {
            return Duration::ZERO;
        }
        let ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        let most = if self.rng.chance(0.1) { ns } else { ns / 8 + 1 };
        Duration::from_nanos(self.rng.below(most))
    }

    /// Whether nobody looks at packets.
    pub(crate) const fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// Whether there are identities and policies.
    pub(crate) const fn has_identities(&self) -> bool {
        self.cluster.policy && !self.bulk
    }

    /// How long a command of an agent takes.
    pub(crate) fn command_time(&mut self, _: NodeId) -> Option<Duration> {
        if self.bulk {
            return None;
        }
        // Now and then the process is not scheduled for a while.
        let most = if self.rng.chance(0.02) { 3_000_000 } else { 30_000 };
        Some(Duration::from_nanos(self.rng.below(most)))
    }

    /// Performs a task.
    pub(crate) fn perform(&mut self, at: Duration, task: Task) {
        match task {
            Task::Controllers => self.step_controllers(at),
            Task::Watch(n) => self.watch(n, at),
            Task::Listen(who, kind) => self.listen(who, kind, at),
            Task::Operator => self.run_operator(at),
            Task::StartOperator(life) => self.start_operator(life),
            Task::OperatorCall(life, id, action) => self.operator_calls(life, id, &action),
            Task::OperatorHears(life, id, outcome) => self.operator_hears(life, id, *outcome),
            Task::Publish(n) => self.publish(n, at),
            Task::Agent(_) => {}
            Task::StartAgent(n, life) => self.start_agent(n, life),
            Task::Register(n) => self.register(n),
            Task::Kubelet(n) => self.kubelet(n, at),
            Task::CniCall(n, call) => self.call_arrives(n, call),
            Task::ReplayQueue(n) => self.replay_queue(n),
            Task::CniAnswer(n, call, reply) => self.cni_answer(n, &call, &reply),
            Task::CollectGarbage(n) => self.collect_garbage(n),
            Task::DestroyNetns(n, path) => self.destroy_netns(n, &path),
            Task::RunPod(n, id) => self.run_pod(n, id),
            Task::Pod(n, id) => self.poll_pod(n, id, at),
            Task::Stack(n) => self.poll_stack(n, at),
            Task::Outside => self.poll_outside(at),
            Task::Arrive(port, frame) => self.arrives(port, frame),
            Task::Traffic(id) => self.go_on_with_traffic(&id),
            Task::FaultEnds(id) => self.end_fault(id),
        }
        self.follow_store();
    }

    // === objects ===

    fn step_controllers(&mut self, at: Duration) {
        if self.controllers_due != Some(at) {
            return;
        }
        self.controllers_due = None;
        if self.controllers.step() {
            self.wake_controllers();
        }
    }

    /// Whether the controllers have not yet looked at what has changed.
    pub(crate) const fn controllers_are_due(&self) -> bool {
        self.controllers_due.is_some()
    }

    fn wake_controllers(&mut self) {
        if self.controllers_due.is_none() {
            let after = self.latency(Duration::from_millis(10)) + Duration::from_micros(1);
            let at = self.now + after;
            self.controllers_due = Some(at);
            self.push(at, Task::Controllers);
        }
    }

    /// Tells everybody what has changed in the store.
    pub(crate) fn follow_store(&mut self) {
        let revision = self.store.revision();
        if revision == self.seen_revision {
            return;
        }
        let changes = match self.store.changes(self.seen_revision) {
            Ok(changes) => changes,
            Err(error) => {
                self.violate("simulator", format!("changes of the store are lost: {error}"));
                return;
            }
        };
        self.seen_revision = revision;
        if self.policies.any {
            // What is there now is what was there before these changes.
            self.look_for_rest();
        }
        let mut nodes = false;
        let (mut kinds, mut told) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            let deleted = change.kind == ChangeKind::Deleted;
            if let Some(kind) = kind_of(&change.resource).filter(|_| self.has_identities()) {
                told.extend(self.told_by(kind, &change.object));
                let now = self.now;
                if self.kinds.entry(kind).or_default().add(kind, &change.object, deleted, now) {
                    kinds.insert(kind);
                }
            }
            if change.resource == NODES {
                nodes |= self.node_log.add(&change.object, deleted);
            } else if change.resource == PODS
                && let Some(n) = self.node_named(str_at(&change.object, &["spec", "nodeName"]))
            {
                self.pod_changed(n, &change.object, deleted);
            }
            self.follow_policies(&change.object, deleted);
        }
        if nodes {
            self.wake_watches();
        }
        for kind in &kinds {
            self.wake_listens(*kind);
        }
        self.doubt_what_is_told(&told);
        self.wake_controllers();
    }

    /// Nodes whose agents may have something else to tell after an object has changed.
    fn told_by(&self, kind: ObjectKind, object: &Value) -> Vec<NodeId> {
        let node = match kind {
            ObjectKind::Pod => self.node_named(str_at(object, &["spec", "nodeName"])),
            ObjectKind::Endpoint => {
                let node = str_at(object, &["status", "networking", "node"]).parse().ok();
                node.and_then(|node| self.node_at(node))
            }
            _ => return Vec::new(),
        };
        node.map_or_else(|| (0..self.nodes.len()).collect(), |node| vec![node])
    }

    fn follow_policies(&mut self, object: &Value, deleted: bool) {
        let kind = str_at(object, &["kind"]);
        if kind.ends_with("NetworkPolicy") && !self.has_identities() {
            // Nobody puts it in force.
            return;
        }
        if deleted {
            self.oracle.remove(kind, namespace(object), name(object));
        } else if let Err(error) = self.oracle.set(object) {
            // An invalid policy changes nothing.
            if !kind.ends_with("NetworkPolicy") && kind != "CiliumCIDRGroup" {
                self.violate("simulator", format!("the oracle cannot read {kind} {}: {error}", name(object)));
            }
            return;
        }
        self.policies.any |= kind.ends_with("NetworkPolicy");
        self.policies.staged |= !object["metadata"]["annotations"]["bristle.io/staged"].is_null();
        if !self.bulk {
            let now = self.now;
            if kind == "CiliumEndpoint" {
                let identity = at(object, &["status", "identity", "id"]).as_u64().unwrap_or_default();
                let surprises = self.may_surprise(identity);
                self.check.views.note_endpoint(now, object, deleted, surprises);
            } else {
                self.check.views.note(now, object, deleted);
            }
            self.check.services.note(now, object, deleted);
        }
    }

    // === links ===

    /// Makes links and stack of a node follow what its agent and its runtime did.
    pub(crate) fn follow_links(&mut self, n: NodeId) {
        let node = &mut self.nodes[n];
        let mut links = BTreeMap::new();
        for (name, link) in node.memory.links() {
            let programs = link.programs.iter().fold(0, |bits, program| bits | 1 << *program as u8);
            let pod = link.pod.as_ref();
            links.insert(
                link.ifindex,
                LinkView {
                    name: name.clone(),
                    mac: link.mac,
                    programs,
                    netns: pod.map(|pod| pod.netns.clone()),
                    pod_mac: pod.map_or([0; 6], |pod| pod.mac),
                    pod_addresses: pod.iter().flat_map(|pod| &pod.addresses).map(IpNet::addr).collect(),
                },
            );
        }
        let mut gone = Vec::new();
        for (ifindex, link) in node.links.iter().filter(|(ifindex, _)| !links.contains_key(ifindex)) {
            node.stack.remove_link(*ifindex);
            gone.push((*ifindex, link.clone()));
        }
        let new = links.iter().filter(|(ifindex, _)| !node.links.contains_key(ifindex));
        for (ifindex, link) in new {
            self.check.note_link(n, *ifindex, link);
        }
        let changed: Vec<u32> = links
            .iter()
            .filter(|(ifindex, link)| {
                let old = node.links.get(*ifindex);
                old.is_none_or(|old| (&old.name, old.mac, &old.netns) != (&link.name, link.mac, &link.netns))
                    || link.name == HOST_LINK
            })
            .map(|(ifindex, _)| *ifindex)
            .collect();
        node.links = links;
        for ifindex in changed {
            if let Some(link) = stack_link(node, ifindex) {
                node.stack.set_link(link);
            }
        }
        self.follow_routes(n);
        self.end_tenures(n, &gone);
    }

    /// Makes the routes of a node's stack follow those of its agent; not in bulk, where nothing is sent.
    pub(crate) fn follow_routes(&mut self, n: NodeId) {
        if self.bulk {
            return;
        }
        let node = &mut self.nodes[n];
        let routes = stack_routes(node);
        if node.stack_routes != routes {
            node.stack_routes.clone_from(&routes);
            node.stack.set_routes(routes);
        }
    }

    // === trace ===

    /// Something happened on a node.
    pub(crate) fn note(&mut self, n: NodeId, what: &str, value: u64) {
        let what = crate::view::digest(value, what.as_bytes());
        self.trace.mix(self.now, n, what);
    }

    /// Something happened to a packet.
    pub(crate) fn hop(&mut self, id: PacketId, n: NodeId, hop: Hop) {
        self.trace.hop(id.0, self.now, n, hop);
    }

    /// A packet is seen; if it is new, it is remembered from now on.
    pub(crate) fn meet(&mut self, frame: &Frame, origin: Origin) {
        if self.trace.packet(frame.id.0).is_some() {
            return;
        }
        let view = View::of(&frame.bytes);
        let honest = match (&view, origin) {
            // Whatever it carries is not what a pod may send.
            (Some(view), Origin::Pod(..)) if self.node_at(view.dst).is_some() && view.is_for_tunnel() => {
                false
            }
            (Some(view), Origin::Pod(n, id)) => {
                let netns = self.nodes[n].kubelet.sandboxes.get(&id).map(|sandbox| sandbox.netns.clone());
                self.nodes[n].memory.links().values().any(|link| {
                    link.pod.as_ref().is_some_and(|pod| {
                        Some(&pod.netns) == netns.as_ref()
                            && pod.addresses.iter().any(|net| net.addr() == view.src)
                    })
                })
            }
            _ => true,
        };
        let own_mac = match origin {
            Origin::Pod(n, id) => {
                let sandbox = self.nodes[n].kubelet.sandboxes.get(&id);
                let link = self.nodes[n]
                    .links
                    .values()
                    .find(|link| link.netns.as_ref() == sandbox.map(|s| &s.netns));
                link.is_none_or(|link| frame.bytes.get(6..12) == Some(&link.pod_mac))
            }
            Origin::Node(_) => true,
        };
        let passport = Passport {
            born: self.now,
            origin,
            view,
            honest,
            own_mac,
            spoiled: false,
            untold: None,
            way: Vec::new(),
        };
        self.trace.mix(self.now, 0, crate::view::digest(frame.id.0, &frame.bytes));
        self.trace.born(frame.id.0, passport);
    }

    /// A wire has changed a packet.
    pub(crate) fn spoil(&mut self, id: PacketId) {
        self.trace.spoil(id.0);
    }

    /// A frame goes out of or into a pod.
    pub(crate) fn tap(&mut self, n: NodeId, id: SandboxId, frame: &Frame) {
        self.trace.capture(self.now, frame);
        if self.trace.taps.is_empty() {
            return;
        }
        if let Some(sandbox) = self.nodes[n].kubelet.sandboxes.get(&id) {
            self.trace.tap(self.now, &sandbox.pod, &frame.bytes);
        }
    }

    /// A frame goes out of the stack of a node, or ends in it.
    pub(crate) fn tap_node(&mut self, n: NodeId, frame: &Frame) {
        if !self.trace.taps.is_empty() {
            self.trace.tap(self.now, &self.nodes[n].name, &frame.bytes);
        }
    }

    /// A packet as a subject, and its way with the rows that it meets at present.
    pub(crate) fn explain_packet(&self, id: u64) -> (String, Vec<String>) {
        let Some(passport) = self.trace.packet(id) else {
            return (format!("packet {id}"), Vec::new());
        };
        let subject = passport.view.as_ref().map_or_else(
            || format!("packet {id}"),
            |view| {
                let ports = view.ports.map(|(a, b)| format!(" {a}→{b}")).unwrap_or_default();
                format!("packet {id}, {} → {} protocol {}{ports}", view.src, view.dst, view.proto)
            },
        );
        let name = |n: NodeId| self.nodes.get(n).map_or_else(String::new, |node| node.name.clone());
        let mut lines = passport.describe(name);
        if let Some(view) = &passport.view {
            let mut seen: Vec<NodeId> = passport.way.iter().map(|(_, n, _)| *n).collect();
            seen.dedup();
            for n in seen {
                lines.extend(self.rows_for(n, view));
            }
        }
        (subject, lines)
    }
}

/// Where nodes find the API server: its own calls take no way through the network here, but policies may cut nodes off from it.
fn api_server(families: Families) -> Value {
    let [v4, v6] = SERVERS[1];
    let (kind, address) = if families == Families::V6 { ("IPv6", v6) } else { ("IPv4", v4) };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": kind,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
    })
}

/// Family of an address as the oracle names it.
pub(crate) const fn family(address: IpAddr) -> sim_oracle::Family {
    match address {
        IpAddr::V4(_) => sim_oracle::Family::V4,
        IpAddr::V6(_) => sim_oracle::Family::V6,
    }
}

/// A link as the stack knows it.
fn stack_link(node: &SimNode, ifindex: u32) -> Option<Link> {
    let view = node.links.get(&ifindex)?;
    let mut addresses = Vec::new();
    let mut mtu = node.mtu;
    let kind = match view.name.as_str() {
        DEVICE => {
            let nets = NODE_NETS.iter().flat_map(|(net, bits)| {
                let of = node.addresses.iter().filter(|ip| ip.is_ipv4() == net.is_ipv4());
                of.filter_map(|ip| IpNet::new(*ip, *bits).ok())
            });
            addresses.extend(nets);
            LinkKind::Underlay
        }
        HOST_LINK => {
            if let Some(base) = node.memory.base() {
                addresses.extend(base.router_v4.map(|ip| IpNet::from(IpAddr::V4(ip))));
                addresses.extend(base.router_v6.map(|ip| IpNet::from(IpAddr::V6(ip))));
            }
            LinkKind::Host
        }
        NET_LINK => LinkKind::Host,
        OVERLAY_LINK => LinkKind::Overlay,
        _ => {
            let pod = node.memory.links().get(&view.name)?.pod.as_ref()?;
            mtu = pod.mtu;
            LinkKind::Pod { neighbours: pod.addresses.iter().map(|net| (net.addr(), pod.mac)).collect() }
        }
    };
    Some(Link { ifindex, mac: view.mac, mtu, kind, addresses })
}

/// The routes of a node: those of its agent, and the way out of the cluster.
fn stack_routes(node: &SimNode) -> Vec<Route> {
    let of_agent = node.memory.routes().values().filter_map(|route| {
        let (ifindex, _) = node.link(&route.device)?;
        Some(Route { dst: route.dst, gateway: route.gateway, ifindex, mtu: route.mtu, source: route.source })
    });
    let defaults = GATEWAYS.into_iter().filter_map(|gateway| {
        let own = node.addresses.iter().any(|ip| ip.is_ipv4() == gateway.is_ipv4());
        let any: IpNet = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse().ok()?;
        own.then_some(Route { dst: any, gateway: Some(gateway), ifindex: UNDERLAY, mtu: None, source: None })
    });
    of_agent.chain(defaults).collect()
}
