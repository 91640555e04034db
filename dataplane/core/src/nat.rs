//! Other ends for a packet: addresses and ports in its headers, and every checksum that they are part of.
//!
//! A difference of checksums is a one's complement sum over words as they lie in memory (RFC 1624): what was is taken out, what is
//! comes in. Whether the upper layer's checksum is made already is known to the host alone ([`Packet::correct_sum`]).

use dataplane_abi::Be16;

use crate::flight::{Flight, Kind, Route};
use crate::host::Host;
use crate::ip::{Ip, l4};

/// Puts another address, and another port where the packet has ports, in place of its source (`SOURCE`) or its destination.
/// The route's word with the hop limit follows the packet. False: the bytes are not there.
#[inline(never)]
pub fn set_end<H: Host, F: Ip, const SOURCE: bool>(
    host: H,
    flight: &Flight<F>,
    to: &F::Addr,
    port: Be16,
    route: &mut Route,
) -> bool {
    let Some((src, dst)) = F::addresses(host) else { return false };
    let difference = F::difference(if SOURCE { src } else { dst }, *to);
    // Of a fragment behind the first neither ports nor checksum are here; those of the first stand for the whole datagram.
    if flight.kind != Kind::Fragment && !set_port::<H, F, SOURCE>(host, flight, difference, port) {
        return false;
    }
    F::store_end::<H, SOURCE>(host, *to, difference, &mut route.hop_word)
}

/// Writes the port and corrects the upper layer's checksum, which covers the addresses too.
#[inline(always)]
fn set_port<H: Host, F: Ip, const SOURCE: bool>(
    host: H,
    flight: &Flight<F>,
    difference: u32,
    port: Be16,
) -> bool {
    let offset = u32::from(flight.l4);
    let proto = F::proto(&flight.key);
    let at = offset.wrapping_add(port_offset::<SOURCE>(proto));
    let Some(old) = host.load_at::<u16>(at) else { return false };
    let new = u16::from_ne_bytes(port.to_bytes());
    let (is_udp, is_echo) = (proto == l4::UDP, is_echo(proto));
    let sum = offset.wrapping_add(match proto {
        l4::UDP => 6,
        l4::ICMP | l4::ICMP6 => ICMP_SUM,
        _ => 16,
    });
    ((is_echo && !F::ICMP_COVERS_ADDRESSES) || host.correct_sum(sum, difference, true, is_udp))
        && host.correct_sum(sum, u32::from(!old).wrapping_add(u32::from(new)), false, is_udp)
        && host.store_at(at, new)
}

/// Whether what stands for a port is the identifier of an echo, which both ends have in one place.
#[inline(always)]
const fn is_echo(proto: u8) -> bool {
    proto == l4::ICMP || proto == l4::ICMP6
}

/// Where a port lies in the header of the upper layer.
#[inline(always)]
const fn port_offset<const SOURCE: bool>(proto: u8) -> u32 {
    if is_echo(proto) {
        4
    } else if SOURCE {
        0
    } else {
        2
    }
}

/// Puts another address, and the same port or another one, in place of an end of the packet that an ICMP error quotes, and corrects
/// the error's checksum. What is quoted of the upper layer's own checksum stays: nobody can check it. False: the bytes are not there.
#[inline(never)]
pub fn set_quoted<H: Host, F: Ip, const SOURCE: bool>(
    host: H,
    flight: &Flight<F>,
    to: &F::Addr,
    port: Be16,
) -> bool {
    let (message, offset) = (u32::from(flight.l4), u32::from(flight.quoted_l4));
    let quote = message.wrapping_add(ICMP_HEADER);
    let at = offset.wrapping_add(port_offset::<SOURCE>(F::proto(&flight.key)));
    let Some(old) = host.load_at::<u16>(at) else { return false };
    let new = u16::from_ne_bytes(port.to_bytes());
    let Some(difference) = F::store_quoted::<H, SOURCE>(host, quote, *to) else { return false };
    let sum = message.wrapping_add(ICMP_SUM);
    host.correct_sum(sum, difference, false, false)
        && host.correct_sum(sum, u32::from(!old).wrapping_add(u32::from(new)), false, false)
        && host.store_at(at, new)
}

/// Puts another address in place of the source (`SOURCE`) or the destination of an ICMP error.
#[inline(never)]
pub fn set_end_of_error<H: Host, F: Ip, const SOURCE: bool>(
    host: H,
    flight: &Flight<F>,
    to: &F::Addr,
    route: &mut Route,
) -> bool {
    let Some((src, dst)) = F::addresses(host) else { return false };
    let difference = F::difference(if SOURCE { src } else { dst }, *to);
    let sum = u32::from(flight.l4).wrapping_add(ICMP_SUM);
    if F::ICMP_COVERS_ADDRESSES && !host.correct_sum(sum, difference, true, false) {
        return false;
    }
    F::store_end::<H, SOURCE>(host, *to, difference, &mut route.hop_word)
}

/// Bytes of an ICMP error before what it quotes.
const ICMP_HEADER: u32 = 8;
/// Offset of its checksum.
const ICMP_SUM: u32 = 2;

/// The difference that words make in which the old ones are replaced. 32 bits at most, for one's complement sums may be folded.
#[inline(always)]
pub fn difference<const N: usize>(old: [u32; N], new: [u32; N]) -> u32 {
    let mut sum = 0_u64;
    for (old, new) in old.into_iter().zip(new) {
        sum = sum.wrapping_add(u64::from(!old)).wrapping_add(u64::from(new));
    }
    let sum = (sum & 0xFFFF_FFFF).wrapping_add(sum >> 32);
    let [a, b, c, d, ..] = (sum & 0xFFFF_FFFF).wrapping_add(sum >> 32).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A checksum, as it lies in memory, after what it covers has changed by a difference.
#[inline(always)]
pub fn corrected(sum: u16, difference: u32) -> u16 {
    // As the kernel does it, whose answer to a sum of zero is its own.
    let (total, carry) = (!u32::from(sum)).overflowing_add(difference);
    let total = total.wrapping_add(u32::from(carry));
    let total = (total & 0xFFFF).wrapping_add(total >> 16);
    let total = (total & 0xFFFF).wrapping_add(total >> 16);
    let [a, b, ..] = (!total).to_le_bytes();
    u16::from_le_bytes([a, b])
}
