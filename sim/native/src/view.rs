//! What the checker reads of a packet. It is its own parser: the dataplane's would share the dataplane's mistakes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP.
pub(crate) const ICMP: u8 = 1;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// UDP.
pub(crate) const UDP: u8 = 17;
/// ICMPv6.
pub(crate) const ICMP6: u8 = 58;

/// Authentication header (RFC 4302).
pub(crate) const AUTHENTICATION: u8 = 51;

/// UDP port of the tunnel.
pub(crate) const TUNNEL_PORT: u16 = 8472;

/// An IP packet in an Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Source.
    pub(crate) src: IpAddr,
    /// Destination.
    pub(crate) dst: IpAddr,
    /// Protocol behind all extension headers.
    pub(crate) proto: u8,
    /// TTL or hop limit.
    pub(crate) hops: u8,
    /// Length of the IP packet in bytes.
    pub(crate) len: usize,
    /// Ports, or ICMP type and code, if the packet has them.
    pub(crate) ports: Option<(u16, u16)>,
    /// TCP flags, if there are any.
    pub(crate) flags: u8,
    /// Identifier of an ICMP echo request (true) or reply.
    pub(crate) echo: Option<(bool, u16)>,
    /// What tells the fragments of one packet from others.
    pub(crate) fragment_id: u32,
    /// It is a fragment.
    pub(crate) fragment: bool,
    /// It is a fragment and not the first.
    pub(crate) later_fragment: bool,
    /// Bytes of the IP packet before the upper layer.
    pub(crate) upper: usize,
    /// For ICMP errors: what they quote.
    pub(crate) quotes: Option<Box<View>>,
    /// All checksums that can be checked are right.
    pub(crate) sums_ok: bool,
    /// Digest of everything that no router may change.
    pub(crate) body: u64,
}

impl View {
    /// Reads a frame; `None` if it holds no whole IP packet.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        Self::read(frame, true)
    }

    /// Reads the first bytes of a frame; `None` if they hold no IP header.
    pub(crate) fn of_start(frame: &[u8]) -> Option<Self> {
        Self::read(frame, false)
    }

    fn read(frame: &[u8], whole: bool) -> Option<Self> {
        let packet = frame.get(14..)?;
        match frame.get(12..14)? {
            [0x08, 0x00] => v4(packet, whole),
            [0x86, 0xdd] => v6(packet, whole),
            _ => None,
        }
    }

    /// Whether it is an ICMP error.
    pub(crate) const fn is_icmp_error(&self) -> bool {
        match (self.proto, self.ports) {
            (ICMP, Some((kind, _))) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (ICMP6, Some((kind, _))) => kind < 128,
            _ => false,
        }
    }

    /// Whether it goes to the tunnel's port, or may, being a fragment that does not say.
    pub(crate) fn is_for_tunnel(&self) -> bool {
        self.proto == UDP && self.ports.map_or(self.later_fragment, |(_, to)| to == TUNNEL_PORT)
    }

    /// Whether it is a message of neighbour discovery (RFC 4861).
    pub(crate) const fn is_neighbour_discovery(&self) -> bool {
        matches!((self.proto, self.ports), (ICMP6, Some((133..=137, _))))
    }

    /// Whether it goes to a group or to all.
    pub(crate) const fn is_to_many(&self) -> bool {
        match self.dst {
            IpAddr::V4(dst) => dst.is_multicast() || dst.is_broadcast(),
            IpAddr::V6(dst) => dst.is_multicast(),
        }
    }

    /// Whether an end has an address of the link alone, or none.
    pub(crate) fn is_of_link(&self) -> bool {
        [self.src, self.dst].into_iter().any(|ip| match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
        })
    }
}

/// FNV-1a (Fowler, Noll, Vo), to compare and not to protect.
pub(crate) fn digest(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// RFC 1071.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(0)
}

/// What of a frame no translation may change: all that is behind the link layer header, without addresses, ports, hop limit, and the
/// checksums that cover them; and whether the upper layer has a checksum.
pub(crate) fn untranslated(frame: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut packet = frame.get(14..)?.to_vec();
    let (addresses, proto, at) = match packet.first()? >> 4 {
        4 => {
            packet.get_mut(8)?.clone_from(&0);
            packet.get_mut(10..12)?.fill(0);
            (12..20, *packet.get(9)?, usize::from(packet.first()? & 15) * 4)
        }
        _ => {
            packet.get_mut(7)?.clone_from(&0);
            let view = View::of(frame)?;
            (8..40, view.proto, view.upper)
        }
    };
    packet.get_mut(addresses)?.fill(0);
    let is_later = View::of(frame)?.later_fragment;
    let field = at + if proto == UDP { 6 } else { 16 };
    let mut summed = true;
    if !is_later && matches!(proto, ICMP | ICMP6) && View::of(frame)?.echo.is_some() {
        // Checksum and identifier.
        packet.get_mut(at + 2..at + 6)?.fill(0);
    }
    if !is_later && matches!(proto, TCP | UDP) {
        packet.get_mut(at..at + 4)?.fill(0);
        if let Some(sum) = packet.get_mut(field..field + 2) {
            summed = proto != UDP || sum != [0, 0];
            sum.fill(0);
        }
    }
    Some((packet, summed))
}

/// Makes the checksums of a packet right again after its headers were changed. UDP over IPv4 goes without.
pub(crate) fn seal(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..) else { return };
    let Some(first) = packet.first().copied() else { return };
    if first >> 4 == 4 {
        let header = usize::from(first & 15) * 4;
        if packet.len() < header + 8 || header < 20 {
            return;
        }
        packet[10..12].fill(0);
        let made = !sum(&[&packet[..header]]);
        packet[10..12].copy_from_slice(&made.to_be_bytes());
    }
    let (v4, proto, at) = match (first >> 4, packet.get(6)) {
        (4, _) => (true, packet[9], usize::from(first & 15) * 4),
        // One header of options, or one that authenticates.
        (6, Some(60)) if packet.len() > 48 => (false, packet[40], 48),
        (6, Some(&AUTHENTICATION)) if packet.len() > 64 => (false, packet[40], 64),
        (6, Some(next)) if packet.len() > 40 => (false, *next, 40),
        _ => return,
    };
    let field = match proto {
        UDP => at + 6,
        TCP => at + 16,
        ICMP | ICMP6 => at + 2,
        _ => return,
    };
    if packet.len() < field + 2 {
        return;
    }
    packet[field..field + 2].fill(0);
    if v4 && proto == UDP {
        return;
    }
    let upper = u32::try_from(packet.len() - at).unwrap_or(0).to_be_bytes();
    let addresses = if v4 { 12..20 } else { 8..40 };
    let made = if proto == ICMP {
        !sum(&[&packet[at..]])
    } else {
        !sum(&[&packet[addresses], &upper, &[0, 0, 0, proto], &packet[at..]])
    };
    packet[field..field + 2].copy_from_slice(&made.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn v4(packet: &[u8], whole: bool) -> Option<View> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let len = usize::from(word(packet, 2)?);
    if first >> 4 != 4 || header < 20 || len < header || (whole && packet.len() < len) {
        return None;
    }
    let head = packet.get(..header)?;
    let src: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let dst: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let body = packet.get(header..len.min(packet.len()))?;
    let field = word(packet, 6)?;
    let (more, offset) = (field & 0x2000 != 0, field & 0x1fff);
    let proto = packet[9];
    let mut sums_ok = sum(&[head]) == 0xffff;
    if whole && !more && offset == 0 {
        let upper = u16::try_from(body.len()).ok()?.to_be_bytes();
        let pseudo = [&src[..], &dst[..], &[0, proto], &upper[..]].concat();
        sums_ok &= upper_sum_ok(proto, &pseudo, body);
    }
    let mut seal = digest(4, &[&src[..], &dst[..], &[proto]].concat());
    seal = digest(seal, &[&packet[4..8], body].concat());
    let mut view = View {
        src: Ipv4Addr::from(src).into(),
        dst: Ipv4Addr::from(dst).into(),
        proto,
        hops: packet[8],
        len,
        ports: None,
        flags: 0,
        echo: None,
        fragment_id: u32::from(word(packet, 4)?),
        fragment: more || offset != 0,
        later_fragment: offset != 0,
        upper: header,
        quotes: None,
        sums_ok,
        body: seal,
    };
    if offset == 0 {
        view.read_upper(body);
    }
    Some(view)
}

fn v6(packet: &[u8], whole: bool) -> Option<View> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let payload = usize::from(word(packet, 4)?);
    let len = 40 + payload;
    if packet.len() < 40 || (whole && packet.len() < len) {
        return None;
    }
    let src: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let dst: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let rest = packet.get(40..len.min(packet.len()))?;
    let (mut proto, mut at) = (packet[6], 0);
    let (mut fragment, mut later_fragment, mut fragment_id) = (false, false, 0);
    // RFC 8200, section 4: hop-by-hop, routing, fragment, destination options; RFC 4302.
    while matches!(proto, 0 | 43 | 44 | AUTHENTICATION | 60) {
        let next = *rest.get(at)?;
        if proto == 44 {
            let field = word(rest, at + 2)?;
            fragment |= field & 0xfff9 != 0;
            later_fragment |= field & 0xfff8 != 0;
            fragment_id = u32::from(word(rest, at + 4)?) << 16 | u32::from(word(rest, at + 6)?);
            at += 8;
        } else if proto == AUTHENTICATION {
            at += (usize::from(*rest.get(at + 1)?) + 2) * 4;
        } else {
            at += (usize::from(*rest.get(at + 1)?) + 1) * 8;
        }
        proto = next;
        if later_fragment {
            break;
        }
    }
    let body = rest.get(at..).unwrap_or_default();
    let mut sums_ok = true;
    if whole && !fragment {
        let upper = u32::try_from(body.len()).ok()?.to_be_bytes();
        let pseudo = [&src[..], &dst[..], &upper[..], &[0, 0, 0, proto]].concat();
        sums_ok = upper_sum_ok(proto, &pseudo, body);
    }
    let mut seal = digest(6, &[&src[..], &dst[..]].concat());
    seal = digest(seal, rest);
    let mut view = View {
        src: Ipv6Addr::from(src).into(),
        dst: Ipv6Addr::from(dst).into(),
        proto,
        hops: packet[7],
        len,
        ports: None,
        flags: 0,
        echo: None,
        fragment_id,
        fragment,
        later_fragment,
        upper: 40 + at,
        quotes: None,
        sums_ok,
        body: seal,
    };
    if !later_fragment {
        view.read_upper(body);
    }
    Some(view)
}

/// Whether the checksum of the upper layer is right, for those whose place is known.
fn upper_sum_ok(proto: u8, pseudo: &[u8], body: &[u8]) -> bool {
    match proto {
        // Zero: not made (RFC 768; over IPv6 only in tunnels, RFC 6935).
        UDP if word(body, 6) == Some(0) => true,
        TCP | UDP | ICMP6 => sum(&[pseudo, body]) == 0xffff,
        ICMP => sum(&[body]) == 0xffff,
        _ => true,
    }
}

impl View {
    fn read_upper(&mut self, body: &[u8]) {
        match self.proto {
            TCP | UDP => {
                self.ports = word(body, 0).zip(word(body, 2));
                if self.proto == TCP {
                    self.flags = body.get(13).copied().unwrap_or(0);
                }
            }
            ICMP | ICMP6 => {
                if let [kind, code, ..] = body {
                    self.ports = Some((u16::from(*kind), u16::from(*code)));
                    let id = word(body, 4);
                    self.echo = match (self.proto, kind) {
                        (ICMP, 8) | (ICMP6, 128) => id.map(|id| (true, id)),
                        (ICMP, 0) | (ICMP6, 129) => id.map(|id| (false, id)),
                        _ => None,
                    };
                }
                if self.is_icmp_error() {
                    let quoted = body.get(8..).unwrap_or_default();
                    let quoted = if self.proto == ICMP { v4(quoted, false) } else { v6(quoted, false) };
                    self.quotes = quoted.map(Box::new);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp4(ttl: u8) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 30, 0, 1, 0, 0, ttl, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let header = !sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        frame.extend([0x10, 0, 0, 53, 0, 10, 0, 0, 7, 7]);
        frame
    }

    #[test]
    fn a_packet_is_read_and_its_sums_are_checked() {
        let view = View::of(&udp4(64)).unwrap();
        assert_eq!((view.hops, view.len, view.proto, view.ports), (64, 30, UDP, Some((4096, 53))));
        assert!(view.sums_ok);
        let mut broken = udp4(64);
        broken[22] = 63;
        assert!(!View::of(&broken).unwrap().sums_ok, "the hop limit changed and the checksum did not");
    }

    #[test]
    fn the_body_does_not_depend_on_what_routers_change() {
        assert_eq!(View::of(&udp4(64)).unwrap().body, View::of(&udp4(3)).unwrap().body);
        let mut other = udp4(64);
        *other.last_mut().unwrap() = 8;
        assert_ne!(View::of(&udp4(64)).unwrap().body, View::of(&other).unwrap().body);
    }

    #[test]
    fn no_bytes_make_it_stumble() {
        let frame = udp4(64);
        for cut in 0..frame.len() {
            assert_eq!(View::of(&frame[..cut]), None, "{cut}");
        }
    }
}
