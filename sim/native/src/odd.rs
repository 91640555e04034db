//! What pods send besides what they are told to: packets that are not theirs, and packets in unusual dress.
//!
//! A packet with another's source must never arrive. One with IPv4 options or IPv6 extension headers is as good as any.

use sim_net::{Frame, PacketId};

use crate::view::{self, ICMP, ICMP6, UDP, View};
use crate::world::World;

/// One packet in so many is followed by a forged copy.
const FORGED: u64 = 150;
/// One packet in so many is dressed up.
const DRESSED: u64 = 40;

impl World {
    /// Perhaps dresses a packet of a pod up, and perhaps forges another from it.
    pub(crate) fn make_odd(&mut self, frame: &mut Frame, mtu: usize) -> Option<Frame> {
        let view = View::of(&frame.bytes)?;
        if view.is_to_many() || view.is_of_link() || view.fragment || view.is_neighbour_discovery() {
            return None;
        }
        let forged = (self.rng.below(FORGED) == 0).then(|| self.forge(frame, &view)).flatten();
        let can = matches!(view.proto, UDP | ICMP | ICMP6) && !view.is_icmp_error() && view.len + 8 <= mtu;
        if can && self.rng.below(DRESSED) == 0 {
            dress_up(&mut frame.bytes, view.src.is_ipv4());
        }
        if self.rng.below(8) == 0 {
            self.last_sent = Some(frame.bytes.clone());
        }
        forged
    }

    /// The packet as if somebody else had sent it.
    fn forge(&mut self, frame: &Frame, view: &View) -> Option<Frame> {
        let mut bytes = frame.bytes.clone();
        match self.rng.below(3) {
            0 => {
                let at = if view.src.is_ipv4() { 26..30 } else { 22..38 };
                // A neighbour of the sender, who may or may not be there.
                *bytes.get_mut(at)?.last_mut()? ^= 1 << self.rng.below(3);
                view::seal(&mut bytes);
            }
            1 => *bytes.get_mut(11)? ^= 1,
            _ => {
                // What another pod has just sent, into its connection, but from here.
                let mine = bytes.get(..12)?.to_vec();
                bytes = self.last_sent.clone()?;
                if bytes.get(6..12) == mine.get(6..12) {
                    return None;
                }
                bytes.get_mut(..12)?.copy_from_slice(&mine);
            }
        }
        self.last_packet += 1;
        Some(Frame { id: PacketId(self.last_packet), bytes })
    }
}

/// Puts options that say nothing behind the IP header.
fn dress_up(bytes: &mut Vec<u8>, v4: bool) {
    if v4 {
        // Four times NOP (RFC 791), if the header is a plain one.
        if bytes.get(14) != Some(&0x45) {
            return;
        }
        bytes[14] = 0x46;
        let len = u16::from_be_bytes([bytes[16], bytes[17]]).saturating_add(4);
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        bytes.splice(34..34, [1; 4]);
    } else {
        // Destination options with PadN (RFC 8200, section 4.2).
        let next = std::mem::replace(&mut bytes[20], 60);
        let len = u16::from_be_bytes([bytes[18], bytes[19]]).saturating_add(8);
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
    }
    view::seal(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dressed_packet_is_the_same_packet() {
        let mut v4 = vec![2; 12];
        v4.extend([8, 0, 0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        v4.extend([0x10, 0, 0, 53, 0, 10, 0, 0, 7, 7]);
        let mut v6 = vec![2; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
        v6.extend([0xfd; 32]);
        v6.extend([0x10, 0, 0, 53, 0, 10, 0, 0, 7, 7]);
        for (mut frame, is_v4) in [(v4, true), (v6, false)] {
            view::seal(&mut frame);
            let before = View::of(&frame).unwrap();
            dress_up(&mut frame, is_v4);
            let after = View::of(&frame).unwrap();
            assert!(after.sums_ok);
            assert_eq!((after.proto, after.ports), (before.proto, before.ports));
            assert!(after.len > before.len);
        }
    }
}
