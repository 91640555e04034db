//! Agents with their tables, one for each node, at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agent_api::Timestamp;
use agent_api::cni::{self, Attachment, Operation, PodRef};
use agent_control::memory::{Faults, MemoryNode};
use agent_control::ports::{CtClock, Cursor, HOST_LINK, OVERLAY_LINK, Program, Row, Scan, Table};
use agent_control::{
    ALLOW_API_CUT, Agent, CniRequest, Config, DeviceFacts, EndpointObject, Event, MapStore, NetnsHandle,
    NodeObject, Now, Object, ObjectKind, ObjectName, PolicyConfig, PortError, RequestId, Routing,
};
use agent_crd::identity_labels::{DEFAULT_CLUSTER, PodFacts};
use agent_crd::{CiliumIdentity, IdentityLabels};
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::{Addr, DropReason, Family, Identity};
use dataplane_core::Verdict;
use dataplane_native::{Frame, Native, Tunnel};
use serde_json::{Value, json};
use sim_api::object::{label_map, name, namespace};
use sim_oracle::{Attempt, End, Family as OracleFamily, Options};
use sim_policy::PolicyCase;

use super::{Outcome, packets};

/// The underlay device.
const DEVICE: &str = "eth0";
/// Its index.
const UNDERLAY: u32 = 2;
/// Most reconciles until an agent is at rest.
const PATIENCE: usize = 100;

/// A pod of a node.
struct Pod {
    link: String,
    addresses: Vec<IpAddr>,
}

struct Member {
    agent: Agent,
    native: Native,
    node: MemoryNode,
    now: Now,
    addresses: Vec<IpAddr>,
    pods: BTreeMap<ObjectName, Pod>,
}

/// All nodes of a case.
pub(super) struct Cluster {
    case: PolicyCase,
    routing: Routing,
    members: BTreeMap<String, Member>,
    /// Numbers of identities, by labels.
    identities: BTreeMap<IdentityLabels, u32>,
}

/// The tables of a node as its agent's port: what the programs read is what was written.
struct Maps<'a>(&'a mut Native);

impl MapStore for Maps<'_> {
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError> {
        let rows = self.0.tables().dump(table.name()).unwrap_or_default();
        let written = |row: &Row| table != Table::Config || row.value.iter().any(|byte| *byte != 0);
        Ok(rows.into_iter().map(|(key, value)| Row { key, value }).filter(written).collect())
    }

    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError> {
        let result = self.0.tables_mut().update(table.name(), key, value);
        result.map_err(|error| PortError::terminal(format!("write {}", table.name()), error))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError> {
        // A row that is not there is as good as removed.
        let _: Result<(), dataplane_native::UpdateError> = self.0.tables_mut().delete(table.name(), key);
        Ok(())
    }

    fn scan(&mut self, _: Table, _: Option<&Cursor>, _: usize) -> Result<Scan, PortError> {
        // No time passes here in which a connection could end.
        Ok(Scan { rows: Vec::new(), next: None })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        Ok(CtClock { ticks: self.0.clock().ticks, ticks_per_s: 250 })
    }
}

impl Member {
    fn new(n: u8, name: &str, addresses: Vec<IpAddr>, routing: Routing, options: Options) -> Self {
        // All agents are told of everything at once, and no time passes.
        let identity_change_grace_period = Duration::ZERO;
        let mut policy = PolicyConfig { identity_change_grace_period, ..PolicyConfig::default() };
        crate::modes::tell(&mut policy, options);
        let config = Config { policy: Some(policy), ..Config::new(name, routing) };
        let native = Native::new();
        native.set_clock(ClockEntry { ticks: 1_000_000, ktime_ns: 4_000_000_000_000 });
        let mut member = Self {
            agent: Agent::new(config, Vec::new()),
            native,
            node: MemoryNode::new(DEVICE, Faults::default()),
            now: Now::from_secs(10_000),
            addresses: addresses.clone(),
            pods: BTreeMap::new(),
        };
        let mac = [2, 0, 0, 0, 1, n];
        member.event(Event::Underlay(DeviceFacts {
            name: DEVICE.to_owned(),
            ifindex: UNDERLAY,
            mac,
            mtu: 1500,
            addresses,
        }));
        member
    }

    fn event(&mut self, event: Event) {
        // Requests are answered by a reconcile, or they fail, which their pod tells.
        let _: Vec<agent_control::Reply> = self.agent.handle(self.now, event);
    }

    /// Reconciles until nothing is to be done at once; the answers to requests.
    fn settle(&mut self) -> Result<BTreeMap<RequestId, cni::Reply>, String> {
        let mut replies = BTreeMap::new();
        for _ in 0..PATIENCE {
            let report = self.agent.reconcile(self.now, &mut Maps(&mut self.native), &mut self.node);
            replies.extend(report.replies.into_iter().map(|reply| (reply.id, reply.outcome)));
            if let Some(error) = report.errors.first() {
                return Err(error.to_string());
            }
            if self.agent.next_deadline().is_none_or(|at| at > self.now) {
                return Ok(replies);
            }
        }
        Err("the agent always has something to do at once".to_owned())
    }

    fn list(&mut self, kind: ObjectKind, objects: &[Value]) {
        self.event(Event::ListStarted(kind));
        for object in objects {
            match Object::read(kind, object) {
                Ok(Some(object)) => self.event(Event::Upsert { object: Box::new(object), version: 1 }),
                Ok(None) => {}
                Err(error) => {
                    self.event(Event::Unreadable { kind, name: name_of(object), error: error.to_string() });
                }
            }
        }
        self.event(Event::ListSynced(kind));
    }

    fn add_pods(&mut self, names: &[ObjectName]) -> Result<(), String> {
        for (id, name) in (1..).zip(names) {
            let container_id = format!("{}-{}", name.namespace, name.name);
            let attachment = Attachment { container_id: container_id.clone(), ifname: "eth0".to_owned() };
            let pod = PodRef { namespace: name.namespace.clone(), name: name.name.clone(), uid: None };
            self.event(Event::Cni(CniRequest {
                id: RequestId(id),
                received: Timestamp::from_unix_nanos(0),
                netns: Some(NetnsHandle(id)),
                pod: Some(pod),
                operation: Operation::Add { attachment, netns: format!("/run/netns/{container_id}") },
            }));
        }
        let mut replies = self.settle()?;
        for (id, name) in (1..).zip(names) {
            match replies.remove(&RequestId(id)) {
                Some(cni::Reply::Added { result }) => {
                    let link = result.interfaces.first().map(|interface| interface.name.clone());
                    let addresses = result.ips.iter().map(|ip| ip.address.addr()).collect();
                    self.pods.insert(name.clone(), Pod { link: link.unwrap_or_default(), addresses });
                }
                other => return Err(format!("ADD of {}/{}: {other:?}", name.namespace, name.name)),
            }
        }
        Ok(())
    }

    fn ifindex(&self, link: &str) -> u32 {
        self.node.links().get(link).map_or(0, |link| link.ifindex)
    }
}

impl Cluster {
    /// The cluster of a case, at rest.
    pub(super) fn new(routing: Routing, options: Options, case: &PolicyCase) -> Result<Self, String> {
        homeless(case)?;
        let (members, identities) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Self { case: case.clone(), routing, members, identities };
        let nodes = nodes(case);
        for (n, object) in (1..).zip(&nodes) {
            let addresses = object.internal_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            let member = Member::new(n, &object.name, addresses, routing, options);
            cluster.members.insert(object.name.clone(), member);
        }
        let identities = cluster.identities();
        for (name, member) in &mut cluster.members {
            member.settle()?;
            member.event(Event::NodeListStarted);
            for object in &nodes {
                member.event(Event::NodeUpsert(object.clone()));
            }
            member.event(Event::NodeListSynced);
            let mut pods = BTreeSet::new();
            for kind in ObjectKind::ALL {
                let objects: Vec<Value> = match kind {
                    ObjectKind::Identity => identities.clone(),
                    ObjectKind::Pod => {
                        of_kind(case, kind).filter(|pod| pod["spec"]["nodeName"] == **name).cloned().collect()
                    }
                    ObjectKind::CiliumClusterwideNetworkPolicy => of_kind(case, kind).map(meant).collect(),
                    _ => of_kind(case, kind).cloned().collect(),
                };
                if kind == ObjectKind::Pod {
                    pods.extend(objects.iter().filter(|pod| pod["spec"]["hostNetwork"] != true).map(name_of));
                }
                member.list(kind, &objects);
            }
            member.settle()?;
            member.add_pods(&pods.into_iter().collect::<Vec<_>>())?;
        }
        cluster.spread()?;
        Ok(cluster)
    }

    /// Tells every agent of the pods of all.
    fn spread(&mut self) -> Result<(), String> {
        let endpoints: Vec<_> =
            self.members.values().flat_map(|member| member.agent.published().into_values()).collect();
        for member in self.members.values_mut() {
            member.event(Event::ListStarted(ObjectKind::Endpoint));
            for endpoint in &endpoints {
                let object = Box::new(Object::Endpoint(EndpointObject::from(endpoint)));
                member.event(Event::Upsert { object, version: 1 });
            }
            member.event(Event::ListSynced(ObjectKind::Endpoint));
            member.settle()?;
        }
        Ok(())
    }

    /// Sets an object, new or in place of its older self. Pods and nodes may only change; pods stay where they are.
    pub(super) fn set(&mut self, object: &Value) -> Result<(), String> {
        let kind = ObjectKind::of(object).ok_or_else(|| format!("no agent watches a {}", object["kind"]))?;
        let told = if kind == ObjectKind::CiliumClusterwideNetworkPolicy { &meant(object) } else { object };
        let is_same = |other: &Value| other["kind"] == object["kind"] && name_of(other) == name_of(object);
        self.case.objects.retain(|other| !is_same(other));
        self.case.objects.push(object.clone());
        self.tell_identities()?;
        for (name, member) in &mut self.members {
            if kind == ObjectKind::Pod && object["spec"]["nodeName"] != **name {
                continue;
            }
            match Object::read(kind, told) {
                Ok(Some(object)) => member.event(Event::Upsert { object: Box::new(object), version: 1 }),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            member.settle()?;
        }
        // A label may have given a pod another identity.
        if matches!(kind, ObjectKind::Pod | ObjectKind::Namespace) { self.spread() } else { Ok(()) }
    }

    /// Removes an object; one that is not there is as good as removed.
    pub(super) fn remove(&mut self, kind: &str, name: &ObjectName) -> Result<(), String> {
        let is_it = |object: &Value| object["kind"] == *kind && name_of(object) == *name;
        let Some(at) = self.case.objects.iter().position(is_it) else { return Ok(()) };
        let object = self.case.objects.remove(at);
        let kind = ObjectKind::of(&object).ok_or_else(|| format!("no agent watches a {kind}"))?;
        for member in self.members.values_mut() {
            member.event(Event::Delete { kind, name: name.clone(), version: 1 });
            member.settle()?;
        }
        Ok(())
    }

    fn tell_identities(&mut self) -> Result<(), String> {
        let before = self.identities.len();
        let identities = self.identities();
        if self.identities.len() == before {
            return Ok(());
        }
        for member in self.members.values_mut() {
            member.list(ObjectKind::Identity, &identities);
            member.settle()?;
        }
        Ok(())
    }

    /// An identity for each set of labels that there is or was, as the operator gives them.
    fn identities(&mut self) -> Vec<Value> {
        let wanted: BTreeSet<IdentityLabels> =
            labels_of_pods(&self.case).into_iter().map(|(_, labels)| labels).collect();
        for labels in wanted {
            let next = CiliumIdentity::MIN + u32::try_from(self.identities.len()).unwrap_or_default();
            self.identities.entry(labels).or_insert(next);
        }
        let object = |(labels, number): (&IdentityLabels, &u32)| {
            agent_crd::Object::to_json(&CiliumIdentity::new(*number, labels))
        };
        self.identities.iter().map(object).collect()
    }

    /// The objects, pods with the addresses that their agents gave them.
    pub(super) fn objects(&self) -> Vec<Value> {
        let mut objects = self.case.objects.clone();
        for object in objects.iter_mut().filter(|object| object["kind"] == "Pod") {
            let name = name_of(object);
            let Some(pod) = self.members.values().find_map(|member| member.pods.get(&name)) else { continue };
            // Only families that the case gives it: the others are not tried.
            let given = self.case.addresses(&name.namespace, &name.name);
            let has = |address: &&IpAddr| given.iter().any(|own| own.is_ipv4() == address.is_ipv4());
            let ips: Vec<Value> = pod.addresses.iter().filter(has).map(|ip| json!({"ip": ip})).collect();
            object["status"]["podIP"] = ips.first().map_or(Value::Null, |ip| ip["ip"].clone());
            object["status"]["podIPs"] = Value::Array(ips);
        }
        objects
    }

    /// Sends the packet that opens a connection, and says what became of it.
    pub(super) fn send(&mut self, index: usize, attempt: &Attempt) -> Result<Outcome, String> {
        let missing = |end: &End| format!("{end} has no address of the family of {attempt}");
        let v4 = attempt.family == OracleFamily::V4;
        let src = self.address(&attempt.from, v4).ok_or_else(|| missing(&attempt.from))?;
        let dst = self.address(&attempt.to, v4).ok_or_else(|| missing(&attempt.to))?;
        let src = self.router_of(&attempt.from, &attempt.to, v4).unwrap_or(src);
        let frame = |macs| packets::opening(attempt, index, src, dst, macs);
        if let Some((node, pod)) = self.pod(&attempt.from) {
            let member = &self.members[node];
            let link = member.node.links().get(&pod.link).ok_or("the pod has no link")?;
            let mac = link.pod.as_ref().map_or([0; 6], |pod| pod.mac);
            let frame = Frame::new(frame([mac, link.mac]), link.ifindex);
            return Ok(self.leave(node, frame, dst));
        }
        let frame = frame([[2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 9, 8]]);
        let pod = self.pod(&attempt.to);
        let from = self.case.node_of(&attempt.from);
        let to = pod.map(|(node, _)| node).or_else(|| self.case.node_of(&attempt.to));
        Ok(match (from, to) {
            (Some(from), to) if to != Some(from) => self.depart(from, to, pod.is_some(), frame),
            (_, Some(node)) => match pod {
                Some((_, pod)) => {
                    let ifindex = self.members[node].ifindex(&pod.link);
                    self.run(node, Program::ToContainer, Frame::new(frame, ifindex))
                }
                // Within a node nothing is in the way.
                None if from.is_some() => Outcome::Arrived,
                None => self.run(node, Program::FromNetdev, Frame::new(frame, UNDERLAY)),
            },
            (_, None) => return Err(format!("nobody is judged in {attempt}")),
        })
    }

    /// A packet of a node's own leaves it: to pods elsewhere as their pods' packets do, to all others by the underlay.
    fn depart(&self, from: &str, to: Option<&str>, to_pod: bool, bytes: Vec<u8>) -> Outcome {
        let by_tunnel = to_pod && self.routing == Routing::Vxlan;
        let (program, ifindex) = if by_tunnel {
            (Program::FromHost, self.members[from].ifindex(HOST_LINK))
        } else {
            (Program::ToNetdev, UNDERLAY)
        };
        match (self.run(from, program, Frame::new(bytes.clone(), ifindex)), to) {
            (Outcome::Arrived, Some(to)) if by_tunnel => self.travel(from, to, bytes, Identity::HOST),
            (Outcome::Arrived, Some(to)) => self.run(to, Program::FromNetdev, Frame::new(bytes, UNDERLAY)),
            (outcome, _) => outcome,
        }
    }

    /// The address from which a node sends to a pod elsewhere, where that is not its own: its stack takes that of the device which leads to
    /// the tunnel.
    fn router_of(&self, from: &End, to: &End, v4: bool) -> Option<IpAddr> {
        let (node, pod) = (self.case.node_of(from)?, self.pod(to)?);
        let goes_by_tunnel = self.routing == Routing::Vxlan && self.pod(from).is_none() && pod.0 != node;
        let routers = self.members[node].agent.network().router_ips;
        routers.into_iter().find(|router| goes_by_tunnel && router.is_ipv4() == v4)
    }

    fn pod(&self, end: &End) -> Option<(&str, &Pod)> {
        let End::Pod { namespace, name } = end else { return None };
        let name = ObjectName::new(namespace, name);
        self.members.iter().find_map(|(node, member)| Some((node.as_str(), member.pods.get(&name)?)))
    }

    /// The address of an end of a family.
    pub(super) fn address(&self, end: &End, v4: bool) -> Option<IpAddr> {
        if let Some((_, pod)) = self.pod(end) {
            return pod.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        }
        let family = if v4 { OracleFamily::V4 } else { OracleFamily::V6 };
        self.case.address(end, family)
    }

    /// A packet leaves a pod.
    fn leave(&self, node: &str, mut frame: Frame, dst: IpAddr) -> Outcome {
        let verdict = self.members[node].native.run(Program::FromContainer, &mut frame);
        let holder = |address: IpAddr| {
            self.members.iter().find(|(_, member)| member.addresses.contains(&address)).map(|(name, _)| name)
        };
        match verdict {
            Verdict::Drop(reason) => Outcome::Dropped(reason),
            Verdict::Tunnel { .. } => {
                let tunnel = frame.to_tunnel.unwrap_or(Tunnel { node: [0; 16], family: 0, key: 0 });
                let far = Family::from_number(tunnel.family).map(|family| Addr(tunnel.node).to_ip(family));
                match far.and_then(holder) {
                    Some(peer) => self.travel(node, peer, frame.bytes, Identity(tunnel.key)),
                    None => Outcome::Dropped(DropReason::NoTunnelEndpoint),
                }
            }
            Verdict::Neighbour { family, address, .. } => {
                let next = Family::from_number(family).map(|family| Addr(address).to_ip(family));
                match next.and_then(holder) {
                    Some(peer) => self.travel(node, peer, frame.bytes, Identity::UNKNOWN),
                    None => Outcome::Arrived,
                }
            }
            // By the stack: to the node itself, or to another one, which the underlay carries as it is.
            Verdict::Pass | Verdict::Skip if self.routing == Routing::Native => {
                match holder(dst).filter(|peer| *peer != node) {
                    Some(peer) => self.travel(node, peer, frame.bytes, Identity::UNKNOWN),
                    None => Outcome::Arrived,
                }
            }
            _ => Outcome::Arrived,
        }
    }

    /// From one node to another.
    fn travel(&self, from: &str, to: &str, bytes: Vec<u8>, identity: Identity) -> Outcome {
        let member = &self.members[to];
        if self.routing == Routing::Native {
            return self.run(to, Program::FromNetdev, Frame::new(bytes, UNDERLAY));
        }
        let mut frame = Frame::new(bytes, member.ifindex(OVERLAY_LINK));
        let (node, family) =
            self.members[from].addresses.first().map_or((Addr::ZERO, Family::V4), |ip| Addr::from_ip(*ip));
        frame.from_tunnel = Some(Tunnel { node: node.0, family: family as u8, key: identity.to_vni() });
        self.run(to, Program::FromOverlay, frame)
    }

    fn run(&self, node: &str, program: Program, mut frame: Frame) -> Outcome {
        match self.members[node].native.run(program, &mut frame) {
            Verdict::Drop(reason) => Outcome::Dropped(reason),
            _ => Outcome::Arrived,
        }
    }
}

/// A pod has to be on a node, and in a namespace, that are there.
fn homeless(case: &PolicyCase) -> Result<(), String> {
    let names = |kind: &str| -> BTreeSet<String> {
        case.objects
            .iter()
            .filter(|object| object["kind"] == *kind)
            .map(|object| name_of(object).name)
            .collect()
    };
    let (nodes, namespaces) = (names("Node"), names("Namespace"));
    let has_home = |pod: &&Value| {
        pod["spec"]["nodeName"].as_str().is_some_and(|node| nodes.contains(node))
            && namespaces.contains(&name_of(pod).namespace)
    };
    match of_kind(case, ObjectKind::Pod).find(|pod| !has_home(pod)) {
        Some(pod) => Err(format!("the node or namespace of pod {} is not there", name_of(pod).name)),
        None => Ok(()),
    }
}

fn of_kind(case: &PolicyCase, kind: ObjectKind) -> impl Iterator<Item = &Value> {
    case.objects.iter().filter(move |object| ObjectKind::of(object) == Some(kind))
}

/// A policy that may cut nodes off from the API server: no agent here needs one.
fn meant(policy: &Value) -> Value {
    let mut policy = policy.clone();
    policy["metadata"]["annotations"][ALLOW_API_CUT] = "true".into();
    policy
}

fn name_of(object: &Value) -> ObjectName {
    ObjectName::new(namespace(object), name(object))
}

/// Nodes with pod CIDRs, of which the case knows nothing.
fn nodes(case: &PolicyCase) -> Vec<NodeObject> {
    let nodes = case.objects.iter().filter(|object| object["kind"] == "Node");
    (1..)
        .zip(nodes)
        .map(|(n, object)| {
            let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
            NodeObject {
                name: name_of(object).name,
                uid: format!("uid-{n}"),
                created_s: 1000 + n,
                pod_cidrs: vec![format!("10.10.{n}.0/24"), format!("fd00:10:{n:x}::/112")],
                internal_ips: addresses
                    .filter_map(|item| item["address"].as_str().map(ToOwned::to_owned))
                    .collect(),
                labels: label_map(object),
            }
        })
        .collect()
}

/// The labels of each pod's identity, in the order of the pods.
fn labels_of_pods(case: &PolicyCase) -> Vec<(ObjectName, IdentityLabels)> {
    let namespaces: BTreeMap<String, BTreeMap<String, String>> = of_kind(case, ObjectKind::Namespace)
        .map(|object| (name_of(object).name, label_map(object)))
        .collect();
    let of_pod = |pod: &Value| {
        let name = name_of(pod);
        let labels = IdentityLabels::of_pod(&PodFacts {
            labels: &label_map(pod),
            namespace: &name.namespace,
            namespace_labels: namespaces.get(&name.namespace).unwrap_or(&BTreeMap::new()),
            service_account: pod["spec"]["serviceAccountName"].as_str().unwrap_or_default(),
            cluster: DEFAULT_CLUSTER,
            filter: agent_crd::LabelFilter::DEFAULT,
        });
        (name, labels)
    };
    of_kind(case, ObjectKind::Pod).map(of_pod).collect()
}

/// Gives all pods of an identity the containers of the first.
pub(super) fn share_names_of_ports(case: &mut PolicyCase) {
    let labels: BTreeMap<ObjectName, IdentityLabels> = labels_of_pods(case).into_iter().collect();
    let mut first: BTreeMap<IdentityLabels, Value> = BTreeMap::new();
    for object in &mut case.objects {
        let Some(labels) = labels.get(&name_of(object)).filter(|_| object["kind"] == "Pod") else { continue };
        let containers = first.entry(labels.clone()).or_insert_with(|| object["spec"]["containers"].clone());
        object["spec"]["containers"] = containers.clone();
    }
}
