//! A small world that changes: pods, addresses, nodes, objects; and what must hold in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent_policy::{
    CidrGroup, Config, Direction, Endpoint, EndpointId, Enforcement, Families, Label, LabelSet, NAMESPACE,
    NamedPort, Node, ObjectRef, Outcome, Party, Policy, Service, Staged, Verdict, explain_side, proto,
    source,
};
use dataplane_abi::Identity;
use proptest::prelude::*;

use crate::evaluator::{Peer, Subject, passes};
use crate::objects::{AnyObject, any_object};
use crate::tables::{Tables, Write, writes};

/// The endpoint of tests that look at one.
pub(crate) const WEB: EndpointId = EndpointId(1);

/// What [`WEB`] is: a pod of the namespace `n` without labels of its own.
pub(crate) fn web() -> Endpoint {
    Endpoint {
        name: "n/web".to_owned(),
        identity: Identity(500),
        labels: [Label::k8s(NAMESPACE, "n")].into_iter().collect(),
        named_ports: Vec::new(),
        host: false,
        enforcement: None,
        audit: None,
    }
}

pub(crate) const FAMILIES: Families = Families { v4: true, v6: true };

/// Something happens.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a test holds few of them")]
pub(crate) enum Step {
    Object(AnyObject),
    Delete(usize),
    Identity(u32, u8),
    IdentityGone(u32),
    Endpoint(u32, u8),
    EndpointGone(u32),
    Group(Option<u8>),
    Service(bool),
    ApiServer(Option<usize>),
    Mode(Enforcement),
    Commit,
    Settle,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_object().prop_map(Step::Object),
        3 => (0_usize..6).prop_map(Step::Delete),
        4 => (0_u32..7, 0_u8..4).prop_map(|(n, v)| Step::Identity(n, v)),
        1 => (0_u32..7).prop_map(Step::IdentityGone),
        4 => (0_u32..5, 0_u8..4).prop_map(|(n, v)| Step::Endpoint(n, v)),
        1 => (0_u32..5).prop_map(Step::EndpointGone),
        2 => prop_oneof![Just(None), (0_u8..3).prop_map(Some)].prop_map(Step::Group),
        1 => any::<bool>().prop_map(Step::Service),
        1 => prop_oneof![Just(None), (0..ADDRESSES.len()).prop_map(Some)].prop_map(Step::ApiServer),
        1 => prop_oneof![
            4 => Just(Enforcement::Default), 1 => Just(Enforcement::Always), 1 => Just(Enforcement::Never)
        ].prop_map(Step::Mode),
        4 => Just(Step::Commit),
        1 => Just(Step::Settle),
    ]
}

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Present {
    pub(crate) objects: BTreeMap<ObjectRef, AnyObject>,
    pub(crate) identities: BTreeMap<u32, u8>,
    pub(crate) endpoints: BTreeMap<u32, u8>,
    pub(crate) group: Option<u8>,
    pub(crate) service: bool,
    /// Place of its address.
    pub(crate) api_server: Option<usize>,
    pub(crate) mode: Enforcement,
}

pub(crate) fn number(n: u32) -> Identity {
    // The last ones are nodes with labels: these numbers only stand for theirs.
    if is_node(n) { Identity(Identity::LOCAL_NODE_MIN.0 + n) } else { Identity(300 + n) }
}

fn is_node(n: u32) -> bool {
    n >= 5
}

pub(crate) fn node_name(number: Identity) -> String {
    format!("node-{}", number.0 - Identity::LOCAL_NODE_MIN.0)
}

/// Nodes as they are.
fn nodes(present: &Present) -> BTreeMap<String, Node> {
    let nodes = present.identities.iter().filter(|(n, _)| is_node(**n));
    nodes
        .map(|(n, version)| {
            (node_name(number(*n)), Node { labels: zone(*version), api_server: *version == 3 })
        })
        .collect()
}

fn zone(version: u8) -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), if version == 0 { "2" } else { "1" }.to_owned())])
}

fn api_server(present: &Present) -> BTreeSet<IpAddr> {
    present.api_server.iter().map(|at| ADDRESSES[*at].parse().unwrap()).collect()
}

fn pod_labels(n: u32, version: u8) -> LabelSet {
    let (namespace, env) = if n.is_multiple_of(2) { ("n1", "x") } else { ("n2", "y") };
    let app = ["a", "b", "c", "a"][usize::from(version)];
    let mut labels = vec![
        Label::k8s("app", app),
        Label::k8s(NAMESPACE, namespace),
        Label::k8s("io.cilium.k8s.policy.cluster", "default"),
    ];
    if version < 3 {
        labels.push(Label::k8s("io.cilium.k8s.namespace.labels.env", env));
    }
    if version == 1 {
        labels.push(Label::k8s("tier", "t"));
    }
    labels.into_iter().collect()
}

pub(crate) fn identity_labels(n: u32, version: u8) -> LabelSet {
    if is_node(n) {
        let own = zone(version).into_iter().map(|(key, value)| Label::new(source::NODE, key, value));
        let server = (version == 3).then(|| Label::reserved("kube-apiserver"));
        return own.chain([Label::reserved("remote-node")]).chain(server).collect();
    }
    pod_labels(n, version)
}

pub(crate) fn named_ports(n: u32, version: u8) -> Vec<NamedPort> {
    let port = |name: &str, proto, port| NamedPort { name: name.into(), proto, port };
    match (n, version) {
        (5.., _) | (_, 2) => Vec::new(),
        (_, 0) => vec![port("web", proto::TCP, 80), port("dns", proto::UDP, 53)],
        _ => vec![port("web", proto::TCP, 7000), port("dns", proto::TCP, 53), port("dns", proto::UDP, 53)],
    }
}

pub(crate) fn endpoint(n: u32, version: u8) -> Endpoint {
    let (identity, labels, host) = match (n, version) {
        (4, _) => {
            (Identity::HOST, [Label::reserved("host"), Label::k8s("zone", "1")].into_iter().collect(), true)
        }
        (3, 2) => (Identity::INIT, [Label::reserved("init")].into_iter().collect(), false),
        _ => (number(n), pod_labels(n, version), false),
    };
    let named_ports = if host { Vec::new() } else { named_ports(n, version) };
    let enforcement = (n == 2 && version == 3).then_some(Enforcement::Always);
    Endpoint {
        name: format!("e{n}"),
        identity,
        labels,
        named_ports,
        host,
        enforcement,
        audit: (version == 1).then_some(true),
    }
}

fn group(version: u8) -> CidrGroup {
    let cidrs: &[&str] = [&["10.1.0.0/16", "fd00::/16"][..], &["10.0.0.0/8"], &[]][usize::from(version)];
    CidrGroup {
        labels: [Label::new(source::CIDR_GROUP, "team", if version == 1 { "y" } else { "x" })]
            .into_iter()
            .collect(),
        cidrs: cidrs.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

fn service() -> Service {
    Service {
        labels: LabelSet::default(),
        selector: Some([("app".to_owned(), "a".to_owned())].into()),
        ..Service::default()
    }
}

/// Feeds an engine with all that is there, in the given order of objects.
pub(crate) fn from_scratch(present: &Present, config: Config, backwards: bool) -> Policy {
    let mut policy = Policy::new(Config { enforcement: present.mode, ..config });
    let mut objects: Vec<&AnyObject> = present.objects.values().collect();
    if backwards {
        objects.reverse();
        for (n, version) in &present.endpoints {
            policy.upsert_endpoint(EndpointId(*n), endpoint(*n, *version));
        }
    }
    for (at, object) in objects.into_iter().enumerate() {
        policy.upsert(object.as_policy()).unwrap();
        if backwards && at % 2 == 0 {
            policy.commit();
        }
    }
    if let Some(version) = present.group {
        policy.set_cidr_group("g1", Some(group(version)));
    }
    if present.service {
        policy.set_service("n1", "web", Some(service()));
    }
    policy.set_nodes(nodes(present));
    policy.set_api_server(api_server(present));
    for (n, version) in present.identities.iter().filter(|(n, _)| !is_node(**n)) {
        policy.upsert_identity(number(*n), identity_labels(*n, *version), &named_ports(*n, *version));
    }
    for (n, version) in &present.endpoints {
        policy.upsert_endpoint(EndpointId(*n), endpoint(*n, *version));
    }
    policy.commit();
    policy
}

const ADDRESSES: &[&str] =
    &["10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "8.8.8.8", "fd00::1", "2001:db8::1"];

/// Where a pod of that identity may be; others are looked up without their addresses.
fn pod_addresses(identity: Identity) -> Vec<Option<IpAddr>> {
    if !identity.is_pod() {
        return vec![None];
    }
    ["10.1.2.3", "10.1.9.9", "192.168.0.1", "fd00::7"].map(|address| Some(address.parse().unwrap())).to_vec()
}

const PORTS: &[(u8, u16)] = &[
    (proto::TCP, 80),
    (proto::TCP, 7000),
    (proto::UDP, 53),
    (proto::TCP, 8050),
    (proto::UDP, 8050),
    (proto::TCP, 53),
    (proto::SCTP, 80),
    (proto::ICMP, 8),
    (proto::ICMP, 3),
    (proto::ICMPV6, 128),
    (47, 0),
    (proto::TCP, 443),
    (proto::TCP, 65535),
];

pub(crate) struct World {
    pub(crate) present: Present,
    pub(crate) policy: Policy,
    pub(crate) config: Config,
    tables: Tables,
    /// Identities whose addresses are in the ipcache.
    reachable: BTreeSet<u32>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            present: Present::default(),
            policy: Policy::new(config.clone()),
            config,
            tables: Tables::default(),
            reachable: BTreeSet::new(),
        }
    }

    pub(crate) fn take(&mut self, step: &Step) {
        let (present, policy) = (&mut self.present, &mut self.policy);
        match step {
            Step::Object(object) => {
                if policy.upsert(object.as_policy()).is_ok() {
                    present.objects.insert(object.as_policy().name(), object.clone());
                }
            }
            Step::Delete(at) => {
                if let Some(name) = present.objects.keys().nth(*at).cloned() {
                    present.objects.remove(&name);
                    policy.delete(&name);
                }
            }
            Step::Identity(n, version) => {
                present.identities.insert(*n, *version);
                if is_node(*n) {
                    return policy.set_nodes(nodes(present));
                }
                policy.upsert_identity(number(*n), identity_labels(*n, *version), &named_ports(*n, *version));
            }
            Step::IdentityGone(n) => {
                present.identities.remove(n);
                self.reachable.remove(n);
                if is_node(*n) {
                    return policy.set_nodes(nodes(present));
                }
                policy.remove_identity(number(*n));
            }
            Step::Endpoint(n, version) => {
                present.endpoints.insert(*n, *version);
                policy.upsert_endpoint(EndpointId(*n), endpoint(*n, *version));
            }
            Step::EndpointGone(n) => {
                present.endpoints.remove(n);
                policy.remove_endpoint(EndpointId(*n));
                self.tables.endpoints.remove(&EndpointId(*n));
            }
            Step::Group(version) => {
                present.group = *version;
                policy.set_cidr_group("g1", version.map(group));
            }
            Step::Service(there) => {
                present.service = *there;
                policy.set_service("n1", "web", there.then(service));
            }
            Step::ApiServer(at) => {
                present.api_server = *at;
                policy.set_api_server(api_server(present));
            }
            Step::Mode(mode) => {
                present.mode = *mode;
                self.config.enforcement = *mode;
                policy.set_config(self.config.clone());
            }
            Step::Commit => self.commit(),
            Step::Settle => policy.settle(),
        }
    }

    /// Writes what a commit asks for, and looks at every step of it.
    pub(crate) fn commit(&mut self) {
        let changes = self.policy.commit();
        let writes = writes(&changes, &self.tables.nodes);
        // So does a node whose labels become those of another one.
        let late: BTreeSet<&String> = writes
            .iter()
            .filter_map(|write| match write {
                Write::Node(name, identity, false) if identity.is_local_node() => Some(name),
                _ => None,
            })
            .collect();
        // An endpoint that leaves a policy which itself changes sees its rules change first.
        let changed: BTreeSet<u32> =
            changes.rows.iter().chain(&changes.everybody).map(|(key, _)| key.policy).collect();
        let moves: BTreeSet<EndpointId> = changes
            .endpoints
            .iter()
            .filter(|(id, policy)| {
                self.tables
                    .endpoints
                    .get(id)
                    .is_some_and(|old| old.number != policy.number && changed.contains(&old.number))
            })
            .map(|(id, _)| *id)
            .collect();
        let mut flows = self.flows();
        flows.retain(|(id, _, peer, _)| {
            let is_late = |peer: Identity| peer.is_local_node() && late.contains(&node_name(peer));
            !moves.contains(id) && !peer.is_ok_and(|(peer, _)| is_late(peer))
        });
        let decide = |tables: &Tables| -> Vec<bool> {
            flows
                .iter()
                .map(|(id, direction, peer, at)| {
                    let (peer, address) = match peer {
                        Ok((identity, address)) => (tables.known(*identity), *address),
                        Err(address) => (tables.identity(FAMILIES, *address), Some(*address)),
                    };
                    tables.passes(*id, *direction, peer, address, *at)
                })
                .collect()
        };
        let before = decide(&self.tables);
        let mut steps = Vec::new();
        for write in &writes {
            self.tables.take(write);
            steps.push(decide(&self.tables));
        }
        let after = steps.last().cloned().unwrap_or_else(|| before.clone());
        for (write, step) in writes.iter().zip(&steps) {
            for (at, flow) in flows.iter().enumerate() {
                assert!(
                    step[at] == before[at] || step[at] == after[at],
                    "{flow:?} was {} and will be {}, but is {} after {write:?}",
                    before[at],
                    after[at],
                    step[at]
                );
            }
        }
        for name in nodes(&self.present).keys() {
            let told = self.tables.nodes.get(name).copied();
            assert_eq!(told.unwrap_or(Identity::REMOTE_NODE), self.policy.node(name), "{name}");
        }
        let ids: Vec<EndpointId> = self.present.endpoints.keys().map(|n| EndpointId(*n)).collect();
        let wanted = Tables::wanted(&self.policy, ids.into_iter());
        assert_eq!(self.tables.rows, wanted.rows, "rows are what is wanted");
        assert_eq!(self.tables.sets, wanted.sets, "sets are what is wanted");
        assert_eq!(self.tables.blocks, wanted.blocks, "blocks are what is wanted");
        assert_eq!(self.tables.prefixes, wanted.prefixes, "prefixes are what is wanted");
        assert_eq!(self.tables.endpoints, wanted.endpoints, "endpoints are what is wanted");
        assert!(self.policy.commit().is_empty(), "nothing is left to do");
        self.reachable = self.present.identities.keys().copied().collect();
    }

    /// Connections whose ends were there before and are there after.
    #[expect(clippy::type_complexity, reason = "one place only")]
    fn flows(&self) -> Vec<(EndpointId, Direction, Result<(Identity, Option<IpAddr>), IpAddr>, (u8, u16))> {
        let at_addresses = |identity| pod_addresses(identity).into_iter().map(move |at| Ok((identity, at)));
        let pods = self.reachable.iter().map(|n| number(*n)).flat_map(at_addresses);
        let reserved = [Identity::HOST, Identity::UNMANAGED].into_iter().flat_map(at_addresses);
        let addresses = ADDRESSES.iter().map(|address| Err(address.parse().unwrap()));
        let peers: Vec<_> = pods.chain(reserved).chain(addresses).collect();
        let mut flows = Vec::new();
        for id in self.tables.endpoints.keys() {
            for direction in Direction::BOTH {
                for peer in &peers {
                    flows.extend(PORTS[..5].iter().map(|at| (*id, direction, *peer, *at)));
                }
            }
        }
        flows
    }

    /// Compares what the rows say with the slow evaluator.
    pub(crate) fn compare(&self) {
        let mut peers: Vec<(Identity, Peer)> = Vec::new();
        for (n, version) in &self.present.identities {
            let labels = identity_labels(*n, *version);
            let identity = self.tables.known(number(*n));
            for pod_address in pod_addresses(identity) {
                let (labels, named_ports) = (labels.clone(), named_ports(*n, *version));
                peers.push((identity, Peer { labels, address: None, pod_address, named_ports }));
            }
        }
        for identity in [Identity::HOST, Identity::UNMANAGED, Identity::REMOTE_NODE] {
            let labels: LabelSet = [Label::reserved(identity.reserved_name().unwrap())].into_iter().collect();
            for pod_address in pod_addresses(identity) {
                let labels = labels.clone();
                peers.push((identity, Peer { labels, address: None, pod_address, named_ports: Vec::new() }));
            }
        }
        for text in ADDRESSES {
            let address: IpAddr = text.parse().unwrap();
            let world = if address.is_ipv4() { "world-ipv4" } else { "world-ipv6" };
            let server = api_server(&self.present).contains(&address);
            let server = server.then(|| Label::reserved("kube-apiserver"));
            let labels = ["world", world].map(Label::reserved).into_iter().chain(server).collect();
            let identity = self.tables.identity(FAMILIES, address);
            let peer = Peer { labels, address: Some(address), pod_address: None, named_ports: Vec::new() };
            peers.push((identity, peer));
        }
        for (n, version) in &self.present.endpoints {
            let own = endpoint(*n, *version);
            let mode = own.enforcement.unwrap_or(self.present.mode);
            let closed = !own.host
                && match mode {
                    Enforcement::Always => true,
                    _ => own.identity == Identity::INIT,
                };
            let subject =
                Subject { labels: own.labels, host: own.host, named_ports: own.named_ports, closed };
            for direction in Direction::BOTH {
                for (identity, peer) in &peers {
                    for at in PORTS {
                        let address = peer.pod_address.or(peer.address);
                        let verdict =
                            self.policy.look_up(EndpointId(*n), direction, *identity, address, at.0, at.1);
                        let expected = |staged| {
                            mode == Enforcement::Never
                                || passes(self.policy.store(), &subject, direction, peer, *at, staged)
                        };
                        let (now, then) = (expected(false), expected(true));
                        let found = verdict.is_none_or(|v| v.outcome == Outcome::Allow);
                        assert_eq!(found, now, "endpoint {n} {direction:?} {peer:?} {at:?}: {verdict:?}");
                        self.compare_explanation(&subject, direction, peer, *at, verdict, mode);
                        let staged = verdict.map_or(Staged::Nothing, |v| v.staged);
                        let expected = match (now, then) {
                            (true, false) => Staged::WouldDeny,
                            (false, true) => Staged::WouldAllow,
                            _ => Staged::Nothing,
                        };
                        assert_eq!(staged, expected, "staged: endpoint {n} {direction:?} {peer:?} {at:?}");
                    }
                }
            }
        }
    }

    /// The explanation names the same decision and the same rules as the row.
    fn compare_explanation(
        &self,
        subject: &Subject,
        direction: Direction,
        peer: &Peer,
        at: (u8, u16),
        verdict: Option<Verdict>,
        mode: Enforcement,
    ) {
        if mode == Enforcement::Never {
            return;
        }
        let own = Party {
            labels: subject.labels.clone(),
            address: None,
            pod_address: None,
            named_ports: subject.named_ports.clone(),
            host: subject.host,
            closed: subject.closed,
        };
        let other = Party {
            labels: peer.labels.clone(),
            address: peer.address.map(Into::into),
            pod_address: peer.pod_address,
            named_ports: peer.named_ports.clone(),
            ..Party::default()
        };
        let side = explain_side(self.policy.store(), &own, direction, &other, at.0, at.1);
        assert_eq!(side.judged, verdict.is_some());
        let Some(verdict) = verdict else { return };
        assert_eq!(side.outcome, verdict.outcome);
        assert_eq!(side.decided_by, self.policy.origins(verdict.cookie));
        assert_eq!(side.staged_by, self.policy.origins(verdict.staged_cookie));
    }
}
