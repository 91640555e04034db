//! The stack that hosts and nodes share: frames in, frames out.
//!
//! `receive` takes what a link brought, `output` sends what leaves; between them lie delivery to local sockets (`local`), forwarding
//! (`forward`), neighbours (`neighbour`) and the tunnel (`tunnel`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::calls::Machine;
use crate::client::{ClientId, ClientReport, ClientSpec};
use crate::fragment::Reassembly;
use crate::frame::{
    ETHERNET, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, PacketId, mac_at, u16_at,
};
use crate::icmp;
use crate::ip::{self, Fault, Ip};
use crate::net::{Link, LinkKind, Net, Route};
use crate::sockets::{Server, Sockets};

mod forward;
mod local;
mod neighbour;
mod output;
mod tunnel;

use neighbour::Neighbour;

/// What a stack did with a frame, or what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leaves by this link: the link's egress program is next.
    Transmit {
        /// The link.
        ifindex: u32,
        /// What leaves.
        frame: Frame,
    },
    /// A VXLAN packet for this node came in: the inner frame appears on the overlay link, whose ingress program is next.
    Tunnelled {
        /// The overlay link.
        ifindex: u32,
        /// Where the outer packet came from.
        remote: IpAddr,
        /// The VXLAN network identifier.
        vni: u32,
        /// The inner frame.
        frame: Frame,
    },
    /// It ends here, delivered to a local socket or the stack itself.
    Local {
        /// What ended.
        frame: Frame,
    },
    /// It ends here.
    Dropped {
        /// What ended.
        frame: Frame,
        /// Why.
        why: StackDrop,
    },
}

/// Why a stack drops a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum StackDrop {
    /// The link is not there (any more).
    #[error("no such link")]
    NoLink,
    /// No route leads to the destination.
    #[error("no route")]
    NoRoute,
    /// It has travelled too far.
    #[error("hop limit exceeded")]
    HopLimit,
    /// It is longer than the next link takes and may not be fragmented.
    #[error("too big")]
    TooBig,
    /// Nobody answers for the next hop.
    #[error("no neighbour")]
    NoNeighbour,
    /// Too many packets wait for the next hop.
    #[error("neighbour queue full")]
    NeighbourQueue,
    /// A checksum is wrong.
    #[error("bad checksum")]
    BadChecksum,
    /// It is no packet.
    #[error("malformed")]
    Malformed,
    /// It is for somebody else: by link layer address, or the destination of an end host.
    #[error("not for us")]
    NotForUs,
    /// No socket is there for it.
    #[error("no socket")]
    NoSocket,
    /// An address that no packet may have where it came from.
    #[error("martian")]
    Martian,
    /// A protocol that the stack does not speak.
    #[error("unknown protocol")]
    UnknownProtocol,
}

/// One call: its time, and what comes of it.
pub(crate) struct Turn<'a> {
    pub(crate) now: Duration,
    pub(crate) machine: &'a mut dyn Machine,
    pub(crate) actions: Vec<Action>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Duration, machine: &'a mut dyn Machine) -> Self {
        Self { now, machine, actions: Vec::new() }
    }

    fn drop(&mut self, frame: Frame, why: StackDrop) {
        self.actions.push(Action::Dropped { frame, why });
    }
}

/// An IP packet on its way through the stack.
struct Packet {
    id: PacketId,
    bytes: Vec<u8>,
    /// The link that packets of a single link leave by.
    via: Option<u32>,
}

/// Where a packet comes from, which decides what becomes of it when it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Local,
    Tunnel,
    /// Somebody else's: forwarded, or given to a neighbour as it is.
    Foreign,
}

/// How a packet that was delivered ended.
enum Fate {
    Local,
    Dropped(StackDrop),
    Tunnelled { ifindex: u32, remote: IpAddr, vni: u32, inner: Vec<u8> },
}

impl From<Fault> for StackDrop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::Malformed,
            Fault::Checksum => Self::BadChecksum,
        }
    }
}

/// A stack.
pub(crate) struct Stack {
    net: Net,
    forwards: bool,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// When neighbours that do not answer yet are asked again.
    asked: BTreeSet<(Duration, u32, IpAddr)>,
    reassembly: Reassembly,
    sockets: Sockets,
    /// Packets to ourselves.
    loopback: VecDeque<Packet>,
    identification: u32,
    /// What ended outside of a call that gives actions.
    left: Vec<Action>,
}

impl Stack {
    pub(crate) fn new(seed: u64, forwards: bool) -> Self {
        let identification = u32::try_from(crate::frame::mix(seed, 1) >> 33).unwrap_or_default();
        Self {
            net: Net::default(),
            forwards,
            neighbours: BTreeMap::new(),
            asked: BTreeSet::new(),
            reassembly: Reassembly::default(),
            sockets: Sockets::new(seed),
            loopback: VecDeque::new(),
            identification,
            left: Vec::new(),
        }
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        let ifindex = link.ifindex;
        let renewed = self.net.links.get(&ifindex).is_some_and(|before| before.mac != link.mac);
        if renewed {
            self.forget_neighbours(ifindex);
        }
        self.net.set_link(link);
    }

    pub(crate) fn remove_link(&mut self, ifindex: u32) {
        self.forget_neighbours(ifindex);
        self.net.remove_link(ifindex);
    }

    pub(crate) fn set_routes(&mut self, routes: Vec<Route>) {
        self.net.set_routes(routes);
    }

    pub(crate) fn restrict_ports(&mut self, count: u16) {
        self.sockets.restrict_ports(count);
    }

    pub(crate) fn serve(&mut self, server: Server) {
        self.sockets.serve(server);
    }

    pub(crate) fn close(&mut self, port: u16) {
        self.sockets.close(port);
    }

    pub(crate) fn start(&mut self, now: Duration, client: ClientSpec) -> ClientId {
        self.sockets.start(now, &self.net, client)
    }

    pub(crate) fn client(&self, id: ClientId) -> Option<&ClientReport> {
        self.sockets.client(id)
    }

    pub(crate) fn stop(&mut self, id: ClientId) {
        self.sockets.stop(id);
    }

    /// Runs what is due: neighbours, sockets, packets to ourselves.
    pub(crate) fn run(&mut self, turn: &mut Turn<'_>) {
        turn.actions.append(&mut self.left);
        self.ask_again(turn);
        loop {
            self.sockets.step(turn.now, turn.machine.calls(), &self.net);
            let out = std::mem::take(&mut self.sockets.out);
            let quiet = out.is_empty() && self.loopback.is_empty();
            for bytes in out {
                let id = turn.machine.id();
                self.output(turn, Packet { id, bytes, via: None }, Origin::Local);
            }
            while let Some(packet) = self.loopback.pop_front() {
                self.loop_back(turn, &packet);
            }
            if quiet {
                break;
            }
        }
    }

    pub(crate) fn next(&mut self, now: Duration) -> Option<Duration> {
        if !self.left.is_empty() || !self.loopback.is_empty() || !self.sockets.out.is_empty() {
            return Some(now);
        }
        let asked = self.asked.first().map(|(at, _, _)| (*at).max(now));
        asked.into_iter().chain(self.sockets.next(now)).min()
    }

    /// A frame that a link brought.
    pub(crate) fn receive(&mut self, turn: &mut Turn<'_>, ifindex: u32, frame: Frame, accepted: bool) {
        let Some(link) = self.net.links.get(&ifindex) else {
            return turn.drop(frame, StackDrop::NoLink);
        };
        let (Some(to), Some(ethertype)) = (mac_at(&frame.bytes, 0), u16_at(&frame.bytes, 12)) else {
            return turn.drop(frame, StackDrop::Malformed);
        };
        let group = to[0] & 1 != 0;
        // Without ARP nobody knows an address, so none is asked for either.
        let unaddressed = to == [0; 6] && matches!(link.kind, LinkKind::Host | LinkKind::Overlay);
        if !accepted && !group && !unaddressed && to != link.mac {
            return turn.drop(frame, StackDrop::NotForUs);
        }
        match ethertype {
            ETHERTYPE_ARP => self.arp(turn, ifindex, frame),
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {
                let single = accepted || !group;
                match self.check(&frame.bytes[ETHERNET..], ethertype) {
                    Ok(ip) => self.sort(turn, ifindex, frame, ip, single),
                    Err(why) => turn.drop(frame, why),
                }
            }
            _ => turn.drop(frame, StackDrop::UnknownProtocol),
        }
    }

    /// What every packet from outside has to be.
    fn check(&self, packet: &[u8], ethertype: u16) -> Result<Ip, StackDrop> {
        let ip = Ip::parse(packet)?;
        if ip.source.is_ipv4() != (ethertype == ETHERTYPE_IPV4) {
            return Err(StackDrop::Malformed);
        }
        let ours = ip.source.is_ipv4() && self.net.is_own(ip.source);
        let nobody = ip.source.is_unspecified() && ip.source.is_ipv4();
        let impossible =
            ip::is_multicast(ip.source) || ip.source.is_loopback() || self.net.is_broadcast(ip.source);
        if ours || nobody || impossible || ip.destination.is_loopback() || ip.destination.is_unspecified() {
            return Err(StackDrop::Martian);
        }
        Ok(ip)
    }

    /// Ours, or somebody else's.
    fn sort(&mut self, turn: &mut Turn<'_>, ifindex: u32, frame: Frame, ip: Ip, single: bool) {
        let many = ip::is_multicast(ip.destination) || self.net.is_broadcast(ip.destination);
        if self.net.is_own(ip.destination) || (many && is_solicitation(&ip, &frame.bytes[ETHERNET..])) {
            let bytes = frame.bytes[ETHERNET..ETHERNET + ip.end].to_vec();
            let place = turn.actions.len();
            let fate = self.deliver(turn, ifindex, &bytes, ip);
            turn.actions.insert(place, ended(frame, fate));
        } else if many || !single || !self.forwards {
            turn.drop(frame, StackDrop::NotForUs);
        } else {
            self.forward(turn, ifindex, frame, ip);
        }
    }

    /// A packet that we sent to ourselves.
    fn loop_back(&mut self, turn: &mut Turn<'_>, packet: &Packet) {
        let frame = Frame::unaddressed(packet.id, &packet.bytes);
        let Ok(ip) = Ip::parse(&packet.bytes) else {
            return turn.drop(frame, StackDrop::Malformed);
        };
        let place = turn.actions.len();
        let arrival = packet.via.unwrap_or_default();
        let fate = self.deliver(turn, arrival, &packet.bytes, ip);
        turn.actions.insert(place, ended(frame, fate));
    }

    /// Tells the source of a packet what became of it.
    fn tell(&mut self, turn: &mut Turn<'_>, error: icmp::Error, about: &[u8], via: Option<u32>) {
        let Ok(ip) = Ip::parse(about) else {
            return;
        };
        let Some(from) = self.net.source(ip.source, via) else {
            return;
        };
        if let Some(bytes) = icmp::error(error, from, about) {
            let id = turn.machine.id();
            self.output(turn, Packet { id, bytes, via }, Origin::Local);
        }
    }
}

fn is_solicitation(ip: &Ip, packet: &[u8]) -> bool {
    let kind = packet.get(ip.payload).copied();
    ip.protocol == ip::ICMPV6 && matches!(kind, Some(icmp::V6_SOLICITATION | icmp::V6_ADVERTISEMENT))
}

fn ended(frame: Frame, fate: Fate) -> Action {
    match fate {
        Fate::Local => Action::Local { frame },
        Fate::Dropped(why) => Action::Dropped { frame, why },
        Fate::Tunnelled { ifindex, remote, vni, inner } => {
            Action::Tunnelled { ifindex, remote, vni, frame: Frame { id: frame.id, bytes: inner } }
        }
    }
}
