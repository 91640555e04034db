//! What happens to a node: flows whose packets follow one another, odd and broken packets between them, and changes of
//! the rows in the middle of it. Everything follows from a seed.

use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::ConfigFlags;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::policy::{PolicyEntry, PolicyKey};
use dataplane_abi::program::Program;

use crate::frame::{self, Address, V4, V6};
use crate::rng::Rng;
use crate::world::{
    AGE_INTERVAL, BACKEND_PORT, Devices, NODE_PORT, PODS, Party, SERVICES, Services, WIRE_PORT, World,
    gateway_mac, guard, pod_mac, policy_row,
};

/// A frame on a device.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) program: Program,
    pub(crate) ifindex: u32,
    pub(crate) mark: u32,
    /// Bytes per segment of a packet that will be cut later, or zero.
    pub(crate) gso_size: u32,
    pub(crate) frame: Vec<u8>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A packet meets a program.
    Packet(Input),
    /// All connections were last used so many ticks earlier than they were.
    Age(u32),
    /// The agent writes the node's configuration.
    Configure(dataplane_abi::config::NodeConfig),
    /// The agent writes an endpoint, or removes it.
    Endpoint { key: EndpointKey, entry: Option<EndpointEntry> },
    /// The agent writes a backend, or removes it.
    Backend { number: u32, entry: Option<BackendEntry> },
    /// The agent writes a row of a policy, or removes it.
    Policy { key: PolicyKey, entry: Option<PolicyEntry> },
}

/// A node and what happens on it.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) world: World,
    pub(crate) steps: Vec<Step>,
}

impl Scenario {
    /// The scenario of a seed, with so many frames.
    pub(crate) fn new(seed: u64, frames: usize, devices: &Devices, ticks_per_s: u32) -> Self {
        let mut rng = Rng::new(seed);
        let world = World::new(&mut rng, devices, ticks_per_s);
        let services = world.services.clone();
        let mut stage = Stage { devices, services, config: world.config, flows: Vec::new(), rng };
        let mut steps = Vec::with_capacity(frames + frames / 8);
        let mut packets = 0;
        let mut gone = None;
        while packets < frames {
            let chance = stage.rng.below(1000);
            match chance {
                // Multiples of seven seconds: no sum of them comes near a timeout (10, 60 and 8000 s), so the few ticks
                // that a slow run takes make no difference.
                0..8 => {
                    let seconds = 7 * stage.rng.pick(&[1, 2, 4, 10, 20, 1300]);
                    steps.push(Step::Age(seconds * ticks_per_s));
                }
                8..10 => steps.push(Step::Age(AGE_INTERVAL * 2)),
                10..16 => {
                    stage.config.revision = stage.config.revision.wrapping_add(1);
                    steps.push(Step::Configure(stage.config));
                }
                16..20 => match gone.take() {
                    Some((key, entry)) => steps.push(Step::Endpoint { key, entry: Some(entry) }),
                    None => {
                        let (key, entry) = world.endpoints[stage.rng.below(world.endpoints.len())];
                        gone = Some((key, entry));
                        steps.push(Step::Endpoint { key, entry: None });
                    }
                },
                // Another policy of a pod, or another row of a policy; mostly the agent says so with a new revision.
                20..32 => {
                    let pods: Vec<_> =
                        world.endpoints.iter().copied().filter(|(_, entry)| entry.id != 0).collect();
                    if !pods.is_empty() && stage.rng.percent(30) {
                        let (key, entry) = pods[stage.rng.below(pods.len())];
                        let (policy, flags) = guard(&mut stage.rng);
                        let entry = EndpointEntry { policy, flags, ..entry };
                        steps.push(Step::Endpoint { key, entry: Some(entry) });
                    } else {
                        let (key, entry) = policy_row(&mut stage.rng);
                        let entry = stage.rng.percent(70).then_some(entry);
                        steps.push(Step::Policy { key, entry });
                    }
                    if stage.rng.percent(80) {
                        stage.config.revision = stage.config.revision.wrapping_add(1);
                        steps.push(Step::Configure(stage.config));
                    }
                }
                32..38 => {
                    let backends = &world.services.backends;
                    let (number, entry) = backends[stage.rng.below(backends.len())];
                    let entry = stage.rng.percent(60).then_some(entry);
                    steps.push(Step::Backend { number, entry });
                }
                _ => {
                    for input in stage.packets() {
                        packets += 1;
                        steps.push(Step::Packet(input));
                    }
                }
            }
        }
        Self { world, steps }
    }
}

/// A conversation between two parties.
#[derive(Clone, Debug)]
struct Flow {
    a: Party,
    b: Party,
    v6: bool,
    proto: u8,
    aport: u16,
    bport: u16,
    /// Who answers for `b`, if that is a service.
    answers: Option<Party>,
    /// The node's port by which it leaves, where the node speaks for `a`.
    wire: Option<u16>,
    /// Packets so far.
    count: usize,
    /// The last packet, which an ICMP error may quote: IP header onward, and whether `a` sent it.
    last: Option<(Vec<u8>, bool)>,
}

impl Flow {
    /// Sender, receiver and their ports.
    fn ends(&self, forward: bool) -> (Party, Party, u16, u16) {
        match self.answers {
            _ if forward => (self.a, self.b, self.aport, self.bport),
            None if let Some(wire) = self.wire => (self.b, Party::Node, self.bport, wire),
            None => (self.b, self.a, self.bport, self.aport),
            Some(other) if let Some(wire) = self.wire => (other, Party::Node, BACKEND_PORT, wire),
            Some(same) if same == self.a => (same, Party::Loopback, BACKEND_PORT, self.aport),
            Some(other) => (other, self.a, BACKEND_PORT, self.aport),
        }
    }
}

/// The generator's state while it writes a scenario.
struct Stage<'a> {
    devices: &'a Devices,
    services: Services,
    config: dataplane_abi::config::NodeConfig,
    flows: Vec<Flow>,
    rng: Rng,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

impl Stage<'_> {
    /// Whether what one sends to the other leaves the node masqueraded, as far as the node's configuration goes.
    fn is_masqueraded(&self, from: Party, to: Party, v6: bool) -> bool {
        let flag = if v6 { ConfigFlags::MASQUERADE_V6 } else { ConfigFlags::MASQUERADE_V4 };
        self.config.flags.contains(flag)
            && matches!((from, to), (Party::Pod(_), Party::World(_) | Party::Outside(_)))
    }

    /// Whether somebody outside calls a service of whom others than the node's pods answer.
    fn is_called_for(flow: &Flow) -> bool {
        matches!(flow.a, Party::Outside(_) | Party::World(_))
            && matches!(flow.answers, Some(Party::Remote(_) | Party::RemoteNode))
    }

    /// What the node's stack gets of a packet between somebody outside and a backend, and sends on.
    fn sent_on(&mut self, flow: &Flow, forward: bool) -> Vec<Input> {
        let (Party::Outside(_) | Party::World(_), Some(answers)) = (flow.a, flow.answers) else {
            return Vec::new();
        };
        if answers == Party::Node || (forward && matches!(answers, Party::Pod(_))) {
            return Vec::new();
        }
        let plain =
            Flow { b: answers, bport: BACKEND_PORT, answers: None, wire: None, last: None, ..flow.clone() };
        let payload = self.upper(&plain, forward);
        let packet = self.ip(&plain, forward, plain.proto, &payload);
        let by_tunnel = forward && self.config.overlay_ifindex != 0 && matches!(answers, Party::Remote(_));
        let (program, ifindex, source) = if by_tunnel {
            (Program::FromHost, self.devices.host, self.config.host_mac)
        } else {
            (Program::ToNetdev, self.devices.underlay, self.config.underlay_mac)
        };
        let ethertype = if flow.v6 { frame::IPV6 } else { frame::IPV4 };
        let frame = frame::ethernet([2, 0, 0, 0, 9, 9], source, ethertype, &packet);
        vec![Input { program, ifindex, mark: 0, gso_size: 0, frame }]
    }

    /// The next packet, or the few that belong together.
    fn packets(&mut self) -> Vec<Input> {
        let chance = self.rng.below(100);
        let mut inputs = match chance {
            0..3 => vec![self.link_layer()],
            3..6 => vec![self.noise()],
            6..11 => self.fragments(),
            11..16 => self.icmp_error(),
            _ => self.flow_packet(),
        };
        for input in &mut inputs {
            if self.rng.percent(8) {
                self.damage(&mut input.frame);
            }
            if self.rng.percent(4) {
                input.program = self.rng.pick(&Program::ALL);
            }
            if self.rng.percent(2) {
                input.ifindex = self.rng.pick(&self.devices.all());
            }
        }
        inputs
    }

    fn party(&mut self) -> Party {
        match self.rng.below(100) {
            0..50 => Party::Pod(self.rng.below(PODS)),
            50..65 => Party::Remote(self.rng.byte() % 6),
            65..74 => Party::Node,
            74..77 => Party::Router,
            77..84 => Party::RemoteNode,
            84..92 => Party::Outside(self.rng.byte() % 4),
            92..97 => Party::World(self.rng.byte() % 4),
            _ => Party::Group,
        }
    }

    /// Whom somebody calls.
    fn called(&mut self) -> Party {
        if self.rng.percent(30) { Party::Service(self.rng.below(SERVICES)) } else { self.party() }
    }

    /// A flow that goes on, or a new one.
    fn flow(&mut self) -> usize {
        if self.flows.len() < 8 || self.rng.percent(6) {
            let a = self.party();
            let b = loop {
                let is_outside = matches!(a, Party::Outside(_) | Party::World(_));
                let b = if is_outside && self.rng.percent(50) {
                    Party::Service(self.rng.below(SERVICES))
                } else {
                    self.called()
                };
                if b != a || self.rng.percent(5) {
                    break b;
                }
            };
            let v6 = self.rng.percent(50);
            let echo = if v6 { frame::ICMP6 } else { frame::ICMP };
            let proto = match self.rng.below(100) {
                0..50 => frame::TCP,
                50..75 => frame::UDP,
                75..92 => echo,
                92..96 => frame::SCTP,
                _ => self.rng.byte(),
            };
            let flow = Flow {
                a,
                b,
                v6,
                proto,
                aport: self.rng.pick(&[40_000, 40_001, 1, 80, 0]),
                bport: self.rng.pick(&[80, 80, 443, 53, 40_000, 8472, 67, NODE_PORT, BACKEND_PORT]),
                answers: None,
                wire: (self.is_masqueraded(a, b, v6) && self.rng.percent(85)).then_some(WIRE_PORT),
                count: 0,
                last: None,
            };
            let flow = Flow { answers: self.services.answers(flow.b, flow.bport), ..flow };
            let wire = if Self::is_called_for(&flow) { Some(WIRE_PORT) } else { flow.wire };
            let flow = Flow { wire, ..flow };
            if self.flows.len() < 8 {
                self.flows.push(flow);
            } else {
                let index = self.rng.below(self.flows.len());
                self.flows[index] = flow;
                return index;
            }
            return self.flows.len() - 1;
        }
        self.rng.below(self.flows.len())
    }

    fn flow_packet(&mut self) -> Vec<Input> {
        let index = self.flow();
        let mut flow = self.flows[index].clone();
        // The first packets are in order, so that connections come to be; later ones as they like.
        let forward = match flow.count {
            0 => true,
            1 => self.rng.percent(10),
            2 => self.rng.percent(90),
            _ => self.rng.percent(50),
        };
        let payload = self.upper(&flow, forward);
        let packet = self.ip(&flow, forward, flow.proto, &payload);
        flow.count += 1;
        flow.last = Some((packet.clone(), forward));
        let (from, to, ..) = flow.ends(forward);
        let mut inputs = self.on_way(from, to, flow.v6, &packet);
        if self.rng.percent(90) {
            inputs.extend(self.sent_on(&flow, forward));
        }
        self.flows[index] = flow;
        inputs
    }

    /// The upper layer of the next packet of a flow.
    fn upper(&mut self, flow: &Flow, forward: bool) -> Vec<u8> {
        let (_, _, sport, dport) = flow.ends(forward);
        let size = match self.rng.below(100) {
            0..70 => self.rng.below(64),
            70..95 => self.rng.below(1400),
            _ => 1400 + self.rng.below(400),
        };
        let data = vec![0xA5; size];
        match flow.proto {
            frame::TCP => {
                let flags = match flow.count {
                    0 => SYN,
                    1 if !forward => SYN | ACK,
                    2 => ACK,
                    _ => match self.rng.below(100) {
                        0..40 => ACK,
                        40..75 => PSH | ACK,
                        75..87 => FIN | ACK,
                        87..92 => RST,
                        92..97 => SYN,
                        _ => self.rng.byte(),
                    },
                };
                frame::tcp(sport, dport, flags, &data)
            }
            frame::UDP => frame::udp(sport, dport, &data),
            frame::ICMP | frame::ICMP6 => {
                let request = if flow.v6 { 128 } else { 8 };
                let reply = if flow.v6 { 129 } else { 0 };
                let id = if forward { flow.aport } else { flow.wire.unwrap_or(flow.aport) };
                let [i0, i1] = id.to_be_bytes();
                frame::icmp(if forward { request } else { reply }, 0, [i0, i1, 0, 1], &data)
            }
            frame::SCTP => frame::udp(sport, dport, &data),
            _ => data,
        }
    }

    fn ip(&mut self, flow: &Flow, forward: bool, proto: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to, ..) = flow.ends(forward);
        let hops = match self.rng.below(100) {
            0..3 => 0,
            3..7 => 1,
            7..10 => 2,
            _ => 64,
        };
        match (from.address(flow.v6), to.address(flow.v6)) {
            (Address::V4(src), Address::V4(dst)) => {
                let options = if self.rng.percent(4) {
                    let count = 1 + self.rng.below(39);
                    self.rng.bytes(count)
                } else {
                    Vec::new()
                };
                let fragment = self.rng.pick(&[0x4000, 0x4000, 0]);
                V4 { src, dst, proto, ttl: hops, id: self.rng.u16(), fragment, options }.packet(payload)
            }
            (Address::V6(src), Address::V6(dst)) => {
                let extensions = if self.rng.percent(8) { self.extensions() } else { Vec::new() };
                V6 { src, dst, proto, hops, extensions }.packet(payload)
            }
            _ => unreachable!("one flow has one family"),
        }
    }

    /// Extension headers of all kinds, whole ones and odd ones.
    fn extensions(&mut self) -> Vec<(u8, Vec<u8>)> {
        let count = match self.rng.below(100) {
            0..60 => 1,
            60..85 => 2,
            85..95 => 5,
            _ => 9,
        };
        (0..count)
            .map(|_| {
                let number = self.rng.pick(&[0, 43, 60, 51, 44]);
                let length = self.rng.pick(&[6, 6, 6, 14, 22]);
                let mut body = self.rng.bytes(length);
                if number == 44 {
                    // Mostly whole datagrams (RFC 6946); fragments have their own generator.
                    body.truncate(6);
                    if self.rng.percent(80) {
                        body[0] = 0;
                        body[1] = 0;
                    }
                }
                (number, body)
            })
            .collect()
    }

    /// A datagram in fragments: mostly all of them, in order or not.
    fn fragments(&mut self) -> Vec<Input> {
        let index = self.flow();
        let flow = self.flows[index].clone();
        let forward = self.rng.percent(70);
        let (from, to, ..) = flow.ends(forward);
        let proto = self.rng.pick(&[frame::UDP, frame::UDP, frame::TCP, flow.proto]);
        let flow = Flow { proto, ..flow };
        let mut datagram = self.upper(&flow, forward);
        datagram.resize(datagram.len().max(120), 0x5A);
        let id = self.rng.u32();
        let unit = 8 * (1 + self.rng.below(6)).max(if self.rng.percent(10) { 1 } else { 3 });
        let mut pieces: Vec<(usize, bool, Vec<u8>)> = Vec::new();
        let mut at = 0;
        while at < datagram.len() && pieces.len() < 3 {
            let end = if pieces.len() == 2 { datagram.len() } else { (at + unit).min(datagram.len()) };
            pieces.push((at, end < datagram.len(), datagram[at..end].to_vec()));
            at = end;
        }
        if self.rng.percent(15) {
            pieces.reverse();
        }
        if self.rng.percent(10) {
            pieces.remove(0);
        }
        let mut inputs = Vec::new();
        for (offset, more, piece) in pieces {
            let units = u16::try_from(offset / 8).expect("test datagrams are small");
            let packet = match (from.address(flow.v6), to.address(flow.v6)) {
                (Address::V4(src), Address::V4(dst)) => V4 {
                    src,
                    dst,
                    proto,
                    ttl: 64,
                    id: id.to_be_bytes()[0].into(),
                    fragment: units | if more { 0x2000 } else { 0 },
                    options: Vec::new(),
                }
                .packet(&piece),
                (Address::V6(src), Address::V6(dst)) => {
                    let field = ((units << 3) | u16::from(more)).to_be_bytes();
                    let body = [&field[..], &id.to_be_bytes()].concat();
                    let mut extensions = vec![(frame::FRAGMENT, body)];
                    if self.rng.percent(10) {
                        extensions.insert(0, (0, self.rng.bytes(6)));
                    }
                    V6 { src, dst, proto, hops: 64, extensions }.packet(&piece)
                }
                _ => unreachable!("one flow has one family"),
            };
            inputs.extend(self.on_way(from, to, flow.v6, &packet));
        }
        inputs
    }

    /// An ICMP error about the last packet of a flow, from whom it reached or from a router on the way.
    fn icmp_error(&mut self) -> Vec<Input> {
        let index = self.flow();
        let flow = self.flows[index].clone();
        let Some((mut quoted, forward)) = flow.last.clone() else { return Vec::new() };
        let (mut sender, receiver) = if forward { (flow.a, flow.b) } else { (flow.b, flow.a) };
        // Who complains has seen the one form of a packet or the other.
        if let Some(wire) = flow.wire {
            let seen = if forward {
                sender = Party::Node;
                let (b, bport) = flow.answers.map_or((flow.b, flow.bport), |other| (other, BACKEND_PORT));
                Flow { a: Party::Node, aport: wire, b, bport, answers: None, wire: None, ..flow.clone() }
            } else {
                Flow { wire: None, ..flow.clone() }
            };
            let payload = self.upper(&seen, forward);
            quoted = self.ip(&seen, forward, seen.proto, &payload);
        }
        let from = if self.rng.percent(60) { receiver } else { self.party() };
        let to = if self.rng.percent(95) { sender } else { self.party() };
        let keep = match self.rng.below(100) {
            0..70 => quoted.len().min(if flow.v6 { 1000 } else { 28 + self.rng.below(100) }),
            _ => self.rng.below(quoted.len()),
        };
        let word = self.rng.u32().to_be_bytes();
        let packet = match (from.address(flow.v6), to.address(flow.v6)) {
            (Address::V4(src), Address::V4(dst)) => {
                let kind = self.rng.pick(&[3, 3, 11, 12, 5, 4, 8, 13]);
                let message = frame::icmp(kind, self.rng.byte() % 16, word, &quoted[..keep]);
                V4 { src, dst, proto: frame::ICMP, ttl: 64, id: 7, fragment: 0, options: Vec::new() }
                    .packet(&message)
            }
            (Address::V6(src), Address::V6(dst)) => {
                let kind = self.rng.pick(&[1, 2, 3, 4, 128, 5]);
                let message = frame::icmp(kind, self.rng.byte() % 8, word, &quoted[..keep]);
                V6 { src, dst, proto: frame::ICMP6, hops: 64, extensions: Vec::new() }.packet(&message)
            }
            _ => unreachable!("one flow has one family"),
        };
        self.on_way(from, to, flow.v6, &packet)
    }

    /// ARP, neighbour discovery and what else is said on a link.
    fn link_layer(&mut self) -> Input {
        let pod = self.rng.below(PODS);
        let device = if self.rng.percent(85) { self.devices.pods[pod] } else { self.devices.host };
        let program = if device == self.devices.host { Program::FromHost } else { Program::FromContainer };
        let target = if self.rng.percent(40) { Party::Router } else { self.party() };
        let frame = if self.rng.percent(50) {
            let (Address::V4(own), Address::V4(asked)) =
                (Party::Pod(pod).address(false), target.address(false))
            else {
                unreachable!("asked for IPv4");
            };
            let operation = self.rng.pick(&[1, 1, 1, 2]);
            frame::ethernet(
                [0xFF; 6],
                pod_mac(pod),
                frame::ARP,
                &frame::arp(operation, pod_mac(pod), own, asked),
            )
        } else {
            let (Address::V6(own), Address::V6(asked)) =
                (Party::Pod(pod).address(true), target.address(true))
            else {
                unreachable!("asked for IPv6");
            };
            let unspecified = self.rng.percent(10);
            let src = if unspecified { [0; 16] } else { own };
            let kind = self.rng.pick(&[135, 135, 135, 135, 136, 133, 143, 130]);
            let mut body = asked.to_vec();
            if self.rng.percent(90) {
                body.extend([1, 1]);
                body.extend(pod_mac(pod));
            }
            let mut solicited = [0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0, 0, 0];
            solicited[13..].copy_from_slice(&asked[13..]);
            let direct = self.rng.percent(30);
            let (dst, dst_mac) =
                if direct { (asked, gateway_mac(pod)) } else { (solicited, [0x33, 0x33, 0xFF, 0, 0, 1]) };
            let hops = if self.rng.percent(95) { 255 } else { 64 };
            let message = frame::icmp(kind, 0, [0; 4], &body);
            let packet = V6 { src, dst, proto: frame::ICMP6, hops, extensions: Vec::new() }.packet(&message);
            frame::ethernet(dst_mac, pod_mac(pod), frame::IPV6, &packet)
        };
        Input { program, ifindex: device, mark: 0, gso_size: 0, frame }
    }

    /// Bytes without sense behind an Ethernet header.
    fn noise(&mut self) -> Input {
        let ethertype = self.rng.pick(&[frame::IPV4, frame::IPV6, frame::ARP, 0x8100, 0x88A8, 0x1234]);
        let count = self.rng.below(200);
        let mut bytes = self.rng.bytes(count);
        // Often enough the version is right, or parsing would end there.
        if let Some(first) = bytes.first_mut()
            && self.rng.percent(60)
        {
            *first = if ethertype == frame::IPV6 { 0x60 } else { 0x45 };
        }
        let frame = frame::ethernet(gateway_mac(0), pod_mac(0), ethertype, &bytes);
        Input {
            program: self.rng.pick(&Program::ALL),
            ifindex: self.rng.pick(&self.devices.all()),
            mark: self.rng.u32(),
            gso_size: 0,
            frame,
        }
    }

    /// Puts an IP packet where it would be seen first; and, of a pod to the world, also where it leaves.
    fn on_way(&mut self, from: Party, to: Party, v6: bool, packet: &[u8]) -> Vec<Input> {
        let mut inputs = vec![self.on_device(from, to, v6, packet)];
        if self.is_masqueraded(from, to, v6) && self.rng.percent(90) {
            let ethertype = if v6 { frame::IPV6 } else { frame::IPV4 };
            let frame = frame::ethernet([2, 0, 0, 0, 9, 9], self.config.underlay_mac, ethertype, packet);
            inputs.push(Input {
                program: Program::ToNetdev,
                ifindex: self.devices.underlay,
                mark: 0,
                gso_size: 0,
                frame,
            });
        }
        inputs
    }

    /// Puts an IP packet on the device where it would be seen, with the program that would see it.
    fn on_device(&mut self, from: Party, to: Party, v6: bool, packet: &[u8]) -> Input {
        let ethertype = if v6 { frame::IPV6 } else { frame::IPV4 };
        let vxlan = self.config.overlay_ifindex != 0;
        let (program, ifindex, dst, src) = match (from, to) {
            (Party::Pod(pod), _) => {
                (Program::FromContainer, self.devices.pods[pod], gateway_mac(pod), pod_mac(pod))
            }
            (Party::Node | Party::Router, Party::Pod(pod)) if self.rng.percent(50) => {
                (Program::ToContainer, self.devices.pods[pod], pod_mac(pod), gateway_mac(pod))
            }
            (Party::Node | Party::Router, Party::RemoteNode | Party::World(_) | Party::Outside(_)) => {
                (Program::ToNetdev, self.devices.underlay, [2, 0, 0, 0, 9, 9], self.config.underlay_mac)
            }
            (Party::Node | Party::Router, _) => {
                (Program::FromHost, self.devices.host, self.config.host_mac, self.config.host_mac)
            }
            (Party::Remote(_) | Party::RemoteNode, _) if vxlan && self.rng.percent(85) => {
                (Program::FromOverlay, self.devices.overlay, self.config.overlay_mac, [2, 0, 0, 0, 8, 8])
            }
            (_, Party::Router) if self.rng.percent(50) => {
                (Program::ToHost, self.devices.host, self.config.host_mac, [2, 0, 0, 0, 9, 9])
            }
            _ => (Program::FromNetdev, self.devices.underlay, self.config.underlay_mac, [2, 0, 0, 0, 9, 9]),
        };
        let src = if self.rng.percent(2) { [2, 6, 6, 6, 6, 6] } else { src };
        let mark = match self.rng.below(100) {
            0..88 => 0,
            88..92 => 0x0C00,
            92..96 => 0x1234_0F01,
            _ => self.rng.u32(),
        };
        let gso_size =
            if packet.len() > 1000 && self.rng.percent(25) { self.rng.pick(&[100, 500, 1200]) } else { 0 };
        Input { program, ifindex, mark, gso_size, frame: frame::ethernet(dst, src, ethertype, packet) }
    }

    /// Cuts, stretches or changes a frame.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        match self.rng.below(10) {
            0..2 => {
                let length =
                    frame::ETHERNET + self.rng.below(frame.len().saturating_sub(frame::ETHERNET) + 1);
                frame.truncate(length);
            }
            2 => {
                let count = 1 + self.rng.below(40);
                frame.extend(std::iter::repeat_n(0, count));
            }
            _ => {
                // Mostly in the headers, where it matters.
                for _ in 0..=self.rng.below(3) {
                    let reach = if self.rng.percent(85) { frame.len().min(100) } else { frame.len() };
                    if reach > 12 {
                        let at = 12 + self.rng.below(reach - 12);
                        frame[at] = match self.rng.below(3) {
                            0 => self.rng.byte(),
                            1 => frame[at] ^ (1 << self.rng.below(8)),
                            _ => self.rng.pick(&[0, 1, 0xFF, 0x7F, 0x80]),
                        };
                    }
                }
            }
        }
    }
}
