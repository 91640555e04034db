//! Packets that a pod sends besides its own, and that change nothing for its connections: what has one hop left, what is
//! too large, what is about somebody else's connection, questions on the link.

use std::net::IpAddr;

use sim_net::Frame;

use crate::queue::NodeId;
use crate::view::{self, AUTHENTICATION, ICMP, ICMP6, TCP, UDP, View};
use crate::world::World;

/// One packet in so many is followed by a probe.
const PROBED: u64 = 40;
/// SYN.
const SYN: u8 = 2;
/// Ports that no stack takes for its clients.
const STRANGE_PORTS: u64 = 2000;
/// What ICMP errors say that a way takes: as much as any here.
const ROOMY_MTU: u32 = 1500;
/// Group of the neighbours that may have an address (RFC 4291, section 2.7.1), without its last three bytes.
const SOLICITED: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];

impl World {
    /// Perhaps a packet that follows what a pod of a node has sent.
    pub(super) fn probe(&mut self, n: NodeId, frame: &Frame, view: &View, mtu: usize) -> Option<Vec<u8>> {
        let away = self.owner(view.dst).is_some_and(|(m, ..)| m != n);
        let odd = self.odd.as_mut()?;
        if odd.rng.below(PROBED) != 0 {
            return None;
        }
        let strange = u16::try_from(STRANGE_PORTS + odd.rng.below(1000)).ok()?;
        let last_sent = odd.last_sent.as_ref();
        let probe = match odd.rng.below(8) {
            0 => with_one_hop(begun_from(&frame.bytes, view, strange)?, view.src.is_ipv4()),
            1 => {
                let mut bytes = begun_from(&frame.bytes, view, strange)?;
                *bytes.get_mut(11)? ^= 1;
                bytes
            }
            2 if away => return padded(&frame.bytes, view, mtu + 1 + usize::from(strange) % 40),
            3 if view.src.is_ipv6() => authenticated(&frame.bytes)?,
            4 => error_about(&frame.bytes, view, last_sent?)?,
            5 => {
                let about = last_sent?;
                error_about(&frame.bytes, view, &begun_from(about, &View::of(about)?, strange)?)?
            }
            6 => asks_for(&frame.bytes, view.src, view.src)?,
            7 if view.src.is_ipv6() => asks_for(&frame.bytes, view.src, beside(view.src, strange))?,
            _ => return None,
        };
        (probe.len() <= mtu + 14).then_some(probe)
    }
}

/// The packet as if it began a connection from another port, if it may begin one.
fn begun_from(frame: &[u8], view: &View, port: u16) -> Option<Vec<u8>> {
    let at = upper(frame, view)?;
    let may = match view.proto {
        TCP => view.flags & 0x12 == SYN,
        UDP => true,
        _ => matches!(view.echo, Some((true, _))),
    };
    if !may || view.is_for_tunnel() {
        return None;
    }
    let field = if matches!(view.proto, TCP | UDP) { at } else { at + 4 };
    let mut bytes = frame.to_vec();
    bytes.get_mut(field..field + 2)?.copy_from_slice(&port.to_be_bytes());
    view::seal(&mut bytes);
    Some(bytes)
}

/// Where the header behind a plain IP header begins.
fn upper(frame: &[u8], view: &View) -> Option<usize> {
    match view.src {
        IpAddr::V4(_) => (frame.get(14) == Some(&0x45)).then_some(34),
        IpAddr::V6(_) => (frame.get(20) == Some(&view.proto)).then_some(54),
    }
}

fn with_one_hop(mut bytes: Vec<u8>, v4: bool) -> Vec<u8> {
    bytes[if v4 { 22 } else { 21 }] = 1;
    view::seal(&mut bytes);
    bytes
}

/// A datagram with so much more in it that its IP packet is of that length, not to be cut.
fn padded(frame: &[u8], view: &View, len: usize) -> Option<Vec<u8>> {
    let at = upper(frame, view)?;
    if !matches!(view.proto, UDP | ICMP | ICMP6) || view.is_icmp_error() || view.is_for_tunnel() {
        return None;
    }
    let mut bytes = frame.get(..14 + view.len)?.to_vec();
    bytes.resize(14 + len, 0);
    let set = |bytes: &mut Vec<u8>, at: usize, value: usize| {
        let value = u16::try_from(value).ok()?;
        bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
        Some(())
    };
    if view.src.is_ipv4() {
        set(&mut bytes, 16, len)?;
        bytes[20] |= 0x40;
    } else {
        set(&mut bytes, 18, len - 40)?;
    }
    if view.proto == UDP {
        set(&mut bytes, at + 4, 14 + len - at)?;
    }
    view::seal(&mut bytes);
    Some(bytes)
}

/// The packet behind an authentication header.
fn authenticated(frame: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = frame.to_vec();
    let next = *bytes.get(20)?;
    if !matches!(next, TCP | UDP | ICMP6) {
        return None;
    }
    bytes[20] = AUTHENTICATION;
    let len = u16::from_be_bytes([bytes[18], bytes[19]]).saturating_add(24);
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    // Six words of four bytes, of which two are not counted; then index, number and check value.
    let mut header = [0; 24];
    header[..2].copy_from_slice(&[next, 4]);
    header[4..].fill(7);
    bytes.splice(54..54, header);
    view::seal(&mut bytes);
    Some(bytes)
}

/// An ICMP error that says of a packet that it is too large, from the sender of another one to the sender of that packet.
fn error_about(frame: &[u8], view: &View, about: &[u8]) -> Option<Vec<u8>> {
    let quoted = View::of(about)?;
    let about = about.get(14..14 + quoted.len.min(500))?;
    let mut bytes = frame.get(..14)?.to_vec();
    let length = u16::try_from(8 + about.len()).ok()?;
    if quoted.is_icmp_error() || quoted.src == view.src {
        return None;
    }
    match (view.src, quoted.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend([0x45, 0]);
            bytes.extend((20 + length).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
            bytes.extend(from.octets().iter().chain(&to.octets()));
            bytes.extend([3, 4, 0, 0]);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([ICMP6, 64]);
            bytes.extend(from.octets().iter().chain(&to.octets()));
            bytes.extend([2, 0, 0, 0]);
        }
        _ => return None,
    }
    bytes.extend(ROOMY_MTU.to_be_bytes());
    bytes.extend(about);
    view::seal(&mut bytes);
    Some(bytes)
}

/// An address of the same pod CIDR that nobody gets here.
fn beside(address: IpAddr, port: u16) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [.., last] = v6.segments();
            let mut segments = v6.segments();
            segments[7] = last ^ 0x4000 ^ port;
            IpAddr::from(segments)
        }
    }
}

/// A question on the link for an address: for IPv4 an ARP probe (RFC 5227), else a solicitation (RFC 4861, section 4.3).
fn asks_for(frame: &[u8], asker: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    let mac = frame.get(6..12)?;
    match (asker, target) {
        (IpAddr::V4(_), IpAddr::V4(target)) => {
            let mut bytes = vec![0xff; 6];
            bytes.extend(mac);
            bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            bytes.extend(mac);
            bytes.extend([0; 10]);
            bytes.extend(target.octets());
            Some(bytes)
        }
        (IpAddr::V6(asker), IpAddr::V6(target)) => {
            let of_target = target.octets();
            let mut bytes = vec![0x33, 0x33, 0xff];
            bytes.extend(&of_target[13..]);
            bytes.extend(mac);
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, ICMP6, 255]);
            bytes.extend(asker.octets());
            bytes.extend(SOLICITED.iter().chain(&of_target[13..]));
            bytes.extend([135, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(of_target);
            bytes.extend([1, 1]);
            bytes.extend(mac);
            view::seal(&mut bytes);
            Some(bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(v4: bool) -> (Vec<u8>, View) {
        let mut frame = vec![2; 12];
        if v4 {
            frame.extend([8, 0, 0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
            frame.extend([0xfd; 32]);
        }
        frame.extend([0x10, 0, 0, 53, 0, 10, 0, 0, 7, 7]);
        view::seal(&mut frame);
        let view = View::of(&frame).unwrap();
        (frame, view)
    }

    #[test]
    fn probes_are_packets_with_right_sums() {
        for v4 in [true, false] {
            let (frame, view) = datagram(v4);
            let begun = begun_from(&frame, &view, 2222).unwrap();
            assert_eq!(View::of(&begun).unwrap().ports, Some((2222, 53)));
            let last = View::of(&with_one_hop(begun, v4)).unwrap();
            assert_eq!((last.hops, last.sums_ok), (1, true));
            let large = View::of(&padded(&frame, &view, 1480).unwrap()).unwrap();
            assert_eq!((large.len, large.sums_ok, large.ports), (1480, true, view.ports));
        }
    }

    #[test]
    fn behind_an_authentication_header_is_the_same_datagram() {
        let (frame, view) = datagram(false);
        let after = View::of(&authenticated(&frame).unwrap()).unwrap();
        assert_eq!((after.proto, after.ports, after.sums_ok), (view.proto, view.ports, true));
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        for v4 in [true, false] {
            let (frame, mut view) = datagram(v4);
            assert_eq!(error_about(&frame, &view, &frame), None, "nobody tells himself");
            view.src =
                if v4 { IpAddr::from([10, 0, 0, 9]) } else { IpAddr::from([0xfd; 16].map(|b: u8| b - 1)) };
            let told = View::of(&error_about(&frame, &view, &frame).unwrap()).unwrap();
            assert!(told.is_icmp_error() && told.sums_ok);
            assert_eq!(told.quotes.unwrap().ports, Some((4096, 53)));
        }
    }
}
