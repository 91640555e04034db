//! Clients: what a process of a host asks of others, and what came of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::calls::{Caller, Calls};
use crate::frame::mix;
use crate::ip;
use crate::net::Net;
use crate::ports::Ports;
use crate::sockets::Servers;
use crate::tcp::Tcp;
use crate::tcp::serve::{CALLER, SERVER};

mod datagram;
mod stream;

use datagram::Datagrams;
use stream::{Echo, Http};

/// Names a client of a host or node. Never used again there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u32);

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ClientKind {
    /// Echo requests with one identifier and sequence numbers from 1, `size` bytes of data each.
    Ping,
    /// One connection a request: `GET /` if `size` is zero, otherwise `GET /size` for so many bytes. The answer must be complete
    /// within `timeout`.
    Http,
    /// One connection. Segments of `size` bytes; the next one `interval` after an echo came back or was given up. A reset, an ICMP
    /// error before it is established, or the other side's end ends it.
    TcpEcho,
    /// Datagrams of `size` bytes from one port, at least 4: their sequence number.
    UdpEcho,
}

/// What a client is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientSpec {
    /// What it does.
    pub kind: ClientKind,
    /// Whom it asks.
    pub to: IpAddr,
    /// At which port; means nothing for ping.
    pub port: u16,
    /// How often; zero: until it is stopped.
    pub count: u32,
    /// Time from one request to the next; for the echo over TCP from an answer to the next request. A request over HTTP waits for the
    /// end of the one before.
    pub interval: Duration,
    /// Bytes of a request, see [`ClientKind`].
    pub size: u16,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What came of a client so far. Requests that are neither answered, refused nor reset when they are over are lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientReport {
    /// When it started.
    pub started: Duration,
    /// Requests that were sent; a connection that is sought counts as one.
    pub sent: u32,
    /// Requests with a right answer in time.
    pub answered: u32,
    /// Connections that were reset, also before they were established.
    pub resets: u32,
    /// ICMP errors about its packets other than "too big", and requests for which there was no way.
    pub refused: u32,
    /// ICMP errors that said that a packet is too big.
    pub too_big: u32,
    /// When the last right answer came.
    pub last_answer: Option<Duration>,
    /// The source port or echo identifier in use, or the last that was.
    pub local_port: Option<u16>,
    /// It will do no more.
    pub finished: bool,
    /// The longest time that an answer took.
    pub round_trips: Duration,
    /// Answers over HTTP, by the address of who gave them and the one at which they saw this client.
    pub answers: BTreeMap<(IpAddr, IpAddr), u32>,
}

impl ClientReport {
    fn answer(&mut self, asked: Duration, now: Duration) {
        self.answered += 1;
        self.last_answer = Some(now);
        self.round_trips = self.round_trips.max(now.saturating_sub(asked));
    }

    /// Takes in what the head of an answer says of who gave it.
    fn answered_by(&mut self, head: &[u8]) {
        let text = String::from_utf8_lossy(head);
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        if let (Some(server), Some(caller)) = (field(SERVER), field(CALLER)) {
            *self.answers.entry((server, caller)).or_default() += 1;
        }
    }
}

/// What clients act on.
pub(crate) struct World<'a> {
    pub(crate) now: Duration,
    pub(crate) calls: &'a dyn Calls,
    pub(crate) cookies: &'a mut u64,
    pub(crate) net: &'a Net,
    pub(crate) seed: u64,
    pub(crate) engines: &'a mut u64,
    pub(crate) tcp: &'a mut Option<Box<Tcp>>,
    pub(crate) ports: &'a mut Ports,
    pub(crate) servers: &'a Servers,
    /// IP packets to send.
    pub(crate) out: &'a mut Vec<Vec<u8>>,
}

impl World<'_> {
    /// A new socket.
    fn socket(&mut self, protocol: u8) -> Caller {
        *self.cookies += 1;
        Caller { socket: mix(self.seed, *self.cookies), protocol }
    }

    /// A source port that nobody uses.
    fn port(&mut self) -> Option<u16> {
        let servers = self.servers;
        self.ports.take(|port| servers.uses(port))
    }

    /// The TCP engine; it is made when somebody needs it.
    pub(crate) fn tcp(&mut self) -> &mut Tcp {
        let (now, seed, net) = (self.now, self.seed, self.net);
        let engines = &mut *self.engines;
        self.tcp.get_or_insert_with(|| {
            *engines += 1;
            let mtu = net.links.values().map(|link| link.mtu).max().unwrap_or(1500);
            Box::new(Tcp::new(now, mix(seed, *engines), mtu))
        })
    }
}

enum Work {
    Datagrams(Datagrams),
    Http(Http),
    Echo(Echo),
}

/// A client at work.
pub(crate) struct Client {
    spec: ClientSpec,
    report: ClientReport,
    work: Work,
    /// The socket of a client that keeps one.
    caller: Option<Caller>,
    /// What it held is given back.
    ended: bool,
}

impl Client {
    pub(crate) fn start(world: &mut World<'_>, identifier: u16, spec: ClientSpec) -> Self {
        let now = world.now;
        let mut report = ClientReport { started: now, ..ClientReport::default() };
        let work = match spec.kind {
            ClientKind::Ping => {
                report.local_port = Some(identifier);
                Work::Datagrams(Datagrams::new(now))
            }
            ClientKind::UdpEcho => {
                report.local_port = world.port();
                Work::Datagrams(Datagrams::new(now))
            }
            ClientKind::Http => Work::Http(Http::new(now)),
            ClientKind::TcpEcho => Work::Echo(Echo::new(now)),
        };
        let caller = (spec.kind == ClientKind::UdpEcho).then(|| world.socket(ip::UDP));
        Self { spec, report, work, caller, ended: false }
    }

    pub(crate) fn report(&self) -> &ClientReport {
        &self.report
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, world: &mut World<'_>) {
        let (spec, report) = (&self.spec, &mut self.report);
        if !report.finished {
            match &mut self.work {
                Work::Datagrams(datagrams) => datagrams.step(world, self.caller, spec, report),
                Work::Http(http) => http.step(world, spec, report),
                Work::Echo(echo) => echo.step(world, spec, report),
            }
        }
        if self.report.finished && !self.ended {
            self.ended = true;
            self.end(world);
        }
    }

    /// When the next step is due if nothing comes in.
    pub(crate) fn next(&self) -> Option<Duration> {
        if self.report.finished {
            return (!self.ended).then_some(Duration::ZERO);
        }
        match &self.work {
            Work::Datagrams(datagrams) => datagrams.next(&self.spec, &self.report),
            Work::Http(http) => Some(http.next(&self.spec)),
            Work::Echo(echo) => Some(echo.next(&self.spec)),
        }
    }

    /// Ends it, whatever it is doing; the next step gives back what it holds.
    pub(crate) fn stop(&mut self) {
        self.report.finished = true;
    }

    fn end(&mut self, world: &mut World<'_>) {
        match &mut self.work {
            Work::Datagrams(_) => {
                if let (ClientKind::UdpEcho, Some(port)) = (self.spec.kind, self.report.local_port) {
                    world.ports.give_back(port);
                }
            }
            Work::Http(http) => http.end(world),
            Work::Echo(echo) => echo.end(world),
        }
    }

    /// An echo reply or datagram came in; true if it is for this client.
    pub(crate) fn datagram(
        &mut self,
        now: Duration,
        calls: &dyn Calls,
        kind: ClientKind,
        from: SocketAddr,
        to: u16,
        data: &[u8],
    ) -> bool {
        let (spec, report) = (&self.spec, &mut self.report);
        let is_its = !report.finished && spec.kind == kind && report.local_port == Some(to);
        // Only the process whose socket it is is told who sent it.
        let from = self.caller.filter(|_| is_its).map_or(from, |caller| calls.sender(caller, from));
        let expected = kind == ClientKind::Ping || from.port() == spec.port;
        let ours = is_its && spec.to == from.ip() && expected;
        if let (true, Work::Datagrams(datagrams)) = (ours, &mut self.work) {
            datagrams.answer(now, spec, report, data);
        }
        ours
    }

    /// An ICMP error came in about a packet that this stack sent to `to`, with these ports (or, for ping, identifier).
    pub(crate) fn error(&mut self, world: &mut World<'_>, about: &About, too_big: bool) {
        let peer = match &self.work {
            Work::Datagrams(datagrams) => datagrams.peer(),
            Work::Http(http) => http.peer(),
            Work::Echo(echo) => echo.peer(),
        };
        let peer = peer.unwrap_or(SocketAddr::new(self.spec.to, self.spec.port));
        let ours = about.to == peer.ip()
            && about.kinds.contains(&self.spec.kind)
            && self.report.local_port == Some(about.local)
            && about.remote.is_none_or(|port| port == peer.port());
        if !ours || self.report.finished {
            return;
        }
        if too_big {
            self.report.too_big += 1;
            return;
        }
        self.report.refused += 1;
        match &mut self.work {
            Work::Datagrams(_) => {}
            Work::Http(http) => http.refused(world),
            Work::Echo(echo) => {
                if echo.refused(world) {
                    self.stop();
                }
            }
        }
    }
}

/// Which packet an ICMP error is about.
pub(crate) struct About {
    pub(crate) to: IpAddr,
    pub(crate) kinds: &'static [ClientKind],
    pub(crate) local: u16,
    pub(crate) remote: Option<u16>,
}
