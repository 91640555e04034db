//! A packet in memory, with what the kernel keeps beside its bytes.

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// From the link layer header on.
    pub bytes: Vec<u8>,
    /// How many of the bytes are at hand without [`dataplane_core::Packet::pull`]; more than there are means all.
    pub at_hand: usize,
    /// Device on which it is.
    pub ifindex: u32,
    /// Its mark.
    pub mark: u32,
    /// Whether a VLAN tag was taken off it.
    pub tagged: bool,
    /// Bytes of payload per packet if it will be cut later, else zero.
    pub segment_len: u32,
    /// Hash of its flow.
    pub hash: u32,
    /// Whether its link layer destination is this node, or a program declared it so.
    pub accepted: bool,
    /// Tunnel through which it came.
    pub from_tunnel: Option<Tunnel>,
    /// Tunnel through which a program wants it to go.
    pub to_tunnel: Option<Tunnel>,
    /// Sum of the bytes behind the link layer header, if a device has made it (one's complement, host order).
    pub device_sum: Option<u32>,
}

/// Metadata of a tunnelled packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// The other node; IPv4 in the first four bytes.
    pub node: [u8; 16],
    /// Family of the address: 1 IPv4, 2 IPv6.
    pub family: u8,
    /// Key (VNI).
    pub key: u32,
}

impl Frame {
    /// A packet that arrived on a device, all bytes at hand.
    pub fn new(bytes: Vec<u8>, ifindex: u32) -> Self {
        Self { bytes, at_hand: usize::MAX, ifindex, accepted: true, ..Self::default() }
    }
}
