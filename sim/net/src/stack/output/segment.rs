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
