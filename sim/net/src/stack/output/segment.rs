//! TCP segments that fit the way: cut as a kernel does it when it learns of a smaller path MTU (RFC 9293 section 3.7.5).

use crate::frame::{put, u16_at, u32_at};
use crate::ip::{self, Ip};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;

/// Cuts a segment of ours so that no packet is longer than `mtu`, and bounds the segment size that one with SYN announces. The packet
/// has a plain header.
pub(super) fn fit(mut packet: Vec<u8>, ip: &Ip, mtu: usize) -> Vec<Vec<u8>> {
    let at = ip.payload;
    let Some(flags) = packet.get(at + 13).copied() else {
        return vec![packet];
    };
    let header = packet.get(at + 12).map_or(20, |byte| usize::from(byte >> 4) * 4);
    let ends = (ip.source, ip.destination);
    if flags & SYN != 0 {
        clamp(&mut packet[at..ip.end], header, mtu.saturating_sub(at + 20));
        put(&mut packet, at + 16, &[0, 0]);
        ip::seal(ends, ip::TCP, 16, &mut packet[at..ip.end]);
    }
    let step = mtu.saturating_sub(at + header);
    if ip.end <= mtu || step == 0 || packet.len() < at + header {
        return vec![packet];
    }
    let data = &packet[at + header..ip.end];
    let sequence = u32_at(&packet, at + 4).unwrap_or_default();
    let chunks: Vec<&[u8]> = data.chunks(step).collect();
    let mut pieces = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut segment = packet[at..at + header].to_vec();
        let offset = u32::try_from(index * step).unwrap_or_default();
        put(&mut segment, 4, &sequence.wrapping_add(offset).to_be_bytes());
        if index + 1 < chunks.len() {
            segment[13] = flags & !(FIN | PSH);
        }
        put(&mut segment, 16, &[0, 0]);
        segment.extend_from_slice(chunk);
        ip::seal(ends, ip::TCP, 16, &mut segment);
        pieces.push(ip::build(ends, ip::TCP, ip.hop_limit, None, &segment));
    }
    pieces
}

/// Lowers the announced segment size, option 2 of a TCP header.
fn clamp(segment: &mut [u8], header: usize, most: usize) {
    let most = u16::try_from(most).unwrap_or(u16::MAX);
    let mut at = 20;
    while at < header {
        match segment.get(at) {
            None | Some(0) => return,
            Some(1) => at += 1,
            Some(kind) => {
                let Some(length) = segment.get(at + 1).copied().filter(|length| *length >= 2) else {
                    return;
                };
                if *kind == 2 && u16_at(segment, at + 2).is_some_and(|size| size > most) {
                    put(segment, at + 2, &most.to_be_bytes());
                }
                at += usize::from(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::checksum;

    fn segment(v4: bool, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let text = if v4 { ("10.0.0.1", "10.0.0.2") } else { ("fd00::1", "fd00::2") };
        let ends: (IpAddr, IpAddr) = (text.0.parse().unwrap(), text.1.parse().unwrap());
        let offset = u8::try_from((20 + options.len()) / 4 * 16).unwrap();
        let mut segment =
            vec![1, 1, 0, 80, 0xFF, 0xFF, 0xFF, 0xF0, 0, 0, 0, 9, offset, flags, 4, 0, 0, 0, 0, 0];
        segment.extend_from_slice(options);
        segment.extend_from_slice(data);
        ip::seal(ends, ip::TCP, 16, &mut segment);
        ip::build(ends, ip::TCP, 64, None, &segment)
    }

    fn fitted(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        fit(packet.to_vec(), &Ip::parse(packet).unwrap(), mtu)
    }

    #[test]
    fn cut_segments_are_the_same_stream() {
        let data: Vec<u8> = (0..3000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for v4 in [true, false] {
            let pieces = fitted(&segment(v4, FIN | PSH | 0x10, &[1, 1, 1, 1], &data), 1300);
            let mut stream = Vec::new();
            let mut expected = 0xFFFF_FFF0_u32;
            for (index, piece) in pieces.iter().enumerate() {
                assert!(piece.len() <= 1300);
                let ip = Ip::parse(piece).unwrap();
                let segment = &piece[ip.payload..];
                assert_eq!(checksum::transport(ip.source, ip.destination, ip::TCP, segment), 0);
                assert_eq!(u32_at(segment, 4), Some(expected));
                let last = index + 1 == pieces.len();
                assert_eq!(segment[13], if last { FIN | PSH | 0x10 } else { 0x10 });
                stream.extend_from_slice(&segment[24..]);
                expected = expected.wrapping_add(u32::try_from(segment.len() - 24).unwrap());
            }
            assert_eq!(stream, data);
        }
    }

    #[test]
    fn the_announced_size_fits_the_way() {
        for (v4, size) in [(true, 1400 - 40), (false, 1400 - 60)] {
            let announced = |mtu, options: &[u8]| {
                let out = fitted(&segment(v4, SYN, options, &[]), mtu).remove(0);
                let ip = Ip::parse(&out).unwrap();
                let segment = &out[ip.payload..];
                assert_eq!(checksum::transport(ip.source, ip.destination, ip::TCP, segment), 0);
                u16_at(segment, 20 + 2 + options.iter().take_while(|kind| **kind == 1).count())
            };
            assert_eq!(announced(1400, &[2, 4, 0x22, 0xC4]), Some(size));
            assert_eq!(announced(1400, &[1, 1, 1, 1, 2, 4, 0x22, 0xC4]), Some(size));
            assert_eq!(announced(1400, &[2, 4, 2, 0]), Some(512), "less stays");
        }
    }
}
