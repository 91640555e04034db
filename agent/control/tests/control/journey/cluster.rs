//! Nodes with real agents and real programs, and the little of a network and of the nodes' stacks that lies between them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_api::cni::CniResult;
use agent_control::memory::MemoryLink;
use agent_control::ports::{HOST_LINK, MapStore as _, OVERLAY_LINK, Program, Table};
use agent_control::{Config, Routing};
use dataplane_abi::clock::ClockEntry;
use dataplane_abi::metrics::Direction;
use dataplane_abi::{Addr, DropReason, Family};
use dataplane_core::Verdict;
use dataplane_native::{Frame, Native, Tunnel};
use ipnet::IpNet;

use super::packet::Packet;
use crate::world::{DEVICE, World, node};

/// Where a packet ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// In a pod, as it arrived there.
    Pod { node: u16, container: String, packet: Packet },
    /// In the stack of a node.
    Host { node: u16, packet: Packet },
    /// It left the cluster.
    World { node: u16 },
    /// A program dropped it.
    Dropped { node: u16, program: Program, reason: DropReason },
    /// The stack of a node has no way for it, or its hops are used up.
    Stack { node: u16 },
}

/// A packet's way: each program with its verdict in short, and the end.
#[derive(Debug, Clone)]
pub(crate) struct Journey {
    pub(crate) way: Vec<String>,
    pub(crate) end: End,
}

impl Journey {
    /// The packet as it arrived in this pod.
    pub(crate) fn in_pod(&self, node: u16, container: &str) -> Packet {
        match &self.end {
            End::Pod { node: at, container: of, packet } if *at == node && of == container => *packet,
            end => panic!("not in {container} on node {node}, but {end:?} by way of {:?}", self.way),
        }
    }

    /// The packet as it arrived in a node's stack.
    pub(crate) fn in_host(&self, node: u16) -> Packet {
        match &self.end {
            End::Host { node: at, packet } if *at == node => *packet,
            end => panic!("not in the stack of node {node}, but {end:?} by way of {:?}", self.way),
        }
    }
}

pub(crate) struct Member {
    pub(crate) world: World,
    pub(crate) native: Native,
    pub(crate) pods: BTreeMap<String, CniResult>,
}

impl Member {
    /// Gives the programs what the agent has written.
    fn load(&mut self) {
        for table in [Table::Config, Table::Endpoints, Table::Ipcache] {
            let rows = self.world.maps.rows(table).clone();
            let tables = self.native.tables_mut();
            if table != Table::Config {
                for (key, _) in tables.dump(table.name()).unwrap() {
                    if !rows.contains_key(&key) {
                        tables.delete(table.name(), &key).unwrap();
                    }
                }
            }
            for (key, value) in rows {
                tables.update(table.name(), &key, &value).unwrap();
            }
        }
    }

    fn link(&self, ifindex: u32) -> Option<(&String, &MemoryLink)> {
        self.world.node.links().iter().find(|(_, link)| link.ifindex == ifindex)
    }

    /// The container behind a link.
    fn container(&self, ifindex: u32) -> Option<String> {
        let (name, _) = self.link(ifindex)?;
        self.pods.iter().find(|(_, result)| result.interfaces[0].name == *name).map(|(name, _)| name.clone())
    }

    fn has_address(&self, ip: IpAddr, n: u16) -> bool {
        let base = self.world.node.base();
        let routers = base.iter().flat_map(|base| {
            base.router_v4.map(IpAddr::V4).into_iter().chain(base.router_v6.map(IpAddr::V6))
        });
        let own: Vec<IpAddr> =
            node(n).internal_ips.iter().map(|ip| ip.parse().unwrap()).chain(routers).collect();
        own.contains(&ip)
    }

    /// Expires connections as the agent does: it sees the rows that the programs wrote.
    pub(crate) fn collect(&mut self) {
        for table in [Table::Ct4, Table::Ct6] {
            for (key, value) in self.native.tables().dump(table.name()).unwrap() {
                self.world.maps.put(table, &key, &value);
            }
        }
        self.world.maps.clock.ticks = self.native.clock().ticks;
        self.world.event(agent_control::Event::CtGc);
        self.world.settle();
        for table in [Table::Ct4, Table::Ct6] {
            for (key, _) in self.native.tables().dump(table.name()).unwrap() {
                if self.world.maps.rows(table).contains_key(&key) {
                    self.world.maps.delete(table, &key).unwrap();
                } else {
                    self.native.tables_mut().delete(table.name(), &key).unwrap();
                }
            }
        }
    }
}

/// Nodes on one underlay.
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<u16, Member>,
    routing: Routing,
}

impl Cluster {
    /// Nodes 1 to `nodes`, dual stack, all in sync.
    pub(crate) fn new(routing: Routing, nodes: u16) -> Self {
        let member = |n: u16| {
            let mut world = World::with(Config::new(node(n).name, routing));
            world.sync(nodes);
            let native = Native::new();
            native.set_clock(ClockEntry { ticks: 1_000_000, ktime_ns: 4_000_000_000_000 });
            let mut member = Member { world, native, pods: BTreeMap::new() };
            member.load();
            (n, member)
        };
        Self { members: (1..=nodes).map(member).collect(), routing }
    }

    pub(crate) fn member(&mut self, n: u16) -> &mut Member {
        self.members.get_mut(&n).unwrap()
    }

    /// Adds a pod; its addresses, IPv4 first.
    pub(crate) fn add(&mut self, n: u16, container: &str) -> [IpAddr; 2] {
        let member = self.member(n);
        let result = member.world.add(container).unwrap();
        let addresses = [result.ips[0].address.addr(), result.ips[1].address.addr()];
        member.pods.insert(container.to_owned(), result);
        member.load();
        addresses
    }

    pub(crate) fn del(&mut self, n: u16, container: &str) {
        let member = self.member(n);
        member.world.del(container).unwrap();
        member.pods.remove(container);
        member.load();
    }

    /// Kills the agent of a node and starts another, which hears of all nodes again.
    pub(crate) fn restart(&mut self, n: u16) {
        let nodes = u16::try_from(self.members.len()).unwrap();
        let member = self.member(n);
        member.world.restart();
        member.world.sync(nodes);
        member.load();
    }

    /// A pod sends a packet to its gateway.
    pub(crate) fn pod_sends(&self, n: u16, container: &str, packet: Packet) -> Journey {
        let member = &self.members[&n];
        let link = &member.world.node.links()[&member.pods[container].interfaces[0].name];
        let bytes = packet.frame(link.pod.as_ref().unwrap().mac, link.mac);
        let mut travel = Travel { cluster: self, way: Vec::new() };
        let end = travel.run(n, Program::FromContainer, Frame::new(bytes, link.ifindex));
        Journey { way: travel.way, end }
    }

    /// A process of a node sends a packet.
    pub(crate) fn host_sends(&self, n: u16, packet: Packet) -> Journey {
        let mut travel = Travel { cluster: self, way: Vec::new() };
        let end = travel.route(n, Frame::new(packet.frame([0; 6], [0; 6]), 0));
        Journey { way: travel.way, end }
    }

    /// All counters of all nodes: node, reason, direction, packets.
    pub(crate) fn counters(&self) -> Vec<(u16, u8, Direction, u64)> {
        let of = |(n, member): (&u16, &Member)| {
            let n = *n;
            member
                .native
                .counters()
                .into_iter()
                .map(move |(reason, direction, packets)| (n, reason, direction, packets))
        };
        self.members.iter().flat_map(of).collect()
    }

    fn node_at(&self, ip: IpAddr) -> Option<u16> {
        self.members.iter().find(|(n, member)| member.has_address(ip, **n)).map(|(n, _)| *n)
    }
}

struct Travel<'a> {
    cluster: &'a Cluster,
    way: Vec<String>,
}

impl Travel<'_> {
    fn member(&self, n: u16) -> &Member {
        &self.cluster.members[&n]
    }

    /// Runs a program and follows its verdict.
    fn run(&mut self, n: u16, program: Program, mut frame: Frame) -> End {
        assert!(self.way.len() < 32, "it goes round and round: {:?}", self.way);
        let member = self.member(n);
        let (name, link) = member.link(frame.ifindex).expect("packets are on links");
        assert!(link.programs.contains(&program), "{} is not attached to {name} of node {n}", program.name());
        let verdict = member.native.run(program, &mut frame);
        let word = match verdict {
            Verdict::Pass => "pass",
            Verdict::Skip => "skip",
            Verdict::Drop(_) => "drop",
            Verdict::Peer { .. } => "peer",
            Verdict::Egress { .. } => "egress",
            Verdict::Ingress { .. } => "ingress",
            Verdict::Tunnel { .. } => "tunnel",
            Verdict::Neighbour { .. } => "neighbour",
        };
        self.way.push(format!("{n} {} {word}", program.name()));
        match verdict {
            Verdict::Drop(reason) => End::Dropped { node: n, program, reason },
            Verdict::Peer { ifindex } => self.deliver(n, ifindex, &frame),
            Verdict::Egress { ifindex } if self.member(n).container(ifindex).is_some() => {
                frame.ifindex = ifindex;
                self.run(n, Program::ToContainer, frame)
            }
            Verdict::Tunnel { ifindex } => {
                assert_eq!(ifindex, self.member(n).world.node.links()[OVERLAY_LINK].ifindex);
                self.tunnel(n, &frame)
            }
            Verdict::Neighbour { ifindex, family, address } => {
                frame.ifindex = ifindex;
                let next = Addr(address).to_ip(Family::from_number(family).unwrap());
                self.onto_underlay(n, next, frame)
            }
            Verdict::Pass | Verdict::Skip => match program {
                Program::ToContainer => self.deliver(n, frame.ifindex, &frame),
                Program::FromContainer | Program::FromOverlay | Program::FromNetdev => self.stack(n, frame),
                other => panic!("{} of node {n} let the packet go where nobody is", other.name()),
            },
            Verdict::Egress { .. } | Verdict::Ingress { .. } => panic!("{:?}: {verdict:?}", self.way),
        }
    }

    fn deliver(&self, n: u16, ifindex: u32, frame: &Frame) -> End {
        let container =
            self.member(n).container(ifindex).unwrap_or_else(|| panic!("nobody is behind link {ifindex}"));
        let (_, link) = self.member(n).link(ifindex).unwrap();
        let pod = link.pod.as_ref().unwrap();
        assert_eq!(
            (&frame.bytes[..6], &frame.bytes[6..12]),
            (&pod.mac[..], &link.mac[..]),
            "link layer addresses"
        );
        End::Pod { node: n, container, packet: Packet::read(&frame.bytes) }
    }

    /// The overlay device of the sender and of the receiver, and the outer packet between them.
    fn tunnel(&mut self, n: u16, frame: &Frame) -> End {
        let to = frame.to_tunnel.expect("a tunnelled packet says where to");
        let far = Addr(to.node).to_ip(Family::from_number(to.family).unwrap());
        let near: IpAddr = node(n).internal_ips[usize::from(far.is_ipv6())].parse().unwrap();
        let outer = Packet::new(near, far, super::packet::Load::Udp { sport: 50000, dport: 8472 });
        let peer = self.cluster.node_at(far).expect("tunnels end at nodes");
        for (at, program) in [(n, Program::ToNetdev), (peer, Program::FromNetdev)] {
            let mut outer = Frame::new(outer.frame([2; 6], [2; 6]), 2);
            let verdict = self.member(at).native.run(program, &mut outer);
            assert_eq!(verdict, Verdict::Skip, "the outer packet is the nodes' own");
            self.way.push(format!("{at} {} skip", program.name()));
        }
        let overlay = self.member(peer).world.node.links()[OVERLAY_LINK].ifindex;
        let (node, family) = Addr::from_ip(near);
        let mut inner = Frame::new(frame.bytes.clone(), overlay);
        inner.from_tunnel = Some(Tunnel { node: node.0, family: family as u8, key: to.key });
        self.run(peer, Program::FromOverlay, inner)
    }

    /// Out of the underlay device to a next hop.
    fn onto_underlay(&mut self, n: u16, next: IpAddr, mut frame: Frame) -> End {
        frame.ifindex = 2;
        let verdict = self.member(n).native.run(Program::ToNetdev, &mut frame);
        assert_eq!(verdict, Verdict::Skip, "nothing is to be translated yet");
        self.way.push(format!("{n} to_netdev skip"));
        match self.cluster.node_at(next) {
            Some(peer) => self.run(peer, Program::FromNetdev, Frame::new(frame.bytes, 2)),
            None => End::World { node: n },
        }
    }

    /// The stack of a node gets a packet.
    fn stack(&mut self, n: u16, mut frame: Frame) -> End {
        let packet = Packet::read(&frame.bytes);
        if self.member(n).has_address(packet.dst, n) {
            return End::Host { node: n, packet };
        }
        if packet.hops <= 1 {
            return End::Stack { node: n };
        }
        let mut forwarded = packet;
        forwarded.hops -= 1;
        frame.bytes = forwarded.frame([0; 6], [0; 6]);
        self.route(n, frame)
    }

    /// The stack of a node sends a packet by its routes.
    fn route(&mut self, n: u16, mut frame: Frame) -> End {
        let packet = Packet::read(&frame.bytes);
        let member = self.member(n);
        let routes = member.world.node.routes().values().filter(|route| route.dst.contains(&packet.dst));
        let Some(route) = routes.max_by_key(|route| route.dst.prefix_len()) else {
            // Routes of others: the link of the nodes, and the default route.
            let near = ["172.30.0.0/16", "fd00:30::/64"].map(|net| net.parse::<IpNet>().unwrap());
            let on_link = near.iter().any(|net| net.contains(&packet.dst));
            if on_link && self.cluster.node_at(packet.dst).is_none() {
                return End::Stack { node: n };
            }
            return self.onto_underlay(n, packet.dst, frame);
        };
        if route.device == HOST_LINK {
            frame.ifindex = member.world.node.links()[HOST_LINK].ifindex;
            return self.run(n, Program::FromHost, frame);
        }
        assert_eq!(route.device, DEVICE);
        assert_eq!(self.cluster.routing, Routing::Native);
        let next = route.gateway.expect("a route by the underlay has a next hop");
        self.onto_underlay(n, next, frame)
    }
}
