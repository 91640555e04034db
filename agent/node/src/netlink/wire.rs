//! Netlink messages as bytes: just what is needed to write requests and to pick attributes out of answers.
//!
//! Reading is lenient on purpose. A newer kernel adds attributes and lengthens old ones; whoever reads picks what it knows and ignores the
//! rest, and no device that another program made can break the reading of ours.

use nix::libc;

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;

/// A request being written.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of a type (`RTM_…`) with flags besides `NLM_F_REQUEST`; length and sequence number are filled in later.
    pub(crate) fn new(kind: u16, flags: i32) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).expect("netlink flags are 16 bits");
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// Appends the fixed part that the type has after the header.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.bytes.extend_from_slice(body);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes are built from short values");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends a 32-bit attribute in host order.
    pub(crate) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends a string attribute with its terminating zero.
    pub(crate) fn attribute_str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Appends an attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        fill(self);
        let length =
            u16::try_from(self.bytes.len() - start).expect("nested attributes are built from short values");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends bytes as they are; used for the fixed part inside a nest.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// The finished message with its length, sequence number, and the flag that asks for an acknowledgement if wanted.
    pub(crate) fn finish(mut self, sequence: u32, acknowledge: bool) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a request is short");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        if acknowledge {
            self.bytes[6] |= 0x04; // NLM_F_ACK, low byte in little endian
        }
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message out of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Everything after the header.
    pub(crate) payload: &'a [u8],
}

/// Takes a datagram apart; stops at the first message that does not fit.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(datagram, 0)? as usize;
        if length < HEADER_LEN || length > datagram.len() {
            return None;
        }
        let received = Received {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            payload: &datagram[HEADER_LEN..length],
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(received)
    })
}

/// Takes attributes apart: type (without the flag bits) and value. Stops at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & 0x3fff;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let value = &bytes[4..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Two bytes at an offset, in host order.
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// Four bytes at an offset, in host order.
pub(crate) fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A string attribute up to its zero; bytes that are not UTF-8 are replaced.
pub(crate) fn read_str(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An address attribute of 4 or 16 bytes.
pub(crate) fn read_ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The bytes of an address, and its family (`AF_INET`, `AF_INET6`).
pub(crate) fn ip_bytes(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// `AF_INET` or `AF_INET6` as the byte that route messages carry.
pub(crate) const fn family(ip: std::net::IpAddr) -> u8 {
    match ip {
        std::net::IpAddr::V4(_) => 2,
        std::net::IpAddr::V6(_) => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Message::new(16, libc::NLM_F_DUMP).body(&[1, 2, 3, 4]);
        message.attribute_str(3, "eth0");
        message.nest(18, |nest| {
            nest.attribute(1, &[7]);
            nest.attribute_u32(2, 9);
        });
        let mut bytes = message.finish(42, true);
        bytes.extend(Message::new(17, 0).finish(43, false));
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            all.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(),
            [(16, 42), (17, 43)]
        );
        let list: Vec<_> = attributes(&all[0].payload[4..]).collect();
        assert_eq!(list[0], (3, &b"eth0\0"[..]));
        assert_eq!(list[1].0, 18);
        assert_eq!(attributes(list[1].1).collect::<Vec<_>>(), [(1, &[7][..]), (2, &9_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn damaged_input_ends_the_reading() {
        let good = Message::new(16, 0).body(&[0; 8]).finish(1, false);
        for length in 0..good.len() {
            assert_eq!(messages(&good[..length]).count(), 0);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[5, 0, 1, 0]).count(), 0, "longer than what is there");
        assert_eq!(
            attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(),
            [(1, &[9][..])],
            "last padding may be missing"
        );
    }
}
