//! The frames that are measured: plain UDP and TCP with a small payload and the highest hop limit.

use std::net::IpAddr;

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// Bytes of payload.
const PAYLOAD: u8 = 18;
const HOPS: u8 = 255;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Flags of TCP (RFC 9293).
pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;

/// A UDP frame. Both ends must be of one family.
pub(super) fn udp(dst_mac: [u8; 6], src_mac: [u8; 6], src: End, dst: End) -> Vec<u8> {
    frame([dst_mac, src_mac], src, dst, UDP, &[0, 8 + PAYLOAD, 0, 0])
}

/// A TCP frame with these flags. Both ends must be of one family.
pub(super) fn tcp(dst_mac: [u8; 6], src_mac: [u8; 6], src: End, dst: End, flags: u8) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 1, 0, 0, 0, 0, 0];
    frame([dst_mac, src_mac], src, dst, TCP, &rest)
}

/// `rest` is the header of the transport after its ports.
fn frame(macs: [[u8; 6]; 2], src: End, dst: End, proto: u8, rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(4 + rest.len()).unwrap_or(u8::MAX) + PAYLOAD;
    let mut frame = macs.concat();
    match (src.ip, dst.ip) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0, 0, 20 + length, 0, 1, 0x40, 0, HOPS, proto, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (from, to) => {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, length, proto, HOPS]);
            for ip in [from, to] {
                match ip {
                    IpAddr::V6(ip) => frame.extend(ip.octets()),
                    IpAddr::V4(ip) => frame.extend(ip.to_ipv6_mapped().octets()),
                }
            }
        }
    }
    frame.extend(src.port.to_be_bytes());
    frame.extend(dst.port.to_be_bytes());
    frame.extend(rest);
    frame.resize(frame.len() + usize::from(PAYLOAD), 0xA5);
    frame
}

/// The Internet checksum (RFC 1071) of a header of even length.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_well_formed() {
        let end = |ip: &str| End { ip: ip.parse().expect("an address"), port: 7 };
        let v4 = udp([1; 6], [2; 6], end("10.0.0.1"), end("10.0.0.2"));
        assert_eq!(v4.len(), 14 + 20 + 8 + 18);
        assert_eq!((v4[17], v4[39]), (20 + 8 + 18, 8 + 18), "lengths of IP and UDP");
        // A header with its checksum in place sums to zero.
        assert_eq!(checksum(&v4[14..34]), 0);
        let v6 = udp([1; 6], [2; 6], end("fd00::1"), end("fd00::2"));
        assert_eq!(v6.len(), 14 + 40 + 8 + 18);
        assert_eq!(&v6[12..14], &[0x86, 0xDD]);
        let syn = tcp([1; 6], [2; 6], end("10.0.0.1"), end("10.0.0.2"), SYN);
        assert_eq!(syn.len(), 14 + 20 + 20 + 18);
        assert_eq!((syn[23], &syn[34..38], syn[46], syn[47]), (TCP, [0, 7, 0, 7].as_slice(), 0x50, SYN));
        assert_eq!(checksum(&syn[14..34]), 0);
    }
}
