//! Delivery: what is addressed to this stack.

use crate::checksum;
use crate::frame::u16_at;
use crate::icmp;
use crate::ip::{self, Ip};
use crate::sockets::Taken;

use super::{Fate, Origin, Packet, Stack, StackDrop, Turn, tunnel};

impl Stack {
    /// Takes a packet for one of our addresses.
    pub(super) fn deliver(&mut self, turn: &mut Turn<'_>, arrival: u32, packet: &[u8], ip: Ip) -> Fate {
        if ip.piece.is_none() {
            return self.deliver_whole(turn, arrival, packet, ip);
        }
        let Some(whole) = self.reassembly.add(turn.now, &ip, packet) else {
            return Fate::Local;
        };
        match Ip::parse(&whole) {
            Ok(ip) => self.deliver_whole(turn, arrival, &whole, ip),
            Err(fault) => Fate::Dropped(fault.into()),
        }
    }

    fn deliver_whole(&mut self, turn: &mut Turn<'_>, arrival: u32, packet: &[u8], ip: Ip) -> Fate {
        let payload = &packet[ip.payload..ip.end];
        match (ip.protocol, ip.source.is_ipv4()) {
            (ip::ICMP, true) => {
                if payload.len() < 8 {
                    return Fate::Dropped(StackDrop::Malformed);
                }
                if checksum::of(payload) != 0 {
                    return Fate::Dropped(StackDrop::BadChecksum);
                }
                self.icmp(turn, arrival, &ip, payload)
            }
            (ip::ICMPV6, false) => {
                if payload.len() < 8 {
                    return Fate::Dropped(StackDrop::Malformed);
                }
                if checksum::transport(ip.source, ip.destination, ip::ICMPV6, payload) != 0 {
                    return Fate::Dropped(StackDrop::BadChecksum);
                }
                if matches!(payload[0], icmp::V6_SOLICITATION | icmp::V6_ADVERTISEMENT) {
                    return self.discovery(turn, arrival, &ip, payload);
                }
                self.icmp(turn, arrival, &ip, payload)
            }
            (ip::UDP, _) => self.udp(turn, arrival, packet, &ip),
            (ip::TCP, _) => {
                if payload.len() < 20 {
                    return Fate::Dropped(StackDrop::Malformed);
                }
                if checksum::transport(ip.source, ip.destination, ip::TCP, payload) != 0 {
                    return Fate::Dropped(StackDrop::BadChecksum);
                }
                fate(self.sockets.segment(turn.now, turn.machine.calls(), &self.net, &ip, packet))
            }
            _ => {
                self.tell(turn, icmp::Error::ProtocolUnreachable, packet, Some(arrival));
                Fate::Dropped(StackDrop::UnknownProtocol)
            }
        }
    }

    fn icmp(&mut self, turn: &mut Turn<'_>, arrival: u32, ip: &Ip, message: &[u8]) -> Fate {
        let v4 = ip.source.is_ipv4();
        let (request, reply) = if v4 {
            (icmp::V4_ECHO_REQUEST, icmp::V4_ECHO_REPLY)
        } else {
            (icmp::V6_ECHO_REQUEST, icmp::V6_ECHO_REPLY)
        };
        if message[0] == request {
            let protocol = if v4 { ip::ICMP } else { ip::ICMPV6 };
            let ends = (ip.destination, ip.source);
            let mut answer = vec![reply, 0, 0, 0];
            answer.extend_from_slice(&message[4..]);
            ip::seal(ends, protocol, 2, &mut answer);
            let bytes = ip::build(ends, protocol, 64, None, &answer);
            let id = turn.machine.id();
            self.output(turn, Packet { id, bytes, via: Some(arrival) }, Origin::Local);
            return Fate::Local;
        }
        if message[0] == reply {
            return fate(self.sockets.echo_reply(turn.now, turn.machine.calls(), ip.source, message));
        }
        let Some(report) = icmp::report(v4, message).filter(|report| self.net.is_own(report.about.source))
        else {
            return Fate::Dropped(StackDrop::UnknownProtocol);
        };
        if let Some(mtu) = report.too_big {
            self.net.learn_path_mtu(turn.now, report.about.destination, mtu);
        }
        self.sockets.error(turn.now, turn.machine.calls(), &self.net, &report);
        Fate::Local
    }

    fn udp(&mut self, turn: &mut Turn<'_>, arrival: u32, packet: &[u8], ip: &Ip) -> Fate {
        let payload = &packet[ip.payload..ip.end];
        let (Some(to), Some(length), Some(sum)) =
            (u16_at(payload, 2), u16_at(payload, 4), u16_at(payload, 6))
        else {
            return Fate::Dropped(StackDrop::Malformed);
        };
        let Some(datagram) = payload.get(..usize::from(length)).filter(|datagram| datagram.len() >= 8) else {
            return Fate::Dropped(StackDrop::Malformed);
        };
        let overlay = if to == tunnel::PORT { self.overlay() } else { None };
        // IPv6 allows a tunnel to go without (RFC 6935).
        let unsummed = sum == 0 && (ip.source.is_ipv4() || overlay.is_some());
        if !unsummed && (sum == 0 || checksum::transport(ip.source, ip.destination, ip::UDP, datagram) != 0) {
            return Fate::Dropped(StackDrop::BadChecksum);
        }
        if let Some(ifindex) = overlay {
            return tunnel::open(ifindex, ip.source, &datagram[8..]);
        }
        match self.sockets.datagram(turn.now, turn.machine.calls(), ip, packet) {
            Taken::Yes => Fate::Local,
            Taken::No => {
                self.tell(turn, icmp::Error::PortUnreachable, packet, Some(arrival));
                Fate::Dropped(StackDrop::NoSocket)
            }
        }
    }
}

fn fate(taken: Taken) -> Fate {
    match taken {
        Taken::Yes => Fate::Local,
        Taken::No => Fate::Dropped(StackDrop::NoSocket),
    }
}
