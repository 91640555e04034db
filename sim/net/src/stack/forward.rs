//! Forwarding: what is addressed to somebody else.

use crate::frame::{ETHERNET, Frame};
use crate::icmp;
use crate::ip::{self, Ip};

use super::{Origin, Packet, Stack, StackDrop, Turn};

impl Stack {
    /// Passes a packet on, in the order of Linux: the route first, then the hop limit, then the size.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>, arrival: u32, frame: Frame, ip: Ip) {
        let packet = &frame.bytes[ETHERNET..ETHERNET + ip.end];
        if ip::is_link_local(ip.source) || ip::is_link_local(ip.destination) || ip.source.is_unspecified() {
            return turn.drop(frame, StackDrop::Martian);
        }
        let failure = if self.net.route(ip.destination, None).is_none() {
            Some((icmp::Error::NoRoute, StackDrop::NoRoute))
        } else if ip.hop_limit <= 1 {
            Some((icmp::Error::HopLimit, StackDrop::HopLimit))
        } else {
            None
        };
        if let Some((error, why)) = failure {
            let about = packet.to_vec();
            turn.drop(frame, why);
            return self.tell(turn, error, &about, Some(arrival));
        }
        let mut bytes = packet.to_vec();
        ip::hop(&mut bytes);
        self.output(turn, Packet { id: frame.id, bytes, via: Some(arrival) }, Origin::Foreign);
    }
}
