//! IPv4 (RFC 791, 792).

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::conntrack::{CtEntry, CtKey4, CtScope};
use dataplane_abi::frags::{FragEntry, FragKey4};
use dataplane_abi::nat::NatEntry;
use dataplane_abi::{Addr, Be16, DropReason, Family, Identity};

use super::{Ip, l4};
use crate::closer::Room;
use crate::ethernet::{HEADER_LEN, HEADER_LEN32};
use crate::flight::{Flight, Kind, offset16};
use crate::host::{Host, Maps, Packet};
use crate::nat;

/// IPv4.
#[derive(Clone, Copy)]
pub enum V4 {}

/// Offset of the upper layer when there are no options.
const L4: usize = HEADER_LEN + 20;
const L4_16: u16 = 34;
const _: () = assert!(L4_16 as usize == L4);
/// Offsets of source and destination.
const SRC: usize = HEADER_LEN + 12;
const DST: usize = HEADER_LEN + 16;
/// Offset of the word with the time to live.
const TTL_WORD: usize = HEADER_LEN + 8;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// Fields of the header that are needed more than once.
struct Fixed {
    header_len: u32,
    /// Length of the packet; what its frame has behind that is padding.
    total: u32,
    id: Be16,
    more_fragments: bool,
    /// In units of eight bytes.
    fragment_offset: u16,
}

impl Ip for V4 {
    type Addr = u32;
    type Key = CtKey4;
    type Row = CtEntry;
    const LOOPBACK: u32 = u32::from_ne_bytes([169, 254, 42, 1]);
    const FAMILY: Family = Family::V4;
    const NO_KEY: CtKey4 = CtKey4 {
        low: [0; 4],
        high: [0; 4],
        low_port: Be16::ZERO,
        high_port: Be16::ZERO,
        proto: 0,
        scope: 0,
        pad: [0; 2],
    };

    #[inline(always)]
    fn parse<H: Host>(host: H, flight: &mut Flight<Self>) -> Result<(), DropReason> {
        let words: [u32; 5] = host.load_or_pull(HEADER_LEN).ok_or(DropReason::InvalidPacket)?;
        let fixed = fixed_fields(words, host.len(), flight)?;
        let whole = !fixed.more_fragments && fixed.fragment_offset == 0;
        if whole && fixed.header_len == 20 {
            flight.l4 = L4_16;
            match flight.key.proto {
                l4::TCP => {
                    if !l4::is_within(20, l4::TCP_LEAST, fixed.total) {
                        return Err(DropReason::CtInvalidHeader);
                    }
                    let [w0, _, _, w3]: [u32; 4] =
                        host.load_or_pull(L4).ok_or(DropReason::CtInvalidHeader)?;
                    flight.key.set_ports(w0);
                    flight.tcp_flags = l4::tcp_flags(w3);
                    flight.kind = Kind::Tcp;
                    return Ok(());
                }
                l4::UDP => {
                    if !l4::is_within(20, l4::LEAST, fixed.total) {
                        return Err(DropReason::CtInvalidHeader);
                    }
                    let [w0, _]: [u32; 2] = host.load_or_pull(L4).ok_or(DropReason::CtInvalidHeader)?;
                    flight.key.set_ports(w0);
                    flight.kind = Kind::Datagram;
                    return Ok(());
                }
                _ => {}
            }
        }
        match parse_rest(host, flight) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn addresses<H: Packet>(host: H) -> Option<(u32, u32)> {
        let [src, dst]: [u32; 2] = host.load_or_pull(HEADER_LEN + 12)?;
        Some((src, dst))
    }

    #[inline(always)]
    fn to_abi(addr: u32) -> Addr {
        Addr::v4(addr.to_ne_bytes())
    }

    #[inline(always)]
    fn from_abi(addr: Addr) -> u32 {
        u32::from_ne_bytes(addr.to_v4())
    }

    const ICMP_COVERS_ADDRESSES: bool = false;

    #[inline(always)]
    fn store_quoted<H: Packet, const SOURCE: bool>(host: H, quote: u32, addr: u32) -> Option<u32> {
        let (at, sum) = (quote.wrapping_add(if SOURCE { 12 } else { 16 }), quote.wrapping_add(10));
        let (old, made): (u32, u16) = (host.load_at(at)?, host.load_at(sum)?);
        let corrected = nat::corrected(made, Self::difference(old, addr));
        // Its header sums to the same, but for what was wrong with it.
        let difference = nat::difference([old, u32::from(made)], [addr, u32::from(corrected)]);
        (host.store_at(sum, corrected) && host.store_at(at, addr)).then_some(difference)
    }

    #[inline(always)]
    fn difference(old: u32, new: u32) -> u32 {
        nat::difference([old], [new])
    }

    #[inline(always)]
    fn store_end<H: Packet, const SOURCE: bool>(
        host: H,
        addr: u32,
        difference: u32,
        hop_word: &mut u32,
    ) -> bool {
        // The header sums to the same, so a device's sum of the packet stays right.
        let Some(word) = host.load::<u32>(TTL_WORD) else { return false };
        let [ttl, proto, c0, c1] = word.to_ne_bytes();
        let [c0, c1] = nat::corrected(u16::from_ne_bytes([c0, c1]), difference).to_ne_bytes();
        *hop_word = u32::from_ne_bytes([ttl, proto, c0, c1]);
        host.store(TTL_WORD, *hop_word) && host.store(if SOURCE { SRC } else { DST }, addr)
    }

    #[inline(always)]
    fn is_group(addr: u32) -> bool {
        u32::from_be(addr) >> 28 == 0xE || addr == u32::MAX
    }

    const MASQUERADE: ConfigFlags = ConfigFlags::MASQUERADE_V4;

    #[inline(always)]
    fn node(config: &NodeConfig) -> u32 {
        u32::from_ne_bytes(config.node_v4)
    }

    #[inline(always)]
    fn router(config: &NodeConfig) -> u32 {
        u32::from_ne_bytes(config.router_v4)
    }

    #[inline(always)]
    fn is_node(config: &NodeConfig, addr: u32) -> bool {
        Self::node(config) == addr
    }

    #[inline(always)]
    fn world(config: &NodeConfig) -> Identity {
        config.world_v4
    }

    #[inline(always)]
    fn key(src: u32, dst: u32, sport: Be16, dport: Be16, proto: u8) -> CtKey4 {
        CtKey4 {
            low: src.to_ne_bytes(),
            high: dst.to_ne_bytes(),
            low_port: sport,
            high_port: dport,
            proto,
            ..Self::NO_KEY
        }
    }

    #[inline(always)]
    fn low(key: &CtKey4) -> u32 {
        u32::from_ne_bytes(key.low)
    }

    #[inline(always)]
    fn high(key: &CtKey4) -> u32 {
        u32::from_ne_bytes(key.high)
    }

    #[inline(always)]
    fn ports(key: &CtKey4) -> (Be16, Be16) {
        (key.low_port, key.high_port)
    }

    #[inline(always)]
    fn proto(key: &CtKey4) -> u8 {
        key.proto
    }

    #[inline(always)]
    fn order(key: &mut CtKey4) -> bool {
        key.order()
    }

    #[inline(always)]
    fn ct<H: Maps, R>(host: H, key: &CtKey4, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R> {
        host.ct4(key, f)
    }

    #[inline(always)]
    fn room<H: Maps, R>(host: H, f: impl FnOnce(&mut Room<Self>) -> R) -> Option<R> {
        host.room4(f)
    }

    #[inline(always)]
    fn row<H: Maps, R>(host: H, key: &CtKey4, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R> {
        host.ct4(key, f)
    }

    #[inline(always)]
    fn entry(row: &mut CtEntry) -> &mut CtEntry {
        row
    }

    #[inline(always)]
    fn frontend(row: &CtEntry) -> u32 {
        u32::from_ne_bytes(row.service)
    }

    #[inline(always)]
    fn set_frontend(row: &mut CtEntry, addr: u32) {
        row.service = addr.to_ne_bytes();
    }

    #[inline(always)]
    fn set_low_port(key: &mut CtKey4, port: Be16) {
        key.low_port = port;
    }

    #[inline(always)]
    fn set_scope(key: &mut CtKey4, scope: CtScope) {
        key.scope = scope as u8;
    }

    #[inline(always)]
    fn nat<H: Maps, R>(host: H, key: &CtKey4, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        host.nat4(key, f)
    }

    #[inline(always)]
    fn nat_create<H: Maps>(host: H, key: &CtKey4, entry: &NatEntry) -> bool {
        host.nat4_create(key, entry)
    }

    #[inline(always)]
    fn ct_create<H: Maps>(host: H, key: &CtKey4, f: impl FnOnce(&mut CtEntry)) -> bool {
        host.ct4_create(key, f)
    }
}

/// Lowers the time to live by one. `word`: the word with it, as it lies in the packet.
///
/// The header sums to the same with its checksum corrected, so a device's sum of the packet stays right.
#[inline(always)]
pub(crate) fn decrement<H: Packet>(host: H, word: u32) -> bool {
    host.store(TTL_WORD, decremented(word))
}

/// The word with time to live, protocol and checksum after one hop (RFC 1141: the sum grows by one in the high byte).
#[inline(always)]
fn decremented(word: u32) -> u32 {
    let [ttl, proto, c0, c1] = word.to_ne_bytes();
    let sum = u32::from(u16::from_be_bytes([c0, c1])).wrapping_add(0x0100);
    let sum = sum.wrapping_add(u32::from(sum >= 0xFFFF));
    let [_, _, c0, c1] = sum.to_be_bytes();
    u32::from_ne_bytes([ttl.wrapping_sub(1), proto, c0, c1])
}

/// Reads and checks the fixed part of the header.
#[inline(always)]
fn fixed_fields(words: [u32; 5], len: u32, flight: &mut Flight<V4>) -> Result<Fixed, DropReason> {
    let [w0, w1, w2, src, dst] = words;
    let [version, _, l0, l1] = w0.to_ne_bytes();
    let header_len = u32::from(version & 0x0F).wrapping_shl(2);
    let total = u32::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 4 || header_len < 20 || total < header_len || len < total.wrapping_add(HEADER_LEN32) {
        return Err(DropReason::InvalidPacket);
    }
    let [i0, i1, f0, f1] = w1.to_ne_bytes();
    let [ttl, proto, _, _] = w2.to_ne_bytes();
    flight.key.low = src.to_ne_bytes();
    flight.key.high = dst.to_ne_bytes();
    flight.hop_word = w2;
    flight.key.proto = proto;
    flight.hops = ttl;
    let fragment = u16::from_be_bytes([f0, f1]);
    Ok(Fixed {
        header_len,
        total,
        id: Be16::from_bytes([i0, i1]),
        more_fragments: fragment & 0x2000 != 0,
        fragment_offset: fragment & 0x1FFF,
    })
}

/// Everything that is not plain TCP or UDP: options, fragments, ICMP, other protocols.
#[inline(never)]
fn parse_rest<H: Host>(host: H, flight: &mut Flight<V4>) -> Option<DropReason> {
    rest(host, flight).err()
}

#[inline(always)]
fn rest<H: Host>(host: H, flight: &mut Flight<V4>) -> Result<(), DropReason> {
    let words: [u32; 5] = host.load_at(HEADER_LEN32).ok_or(DropReason::InvalidPacket)?;
    let fixed = fixed_fields(words, host.len(), flight)?;
    let key =
        FragKey4 { src: flight.key.low, dst: flight.key.high, id: fixed.id, proto: flight.key.proto, pad: 0 };
    if fixed.fragment_offset != 0 {
        let first = host.frag4(&key).ok_or(DropReason::FragmentNotFound)?;
        flight.key.low_port = first.sport;
        flight.key.high_port = first.dport;
        flight.tcp_flags = first.icmp_type;
        flight.kind = Kind::Fragment;
        return Ok(());
    }
    upper_layer(host, flight, HEADER_LEN32.wrapping_add(fixed.header_len))?;
    if fixed.more_fragments && flight.kind != Kind::Error {
        let entry = FragEntry {
            sport: flight.key.low_port,
            dport: flight.key.high_port,
            proto: flight.key.proto,
            icmp_type: if flight.kind == Kind::Datagram { flight.tcp_flags } else { 0 },
            pad: [0; 2],
        };
        host.set_frag4(&key, &entry);
    }
    Ok(())
}

/// So many bytes from `offset` on lie within the packet.
#[inline(always)]
fn within<H: Packet>(host: H, offset: u32, bytes: u32) -> Result<(), DropReason> {
    let [l0, l1]: [u8; 2] = host.load_at(HEADER_LEN32 + 2).ok_or(DropReason::InvalidPacket)?;
    let end = u32::from(u16::from_be_bytes([l0, l1])).wrapping_add(HEADER_LEN32);
    if l4::is_within(offset, bytes, end) { Ok(()) } else { Err(DropReason::CtInvalidHeader) }
}

#[inline(always)]
fn upper_layer<H: Host>(host: H, flight: &mut Flight<V4>, offset: u32) -> Result<(), DropReason> {
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
        l4::ICMP => {
            within(host, offset, l4::LEAST)?;
            let [w0, w1]: [u32; 2] = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
            let [kind, _, _, _] = w0.to_ne_bytes();
            match kind {
                ECHO_REQUEST | ECHO_REPLY => {
                    (flight.key.low_port, flight.key.high_port) = l4::echo_ports(w1, kind == ECHO_REQUEST);
                    flight.tcp_flags = kind;
                    flight.kind = Kind::Datagram;
                }
                // Unreachable, source quench, redirect, time exceeded, parameter problem.
                3 | 4 | 5 | 11 | 12 => return quoted(host, flight, offset.wrapping_add(8)),
                _ => return Err(DropReason::UnknownIcmp4Type),
            }
        }
        _ => return Err(DropReason::CtUnknownProtocol),
    }
    Ok(())
}

/// The packet that an ICMP error is about: its beginning is quoted at `offset`.
#[inline(always)]
fn quoted<H: Host>(host: H, flight: &mut Flight<V4>, offset: u32) -> Result<(), DropReason> {
    let [w0, w1, w2, src, dst]: [u32; 5] = host.load_at(offset).ok_or(DropReason::CtInvalidHeader)?;
    let [version, _, _, _] = w0.to_ne_bytes();
    let header_len = u32::from(version & 0x0F).wrapping_shl(2);
    let [_, _, f0, f1] = w1.to_ne_bytes();
    let [_, proto, _, _] = w2.to_ne_bytes();
    if version >> 4 != 4 || header_len < 20 || u16::from_be_bytes([f0, f1]) & 0x1FFF != 0 {
        return Err(DropReason::CtInvalidHeader);
    }
    within(host, offset.wrapping_add(header_len), l4::LEAST)?;
    // An error goes to whoever sent the packet it is about.
    if src.to_ne_bytes() != flight.key.high {
        return Err(DropReason::InvalidPacket);
    }
    let upper = offset.wrapping_add(header_len);
    let [p0, p1]: [u32; 2] = host.load_at(upper).ok_or(DropReason::CtInvalidHeader)?;
    flight.quoted_l4 = offset16(upper);
    let (sport, dport) = match proto {
        l4::TCP | l4::UDP | l4::SCTP => l4::ports(p0),
        l4::ICMP => {
            let [kind, _, _, _] = p0.to_ne_bytes();
            match kind {
                ECHO_REQUEST | ECHO_REPLY => l4::echo_ports(p1, kind == ECHO_REQUEST),
                _ => return Err(DropReason::UnknownIcmp4Type),
            }
        }
        _ => return Err(DropReason::CtUnknownProtocol),
    };
    flight.key.low = dst.to_ne_bytes();
    flight.key.low_port = dport;
    flight.key.high_port = sport;
    flight.key.proto = proto;
    flight.kind = Kind::Error;
    Ok(())
}
