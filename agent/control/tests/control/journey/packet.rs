//! Small packets, made and read with code of their own.

use std::net::IpAddr;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// ICMP echo, request or reply, with identifier.
    Echo { reply: bool, id: u16 },
    /// TCP with these flags.
    Tcp { sport: u16, dport: u16, flags: u8 },
    /// UDP.
    Udp { sport: u16, dport: u16 },
}

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x01;

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) hops: u8,
    pub(crate) load: Load,
}

impl Packet {
    pub(crate) fn new(src: IpAddr, dst: IpAddr, load: Load) -> Self {
        Self { src, dst, hops: 64, load }
    }

    /// The packet that the other side answers with.
    pub(crate) fn answer(&self) -> Self {
        let load = match self.load {
            Load::Echo { id, .. } => Load::Echo { reply: true, id },
            Load::Tcp { sport, dport, flags } => Load::Tcp { sport: dport, dport: sport, flags: flags | ACK },
            Load::Udp { sport, dport } => Load::Udp { sport: dport, dport: sport },
        };
        Self { src: self.dst, dst: self.src, hops: 64, load }
    }

    /// As a frame from one MAC address to another.
    pub(crate) fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let v4 = self.src.is_ipv4();
        let (proto, mut upper, sum_at) = match self.load {
            Load::Echo { reply, id } => {
                let kind = match (v4, reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                let mut upper = vec![kind, 0, 0, 0];
                upper.extend(id.to_be_bytes());
                upper.extend([0, 1]);
                upper.extend(b"twelve bytes");
                (if v4 { 1 } else { 58 }, upper, 2)
            }
            Load::Tcp { sport, dport, flags } => {
                let mut upper = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                upper.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
                (6, upper, 16)
            }
            Load::Udp { sport, dport } => {
                let mut upper = [sport.to_be_bytes(), dport.to_be_bytes(), [0, 12], [0, 0]].concat();
                upper.extend(b"four");
                (17, upper, 6)
            }
        };
        let len = u16::try_from(upper.len()).unwrap();
        let pseudo =
            [octets(self.src), octets(self.dst), vec![0, proto], len.to_be_bytes().to_vec()].concat();
        let covered = if proto == 1 { upper.clone() } else { [pseudo, upper.clone()].concat() };
        upper[sum_at..sum_at + 2].copy_from_slice(&checksum(&covered).to_be_bytes());
        let mut frame = [to, from].concat();
        if v4 {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 7, 0x40, 0, self.hops, proto, 0, 0]);
            header.extend([octets(self.src), octets(self.dst)].concat());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([proto, self.hops]);
            frame.extend([octets(self.src), octets(self.dst)].concat());
        }
        frame.extend(upper);
        frame
    }

    /// Reads a frame; panics if any length or checksum is wrong.
    pub(crate) fn read(frame: &[u8]) -> Self {
        let ip = &frame[14..];
        let (src, dst, hops, proto, upper) = match &frame[12..14] {
            [0x08, 0x00] => {
                assert_eq!(checksum(&ip[..20]), 0, "header checksum");
                let octets = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
                (octets(12), octets(16), ip[8], ip[9], &ip[20..])
            }
            [0x86, 0xdd] => {
                let octets = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
                (octets(8), octets(24), ip[7], ip[6], &ip[40..])
            }
            other => panic!("EtherType {other:02x?}"),
        };
        let len = u16::try_from(upper.len()).unwrap().to_be_bytes();
        let pseudo = if proto == 1 {
            Vec::new()
        } else {
            [octets(src), octets(dst), vec![0, proto], len.to_vec()].concat()
        };
        assert_eq!(checksum(&[&pseudo, upper].concat()), 0, "checksum of protocol {proto}");
        let word = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
        let load = match proto {
            1 | 58 => Load::Echo { reply: upper[0] == 0 || upper[0] == 129, id: word(4) },
            6 => Load::Tcp { sport: word(0), dport: word(2), flags: upper[13] },
            17 => Load::Udp { sport: word(0), dport: word(2) },
            other => panic!("protocol {other}"),
        };
        Self { src, dst, hops, load }
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The Internet checksum; over bytes that hold their own it is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
