//! VXLAN (RFC 7348) as Linux does it with a device that takes its keys from each packet.

use std::net::IpAddr;

use crate::frame::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, mac_at, mix, u16_at, u32_at};
use crate::ip::{self, Ip};
use crate::net::LinkKind;

use super::{Fate, Origin, Packet, Stack, StackDrop, Turn};

/// The port of VXLAN.
pub(super) const PORT: u16 = 8472;
/// Bytes of its header.
const HEADER: usize = 8;
/// The flag that says that the identifier is there.
const HAS_VNI: u8 = 0x08;
/// The range of source ports: the ephemeral ones of Linux.
const FIRST_SOURCE: u64 = 32_768;
const SOURCES: u64 = 60_999 - 32_768;

impl Stack {
    /// The tunnel device, if there is one.
    pub(super) fn overlay(&self) -> Option<u32> {
        self.net.links.values().find(|link| link.kind == LinkKind::Overlay).map(|link| link.ifindex)
    }

    /// Puts the outer headers around a frame and sends it. It may be fragmented over IPv4, where the device by default says so.
    pub(crate) fn encapsulate(&mut self, turn: &mut Turn<'_>, remote: IpAddr, vni: u32, frame: Frame) {
        let Some(from) = self.net.source(remote, None) else {
            return turn.drop(frame, StackDrop::NoRoute);
        };
        let length =
            u16::try_from(frame.bytes.len() + 8 + HEADER).ok().filter(|length| *length <= u16::MAX - 20);
        let Some(length) = length else {
            return turn.drop(frame, StackDrop::TooBig);
        };
        let mut datagram = Vec::with_capacity(usize::from(length));
        for field in [source_port(&frame.bytes), PORT, length, 0] {
            datagram.extend_from_slice(&field.to_be_bytes());
        }
        datagram.extend_from_slice(&[HAS_VNI, 0, 0, 0]);
        datagram.extend_from_slice(&(vni << 8).to_be_bytes());
        datagram.extend_from_slice(&frame.bytes);
        self.identification = self.identification.wrapping_add(1);
        let id = u16::try_from(self.identification & 0xFFFF).unwrap_or_default();
        let bytes = ip::build((from, remote), ip::UDP, 64, Some(id), &datagram);
        self.output(turn, Packet { id: frame.id, bytes, via: None }, Origin::Tunnel);
    }
}

/// What a VXLAN datagram holds.
pub(super) fn open(ifindex: u32, remote: IpAddr, payload: &[u8]) -> Fate {
    let vni = u32_at(payload, 4).map(|word| word >> 8);
    let known = payload.first().is_some_and(|flags| flags & HAS_VNI != 0);
    match (vni, payload.get(HEADER..)) {
        (Some(vni), Some(inner)) if known && inner.len() >= ETHERNET => {
            Fate::Tunnelled { ifindex, remote, vni, inner: inner.to_vec() }
        }
        _ => Fate::Dropped(StackDrop::Malformed),
    }
}

/// The same for all packets of a flow, spread over the flows (RFC 7348 section 5).
fn source_port(frame: &[u8]) -> u16 {
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    let ethertype = u16_at(frame, 12).unwrap_or_default();
    let ip = if matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) { Ip::quoted(packet) } else { None };
    let mut hash = 0;
    let mut add = |bytes: &[u8]| bytes.iter().for_each(|byte| hash = mix(hash, u64::from(*byte)));
    match ip {
        Some(ip) => {
            for address in [ip.source, ip.destination] {
                match address {
                    IpAddr::V4(address) => add(&address.octets()),
                    IpAddr::V6(address) => add(&address.octets()),
                }
            }
            add(&[ip.protocol]);
            // Fragments other than the first do not show ports, so none of a packet may count them.
            let ports = matches!(ip.protocol, ip::TCP | ip::UDP) && ip.piece.is_none();
            if ports && let Some(ports) = packet.get(ip.payload..ip.payload + 4) {
                add(ports);
            }
        }
        None => {
            add(&mac_at(frame, 0).unwrap_or_default());
            add(&mac_at(frame, 6).unwrap_or_default());
            add(&ethertype.to_be_bytes());
        }
    }
    u16::try_from(FIRST_SOURCE + (((hash >> 32) * SOURCES) >> 32)).unwrap_or_default()
}
