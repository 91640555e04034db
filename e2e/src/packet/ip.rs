//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DecodeError, Packet, Transport, be16, transport};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// More extension headers than this are taken for an attack or a loop.
const MAX_EXTENSIONS: usize = 16;

/// Decodes an IPv4 packet.
pub fn decode_v4(bytes: &[u8]) -> Result<Packet, DecodeError> {
    let fixed: &[u8; 20] = bytes.first_chunk().ok_or(DecodeError::Short("IPv4"))?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header_len < 20 {
        return Err(DecodeError::Malformed("IPv4"));
    }
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    // A capture taken before segmentation offload may state 0; then the frame's own end counts.
    let end = if total_len >= header_len { total_len.min(bytes.len()) } else { bytes.len() };
    let payload = bytes.get(header_len..end).ok_or(DecodeError::Short("IPv4"))?;
    let fragment_offset = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff;
    let transport =
        if fragment_offset == 0 { transport::decode(fixed[9], payload)? } else { Transport::Fragment };
    Ok(Packet {
        source: IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15])),
        destination: IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19])),
        hop_limit: fixed[8],
        transport,
    })
}

/// Decodes an IPv6 packet, walking over its extension headers.
pub fn decode_v6(bytes: &[u8]) -> Result<Packet, DecodeError> {
    let (fixed, mut rest) = bytes.split_first_chunk::<40>().ok_or(DecodeError::Short("IPv6"))?;
    if fixed[0] >> 4 != 6 {
        return Err(DecodeError::Malformed("IPv6"));
    }
    let mut next = fixed[6];
    let mut transport = None;
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => {
                length(rest)?.saturating_mul(8).saturating_add(8)
            }
            AUTHENTICATION => length(rest)?.saturating_mul(4).saturating_add(8),
            FRAGMENT => {
                let offset = be16(rest, 2).ok_or(DecodeError::Short("IPv6 fragment"))?;
                if offset >> 3 != 0 {
                    transport = Some(Transport::Fragment);
                    break;
                }
                8
            }
            NO_NEXT => {
                transport = Some(Transport::Other { protocol: NO_NEXT });
                break;
            }
            _ => {
                transport = Some(transport::decode(next, rest)?);
                break;
            }
        };
        next = *rest.first().ok_or(DecodeError::Short("IPv6 extension"))?;
        rest = rest.get(len..).ok_or(DecodeError::Short("IPv6 extension"))?;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok(Packet {
        source: address(8),
        destination: address(24),
        hop_limit: fixed[7],
        transport: transport.ok_or(DecodeError::Malformed("IPv6 extension"))?,
    })
}

fn length(header: &[u8]) -> Result<usize, DecodeError> {
    header.get(1).map(|len| usize::from(*len)).ok_or(DecodeError::Short("IPv6 extension"))
}

#[cfg(test)]
mod tests {
    use super::super::{build, decode_ethernet, flags};
    use super::*;

    fn transport(frame: &[u8]) -> Result<Transport, DecodeError> {
        decode_ethernet(frame).map(|packet| packet.expect("is IP").transport)
    }

    #[test]
    fn ipv4_options_are_walked_over() {
        let mut frame = build::frame("10.0.0.1", "10.0.0.2", 6, &[]);
        frame[14] = 0x46;
        frame[17] = 44;
        frame.extend([1, 1, 1, 0]);
        frame.extend(build::tcp(1, 2, flags::FIN | flags::ACK));
        assert_eq!(
            transport(&frame),
            Ok(Transport::Tcp { source_port: 1, destination_port: 2, flags: flags::FIN | flags::ACK })
        );
    }

    #[test]
    fn ethernet_padding_is_not_taken_for_payload() {
        let mut frame = build::frame("10.0.0.1", "10.0.0.2", 6, &[0; 4]);
        frame.extend([0; 40]);
        assert_eq!(transport(&frame), Err(DecodeError::Short("TCP")));
    }

    #[test]
    fn later_fragments_have_no_ports_and_first_ones_do() {
        let mut frame = build::frame("10.0.0.1", "10.0.0.2", 17, &build::udp(7, 53, b"abcd"));
        frame[14 + 6] = 0x20;
        assert_eq!(transport(&frame), Ok(Transport::Udp { source_port: 7, destination_port: 53 }));
        frame[14 + 7] = 3;
        assert_eq!(transport(&frame), Ok(Transport::Fragment));

        let mut payload = vec![17, 0, 0, 0, 0, 0, 0, 1];
        payload.extend(build::udp(7, 53, b"abcd"));
        let mut frame = build::frame("fd00::1", "fd00::2", 44, &payload);
        assert_eq!(transport(&frame), Ok(Transport::Udp { source_port: 7, destination_port: 53 }));
        frame[54 + 3] = 8;
        assert_eq!(transport(&frame), Ok(Transport::Fragment));
    }

    #[test]
    fn ipv6_extension_headers_are_walked_over() {
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(build::icmp(128));
        let frame = build::frame("fd00::1", "fd00::2", 0, &payload);
        assert_eq!(transport(&frame), Ok(Transport::Icmp6 { kind: 128, code: 0 }));
    }

    #[test]
    fn endless_extension_headers_and_wrong_versions_are_malformed() {
        let payload = [0, 0, 1, 4, 0, 0, 0, 0].repeat(40);
        let frame = build::frame("fd00::1", "fd00::2", 0, &payload);
        assert_eq!(transport(&frame), Err(DecodeError::Malformed("IPv6 extension")));
        assert_eq!(decode_v4(&[0x65; 40]), Err(DecodeError::Malformed("IPv4")));
        assert_eq!(decode_v6(&[0x45; 40]), Err(DecodeError::Malformed("IPv6")));
        assert_eq!(decode_v4(&[0x44; 40]), Err(DecodeError::Malformed("IPv4")));
    }
}
