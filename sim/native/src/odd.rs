//! What pods send besides what they are told to: packets that are not theirs, and packets in unusual dress.
//!
//! A packet with another's source must never arrive, nor one that a pod has wrapped as if a tunnel had brought it. One with IPv4 options or IPv6 extension headers is as good as any.

mod probe;

use std::net::IpAddr;

use sim_net::{Frame, PacketId};
use sim_scenario::rng::Rng;

use crate::queue::NodeId;
use crate::view::{self, ICMP, ICMP6, UDP, View};
use crate::world::World;

/// One packet in so many is followed by a forged copy.
const FORGED: u64 = 150;
/// One packet in so many is dressed up.
const DRESSED: u64 = 40;
/// Length of the header of a VXLAN packet.
const VXLAN_HEADER: usize = 8;

/// What pods that send odd packets remember.
pub(crate) struct Odd {
    /// What a pod sent a moment ago, for another that forges it.
    last_sent: Option<Vec<u8>>,
    /// What decides on probes.
    rng: Rng,
}

impl Odd {
    /// Nothing was sent yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self { last_sent: None, rng: Rng::stream(seed, "odd", 0) }
    }
}

impl World {
    /// Perhaps dresses a packet of a pod up, and perhaps makes others after it. `mtu`: the most that the pod may send.
    pub(crate) fn make_odd(&mut self, n: NodeId, frame: &mut Frame, mtu: usize) -> Vec<Frame> {
        let plain = |view: &View| {
            !view.is_to_many() && !view.is_of_link() && !view.fragment && !view.is_neighbour_discovery()
        };
        let view = self.odd.as_ref().and_then(|_| View::of(&frame.bytes)).filter(plain);
        let Some(view) = view else { return Vec::new() };
        let forged = (self.rng.below(FORGED) == 0).then(|| self.forge(frame, &view, mtu)).flatten();
        let probe = self.probe(n, frame, &view, mtu);
        let can = matches!(view.proto, UDP | ICMP | ICMP6) && !view.is_icmp_error() && view.len + 8 <= mtu;
        if can && self.rng.below(DRESSED) == 0 {
            dress_up(&mut frame.bytes, view.src.is_ipv4());
        }
        if self.rng.below(8) == 0
            && let Some(odd) = &mut self.odd
        {
            odd.last_sent = Some(frame.bytes.clone());
        }
        let mut more = Vec::new();
        for bytes in [forged, probe].into_iter().flatten() {
            self.last_packet += 1;
            more.push(Frame { id: PacketId(self.last_packet), bytes });
        }
        more
    }

    /// The packet as if somebody else had sent it.
    fn forge(&mut self, frame: &Frame, view: &View, mtu: usize) -> Option<Vec<u8>> {
        let mut bytes = frame.bytes.clone();
        match self.rng.below(4) {
            0 => {
                let at = if view.src.is_ipv4() { 26..30 } else { 22..38 };
                // A neighbour of the sender, who may or may not be there.
                *bytes.get_mut(at)?.last_mut()? ^= 1 << self.rng.below(3);
                view::seal(&mut bytes);
            }
            1 => *bytes.get_mut(11)? ^= 1,
            2 => bytes = self.wrap(frame, view, mtu)?,
            _ => {
                // What another pod has just sent, into its connection, but from here.
                let mine = bytes.get(..12)?.to_vec();
                bytes = self.odd.as_ref()?.last_sent.clone()?;
                if bytes.get(6..12) == mine.get(6..12) {
                    return None;
                }
                bytes.get_mut(..12)?.copy_from_slice(&mine);
            }
        }
        Some(bytes)
    }

    /// What another pod has just sent, in a packet of the tunnel (RFC 7348) to a node, with an identity of the sender's choice.
    fn wrap(&mut self, frame: &Frame, view: &View, mtu: usize) -> Option<Vec<u8>> {
        let inner = self.odd.as_ref()?.last_sent.clone()?;
        let node = usize::try_from(self.rng.below(u64::try_from(self.nodes.len()).ok()?)).ok()?;
        let family = |to: &&IpAddr| to.is_ipv4() == view.src.is_ipv4();
        let to = *self.nodes[node].addresses.iter().find(family)?;
        let length = u16::try_from(8 + VXLAN_HEADER + inner.len()).ok()?;
        let mut bytes = frame.bytes.get(..14)?.to_vec();
        match (view.src, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend([0x45, 0]);
                bytes.extend((20 + length).to_be_bytes());
                bytes.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
                bytes.extend(from.octets().iter().chain(&to.octets()));
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x60, 0, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([UDP, 64]);
                bytes.extend(from.octets().iter().chain(&to.octets()));
            }
            _ => return None,
        }
        bytes.extend([50_000_u16, view::TUNNEL_PORT, length, 0].map(u16::to_be_bytes).concat());
        let identity = u8::try_from(self.rng.below(256)).unwrap_or_default();
        bytes.extend([8, 0, 0, 0, 0, 1, identity, 0]);
        bytes.extend(inner);
        view::seal(&mut bytes);
        (bytes.len() - 14 <= mtu).then_some(bytes)
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
