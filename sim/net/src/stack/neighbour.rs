//! Neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861), as far as a stack needs them to send.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::Mac;
use crate::frame::{
    BROADCAST, ETHERNET, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, mac_at, put, u16_at, u32_at,
};
use crate::icmp;
use crate::ip::{self, Ip};
use crate::net::{LinkKind, group_mac, solicited_node};

use super::{Action, Fate, Origin, Packet, Stack, StackDrop, Turn};

/// Time between questions, and how many are asked: what Linux takes.
const PATIENCE: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;
/// Bytes that wait for one neighbour: what Linux takes, enough for all fragments of a datagram.
const MOST_WAITING: usize = 212_992;
/// Source and target link layer address options (RFC 4861 section 4.6.1).
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ROUTER: u8 = 0x80;

/// What is known of a neighbour.
pub(super) enum Neighbour {
    Known(Mac),
    Asked { questions: u32, again: Duration, waiting: VecDeque<(Packet, Origin)> },
}

impl Stack {
    /// A frame that goes to a neighbour of a link, whatever its destination is.
    pub(crate) fn reach(&mut self, turn: &mut Turn<'_>, ifindex: u32, next: IpAddr, frame: Frame) {
        let fits = matches!(u16_at(&frame.bytes, 12), Some(ETHERTYPE_IPV4 | ETHERTYPE_IPV6));
        match Ip::parse(frame.bytes.get(ETHERNET..).unwrap_or_default()) {
            Ok(ip) if fits => {
                let bytes = frame.bytes[ETHERNET..ETHERNET + ip.end].to_vec();
                self.send(turn, ifindex, next, Packet { id: frame.id, bytes, via: None }, Origin::Foreign);
            }
            Ok(_) => turn.drop(frame, StackDrop::UnknownProtocol),
            Err(fault) => turn.drop(frame, fault.into()),
        }
    }

    /// Sends a packet to a neighbour; it waits if the neighbour's address is not known yet.
    pub(super) fn send(
        &mut self,
        turn: &mut Turn<'_>,
        ifindex: u32,
        next: IpAddr,
        packet: Packet,
        origin: Origin,
    ) {
        let Some(link) = self.net.links.get(&ifindex) else {
            return turn.drop(Frame::unaddressed(packet.id, &packet.bytes), StackDrop::NoLink);
        };
        let own = link.mac;
        let fixed = match &link.kind {
            _ if ip::is_multicast(next) || self.net.is_broadcast(next) => Some(match next {
                IpAddr::V4(address) if !address.is_multicast() => BROADCAST,
                _ => group_mac(next),
            }),
            LinkKind::Host | LinkKind::Overlay => Some(own),
            LinkKind::Pod { neighbours } => {
                neighbours.iter().find(|(address, _)| *address == next).map(|(_, mac)| *mac)
            }
            LinkKind::Underlay => None,
        };
        if let Some(mac) = fixed {
            return Self::transmit(turn, ifindex, mac, own, &packet);
        }
        match self.neighbours.get_mut(&(ifindex, next)) {
            Some(Neighbour::Known(mac)) => Self::transmit(turn, ifindex, *mac, own, &packet),
            Some(Neighbour::Asked { waiting, .. }) => {
                waiting.push_back((packet, origin));
                // The oldest give way, as in Linux.
                let mut bytes: usize = waiting.iter().map(|(packet, _)| packet.bytes.len()).sum();
                while bytes > MOST_WAITING
                    && let Some((oldest, _)) = waiting.pop_front()
                {
                    bytes -= oldest.bytes.len();
                    turn.drop(Frame::unaddressed(oldest.id, &oldest.bytes), StackDrop::NeighbourQueue);
                }
            }
            None => {
                self.ask(turn, ifindex, next, &packet);
                let again = turn.now + PATIENCE;
                let waiting = VecDeque::from([(packet, origin)]);
                self.neighbours.insert((ifindex, next), Neighbour::Asked { questions: 1, again, waiting });
                self.asked.insert((again, ifindex, next));
            }
        }
    }

    /// Asks once more for neighbours that are silent, and gives up those that were asked often enough.
    pub(super) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, ifindex, next)) = self.asked.first().copied().filter(|(at, _, _)| *at <= turn.now)
        {
            self.asked.remove(&(at, ifindex, next));
            let Some(mut neighbour) = self.neighbours.remove(&(ifindex, next)) else {
                continue;
            };
            let Neighbour::Asked { questions, again, waiting } = &mut neighbour else {
                continue;
            };
            if *questions >= QUESTIONS {
                for (packet, origin) in waiting.drain(..) {
                    self.fail(turn, &packet, origin, icmp::Error::HostUnreachable, StackDrop::NoNeighbour);
                }
                continue;
            }
            *questions += 1;
            *again = at + PATIENCE;
            self.asked.insert((*again, ifindex, next));
            if let Some((packet, _)) = waiting.front() {
                self.ask(turn, ifindex, next, packet);
            }
            self.neighbours.insert((ifindex, next), neighbour);
        }
    }

    /// Forgets all neighbours of a link; what waits for them is dropped.
    pub(super) fn forget_neighbours(&mut self, ifindex: u32) {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut of_link = self.neighbours.split_off(&(ifindex, lowest));
        if let Some(above) = ifindex.checked_add(1) {
            self.neighbours.append(&mut of_link.split_off(&(above, lowest)));
        }
        self.asked.retain(|(_, of, _)| *of != ifindex);
        for neighbour in of_link.into_values() {
            if let Neighbour::Asked { waiting, .. } = neighbour {
                self.left.extend(waiting.into_iter().map(|(packet, _)| Action::Dropped {
                    frame: Frame::unaddressed(packet.id, &packet.bytes),
                    why: StackDrop::NoLink,
                }));
            }
        }
    }

    /// Somebody says where an address is. Without `create` only what is in use is renewed.
    fn learn(&mut self, turn: &mut Turn<'_>, ifindex: u32, address: IpAddr, mac: Mac, create: bool) {
        let Some(own) = self.net.links.get(&ifindex).map(|link| link.mac) else {
            return;
        };
        let before = self.neighbours.remove(&(ifindex, address));
        if before.is_none() && !create {
            return;
        }
        self.neighbours.insert((ifindex, address), Neighbour::Known(mac));
        if let Some(Neighbour::Asked { again, waiting, .. }) = before {
            self.asked.remove(&(again, ifindex, address));
            for (packet, _) in waiting {
                Self::transmit(turn, ifindex, mac, own, &packet);
            }
        }
    }

    /// Sends the question for a neighbour. It comes from the source of the packet that waits, if that is an address of ours.
    fn ask(&mut self, turn: &mut Turn<'_>, ifindex: u32, next: IpAddr, packet: &Packet) {
        let Some(link) = self.net.links.get(&ifindex) else {
            return;
        };
        let (own, source) = (link.mac, Ip::quoted(&packet.bytes).map(|ip| ip.source));
        let id = turn.machine.id();
        let frame = match next {
            IpAddr::V4(target) => {
                let source = source.filter(|source| source.is_ipv4() && self.net.is_own(*source));
                let from = match source.or_else(|| self.net.source_on(ifindex, next, next)) {
                    Some(IpAddr::V4(from)) => from,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let body = arp(1, (own, from), ([0; 6], target));
                Frame::around(id, BROADCAST, own, ETHERTYPE_ARP, &body)
            }
            IpAddr::V6(target) => {
                let source = source.filter(|source| source.is_ipv6() && self.net.is_own_on(*source, ifindex));
                let from = source.unwrap_or_else(|| ip::link_local(own).into());
                let group = solicited_node(target).into();
                let mut message = vec![icmp::V6_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
                message.extend_from_slice(&target.octets());
                message.extend_from_slice(&[SOURCE_OPTION, 1]);
                message.extend_from_slice(&own);
                ip::seal((from, group), ip::ICMPV6, 2, &mut message);
                let packet = ip::build((from, group), ip::ICMPV6, 255, None, &message);
                Frame::around(id, group_mac(group), own, ETHERTYPE_IPV6, &packet)
            }
        };
        turn.actions.push(Action::Transmit { ifindex, frame });
    }

    /// An ARP frame came in.
    pub(super) fn arp(&mut self, turn: &mut Turn<'_>, ifindex: u32, frame: Frame) {
        let body = &frame.bytes[ETHERNET..];
        let known = body.get(..6) == Some(&[0, 1, 8, 0, 6, 4]);
        let (Some(operation), Some(mac), Some(sender), Some(target)) =
            (u16_at(body, 6), mac_at(body, 8), u32_at(body, 14), u32_at(body, 24))
        else {
            return turn.drop(frame, StackDrop::Malformed);
        };
        let (sender, target) = (Ipv4Addr::from(sender), Ipv4Addr::from(target));
        let own = self.net.links.get(&ifindex).filter(|link| speaks(&link.kind)).map(|link| link.mac);
        let (Some(own), true) = (own, known && mac[0] & 1 == 0 && matches!(operation, 1 | 2)) else {
            return turn.drop(frame, StackDrop::Malformed);
        };
        let asks_us = operation == 1 && self.net.is_own(target.into());
        let to_us = mac_at(&frame.bytes, 0) == Some(own);
        if self.net.is_own(sender.into()) {
            return turn.drop(frame, StackDrop::Martian);
        }
        turn.actions.push(if asks_us || to_us || sender == target {
            Action::Local { frame }
        } else {
            Action::Dropped { frame, why: StackDrop::NotForUs }
        });
        if !sender.is_unspecified() {
            self.learn(turn, ifindex, sender.into(), mac, asks_us);
        }
        if asks_us {
            let body = arp(2, (own, target), (mac, sender));
            let frame = Frame::around(turn.machine.id(), mac, own, ETHERTYPE_ARP, &body);
            turn.actions.push(Action::Transmit { ifindex, frame });
        }
    }

    /// A solicitation or advertisement came in, with a right checksum.
    pub(super) fn discovery(&mut self, turn: &mut Turn<'_>, ifindex: u32, ip: &Ip, message: &[u8]) -> Fate {
        // What comes from further away than the link is forged (RFC 4861 section 7.1).
        let octets = message.get(8..24).and_then(|target| <[u8; 16]>::try_from(target).ok());
        let (Some(octets), 255, 0) = (octets, ip.hop_limit, message[1]) else {
            return Fate::Dropped(StackDrop::Malformed);
        };
        let target = IpAddr::V6(Ipv6Addr::from(octets));
        let own = self.net.links.get(&ifindex).filter(|link| speaks(&link.kind)).map(|link| link.mac);
        let Some(own) = own.filter(|_| !target.is_multicast()) else {
            return Fate::Dropped(StackDrop::Malformed);
        };
        if message[0] == icmp::V6_ADVERTISEMENT {
            if let Some(mac) = option(message, TARGET_OPTION) {
                self.learn(turn, ifindex, target, mac, false);
            }
            return Fate::Local;
        }
        let ours =
            self.net.is_own(target) && (!ip::is_link_local(target) || self.net.is_own_on(target, ifindex));
        if !ours {
            return Fate::Dropped(StackDrop::NotForUs);
        }
        let asker = option(message, SOURCE_OPTION).filter(|_| !ip.source.is_unspecified());
        if let Some(mac) = asker {
            self.learn(turn, ifindex, ip.source, mac, true);
        }
        let (to, flags) = if ip.source.is_unspecified() {
            (IpAddr::V6(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1)), OVERRIDE)
        } else {
            (ip.source, OVERRIDE | SOLICITED)
        };
        let mut answer = vec![icmp::V6_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0];
        answer[4] = if self.forwards { flags | ROUTER } else { flags };
        answer.extend_from_slice(&octets);
        answer.extend_from_slice(&[TARGET_OPTION, 1]);
        answer.extend_from_slice(&own);
        ip::seal((target, to), ip::ICMPV6, 2, &mut answer);
        let bytes = ip::build((target, to), ip::ICMPV6, 255, None, &answer);
        let id = turn.machine.id();
        self.send(turn, ifindex, to, Packet { id, bytes, via: Some(ifindex) }, Origin::Tunnel);
        Fate::Local
    }
}

/// Links that ask and answer.
fn speaks(kind: &LinkKind) -> bool {
    matches!(kind, LinkKind::Underlay | LinkKind::Pod { .. })
}

/// The body of an ARP frame.
fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 0];
    put(&mut body, 6, &operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        body.extend_from_slice(&mac);
        body.extend_from_slice(&address.octets());
    }
    body
}

/// A link layer address among the options of a message.
fn option(message: &[u8], kind: u8) -> Option<Mac> {
    let mut at = 24;
    loop {
        let length = usize::from(*message.get(at + 1)?) * 8;
        if length == 0 {
            return None;
        }
        if message[at] == kind {
            return mac_at(message, at + 2).filter(|mac| mac[0] & 1 == 0);
        }
        at += length;
    }
}
