//! Local sockets: the servers and clients of a host, and what comes in for them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::calls::{AsIs, Calls};
use crate::client::{About, Client, ClientId, ClientKind, ClientReport, ClientSpec, World};
use crate::frame::{mix, put, u16_at, u32_at};
use crate::icmp::Report;
use crate::ip::{self, Ip};
use crate::net::Net;
use crate::ports::Ports;
use crate::tcp::Tcp;

const FIN: u8 = 0x01;

/// A socket that serves, on all addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Server {
    /// What it does.
    pub kind: ServerKind,
    /// Where.
    pub port: u16,
}

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServerKind {
    /// Answers one request a connection: `GET /N` with N bytes, any other `GET` with a greeting.
    Http,
    /// Answers every request with 503.
    HttpFails,
    /// Sends back what it gets over TCP.
    TcpEcho,
    /// Sends back every datagram.
    UdpEcho,
}

/// Ports that are served.
#[derive(Default)]
pub(crate) struct Servers {
    stream: BTreeMap<u16, ServerKind>,
    datagram: BTreeMap<u16, ServerKind>,
}

impl Servers {
    pub(crate) fn uses(&self, port: u16) -> bool {
        self.stream.contains_key(&port) || self.datagram.contains_key(&port)
    }
}

/// Whether somebody took what came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    No,
}

/// All local sockets of a stack.
pub(crate) struct Sockets {
    seed: u64,
    servers: Servers,
    clients: BTreeMap<ClientId, Client>,
    next: u32,
    ports: Ports,
    tcp: Option<Box<Tcp>>,
    engines: u64,
    /// Sockets that have been made.
    cookies: u64,
    /// IP packets to send.
    pub(crate) out: Vec<Vec<u8>>,
}

macro_rules! world {
    ($self:ident, $now:expr, $calls:expr, $net:expr) => {
        World {
            now: $now,
            calls: $calls,
            cookies: &mut $self.cookies,
            net: $net,
            seed: $self.seed,
            engines: &mut $self.engines,
            tcp: &mut $self.tcp,
            ports: &mut $self.ports,
            servers: &$self.servers,
            out: &mut $self.out,
        }
    };
}

impl Sockets {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            servers: Servers::default(),
            clients: BTreeMap::new(),
            next: 0,
            ports: Ports::new(seed),
            tcp: None,
            engines: 0,
            cookies: 0,
            out: Vec::new(),
        }
    }

    /// See [`crate::Host::restrict_ports`].
    pub(crate) fn restrict_ports(&mut self, count: u16) {
        self.ports.restrict(count);
    }

    pub(crate) fn serve(&mut self, server: Server) {
        let ports = match server.kind {
            ServerKind::Http | ServerKind::HttpFails | ServerKind::TcpEcho => &mut self.servers.stream,
            ServerKind::UdpEcho => &mut self.servers.datagram,
        };
        ports.insert(server.port, server.kind);
    }

    /// Nobody listens at a TCP port any more; connections go on.
    pub(crate) fn close(&mut self, port: u16) {
        self.servers.stream.remove(&port);
    }

    pub(crate) fn start(&mut self, now: Duration, net: &Net, spec: ClientSpec) -> ClientId {
        let id = ClientId(self.next);
        self.next += 1;
        // Identifiers of one host differ as long as it starts fewer than 65,536 clients.
        let first = mix(self.seed, u64::MAX) & 0xFFFF;
        let identifier = u16::try_from((first + u64::from(id.0)) & 0xFFFF).unwrap_or_default();
        // Nobody is called yet.
        let mut world = world!(self, now, &AsIs, net);
        self.clients.insert(id, Client::start(&mut world, identifier, spec));
        id
    }

    pub(crate) fn client(&self, id: ClientId) -> Option<&ClientReport> {
        self.clients.get(&id).map(Client::report)
    }

    pub(crate) fn stop(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.stop();
        }
    }

    /// Lets everybody do what is due. What is to be sent is in `out` afterwards.
    pub(crate) fn step(&mut self, now: Duration, calls: &dyn Calls, net: &Net) {
        let mut world = world!(self, now, calls, net);
        for client in self.clients.values_mut() {
            client.step(&mut world);
        }
        let Some(tcp) = &mut self.tcp else {
            return;
        };
        for port in tcp.step(now) {
            self.ports.give_back(port);
        }
        while let Some(packet) = tcp.outbound() {
            self.out.push(packet);
        }
        if tcp.is_idle() {
            self.tcp = None;
        }
    }

    pub(crate) fn next(&mut self, now: Duration) -> Option<Duration> {
        let clients = self.clients.values().filter_map(Client::next).min();
        let tcp = self.tcp.as_mut().and_then(|tcp| tcp.next(now));
        clients.into_iter().chain(tcp).min().map(|at| at.max(now))
    }

    /// A segment came in whole and with a right checksum.
    pub(crate) fn segment(
        &mut self,
        now: Duration,
        calls: &dyn Calls,
        net: &Net,
        ip: &Ip,
        packet: &[u8],
    ) -> Taken {
        let (Some((from, to)), Some(flags)) = (ip.ports(packet), packet.get(ip.payload + 13)) else {
            return Taken::No;
        };
        let ends = (SocketAddr::new(ip.destination, to), SocketAddr::new(ip.source, from));
        let known = self.tcp.as_ref().is_some_and(|tcp| tcp.knows(ends.0, ends.1));
        let server = self.servers.stream.get(&to).copied();
        let (opens, reset) = (flags & 0x12 == 0x02, flags & 0x04 != 0);
        if !known && reset {
            return Taken::No;
        }
        let hop = net.route(ip.source, None).map_or(1500, |hop| hop.mtu);
        let buffer = usize::try_from(hop).unwrap_or_default().clamp(4096, 16_384);
        let listener = server.filter(|_| opens && !known).map(|kind| (kind, buffer));
        let mut world = world!(self, now, calls, net);
        let tcp = world.tcp();
        if let Some((kind, buffer)) = listener {
            tcp.listen(ends.0, ends.1, kind, buffer);
        }
        for segment in digestible(&packet[ip.payload..ip.end], ip) {
            // smoltcp takes a plain header only.
            tcp.receive(now, ip::build((ip.source, ip.destination), ip::TCP, ip.hop_limit, None, &segment));
        }
        if known || listener.is_some() { Taken::Yes } else { Taken::No }
    }

    /// A datagram came in whole and with a right checksum.
    pub(crate) fn datagram(&mut self, now: Duration, calls: &dyn Calls, ip: &Ip, packet: &[u8]) -> Taken {
        let Some((from, to)) = ip.ports(packet) else {
            return Taken::No;
        };
        let length = u16_at(packet, ip.payload + 4).map_or(0, usize::from);
        let Some(datagram) = packet.get(ip.payload..ip.payload + length.max(8)) else {
            return Taken::No;
        };
        if self.servers.datagram.contains_key(&to) {
            let mut answer = [to.to_be_bytes(), from.to_be_bytes()].concat();
            answer.extend_from_slice(&datagram[4..6]);
            answer.extend_from_slice(&[0, 0]);
            answer.extend_from_slice(&datagram[8..]);
            let ends = (ip.destination, ip.source);
            ip::seal(ends, ip::UDP, 6, &mut answer);
            self.out.push(ip::build(ends, ip::UDP, 64, None, &answer));
            return Taken::Yes;
        }
        self.offer(now, calls, ClientKind::UdpEcho, SocketAddr::new(ip.source, from), to, &datagram[8..])
    }

    /// An echo reply came in: its message.
    pub(crate) fn echo_reply(
        &mut self,
        now: Duration,
        calls: &dyn Calls,
        from: IpAddr,
        message: &[u8],
    ) -> Taken {
        match (u16_at(message, 4), message.get(6..)) {
            (Some(identifier), Some(data)) => {
                self.offer(now, calls, ClientKind::Ping, SocketAddr::new(from, 0), identifier, data)
            }
            _ => Taken::No,
        }
    }

    fn offer(
        &mut self,
        now: Duration,
        calls: &dyn Calls,
        kind: ClientKind,
        from: SocketAddr,
        to: u16,
        data: &[u8],
    ) -> Taken {
        let taken = self.clients.values_mut().any(|client| client.datagram(now, calls, kind, from, to, data));
        if taken { Taken::Yes } else { Taken::No }
    }

    /// An ICMP error came in about a packet of this stack.
    pub(crate) fn error(&mut self, now: Duration, calls: &dyn Calls, net: &Net, report: &Report<'_>) {
        let about = &report.about;
        let Some((first, second)) = about.ports(report.quote).filter(|_| about.is_first()) else {
            return;
        };
        let about = match about.protocol {
            ip::TCP => About {
                to: about.destination,
                kinds: &[ClientKind::Http, ClientKind::TcpEcho],
                local: first,
                remote: Some(second),
            },
            ip::UDP => About {
                to: about.destination,
                kinds: &[ClientKind::UdpEcho],
                local: first,
                remote: Some(second),
            },
            ip::ICMP | ip::ICMPV6 => {
                let Some(identifier) = u16_at(report.quote, about.payload + 4) else {
                    return;
                };
                About { to: about.destination, kinds: &[ClientKind::Ping], local: identifier, remote: None }
            }
            _ => return,
        };
        let mut world = world!(self, now, calls, net);
        for client in self.clients.values_mut() {
            client.error(&mut world, &about, report.too_big.is_some());
        }
    }
}

/// A segment as smoltcp can take it: one that ends a connection and repeats data that is there already loses its end there, so the end
/// comes separately.
fn digestible(segment: &[u8], ip: &Ip) -> Vec<Vec<u8>> {
    let header = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    let (Some(flags), Some(sequence)) = (segment.get(13).copied(), u32_at(segment, 4)) else {
        return Vec::new();
    };
    if flags & FIN == 0 || header < 20 || segment.len() <= header {
        return vec![segment.to_vec()];
    }
    let mut data = segment.to_vec();
    data[13] = flags & !FIN;
    let mut end = segment[..header].to_vec();
    let length = u32::try_from(segment.len() - header).unwrap_or_default();
    put(&mut end, 4, &sequence.wrapping_add(length).to_be_bytes());
    for part in [&mut data, &mut end] {
        put(part, 16, &[0, 0]);
        ip::seal((ip.source, ip.destination), ip::TCP, 16, part);
    }
    vec![data, end]
}
