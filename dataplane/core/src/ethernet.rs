//! The link layer header.

use crate::Packet;

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;

/// Bytes of the header, as packet lengths are counted.
pub const HEADER_LEN32: u32 = 14;

/// EtherType of IPv4, as it lies in the packet.
pub const IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, as it lies in the packet.
pub const IPV6: u16 = 0x86DD_u16.to_be();
/// EtherType of ARP, as it lies in the packet.
pub const ARP: u16 = 0x0806_u16.to_be();

/// Offset of the source address.
pub const SOURCE: usize = 6;

/// The EtherType, as it lies in the packet.
#[inline(always)]
pub fn ethertype<P: Packet>(packet: P) -> Option<u16> {
    packet.load_or_pull(12)
}

/// Writes destination and source address.
#[inline(always)]
pub fn store_addresses<P: Packet>(packet: P, destination_and_source: [u32; 3]) -> bool {
    packet.store(0, destination_and_source)
}
