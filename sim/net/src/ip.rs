//! IP headers: read, and made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::frame::{put, u16_at, u32_at};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
/// The fragment header of IPv6 (RFC 8200 section 4.5).
pub(crate) const FRAGMENT: u8 = 44;

/// Bytes of an IPv6 header.
pub(crate) const V6_HEADER: usize = 40;
/// Extension headers that are walked at most.
const MOST_EXTENSIONS: usize = 8;

/// Why a packet is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed,
    Checksum,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What the fragments of a packet have in common.
    pub(crate) id: u32,
    /// Its first byte within the payload.
    pub(crate) offset: usize,
    /// Others follow.
    pub(crate) more: bool,
}

/// What a stack needs of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    /// The transport protocol, behind all extension headers.
    pub(crate) protocol: u8,
    /// Where the payload of the protocol begins; for a later fragment: its data.
    pub(crate) payload: usize,
    /// Where the packet ends; padding may follow.
    pub(crate) end: usize,
    pub(crate) piece: Option<Piece>,
    pub(crate) dont_fragment: bool,
}

impl Ip {
    /// Reads a whole packet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let ip = Self::quoted(bytes).ok_or(Fault::Malformed)?;
        if ip.end > bytes.len() || ip.payload > ip.end {
            return Err(Fault::Malformed);
        }
        if ip.source.is_ipv4() {
            let header = usize::from(bytes[0] & 0x0F) * 4;
            if checksum::of(&bytes[..header]) != 0 {
                return Err(Fault::Checksum);
            }
        }
        Ok(ip)
    }

    /// Reads the beginning of a packet of which the rest may be missing, as ICMP errors quote it.
    pub(crate) fn quoted(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::v4(bytes),
            6 => Self::v6(bytes),
            _ => None,
        }
    }

    fn v4(bytes: &[u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0F) * 4;
        if header < 20 || bytes.len() < header {
            return None;
        }
        let flags = u16_at(bytes, 6)?;
        let (offset, more) = (usize::from(flags & 0x1FFF) * 8, flags & 0x2000 != 0);
        let piece = (offset != 0 || more).then_some(Piece { id: u32::from(u16_at(bytes, 4)?), offset, more });
        let end = usize::from(u16_at(bytes, 2)?);
        if end < header {
            return None;
        }
        Some(Self {
            source: IpAddr::V4(Ipv4Addr::from(u32_at(bytes, 12)?)),
            destination: IpAddr::V4(Ipv4Addr::from(u32_at(bytes, 16)?)),
            hop_limit: *bytes.get(8)?,
            protocol: *bytes.get(9)?,
            payload: header,
            end,
            piece,
            dont_fragment: flags & 0x4000 != 0,
        })
    }

    fn v6(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        };
        let mut ip = Self {
            source: address(8)?,
            destination: address(24)?,
            hop_limit: *bytes.get(7)?,
            protocol: *bytes.get(6)?,
            payload: V6_HEADER,
            end: V6_HEADER + usize::from(u16_at(bytes, 4)?),
            piece: None,
            dont_fragment: true,
        };
        for _ in 0..MOST_EXTENSIONS {
            let at = ip.payload;
            match ip.protocol {
                // Hop-by-hop options, routing, destination options.
                0 | 43 | 60 => ip.payload += (usize::from(*bytes.get(at + 1)?) + 1) * 8,
                51 => ip.payload += (usize::from(*bytes.get(at + 1)?) + 2) * 4,
                FRAGMENT => {
                    let field = u16_at(bytes, at + 2)?;
                    let offset = usize::from(field & 0xFFF8);
                    // One that is alone is no fragment (RFC 6946).
                    if offset != 0 || field & 1 != 0 {
                        ip.piece = Some(Piece { id: u32_at(bytes, at + 4)?, offset, more: field & 1 != 0 });
                    }
                    ip.payload += 8;
                    ip.protocol = *bytes.get(at)?;
                    if offset != 0 {
                        return Some(ip);
                    }
                    continue;
                }
                _ => return Some(ip),
            }
            ip.protocol = *bytes.get(at)?;
        }
        None
    }

    /// It begins the payload: no fragment, or the first.
    pub(crate) fn is_first(&self) -> bool {
        self.piece.is_none_or(|piece| piece.offset == 0)
    }

    /// Source and destination port, or type and identifier: what the first bytes of a payload say.
    pub(crate) fn ports(&self, bytes: &[u8]) -> Option<(u16, u16)> {
        Some((u16_at(bytes, self.payload)?, u16_at(bytes, self.payload + 2)?))
    }
}

/// A packet with a plain header. Routers may fragment an IPv4 packet only if it has an identification for that, `fragments`.
pub(crate) fn build(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    hop_limit: u8,
    fragments: Option<u16>,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, hop_limit, protocol, 0, 0];
            put(&mut header, 2, &total.to_be_bytes());
            match fragments {
                None => header[6] = 0x40,
                Some(id) => put(&mut header, 4, &id.to_be_bytes()),
            }
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let sum = checksum::of(&header);
            put(&mut header, 10, &sum.to_be_bytes());
            header
        }
        (source, destination) => {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, hop_limit];
            put(&mut header, 4, &length.to_be_bytes());
            for address in [source, destination] {
                let address = match address {
                    IpAddr::V6(address) => address,
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                };
                header.extend_from_slice(&address.octets());
            }
            header
        }
    };
    bytes.extend_from_slice(payload);
    bytes
}

/// Fills in the checksum of a transport payload at a place that holds zeros.
pub(crate) fn seal((source, destination): (IpAddr, IpAddr), protocol: u8, at: usize, payload: &mut [u8]) {
    let sum = if protocol == ICMP {
        checksum::of(payload)
    } else {
        checksum::transport(source, destination, protocol, payload)
    };
    let sum = if sum == 0 && protocol == UDP { 0xFFFF } else { sum };
    put(payload, at, &sum.to_be_bytes());
}

/// Passes a packet on: one hop less, the checksum stays right.
pub(crate) fn hop(bytes: &mut [u8]) {
    if bytes.first().is_some_and(|byte| byte >> 4 == 6) {
        if let Some(limit) = bytes.get_mut(7) {
            *limit = limit.saturating_sub(1);
        }
        return;
    }
    let (Some(before), Some(sum)) = (u16_at(bytes, 8), u16_at(bytes, 10)) else {
        return;
    };
    let after = before.saturating_sub(0x0100);
    put(bytes, 8, &after.to_be_bytes());
    put(bytes, 10, &checksum::update(sum, before, after).to_be_bytes());
}

/// Addresses that no packet comes from and none goes to singly.
pub(crate) fn is_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Addresses of one link only.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The link-local address of a device: its MAC as modified EUI-64 (RFC 4291 appendix A).
pub(crate) fn link_local(mac: crate::Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
}
