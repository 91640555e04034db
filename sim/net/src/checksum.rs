//! The Internet checksum (RFC 1071) and its updates (RFC 1624).

use std::net::IpAddr;

/// Adds the 16 bit words of bytes to a sum; an odd last byte counts as the high one.
pub fn add(sum: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(sum);
    let words = bytes.chunks_exact(2);
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    for word in words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum >> 32 != 0 {
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
    }
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// Folds a sum to the checksum that goes into a header.
pub fn finish(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum of bytes; zero if they contain a right one.
pub fn of(bytes: &[u8]) -> u16 {
    finish(add(0, bytes))
}

/// The checksum of a transport segment with its pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1); zero if the segment
/// contains a right one.
pub fn transport(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut sum = 0;
    for address in [source, destination] {
        sum = match address {
            IpAddr::V4(address) => add(sum, &address.octets()),
            IpAddr::V6(address) => add(sum, &address.octets()),
        };
    }
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    sum = add(sum, &length.to_be_bytes());
    sum = add(sum, &[0, protocol]);
    finish(add(sum, segment))
}

/// The checksum after one of the words that it covers changed.
pub fn update(checksum: u16, before: u16, after: u16) -> u16 {
    finish(u32::from(!checksum) + u32::from(!before) + u32::from(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 section 3.
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(of(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]), !0xDDF2);
    }

    #[test]
    fn an_odd_byte_is_a_high_one() {
        assert_eq!(of(&[0xAB]), of(&[0xAB, 0]));
    }

    /// The example of RFC 1624 section 4.
    #[test]
    fn an_update_equals_a_new_sum() {
        assert_eq!(update(0xDD2F, 0x5555, 0x3285), 0x0000);
    }
}
