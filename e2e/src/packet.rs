//! Decodes captured frames as far as the packet profiles need: addresses, ports, TCP flags, ICMP kinds.
//!
//! Written from the RFCs and with no knowledge of the dataplane's own parser, so that one mistake does not hide the
//! other. Start at [`decode_ethernet`] or [`decode_network`]; the parts are in [`ip`] and [`transport`].

pub mod ip;
pub mod transport;

use std::net::IpAddr;

use thiserror::Error;

pub use transport::{Transport, flags};

/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Why a frame could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It ends before the header that is named.
    #[error("the frame ends within the {0} header")]
    Short(&'static str),
    /// A header says something that cannot be.
    #[error("the {0} header is malformed")]
    Malformed(&'static str),
}

/// One IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// What it carries.
    pub transport: Transport,
}

/// Decodes an Ethernet frame; `None` for what is not IP (ARP, LLDP, …).
pub fn decode_ethernet(frame: &[u8]) -> Result<Option<Packet>, DecodeError> {
    let mut rest = frame.get(12..).ok_or(DecodeError::Short("Ethernet"))?;
    loop {
        let ethertype = be16(rest, 0).ok_or(DecodeError::Short("Ethernet"))?;
        rest = &rest[2..];
        match ethertype {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => rest = rest.get(2..).ok_or(DecodeError::Short("VLAN"))?,
            _ => return decode_network(ethertype, rest),
        }
    }
}

/// Decodes what follows the link layer; `None` where the `EtherType` is not an IP version.
pub fn decode_network(ethertype: u16, payload: &[u8]) -> Result<Option<Packet>, DecodeError> {
    match ethertype {
        ETHERTYPE_IPV4 => ip::decode_v4(payload).map(Some),
        ETHERTYPE_IPV6 => ip::decode_v6(payload).map(Some),
        _ => Ok(None),
    }
}

/// Big-endian `u16` at `at`, if it is there.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
pub(crate) mod build {
    //! Frames for tests, made byte by byte.

    use std::net::IpAddr;

    /// A TCP segment without payload.
    pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(source.to_be_bytes());
        out.extend(destination.to_be_bytes());
        out.extend([0; 8]);
        out.extend([0x50, flags, 0, 64, 0, 0, 0, 0]);
        out
    }

    /// A UDP datagram.
    pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(source.to_be_bytes());
        out.extend(destination.to_be_bytes());
        out.extend(u16::try_from(8 + payload.len()).expect("small").to_be_bytes());
        out.extend([0, 0]);
        out.extend(payload);
        out
    }

    /// An ICMP or `ICMPv6` message.
    pub(crate) fn icmp(kind: u8) -> Vec<u8> {
        vec![kind, 0, 0, 0, 0, 1, 0, 1]
    }

    /// An Ethernet frame with an IP packet of the family of the addresses.
    pub(crate) fn frame(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![2; 12];
        let len = u16::try_from(payload.len()).expect("small");
        match (source.parse().expect("an address"), destination.parse().expect("an address")) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend([8, 0, 0x45, 0]);
                out.extend((len + 20).to_be_bytes());
                out.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                out.extend(source.octets());
                out.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend(len.to_be_bytes());
                out.extend([protocol, 64]);
                out.extend(source.octets());
                out.extend(destination.octets());
            }
            _ => panic!("one family"),
        }
        out.extend(payload);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_with_and_without_vlan_tags_reaches_the_ip_packet() {
        let plain = build::frame("10.0.0.1", "10.0.0.2", 6, &build::tcp(40000, 8080, flags::SYN));
        let packet = decode_ethernet(&plain).expect("decodes").expect("is IP");
        assert_eq!(packet.source.to_string(), "10.0.0.1");
        assert_eq!(packet.destination.to_string(), "10.0.0.2");
        assert_eq!(packet.hop_limit, 64);
        assert_eq!(
            packet.transport,
            Transport::Tcp { source_port: 40000, destination_port: 8080, flags: flags::SYN }
        );
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]);
        tagged.extend(&plain[12..]);
        assert_eq!(decode_ethernet(&tagged), Ok(Some(packet)));
    }

    #[test]
    fn what_is_not_ip_is_none_and_what_is_cut_is_an_error() {
        let mut arp = vec![0xff; 12];
        arp.extend([0x08, 0x06, 0, 1]);
        assert_eq!(decode_ethernet(&arp), Ok(None));
        assert_eq!(decode_ethernet(&[1; 13]), Err(DecodeError::Short("Ethernet")));
        let mut vlan = vec![0; 12];
        vlan.extend([0x81, 0, 0]);
        assert_eq!(decode_ethernet(&vlan), Err(DecodeError::Short("VLAN")));
    }

    #[test]
    fn no_cut_of_any_frame_panics() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for (protocol, payload) in [
                (6, build::tcp(1, 2, 2)),
                (17, build::udp(1, 53, b"x")),
                (1, build::icmp(8)),
                (0, vec![60, 9, 0, 0]),
            ] {
                let frame = build::frame(source, destination, protocol, &payload);
                for len in 0..frame.len() {
                    let _: Result<_, _> = decode_ethernet(&frame[..len]);
                }
            }
        }
    }
}
