//! Frames and the identity that a trace follows.

/// A link layer address.
pub type Mac = [u8; 6];

/// Length of an Ethernet header without tags.
pub(crate) const ETHERNET: usize = 14;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86DD;
pub(crate) const BROADCAST: Mac = [0xFF; 6];

/// Identifies a packet through its whole way, so that a trace can follow it.
///
/// Forwarding and encapsulation keep it. Of the fragments of a packet the first keeps it, the others get their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PacketId(pub u64);

/// An Ethernet frame, from the link layer header on, without checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which packet it is.
    pub id: PacketId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// A frame around a packet.
    pub(crate) fn around(id: PacketId, destination: Mac, source: Mac, ethertype: u16, packet: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(ETHERNET + packet.len());
        bytes.extend_from_slice(&destination);
        bytes.extend_from_slice(&source);
        bytes.extend_from_slice(&ethertype.to_be_bytes());
        bytes.extend_from_slice(packet);
        Self { id, bytes }
    }

    /// A frame around an IP packet.
    pub(crate) fn around_ip(id: PacketId, destination: Mac, source: Mac, packet: &[u8]) -> Self {
        let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let ethertype = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        Self::around(id, destination, source, ethertype, packet)
    }

    /// The frame of an IP packet whose link layer addresses are not known.
    pub(crate) fn unaddressed(id: PacketId, packet: &[u8]) -> Self {
        Self::around_ip(id, [0; 6], [0; 6], packet)
    }
}

/// Six bytes at a place, if they are there.
pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6).and_then(|mac| mac.try_into().ok())
}

/// A number of two bytes in network order, if it is there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes)
}

/// A number of four bytes in network order, if it is there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

/// Overwrites bytes at a place; what lies outside is left out.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A well spread number of a seed and an index (`SplitMix64`).
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
