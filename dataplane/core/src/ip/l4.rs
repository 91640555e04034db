//! What is the same above IPv4 and IPv6.

use dataplane_abi::Be16;

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMP6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: begin.
pub const SYN: u8 = 0x02;
/// TCP flag: reset.
pub const RST: u8 = 0x04;
/// TCP flag: acknowledgement.
pub const ACK: u8 = 0x10;

/// Length of a TCP header without options, in bytes.
pub const TCP_LEAST: u32 = 20;
/// Length of what is read of other headers, in bytes; errors quote as much of a packet (RFC 792).
pub const LEAST: u32 = 8;

/// Whether so many bytes from `offset` on lie before the end of their packet. What is behind the end is padding of the frame, and hosts
/// cut it off before they look.
#[inline(always)]
pub const fn is_within(offset: u32, bytes: u32, end: u32) -> bool {
    offset.wrapping_add(bytes) <= end
}

/// Both ports from the first four bytes of a TCP, UDP or SCTP header.
#[inline(always)]
pub const fn ports(word: u32) -> (Be16, Be16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]))
}

/// The TCP flags from the fourth word of the header.
#[inline(always)]
pub const fn tcp_flags(word: u32) -> u8 {
    let [_, flags, _, _] = word.to_ne_bytes();
    flags
}

/// What stands for the ports of an ICMP echo: the identifier is the requester's.
#[inline(always)]
pub const fn echo_ports(word: u32, request: bool) -> (Be16, Be16) {
    let [a, b, _, _] = word.to_ne_bytes();
    let id = Be16::from_bytes([a, b]);
    if request { (id, Be16::ZERO) } else { (Be16::ZERO, id) }
}
