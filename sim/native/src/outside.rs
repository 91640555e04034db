//! What lies outside of the cluster: a router, and two servers behind it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use sim_net::{
    Action, Frame, Host, HostConfig, Link, LinkKind, Machine, Node, PacketId, Route, Server, ServerKind,
};

use crate::fabric::Port;
use crate::node::NODE_NETS;
use crate::queue::Task;
use crate::world::World;

/// The router's addresses on the nodes' side: their default gateways.
pub(crate) const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 30, 255, 253)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0xff, 0xfd)),
];

/// Addresses of the two servers, IPv4 and IPv6.
pub(crate) const SERVERS: [[IpAddr; 2]; 2] = [
    [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10)),
    ],
    [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 20)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x20)),
    ],
];

const INSIDE: u32 = 1;
const OUTSIDE: u32 = 2;
const ROUTER_MACS: [[u8; 6]; 2] = [[2, 0xff, 0, 0, 0, 1], [2, 0xff, 0, 0, 0, 2]];
const SERVER_MACS: [[u8; 6]; 2] = [[2, 0xff, 0, 0, 1, 1], [2, 0xff, 0, 0, 1, 2]];

/// Router and servers.
pub(crate) struct Outside {
    router: Node,
    servers: [Host; 2],
    due: Option<Duration>,
}

fn net(address: IpAddr, len: u8) -> Option<IpNet> {
    IpNet::new(address, len).ok()
}

fn gateway_of(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(server) => {
            let [a, b, c, _] = server.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(server) => {
            let mut segments = server.segments();
            segments[7] = 1;
            Ipv6Addr::from(segments).into()
        }
    }
}

const fn subnet_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

impl Outside {
    /// All of it, for wires of that MTU.
    pub(crate) fn new(mtu: u32, seed: u64) -> Self {
        let mut router = Node::new(seed);
        let inside = GATEWAYS.into_iter().zip(NODE_NETS).filter_map(|(ip, (_, bits))| net(ip, bits));
        router.set_link(Link {
            ifindex: INSIDE,
            mac: ROUTER_MACS[0],
            mtu,
            kind: LinkKind::Underlay,
            addresses: inside.collect(),
        });
        let outside = SERVERS.iter().flatten().filter_map(|ip| net(gateway_of(*ip), subnet_bits(*ip)));
        router.set_link(Link {
            ifindex: OUTSIDE,
            mac: ROUTER_MACS[1],
            mtu,
            kind: LinkKind::Underlay,
            addresses: outside.collect(),
        });
        router.set_routes(Vec::<Route>::new());
        let server = |i: usize| {
            let addresses = SERVERS[i];
            let default = |ip: &IpAddr| {
                let any: IpAddr =
                    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                net(any, 0).map(|any| (any, Some(gateway_of(*ip))))
            };
            let mut host = Host::new(&HostConfig {
                mac: SERVER_MACS[i],
                mtu,
                addresses: addresses.iter().filter_map(|ip| net(*ip, subnet_bits(*ip))).collect(),
                routes: addresses.iter().filter_map(default).collect(),
                seed: seed.wrapping_add(i as u64 + 1),
            });
            for port in [80, 443] {
                host.serve(Server { kind: ServerKind::Http, port });
            }
            host
        };
        Self { router, servers: [server(0), server(1)], due: None }
    }

    /// The ports and their MAC addresses.
    pub(crate) fn ports() -> [(Port, [u8; 6]); 4] {
        [
            (Port::RouterInside, ROUTER_MACS[0]),
            (Port::RouterOutside, ROUTER_MACS[1]),
            (Port::Server(0), SERVER_MACS[0]),
            (Port::Server(1), SERVER_MACS[1]),
        ]
    }
}

impl World {
    /// A frame reaches the outside.
    pub(crate) fn outside_receives(&mut self, port: Port, frame: Frame) {
        let now = self.now;
        match port {
            Port::Server(i) => {
                self.check_policy_to_outside(&frame);
                if let Some(server) = self.outside.servers.get_mut(i) {
                    server.receive(frame);
                }
                self.wake_outside(Duration::from_micros(15));
            }
            Port::RouterInside | Port::RouterOutside => {
                let ifindex = if port == Port::RouterInside { INSIDE } else { OUTSIDE };
                self.router_acts(|router, ids| router.receive(now, ifindex, frame, false, ids));
            }
            Port::Node(_) => {}
        }
    }

    fn router_acts(&mut self, act: impl FnOnce(&mut Node, &mut dyn Machine) -> Vec<Action>) {
        let mut next = self.last_packet;
        let actions = act(&mut self.outside.router, &mut || {
            next += 1;
            PacketId(next)
        });
        self.last_packet = next;
        let sent: VecDeque<(Port, Frame)> = actions
            .into_iter()
            .filter_map(|action| match action {
                Action::Transmit { ifindex: INSIDE, frame } => Some((Port::RouterInside, frame)),
                Action::Transmit { frame, .. } => Some((Port::RouterOutside, frame)),
                _ => None,
            })
            .collect();
        for (port, frame) in sent {
            self.onto_wire(port, &frame);
        }
        self.plan_outside();
    }

    /// The stacks outside are due.
    pub(crate) fn poll_outside(&mut self, at: Duration) {
        if self.outside.due != Some(at) {
            return;
        }
        self.outside.due = None;
        let now = self.now;
        self.router_acts(|router, ids| router.poll(now, ids));
        for i in 0..self.outside.servers.len() {
            let mut next = self.last_packet;
            let frames = self.outside.servers[i].poll(now, &mut || {
                next += 1;
                PacketId(next)
            });
            self.last_packet = next;
            for frame in frames {
                self.onto_wire(Port::Server(i), &frame);
            }
        }
        self.plan_outside();
    }

    fn plan_outside(&mut self) {
        let now = self.now;
        let outside = &mut self.outside;
        let servers = outside.servers.iter_mut().filter_map(|server| server.next_poll(now));
        let next = servers.min();
        let next = [next, outside.router.next_poll(now)].into_iter().flatten().min();
        if let Some(next) = next {
            self.wake_outside(next.saturating_sub(now).max(Duration::from_micros(1)));
        }
    }

    fn wake_outside(&mut self, after: Duration) {
        let at = self.now + after;
        if self.outside.due.is_some_and(|due| due <= at) {
            return;
        }
        self.outside.due = Some(at);
        self.push(at, Task::Outside);
    }
}
