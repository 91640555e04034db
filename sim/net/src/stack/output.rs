//! The way out: route, size, next hop.

use crate::fragment;
use crate::frame::{Frame, Mac};
use crate::icmp;
use crate::ip::{self, Ip};

use super::{Action, Origin, Packet, Stack, StackDrop, Turn};

mod segment;

impl Stack {
    /// Sends a packet. If that cannot be, it is dropped and its source told.
    pub(super) fn output(&mut self, turn: &mut Turn<'_>, packet: Packet, origin: Origin) {
        let ip = match Ip::parse(&packet.bytes) {
            Ok(ip) => ip,
            Err(fault) => {
                return turn.drop(Frame::unaddressed(packet.id, &packet.bytes), fault.into());
            }
        };
        if origin != Origin::Foreign && self.net.is_own(ip.destination) {
            return self.loopback.push_back(packet);
        }
        let Some(hop) = self.net.route(ip.destination, packet.via) else {
            return self.fail(turn, &packet, origin, icmp::Error::NoRoute, StackDrop::NoRoute);
        };
        let mtu = match origin {
            Origin::Local | Origin::Tunnel => self.net.path_mtu(turn.now, ip.destination, &hop),
            Origin::Foreign => hop.mtu,
        };
        let most = usize::try_from(mtu).unwrap_or(usize::MAX);
        let pieces = if origin == Origin::Local && ip.protocol == ip::TCP && ip.piece.is_none() {
            segment::fit(packet.bytes, &ip, most)
        } else if ip.end <= most {
            vec![packet.bytes]
        } else if origin == Origin::Local || (ip.source.is_ipv4() && !ip.dont_fragment) {
            self.identification = self.identification.wrapping_add(1);
            fragment::cut(&packet.bytes, most, self.identification)
        } else {
            return self.fail(turn, &packet, origin, icmp::Error::TooBig(mtu), StackDrop::TooBig);
        };
        for (index, bytes) in pieces.into_iter().enumerate() {
            let id = if index == 0 { packet.id } else { turn.machine.id() };
            self.send(turn, hop.ifindex, hop.next, Packet { id, bytes, via: packet.via }, origin);
        }
    }

    /// Drops a packet that cannot go on, and tells its source.
    pub(super) fn fail(
        &mut self,
        turn: &mut Turn<'_>,
        packet: &Packet,
        origin: Origin,
        error: icmp::Error,
        why: StackDrop,
    ) {
        turn.drop(Frame::unaddressed(packet.id, &packet.bytes), why);
        if origin != Origin::Tunnel {
            self.tell(turn, error, &packet.bytes, packet.via);
        }
    }

    /// Sends a packet to a neighbour whose address is known.
    pub(super) fn transmit(turn: &mut Turn<'_>, ifindex: u32, to: Mac, from: Mac, packet: &Packet) {
        let frame = Frame::around_ip(packet.id, to, from, &packet.bytes);
        turn.actions.push(Action::Transmit { ifindex, frame });
    }
}
