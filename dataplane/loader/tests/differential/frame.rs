//! Frames, built layer by layer and written out with their lengths and checksums.

/// Bytes of a link layer header.
pub(crate) const ETHERNET: usize = 14;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86DD;
pub(crate) const ARP: u16 = 0x0806;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// An address of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// A link layer header and what follows.
pub(crate) fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// Fields of an IPv4 header that tests vary.
#[derive(Clone, Debug)]
pub(crate) struct V4 {
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    /// Flags and offset, as they lie in the header.
    pub(crate) fragment: u16,
    /// Options; padded to four bytes.
    pub(crate) options: Vec<u8>,
}

impl V4 {
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        while !options.len().is_multiple_of(4) {
            options.push(0);
        }
        let header_len = 20 + options.len();
        let total = u16::try_from(header_len + payload.len()).expect("test packets are small");
        let version = 0x40 | u8::try_from(header_len / 4).expect("options are at most 40 bytes");
        let mut header = Vec::with_capacity(header_len);
        header.extend([version, 0]);
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.proto, 0, 0]);
        header.extend(self.src);
        header.extend(self.dst);
        header.extend(options);
        let sum = checksum(&header, 0).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header.extend(payload);
        header
    }
}

/// Fields of an IPv6 header that tests vary.
#[derive(Clone, Debug)]
pub(crate) struct V6 {
    pub(crate) src: [u8; 16],
    pub(crate) dst: [u8; 16],
    pub(crate) proto: u8,
    pub(crate) hops: u8,
    /// Extension headers in order: number and body (without the two bytes of next header and length).
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
}

impl V6 {
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut chain = Vec::new();
        for (index, (number, body)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(index + 1).map_or(self.proto, |(number, _)| *number);
            let mut header = vec![next, 0];
            header.extend(body);
            while !header.len().is_multiple_of(8) {
                header.push(0);
            }
            // The fragment header has no length, authentication counts in four bytes, the others in eight.
            header[1] = match *number {
                FRAGMENT => 0,
                51 => u8::try_from(header.len() / 4 - 2).unwrap_or(255),
                _ => u8::try_from(header.len() / 8 - 1).unwrap_or(255),
            };
            chain.extend(header);
        }
        let length = u16::try_from(chain.len() + payload.len()).expect("test packets are small");
        let first = self.extensions.first().map_or(self.proto, |(number, _)| *number);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([first, self.hops]);
        packet.extend(self.src);
        packet.extend(self.dst);
        packet.extend(chain);
        packet.extend(payload);
        packet
    }
}

/// A TCP segment. Its checksum is not looked at by anybody here and is left at a fixed value.
pub(crate) fn tcp(sport: u16, dport: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend(sport.to_be_bytes());
    segment.extend(dport.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xFF, 0xFF, 0x12, 0x34, 0, 0]);
    segment.extend(payload);
    segment
}

/// A UDP datagram.
pub(crate) fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("test packets are small");
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(sport.to_be_bytes());
    datagram.extend(dport.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An ICMP or ICMPv6 message: type, code, the four bytes behind the checksum, and the rest.
pub(crate) fn icmp(kind: u8, code: u8, word: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word);
    message.extend(payload);
    message
}

/// An ARP packet for IPv4 over Ethernet.
pub(crate) fn arp(operation: u16, sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender_mac);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

/// The Internet checksum (RFC 1071) of some bytes, starting from a sum.
pub(crate) fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// Source and destination address of a frame that holds an IP packet.
pub(crate) fn ends(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((frame.get(26..30)?, frame.get(30..34)?)),
        [0x86, 0xDD] => Some((frame.get(22..38)?, frame.get(38..54)?)),
        _ => None,
    }
}
