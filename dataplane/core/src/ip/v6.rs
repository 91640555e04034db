//! IPv6 (RFC 8200, 4443) with its extension flight.

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtEntry, CtEntry6, CtKey6, CtScope};
use dataplane_abi::frags::{FragEntry, FragKey6};
use dataplane_abi::nat::NatEntry;
use dataplane_abi::{Addr, Be16, DropReason, Family, Identity};
use zerocopy::transmute;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Ip, l4};
use crate::closer::Room;
use crate::ethernet::{HEADER_LEN, HEADER_LEN32};
use crate::flight::{Flight, Kind, offset16};
use crate::host::{Host, Maps, Packet};
use crate::nat;

/// IPv6.
#[derive(Clone, Copy)]
pub enum V6 {}

/// Offset of the upper layer when there are no extension flight.
const L4: usize = HEADER_LEN + 40;
const L4_32: u32 = HEADER_LEN32 + 40;
const L4_16: u16 = 54;
const _: () = assert!(L4_16 as usize == L4);
/// Offsets of source and destination.
const SRC: usize = HEADER_LEN + 8;
const DST: usize = HEADER_LEN + 24;
/// Offset of the byte with the hop limit.
const HOP_LIMIT: usize = HEADER_LEN + 7;

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Most extension headers in one packet; more are taken for an attack.
const EXTENSIONS_MAX: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The header as it lies in the packet.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Fixed {
    version: u32,
    hop_word: u32,
    src: [u64; 2],
    dst: [u64; 2],
}

/// Where the chain of extension headers ended.
struct Upper {
    offset: u32,
    /// Identification, if there is a fragment header.
    id: [u8; 4],
    /// Offset of the fragment in units of eight bytes.
    fragment_offset: u16,
    more_fragments: bool,
    proto: u8,
}

impl Ip for V6 {
    type Addr = [u64; 2];
    type Key = CtKey6;
    type Row = CtEntry6;
    /// Of the prefix that is for addresses to which nothing is sent (RFC 9780); one of the link would be asked for on it.
    const LOOPBACK: [u64; 2] =
        [u64::from_ne_bytes([1, 0, 0, 0, 0, 0, 0, 1]), u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 42, 1])];
    const FAMILY: Family = Family::V6;
    const NO_KEY: CtKey6 = CtKey6 {
        low: [0; 16],
        high: [0; 16],
        low_port: Be16::ZERO,
        high_port: Be16::ZERO,
        proto: 0,
        scope: 0,
        pad: [0; 2],
    };

    #[inline(always)]
    fn parse<H: Host>(host: H, flight: &mut Flight<Self>) -> Result<(), DropReason> {
        let fixed: Fixed = host.load_or_pull(HEADER_LEN).ok_or(DropReason::InvalidPacket)?;
        let end = fixed_fields(fixed, host.len(), flight)?;
        flight.l4 = L4_16;
        match flight.key.proto {
            l4::TCP => {
                if !l4::is_within(L4_32, l4::TCP_LEAST, end) {
                    return Err(DropReason::CtInvalidHeader);
                }
                let [w0, _, _, w3]: [u32; 4] = host.load_or_pull(L4).ok_or(DropReason::CtInvalidHeader)?;
                flight.key.set_ports(w0);
                flight.tcp_flags = l4::tcp_flags(w3);
                flight.kind = Kind::Tcp;
                return Ok(());
            }
            l4::UDP => {
                if !l4::is_within(L4_32, l4::LEAST, end) {
                    return Err(DropReason::CtInvalidHeader);
                }
                let [w0, _]: [u32; 2] = host.load_or_pull(L4).ok_or(DropReason::CtInvalidHeader)?;
                flight.key.set_ports(w0);
                flight.kind = Kind::Datagram;
                return Ok(());
            }
            _ => {}
        }
        match parse_rest(host, flight) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn addresses<H: Packet>(host: H) -> Option<([u64; 2], [u64; 2])> {
        let [s0, s1, d0, d1]: [u64; 4] = host.load_or_pull(HEADER_LEN + 8)?;
        Some(([s0, s1], [d0, d1]))
    }

    #[inline(always)]
    fn to_abi(addr: [u64; 2]) -> Addr {
        Addr(transmute!(addr))
    }

    #[inline(always)]
    fn from_abi(addr: Addr) -> [u64; 2] {
        transmute!(addr.0)
    }

    const ICMP_COVERS_ADDRESSES: bool = true;

    #[inline(always)]
    fn store_quoted<H: Packet, const SOURCE: bool>(host: H, quote: u32, addr: [u64; 2]) -> Option<u32> {
        let at = quote.wrapping_add(if SOURCE { 8 } else { 24 });
        let old: [u64; 2] = host.load_at(at)?;
        host.store_at(at, addr).then_some(Self::difference(old, addr))
    }

    #[inline(always)]
    fn difference(old: [u64; 2], new: [u64; 2]) -> u32 {
        nat::difference::<4>(transmute!(old), transmute!(new))
    }

    #[inline(always)]
    fn store_end<H: Packet, const SOURCE: bool>(
        host: H,
        addr: [u64; 2],
        difference: u32,
        _hop_word: &mut u32,
    ) -> bool {
        // The header has no checksum of its own. Where the upper layer's was corrected, the packet sums to the same, and that a host
        // takes the correction for the packet's too is made up for; where it was not, the device's sum changes.
        host.checksum_changed(difference);
        host.store(if SOURCE { SRC } else { DST }, addr)
    }

    #[inline(always)]
    fn is_group(addr: [u64; 2]) -> bool {
        let [high, _] = addr;
        let [first, ..] = high.to_ne_bytes();
        first == 0xFF
    }

    const MASQUERADE: ConfigFlags = ConfigFlags::MASQUERADE_V6;

    #[inline(always)]
    fn node(config: &NodeConfig) -> [u64; 2] {
        transmute!(config.node_v6)
    }

    #[inline(always)]
    fn router(config: &NodeConfig) -> [u64; 2] {
        transmute!(config.router_v6)
    }

    #[inline(always)]
    fn is_node(config: &NodeConfig, addr: [u64; 2]) -> bool {
        Self::node(config) == addr
    }

    #[inline(always)]
    fn world(config: &NodeConfig) -> Identity {
        config.world_v6
    }

    #[inline(always)]
    fn key(src: [u64; 2], dst: [u64; 2], sport: Be16, dport: Be16, proto: u8) -> CtKey6 {
        CtKey6 {
            low: transmute!(src),
            high: transmute!(dst),
            low_port: sport,
            high_port: dport,
            proto,
            ..Self::NO_KEY
        }
    }

    #[inline(always)]
    fn low(key: &CtKey6) -> [u64; 2] {
        transmute!(key.low)
    }

    #[inline(always)]
    fn high(key: &CtKey6) -> [u64; 2] {
        transmute!(key.high)
    }

    #[inline(always)]
    fn ports(key: &CtKey6) -> (Be16, Be16) {
        (key.low_port, key.high_port)
    }

    #[inline(always)]
    fn proto(key: &CtKey6) -> u8 {
        key.proto
    }

    #[inline(always)]
    fn order(key: &mut CtKey6) -> bool {
        key.order()
    }

    #[inline(always)]
    fn ct<H: Maps, R>(host: H, key: &CtKey6, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R> {
        host.ct6(key, |row| f(&mut row.entry))
    }

    #[inline(always)]
    fn room<H: Maps, R>(host: H, f: impl FnOnce(&mut Room<Self>) -> R) -> Option<R> {
        host.room6(f)
    }

    #[inline(always)]
    fn row<H: Maps, R>(host: H, key: &CtKey6, f: impl FnOnce(&mut CtEntry6) -> R) -> Option<R> {
        host.ct6(key, f)
    }

    #[inline(always)]
    fn entry(row: &mut CtEntry6) -> &mut CtEntry {
        &mut row.entry
    }

    #[inline(always)]
    fn frontend(row: &CtEntry6) -> [u64; 2] {
        transmute!(row.frontend)
    }

    #[inline(always)]
    fn set_frontend(row: &mut CtEntry6, addr: [u64; 2]) {
        row.frontend = transmute!(addr);
    }

    #[inline(always)]
    fn set_low_port(key: &mut CtKey6, port: Be16) {
        key.low_port = port;
    }

    #[inline(always)]
    fn set_scope(key: &mut CtKey6, scope: CtScope) {
        key.scope = scope as u8;
    }

    #[inline(always)]
    fn nat<H: Maps, R>(host: H, key: &CtKey6, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        host.nat6(key, f)
    }

    #[inline(always)]
    fn nat_create<H: Maps>(host: H, key: &CtKey6, entry: &NatEntry) -> bool {
        host.nat6_create(key, entry)
    }

    #[inline(always)]
    fn ct_create<H: Maps>(host: H, key: &CtKey6, f: impl FnOnce(&mut CtEntry)) -> bool {
        host.ct6_create(key, f)
    }
}

/// Lowers the hop limit by one. `summed`: a device may have summed the packet.
#[inline(always)]
pub(crate) fn decrement<H: Packet>(host: H, hops: u8, summed: bool) -> bool {
    if summed {
        // The header has no checksum of its own, so the sum of a device that summed the packet changes.
        host.checksum_changed(!u32::from(u16::from_ne_bytes([0, 1])));
    }
    host.store(HOP_LIMIT, hops.wrapping_sub(1))
}

/// Reads and checks the fixed part of the header. Returns where the packet ends in its frame; what is behind is padding.
#[inline(always)]
fn fixed_fields(fixed: Fixed, len: u32, flight: &mut Flight<V6>) -> Result<u32, DropReason> {
    let [version, _, _, _] = fixed.version.to_ne_bytes();
    let [l0, l1, proto, hops] = fixed.hop_word.to_ne_bytes();
    let end = end_of(u32::from(u16::from_be_bytes([l0, l1])), len);
    if version >> 4 != 6 || len < end {
        return Err(DropReason::InvalidPacket);
    }
    flight.key.low = transmute!(fixed.src);
    flight.key.high = transmute!(fixed.dst);
    flight.hop_word = fixed.hop_word;
    flight.key.proto = proto;
    flight.hops = hops;
    Ok(end)
}

/// So many bytes from `offset` on lie within the packet.
#[inline(always)]
fn within<H: Packet>(host: H, offset: u32, bytes: u32) -> Result<(), DropReason> {
    let [l0, l1]: [u8; 2] = host.load_at(HEADER_LEN32 + 4).ok_or(DropReason::InvalidPacket)?;
    let end = end_of(u32::from(u16::from_be_bytes([l0, l1])), host.len());
    if l4::is_within(offset, bytes, end) { Ok(()) } else { Err(DropReason::CtInvalidHeader) }
}

#[inline(always)]
fn end_of(payload: u32, len: u32) -> u32 {
    // Longer than the field can say (RFC 2675): segments that the kernel has put together.
    if payload == 0 && len > u32::from(u16::MAX) { len } else { payload.wrapping_add(L4_32) }
}

/// Everything that is not plain TCP or UDP: extension headers, fragments, ICMPv6, other protocols.
#[inline(never)]
fn parse_rest<H: Host>(host: H, flight: &mut Flight<V6>) -> Option<DropReason> {
    rest(host, flight).err()
}

#[inline(always)]
fn rest<H: Host>(host: H, flight: &mut Flight<V6>) -> Result<(), DropReason> {
    let upper = walk(host, flight.key.proto, HEADER_LEN32.wrapping_add(40))?;
    flight.key.proto = upper.proto;
    let key = FragKey6 { src: flight.key.low, dst: flight.key.high, id: upper.id };
    if upper.fragment_offset != 0 {
        // The header that says so is there.
        within(host, upper.offset, l4::LEAST)?;
        let first = host.frag6(&key).ok_or(DropReason::FragmentNotFound)?;
        flight.key.low_port = first.sport;
        flight.key.high_port = first.dport;
        flight.tcp_flags = first.icmp_type;
        flight.key.proto = first.proto;
        flight.kind = Kind::Fragment;
        return Ok(());
    }
    upper_layer(host, flight, upper.offset)?;
    if upper.more_fragments && flight.kind != Kind::Error {
        let entry = FragEntry {
            sport: flight.key.low_port,
            dport: flight.key.high_port,
            proto: flight.key.proto,
            icmp_type: if flight.kind == Kind::Datagram { flight.tcp_flags } else { 0 },
            pad: [0; 2],
        };
        host.set_frag6(&key, &entry);
    }
    Ok(())
}

/// Follows the chain of extension headers to the upper layer, or to a fragment header that is not the first.
#[inline(always)]
fn walk<H: Host>(host: H, first: u8, start: u32) -> Result<Upper, DropReason> {
    let mut upper =
        Upper { offset: start, id: [0; 4], fragment_offset: 0, more_fragments: false, proto: first };
    match follow(host, &mut upper) {
        Some(reason) => Err(reason),
        None => Ok(upper),
    }
}

#[inline(never)]
fn follow<H: Host>(host: H, upper: &mut Upper) -> Option<DropReason> {
    for _ in 0..EXTENSIONS_MAX {
        let proto = upper.proto;
        match proto {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => {}
            _ => return None,
        }
        let Some([w0, id]) = host.load_at::<[u32; 2]>(upper.offset) else {
            return Some(DropReason::InvalidExtensionHeader);
        };
        let [next, len, b2, b3] = w0.to_ne_bytes();
        upper.proto = next;
        let bytes = match proto {
            FRAGMENT => {
                let field = u16::from_be_bytes([b2, b3]);
                upper.id = id.to_ne_bytes();
                upper.fragment_offset = field >> 3;
                upper.more_fragments = field & 1 != 0;
                if upper.fragment_offset != 0 {
                    return None;
                }
                8
            }
            // In units of four bytes, less two (RFC 4302).
            AUTHENTICATION => u32::from(len).wrapping_add(2).wrapping_shl(2),
            _ => {
                // Routing by the sender was taken out of the protocol (RFC 5095).
                if proto == ROUTING && b2 == 0 && b3 != 0 {
                    return Some(DropReason::InvalidExtensionHeader);
                }
                u32::from(len).wrapping_add(1).wrapping_shl(3)
            }
        };
        upper.offset = upper.offset.wrapping_add(bytes);
    }
    Some(DropReason::InvalidExtensionHeader)
}

#[inline(always)]
fn upper_layer<H: Host>(host: H, flight: &mut Flight<V6>, offset: u32) -> Result<(), DropReason> {
    flight.l4 = offset16(offset);
    match flight.key.proto {
        l4::TCP => {
            within(host, offset, l4::TCP_LEAST)?;
            let [w0, _, _, w3]: [u32; 4] = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
            flight.key.set_ports(w0);
            flight.tcp_flags = l4::tcp_flags(w3);
            flight.kind = Kind::Tcp;
        }
        l4::UDP | l4::SCTP => {
            within(host, offset, l4::LEAST)?;
            let [w0, _]: [u32; 2] = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
            flight.key.set_ports(w0);
            flight.kind = Kind::Datagram;
        }
        l4::ICMP6 => {
            within(host, offset, l4::LEAST)?;
            let [w0, w1]: [u32; 2] = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
            let [kind, _, _, _] = w0.to_ne_bytes();
            match kind {
                ECHO_REQUEST | ECHO_REPLY => {
                    (flight.key.low_port, flight.key.high_port) = l4::echo_ports(w1, kind == ECHO_REQUEST);
                    flight.tcp_flags = kind;
                    flight.kind = Kind::Datagram;
                }
                // Unreachable, packet too big, time exceeded, parameter problem.
                1..=4 => return quoted(host, flight, offset.wrapping_add(8)),
                // Group membership, router and neighbour discovery, redirect, and their successors.
                130..=137 | 143 => {
                    flight.kind = Kind::Control;
                    flight.tcp_flags = kind;
                }
                _ => return Err(DropReason::UnknownIcmp6Type),
            }
        }
        _ => return Err(DropReason::CtUnknownProtocol),
    }
    Ok(())
}

/// The packet that an ICMPv6 error is about: its beginning is quoted at `offset`.
#[inline(always)]
fn quoted<H: Host>(host: H, flight: &mut Flight<V6>, offset: u32) -> Result<(), DropReason> {
    let fixed: Fixed = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
    let [version, _, _, _] = fixed.version.to_ne_bytes();
    let [_, _, next, _] = fixed.hop_word.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(DropReason::CtInvalidHeader);
    }
    // An error goes to whoever sent the packet it is about.
    if fixed.src != V6::high(&flight.key) {
        return Err(DropReason::InvalidPacket);
    }
    let upper = walk(host, next, offset.wrapping_add(40))?;
    if upper.fragment_offset != 0 {
        return Err(DropReason::CtInvalidHeader);
    }
    within(host, upper.offset, l4::LEAST)?;
    let [p0, p1]: [u32; 2] = host.load_at(upper.offset).ok_or(DropReason::CtInvalidHeader)?;
    flight.quoted_l4 = offset16(upper.offset);
    let (sport, dport) = match upper.proto {
        l4::TCP | l4::UDP | l4::SCTP => l4::ports(p0),
        l4::ICMP6 => {
            let [kind, _, _, _] = p0.to_ne_bytes();
            match kind {
                ECHO_REQUEST | ECHO_REPLY => l4::echo_ports(p1, kind == ECHO_REQUEST),
                _ => return Err(DropReason::UnknownIcmp6Type),
            }
        }
        _ => return Err(DropReason::CtUnknownProtocol),
    };
    flight.key.low = transmute!(fixed.dst);
    flight.key.low_port = dport;
    flight.key.high_port = sport;
    flight.key.proto = upper.proto;
    flight.kind = Kind::Error;
    Ok(())
}
