//! The little that a switch reads of frames: Ethernet addresses, and the IP ends to tell the API server's traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER: usize = 14;

/// An Ethernet address.
pub(super) type Address = [u8; 6];

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

/// Destination and source.
pub(super) fn addresses(frame: &[u8]) -> Option<(Address, Address)> {
    Some((bytes(frame, 0)?, bytes(frame, 6)?))
}

/// Whether it is for more than one station.
pub(super) const fn is_group(address: Address) -> bool {
    address[0] & 1 == 1
}

/// Source and destination of the IP packet in a frame (ARP: sender and target).
pub(super) fn ip_ends(frame: &[u8]) -> Option<[IpAddr; 2]> {
    let v4 = |at| Some(IpAddr::V4(Ipv4Addr::from(bytes::<4>(frame, at)?)));
    let v6 = |at| Some(IpAddr::V6(Ipv6Addr::from(bytes::<16>(frame, at)?)));
    match bytes::<2>(frame, 12)? {
        [0x08, 0x00] => Some([v4(26)?, v4(30)?]),
        [0x08, 0x06] => Some([v4(28)?, v4(38)?]),
        [0x86, 0xdd] => Some([v6(22)?, v6(38)?]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: [u8; 2], at: usize, ends: &[&[u8]]) -> Vec<u8> {
        let mut frame = vec![0; 80];
        frame[12..14].copy_from_slice(&kind);
        let mut at = at;
        for end in ends {
            frame[at..at + end.len()].copy_from_slice(end);
            at += end.len();
        }
        frame
    }

    #[test]
    fn ends_are_found_in_both_families_and_in_arp() {
        let v4: [IpAddr; 2] = ["10.0.0.1".parse().expect("v4"), "10.0.0.2".parse().expect("v4")];
        assert_eq!(ip_ends(&frame([8, 0], 26, &[&[10, 0, 0, 1], &[10, 0, 0, 2]])), Some(v4));
        let arp = frame([8, 6], 28, &[&[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]]);
        assert_eq!(ip_ends(&arp), Some(v4));
        let (a, b): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().expect("v6"), "fd00::2".parse().expect("v6"));
        let v6 = frame([0x86, 0xdd], 22, &[&a.octets(), &b.octets()]);
        assert_eq!(ip_ends(&v6), Some([a.into(), b.into()]));
        assert_eq!(ip_ends(&frame([0x88, 0xcc], 22, &[])), None);
        assert_eq!(ip_ends(&[0; 13]), None);
        assert_eq!(ip_ends(&frame([8, 0], 26, &[])[..33]), None);
    }
}
