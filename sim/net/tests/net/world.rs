//! A network of two nodes with a pod each, joined by a wire.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sim_net::{
    Action, ClientId, ClientKind, ClientReport, ClientSpec, Frame, Host, HostConfig, Link, LinkKind, Mac,
    Node, PacketId, Route, Server, ServerKind, StackDrop, Summary,
};

/// Link numbers of a node.
pub(crate) const UNDERLAY: u32 = 2;
pub(crate) const HOST: u32 = 3;
pub(crate) const POD: u32 = 100;
/// What a frame needs from one end of a link to the other.
const LATENCY: Duration = Duration::from_micros(50);

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses by node.
pub(crate) fn pod(node: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => ip(&format!("10.11.{node}.5")),
        Family::V6 => ip(&format!("fd11:{node}::5")),
    }
}

pub(crate) fn gateway(node: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => ip(&format!("10.11.{node}.1")),
        Family::V6 => ip(&format!("fd11:{node}::1")),
    }
}

pub(crate) fn underlay(node: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => ip(&format!("192.168.0.{}", node + 1)),
        Family::V6 => ip(&format!("fd00::{}", node + 1)),
    }
}

pub(crate) fn pod_mac(node: usize) -> Mac {
    [2, 0, 0, 0, 1, u8::try_from(node).unwrap()]
}

pub(crate) fn node_mac(node: usize, ifindex: u32) -> Mac {
    [2, 0, 0, 1, u8::try_from(node).unwrap(), u8::try_from(ifindex).unwrap()]
}

/// Where a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Host(usize),
    Node(usize, u32),
}

/// Whether a frame survives its way.
type Filter = Box<dyn FnMut(Duration, &Summary) -> bool>;

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) nodes: Vec<Node>,
    /// What was on links, and when.
    pub(crate) trace: Vec<(Duration, Frame)>,
    pub(crate) drops: Vec<StackDrop>,
    pub(crate) polls: u64,
    pub(crate) passes: Filter,
    wire: BTreeMap<(Duration, u64), (End, Frame)>,
    sequence: u64,
    ids: u64,
}

pub(crate) fn links(node: usize, mtu: u32) -> Vec<Link> {
    let net = |address: IpAddr, length: u8| ipnet::IpNet::new(address, length).unwrap();
    let link =
        |ifindex, kind, addresses| Link { ifindex, mac: node_mac(node, ifindex), mtu, kind, addresses };
    let neighbours = [Family::V4, Family::V6].map(|family| (pod(node, family), pod_mac(node))).to_vec();
    vec![
        link(
            UNDERLAY,
            LinkKind::Underlay,
            vec![net(underlay(node, Family::V4), 24), net(underlay(node, Family::V6), 64)],
        ),
        link(
            HOST,
            LinkKind::Host,
            vec![net(gateway(node, Family::V4), 32), net(gateway(node, Family::V6), 128)],
        ),
        link(POD, LinkKind::Pod { neighbours }, vec![]),
    ]
}

pub(crate) fn route(dst: &str, gateway: Option<IpAddr>, ifindex: u32) -> Route {
    Route { dst: dst.parse().unwrap(), gateway, ifindex, mtu: None, source: None }
}

pub(crate) fn routes(node: usize) -> Vec<Route> {
    let other = 1 - node;
    vec![
        route(&format!("10.11.{node}.5/32"), None, POD),
        route(&format!("fd11:{node}::5/128"), None, POD),
        route(&format!("10.11.{other}.0/24"), Some(underlay(other, Family::V4)), UNDERLAY),
        route(&format!("fd11:{other}::/64"), Some(underlay(other, Family::V6)), UNDERLAY),
    ]
}

/// The pod of a node, with all servers.
pub(crate) fn host(node: usize, seed: u64) -> Host {
    let default = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
    let mut host = Host::new(&HostConfig {
        mac: pod_mac(node),
        mtu: 1500,
        addresses: [Family::V4, Family::V6].map(|family| pod(node, family).into()).to_vec(),
        routes: vec![
            (default[0], Some(gateway(node, Family::V4))),
            (default[1], Some(gateway(node, Family::V6))),
        ],
        seed: seed * 100 + u64::try_from(node).unwrap(),
    });
    host.serve(Server { kind: ServerKind::Http, port: 80 });
    host.serve(Server { kind: ServerKind::TcpEcho, port: 7 });
    host.serve(Server { kind: ServerKind::UdpEcho, port: 7 });
    host
}

pub(crate) fn node(number: usize, seed: u64) -> Node {
    let mut node = Node::new(seed * 100 + 50 + u64::try_from(number).unwrap());
    links(number, 1500).into_iter().for_each(|link| node.set_link(link));
    node.set_routes(routes(number));
    node
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_seed(1)
    }

    pub(crate) fn with_seed(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            hosts: vec![host(A, seed), host(B, seed)],
            nodes: vec![node(A, seed), node(B, seed)],
            trace: Vec::new(),
            drops: Vec::new(),
            polls: 0,
            passes: Box::new(|_, _| true),
            wire: BTreeMap::new(),
            sequence: 0,
            ids: 0,
        }
    }

    pub(crate) fn start(&mut self, spec: ClientSpec) -> ClientId {
        self.hosts[A].start(self.now, spec)
    }

    pub(crate) fn report(&self, id: ClientId) -> ClientReport {
        self.hosts[A].client(id).unwrap().clone()
    }

    /// Starts a client on pod A, lets a minute pass and gives its report.
    pub(crate) fn outcome(&mut self, spec: ClientSpec) -> ClientReport {
        let id = self.start(spec);
        self.pass(Duration::from_secs(60));
        self.report(id)
    }

    /// Lines of the trace, without times.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.trace.iter().map(|(_, frame)| Summary::of(&frame.bytes).to_string()).collect()
    }

    /// Lets time pass, from event to event.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut spins = 0;
        loop {
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let hosts = self.hosts.iter_mut().filter_map(|host| host.next_poll(self.now));
            let nodes = self.nodes.iter_mut().filter_map(|node| node.next_poll(self.now));
            let Some(next) = wire.into_iter().chain(hosts).chain(nodes).min().filter(|at| *at <= until)
            else {
                break;
            };
            assert!(next >= self.now, "what is due lies in the past");
            spins = if next == self.now { spins + 1 } else { 0 };
            assert!(spins < 10_000, "time does not pass: {:?}", self.lines().last());
            self.now = next;
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (end, frame) = entry.remove();
            match end {
                End::Host(host) => self.hosts[host].receive(frame),
                End::Node(node, ifindex) => {
                    let actions =
                        self.nodes[node].receive(self.now, ifindex, frame, false, &mut ids(&mut self.ids));
                    self.act(node, actions);
                }
            }
        }
        for number in 0..self.hosts.len() {
            if self.hosts[number].next_poll(self.now).is_some_and(|at| at <= self.now) {
                self.polls += 1;
                let frames = self.hosts[number].poll(self.now, &mut ids(&mut self.ids));
                for frame in frames {
                    self.put(End::Node(number, POD), frame);
                }
            }
        }
        for number in 0..self.nodes.len() {
            if self.nodes[number].next_poll(self.now).is_some_and(|at| at <= self.now) {
                let actions = self.nodes[number].poll(self.now, &mut ids(&mut self.ids));
                self.act(number, actions);
            }
        }
    }

    pub(crate) fn act(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Transmit { ifindex: UNDERLAY, frame } => {
                    let to_it = |other: &usize| {
                        frame.bytes[..6] == node_mac(*other, UNDERLAY) || frame.bytes[0] & 1 != 0
                    };
                    match (0..self.nodes.len()).filter(|other| *other != node).find(to_it) {
                        Some(other) => self.put(End::Node(other, UNDERLAY), frame),
                        None => self.trace.push((self.now, frame)),
                    }
                }
                Action::Transmit { ifindex: POD, frame } => self.put(End::Host(node), frame),
                Action::Transmit { frame, .. } => self.trace.push((self.now, frame)),
                Action::Tunnelled { .. } => panic!("no overlay link here"),
                Action::Local { .. } => {}
                Action::Dropped { why, .. } => self.drops.push(why),
            }
        }
    }

    fn put(&mut self, end: End, frame: Frame) {
        let passes = (self.passes)(self.now, &Summary::of(&frame.bytes));
        self.trace.push((self.now, frame.clone()));
        if passes {
            self.sequence += 1;
            self.wire.insert((self.now + LATENCY, self.sequence), (end, frame));
        }
    }
}

pub(crate) fn ids(next: &mut u64) -> impl FnMut() -> PacketId {
    || {
        *next += 1;
        PacketId(*next)
    }
}

/// A client with moderate habits.
pub(crate) fn client(kind: ClientKind, to: IpAddr) -> ClientSpec {
    ClientSpec {
        kind,
        to,
        port: match kind {
            ClientKind::Http => 80,
            _ => 7,
        },
        count: 3,
        interval: Duration::from_millis(100),
        size: 100,
        timeout: Duration::from_secs(2),
    }
}
