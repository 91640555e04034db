//! Frames to send: Ethernet, IPv4 and IPv6 with options, extension headers and fragments, TCP, UDP and ICMP, with
//! right checksums. For tests, benchmarks and the simulator's hosts.

use std::net::IpAddr;

/// ICMP, TCP, UDP and ICMPv6 by protocol number.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// `ICMPv6`.
pub const ICMP6: u8 = 58;

/// A frame in the making: the headers below the upper layer.
#[derive(Clone, Debug)]
pub struct Craft {
    src: IpAddr,
    dst: IpAddr,
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    hops: u8,
    id: u32,
    fragment: Option<(u16, bool)>,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    dont_fragment: bool,
}

impl Craft {
    /// A packet between two addresses of one family. Of two families, the destination's is taken and the source is unspecified.
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        let src = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => src,
            (_, IpAddr::V4(_)) => IpAddr::V4([0; 4].into()),
            (_, IpAddr::V6(_)) => IpAddr::V6([0; 16].into()),
        };
        Self {
            src,
            dst,
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            hops: 64,
            id: 1,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
            dont_fragment: false,
        }
    }

    /// Link layer addresses.
    #[must_use]
    pub const fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        self.src_mac = src;
        self.dst_mac = dst;
        self
    }

    /// Hop limit.
    #[must_use]
    pub const fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Identification of the datagram (IPv4: its low half).
    #[must_use]
    pub const fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// A fragment: offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub const fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// May not be fragmented (IPv4).
    #[must_use]
    pub const fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// IPv4 options; filled up to whole words.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4).min(40), 0);
        self
    }

    /// Adds an IPv6 extension header of the usual form: `body` is what follows its first two bytes, filled up to whole units of eight.
    #[must_use]
    pub fn extension(mut self, number: u8, body: &[u8]) -> Self {
        let mut body = body.to_vec();
        body.resize((body.len() + 2).next_multiple_of(8).max(8) - 2, 0);
        self.extensions.push((number, body));
        self
    }

    /// A TCP segment.
    pub fn tcp(&self, sport: u16, dport: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(sport.to_be_bytes());
        segment.extend(dport.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        segment.extend(payload);
        self.upper(TCP, segment, Some(16))
    }

    /// A UDP datagram.
    pub fn udp(&self, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        datagram.extend(sport.to_be_bytes());
        datagram.extend(dport.to_be_bytes());
        datagram.extend(length16(8 + payload.len()));
        datagram.extend([0, 0]);
        datagram.extend(payload);
        self.upper(UDP, datagram, Some(6))
    }

    /// An echo request or reply.
    pub fn echo(&self, request: bool, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        let kind = match (self.dst, request) {
            (IpAddr::V4(_), true) => 8,
            (IpAddr::V4(_), false) => 0,
            (IpAddr::V6(_), true) => 128,
            (IpAddr::V6(_), false) => 129,
        };
        let ([i0, i1], [s0, s1]) = (id.to_be_bytes(), seq.to_be_bytes());
        self.icmp(kind, 0, [i0, i1, s0, s1], payload)
    }

    /// Any ICMP message of the family: type, code, second word, body.
    pub fn icmp(&self, kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend(word);
        message.extend(body);
        let proto = if self.dst.is_ipv4() { ICMP } else { ICMP6 };
        self.upper(proto, message, Some(2))
    }

    /// An ICMP error about a frame, quoting what it must. Sent to whoever sent the frame.
    pub fn error_about(&self, kind: u8, code: u8, frame: &[u8]) -> Vec<u8> {
        let packet = frame.get(14..).unwrap_or_default();
        self.icmp(kind, code, [0; 4], packet.get(..packet.len().min(128)).unwrap_or_default())
    }

    /// Any upper layer as it is; `checksum`: where a checksum over it (and over the pseudo header, except for ICMP) goes.
    pub fn upper(&self, proto: u8, mut segment: Vec<u8>, checksum: Option<usize>) -> Vec<u8> {
        if let Some(at) = checksum
            && self.fragment.is_none()
        {
            let mut sum = Sum::default();
            if proto != ICMP {
                sum.pseudo(self.src, self.dst, proto, segment.len());
            }
            sum.add(&segment);
            let sum = match sum.folded() {
                0 if proto == UDP => 0xFFFF,
                sum => sum,
            };
            if let Some(field) = segment.get_mut(at..at + 2) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src.octets(), dst.octets(), proto, &segment),
            (src, dst) => self.v6(octets(src), octets(dst), proto, &segment),
        }
    }

    fn ethernet(&self, ethertype: u16) -> Vec<u8> {
        [&self.dst_mac[..], &self.src_mac[..], &ethertype.to_be_bytes()[..]].concat()
    }

    fn v4(&self, src: [u8; 4], dst: [u8; 4], proto: u8, segment: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let field =
            (offset & 0x1FFF) | if more { 0x2000 } else { 0 } | if self.dont_fragment { 0x4000 } else { 0 };
        let [.., i0, i1] = self.id.to_be_bytes();
        let mut header = vec![0x40 | u8::try_from(header_len / 4).unwrap_or(15), 0];
        header.extend(length16(header_len + segment.len()));
        header.extend([i0, i1]);
        header.extend(field.to_be_bytes());
        header.extend([self.hops, proto, 0, 0]);
        header.extend(src);
        header.extend(dst);
        header.extend(&self.options);
        let mut sum = Sum::default();
        sum.add(&header);
        header[10..12].copy_from_slice(&sum.folded().to_be_bytes());
        [self.ethernet(0x0800), header, segment.to_vec()].concat()
    }

    fn v6(&self, src: [u8; 16], dst: [u8; 16], proto: u8, segment: &[u8]) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = self
            .extensions
            .iter()
            .map(|(number, body)| {
                let mut bytes = vec![u8::try_from((body.len() + 2) / 8 - 1).unwrap_or(u8::MAX)];
                bytes.extend(body);
                (*number, bytes)
            })
            .collect();
        if let Some((offset, more)) = self.fragment {
            let mut bytes = vec![0];
            bytes.extend(((offset << 3) | u16::from(more)).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            chain.push((44, bytes));
        }
        let mut body = Vec::new();
        for (at, (_, bytes)) in chain.iter().enumerate() {
            body.push(chain.get(at + 1).map_or(proto, |(number, _)| *number));
            body.extend(bytes);
        }
        body.extend(segment);
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length16(body.len()));
        header.extend([chain.first().map_or(proto, |(number, _)| *number), self.hops]);
        header.extend(src);
        header.extend(dst);
        [self.ethernet(0x86DD), header, body].concat()
    }
}

/// An ARP request for `target`, asked by `sender`.
pub fn arp_request(sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xFF; 6];
    frame.extend(sender_mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender_mac);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// A neighbour solicitation for `target` with the sender's link layer address.
pub fn solicitation(sender_mac: [u8; 6], sender: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let [.., t0, t1, t2] = target;
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xFF, 0x02]);
    group[11..].copy_from_slice(&[1, 0xFF, t0, t1, t2]);
    let mut body = target.to_vec();
    body.extend([1, 1]);
    body.extend(sender_mac);
    Craft::new(IpAddr::from(sender), IpAddr::from(group))
        .macs(sender_mac, [0x33, 0x33, 0xFF, t0, t1, t2])
        .hops(255)
        .icmp(135, 0, [0; 4], &body)
}

/// Whether the checksums of a whole frame are right: the IPv4 header's and that of TCP, UDP, ICMP and `ICMPv6`
/// behind a plain header. Frames of other kinds have none that could be wrong.
pub fn checksums_are_right(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(14..) else { return true };
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let header_len = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
            let (Some(header), Some(fields)) = (packet.get(..header_len.max(20)), packet.get(..20)) else {
                return true;
            };
            let mut sum = Sum::default();
            sum.add(header);
            let total = usize::from(u16::from_be_bytes([fields[2], fields[3]]));
            let fragment = u16::from_be_bytes([fields[6], fields[7]]) & 0x3FFF != 0;
            let src: [u8; 4] = fields[12..16].try_into().unwrap_or_default();
            let dst: [u8; 4] = fields[16..20].try_into().unwrap_or_default();
            sum.folded() == 0
                && (fragment
                    || upper_is_right(src.into(), dst.into(), fields[9], packet.get(header_len..total)))
        }
        Some([0x86, 0xDD]) => {
            let Some(fields) = packet.get(..40) else { return true };
            let total = 40 + usize::from(u16::from_be_bytes([fields[4], fields[5]]));
            let src: [u8; 16] = fields[8..24].try_into().unwrap_or_default();
            let dst: [u8; 16] = fields[24..40].try_into().unwrap_or_default();
            upper_is_right(src.into(), dst.into(), fields[6], packet.get(40..total))
        }
        _ => true,
    }
}

fn upper_is_right(src: IpAddr, dst: IpAddr, proto: u8, segment: Option<&[u8]>) -> bool {
    let Some(segment) = segment else { return true };
    let mut sum = Sum::default();
    match proto {
        ICMP => {}
        TCP | UDP | ICMP6 => sum.pseudo(src, dst, proto, segment.len()),
        _ => return true,
    }
    sum.add(segment);
    sum.folded() == 0
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn length16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

/// A one's complement sum (RFC 1071).
#[derive(Clone, Copy, Debug, Default)]
struct Sum(u32);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            self.0 += u32::from(word);
            self.0 = (self.0 & 0xFFFF) + (self.0 >> 16);
        }
    }

    fn pseudo(&mut self, src: IpAddr, dst: IpAddr, proto: u8, len: usize) {
        for ip in [src, dst] {
            match ip {
                IpAddr::V4(ip) => self.add(&ip.octets()),
                IpAddr::V6(ip) => self.add(&ip.octets()),
            }
        }
        self.add(&[0, proto]);
        self.add(&length16(len));
    }

    fn folded(self) -> u16 {
        !u16::try_from((self.0 & 0xFFFF) + (self.0 >> 16)).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crafted_frames_have_right_checksums() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let craft = Craft::new(src.parse().expect("an address"), dst.parse().expect("an address"));
            for frame in [
                craft.tcp(1, 2, 2, b"odd"),
                craft.udp(1, 2, b"even"),
                craft.echo(true, 7, 1, b"x"),
                craft.error_about(3, 3, &craft.udp(1, 2, b"quoted")),
            ] {
                assert!(checksums_are_right(&frame));
                let mut broken = frame.clone();
                let last = broken.len() - 1;
                broken[last] ^= 1;
                assert!(!checksums_are_right(&broken));
            }
        }
        assert!(checksums_are_right(&solicitation([2; 6], [0xFD; 16], [0xFE; 16])));
    }
}
