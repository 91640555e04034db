//! Fragments of IPv4 (RFC 791) and IPv6 (RFC 8200 section 4.5): made, and put together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::checksum;
use crate::frame::{put, u16_at};
use crate::ip::{self, Ip, V6_HEADER};

/// Packets that may be incomplete at a time.
const MOST_PACKETS: usize = 64;
/// How long a packet may be incomplete: what Linux takes for IPv4, and RFC 8200 section 4.5 for IPv6.
const PATIENCE_V4: Duration = Duration::from_secs(30);
const PATIENCE_V6: Duration = Duration::from_secs(60);
/// What IP can carry.
const MOST_BYTES: usize = 65_535;

/// Cuts a packet so that no piece is longer than `mtu`. Options of IPv4 go into every piece; IPv6 extension headers are taken as
/// part of what is cut, which is right for our own packets: they have none.
pub(crate) fn cut(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let Ok(ip) = Ip::parse(packet) else {
        return Vec::new();
    };
    let packet = &packet[..ip.end];
    if ip.source.is_ipv4() { cut_v4(packet, &ip, mtu, id) } else { cut_v6(packet, mtu, id) }
}

fn cut_v4(packet: &[u8], ip: &Ip, mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let (header, data) = packet.split_at(ip.payload);
    let step = mtu.saturating_sub(header.len()) / 8 * 8;
    if step == 0 {
        return Vec::new();
    }
    let (start, more_after) = ip.piece.map_or((0, false), |piece| (piece.offset, piece.more));
    let mut pieces = Vec::new();
    for (index, chunk) in data.chunks(step).enumerate() {
        let last = (index + 1) * step >= data.len();
        let mut piece = header.to_vec();
        piece.extend_from_slice(chunk);
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        put(&mut piece, 2, &length.to_be_bytes());
        // A fragment that is cut again keeps its identification; so does a packet that has one.
        if ip.piece.is_none() && u16_at(packet, 4) == Some(0) {
            let low = u16::try_from(id & 0xFFFF).unwrap_or_default();
            put(&mut piece, 4, &low.to_be_bytes());
        }
        let units = u16::try_from((start + index * step) / 8).unwrap_or(0x1FFF) & 0x1FFF;
        let flags = units | if more_after || !last { 0x2000 } else { 0 };
        put(&mut piece, 6, &flags.to_be_bytes());
        put(&mut piece, 10, &[0, 0]);
        let sum = checksum::of(&piece[..header.len()]);
        put(&mut piece, 10, &sum.to_be_bytes());
        pieces.push(piece);
    }
    pieces
}

fn cut_v6(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let (header, data) = packet.split_at(V6_HEADER);
    let step = mtu.saturating_sub(V6_HEADER + 8) / 8 * 8;
    if step == 0 {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    for (index, chunk) in data.chunks(step).enumerate() {
        let last = (index + 1) * step >= data.len();
        let mut piece = header.to_vec();
        piece[6] = ip::FRAGMENT;
        let length = u16::try_from(chunk.len() + 8).unwrap_or(u16::MAX);
        put(&mut piece, 4, &length.to_be_bytes());
        let field = u16::try_from(index * step).unwrap_or(0xFFF8) | u16::from(!last);
        piece.extend_from_slice(&[header[6], 0]);
        piece.extend_from_slice(&field.to_be_bytes());
        piece.extend_from_slice(&id.to_be_bytes());
        piece.extend_from_slice(chunk);
        pieces.push(piece);
    }
    pieces
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

struct Partial {
    until: Duration,
    parts: BTreeMap<usize, Vec<u8>>,
    total: Option<usize>,
    header: Option<(Ip, Vec<u8>)>,
}

/// Packets of which some fragments are there. What stays incomplete is forgotten in silence.
#[derive(Default)]
pub(crate) struct Reassembly {
    partial: BTreeMap<Key, Partial>,
}

impl Reassembly {
    /// Takes a fragment; gives the whole packet if it was the last one missing. A packet with overlapping fragments is discarded
    /// (RFC 5722).
    pub(crate) fn add(&mut self, now: Duration, ip: &Ip, packet: &[u8]) -> Option<Vec<u8>> {
        let piece = ip.piece?;
        let data = packet.get(ip.payload..ip.end)?;
        let key = Key {
            source: ip.source,
            destination: ip.destination,
            id: piece.id,
            protocol: if ip.source.is_ipv4() { ip.protocol } else { 0 },
        };
        self.partial.retain(|_, partial| partial.until > now);
        if self.partial.len() >= MOST_PACKETS && !self.partial.contains_key(&key) {
            return None;
        }
        let bad = (piece.more && data.len() % 8 != 0) || piece.offset + data.len() > MOST_BYTES;
        let patience = if ip.source.is_ipv4() { PATIENCE_V4 } else { PATIENCE_V6 };
        let partial = self.partial.entry(key).or_insert_with(|| Partial {
            until: now + patience,
            parts: BTreeMap::new(),
            total: None,
            header: None,
        });
        if bad || !partial.place(piece.offset, piece.more, data) {
            self.partial.remove(&key);
            return None;
        }
        if piece.offset == 0 && partial.header.is_none() {
            partial.header = Some((*ip, packet[..ip.payload].to_vec()));
        }
        let whole = partial.whole()?;
        self.partial.remove(&key);
        Some(whole)
    }
}

impl Partial {
    fn place(&mut self, offset: usize, more: bool, data: &[u8]) -> bool {
        let end = offset + data.len();
        if self.parts.get(&offset).is_some_and(|there| there == data) {
            return true;
        }
        let before = self.parts.range(..=offset).next_back().map_or(0, |(at, part)| at + part.len());
        let after = self.parts.range(offset..).next().map_or(usize::MAX, |(at, _)| *at);
        let known_end = self.total.unwrap_or(usize::MAX);
        if before > offset || after < end || end > known_end || (!more && after != usize::MAX) {
            return false;
        }
        if !more {
            self.total = Some(end);
        }
        self.parts.insert(offset, data.to_vec());
        true
    }

    fn whole(&self) -> Option<Vec<u8>> {
        let total = self.total?;
        let (ip, header) = self.header.as_ref()?;
        if self.parts.values().map(Vec::len).sum::<usize>() != total {
            return None;
        }
        let data: Vec<u8> = self.parts.values().flatten().copied().collect();
        let addresses = (ip.source, ip.destination);
        if ip.source.is_ipv6() {
            return Some(ip::build(addresses, ip.protocol, ip.hop_limit, None, &data));
        }
        let mut packet = header.clone();
        packet.extend_from_slice(&data);
        let length = u16::try_from(packet.len()).ok()?;
        put(&mut packet, 2, &length.to_be_bytes());
        put(&mut packet, 6, &[0, 0, ip.hop_limit, ip.protocol, 0, 0]);
        let sum = checksum::of(&packet[..header.len()]);
        put(&mut packet, 10, &sum.to_be_bytes());
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn ends(v4: bool) -> (IpAddr, IpAddr) {
        let text = if v4 { ("10.0.0.1", "10.0.0.2") } else { ("fd00::1", "fd00::2") };
        (text.0.parse().unwrap(), text.1.parse().unwrap())
    }

    fn packet(v4: bool, length: usize) -> Vec<u8> {
        let data: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        ip::build(ends(v4), ip::UDP, 64, Some(0), &data)
    }

    fn add(reassembly: &mut Reassembly, now: Duration, piece: &[u8]) -> Option<Vec<u8>> {
        reassembly.add(now, &Ip::parse(piece).unwrap(), piece)
    }

    /// The payload; identification and flags are not what was sent.
    fn payload(packet: &[u8]) -> &[u8] {
        let ip = Ip::parse(packet).unwrap();
        assert_eq!((ip.piece, ip.protocol), (None, ip::UDP));
        &packet[ip.payload..ip.end]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn in_any_order_and_repeated_they_are_one(
            v4 in any::<bool>(),
            length in 3000_usize..20_000,
            (first, second) in (600_usize..1500, 300_usize..600),
            order in Just((0..200_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let packet = packet(v4, length);
            let mut pieces = cut(&packet, first, 77);
            if v4 {
                // Routers may cut again.
                pieces = pieces.iter().flat_map(|piece| cut(piece, second, 99)).collect();
            }
            let most = if v4 { second } else { first };
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
            let mut reassembly = Reassembly::default();
            let mut whole = Vec::new();
            for at in order.into_iter().filter(|at| *at < pieces.len()) {
                whole.extend(add(&mut reassembly, NOW, &pieces[at]));
                if whole.is_empty() {
                    prop_assert_eq!(add(&mut reassembly, NOW, &pieces[at]), None);
                }
            }
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(payload(&whole[0]), payload(&packet));
        }
    }

    #[test]
    fn what_overlaps_is_discarded() {
        for v4 in [true, false] {
            let pieces = cut(&packet(v4, 3000), 1200, 77);
            let mut forged = pieces[1].clone();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            let mut reassembly = Reassembly::default();
            assert_eq!(add(&mut reassembly, NOW, &pieces[0]), None);
            assert_eq!(add(&mut reassembly, NOW, &pieces[1]), None);
            assert_eq!(add(&mut reassembly, NOW, &forged), None);
            assert_eq!(add(&mut reassembly, NOW, &pieces[2]), None, "nothing is left to complete");
        }
    }

    /// A piece that reaches into another must not make up for one that is missing.
    #[test]
    fn a_long_piece_may_not_reach_into_the_next() {
        let mut partial = Partial { until: NOW, parts: BTreeMap::new(), total: None, header: None };
        assert!(partial.place(16, true, &[0; 16]));
        assert!(partial.place(40, false, &[0; 8]));
        assert!(!partial.place(0, true, &[0; 24]), "into the one behind");
        assert!(!partial.place(24, true, &[0; 16]), "into the one before");
        assert!(!partial.place(40, true, &[0; 16]), "beyond the end");
        assert!(!partial.place(8, false, &[0; 8]), "another end");
        assert!(partial.place(0, true, &[0; 16]));
    }

    #[test]
    fn what_stays_incomplete_is_forgotten() {
        for (v4, patience) in [(true, PATIENCE_V4), (false, PATIENCE_V6)] {
            let pieces = cut(&packet(v4, 2000), 1200, 77);
            assert_eq!(pieces.len(), 2);
            for (late, complete) in [(patience / 2, true), (patience, false)] {
                let mut reassembly = Reassembly::default();
                assert_eq!(add(&mut reassembly, NOW, &pieces[1]), None);
                assert_eq!(add(&mut reassembly, late, &pieces[0]).is_some(), complete);
            }
        }
    }

    #[test]
    fn incomplete_packets_are_few() {
        let mut reassembly = Reassembly::default();
        for id in 0..1000 {
            add(&mut reassembly, NOW, &cut(&packet(false, 2000), 1200, id)[0]);
        }
        assert_eq!(reassembly.partial.len(), MOST_PACKETS);
    }
}
