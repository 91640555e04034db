//! As much of SCTP (RFC 9260) as it takes to see whether an association could be had: INIT, and the answers to it.
//!
//! The kernel of a lab may not know SCTP, so pods speak it over raw sockets: [`crate::traffic`] sends INIT,
//! [`crate::image::echo`] answers. Nothing is kept of an association.

use std::net::{IpAddr, SocketAddr};

/// Bytes of the common header.
const HEADER: usize = 12;
/// Bytes of INIT and INIT ACK before their parameters, with the chunk's own header.
const INIT_BYTES: u16 = 20;
/// The parameter with the state that comes back in COOKIE ECHO, which is never sent here.
const COOKIE: [u8; 8] = [0, 7, 0, 8, b'n', b'o', b'n', b'e'];
/// What a receiver takes at once.
const WINDOW: u32 = 65_536;

/// Chunks that open or refuse an association, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Chunk {
    /// Somebody asks for an association.
    Init = 1,
    /// It may be had.
    InitAck = 2,
    /// It may not.
    Abort = 6,
}

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Port of the sender.
    pub from: u16,
    /// Port of the receiver.
    pub to: u16,
    /// The receiver's own tag; zero in INIT.
    pub tag: u32,
    /// Its first chunk.
    pub chunk: Chunk,
    /// With INIT and INIT ACK the tag that the sender gives itself, not zero; else zero.
    pub own_tag: u32,
}

impl Message {
    /// As bytes, with the checksum in place.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        let cookie: &[u8] = if self.chunk == Chunk::InitAck { &COOKIE } else { &[] };
        match self.chunk {
            Chunk::Init | Chunk::InitAck => {
                let length = INIT_BYTES + u16::try_from(cookie.len()).unwrap_or_default();
                bytes.extend([self.chunk as u8, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend(self.own_tag.to_be_bytes());
                bytes.extend(WINDOW.to_be_bytes());
                // One stream each way; the number of the first piece of data is the tag's.
                bytes.extend([0, 1, 0, 1]);
                bytes.extend(self.own_tag.to_be_bytes());
                bytes.extend(cookie);
            }
            Chunk::Abort => bytes.extend([self.chunk as u8, 0, 0, 4]),
        }
        let sum = crc32c(&bytes).to_le_bytes();
        bytes[8..HEADER].copy_from_slice(&sum);
        bytes
    }

    /// Reads a packet. `None`: it is none of these messages, or its checksum is wrong.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let two = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let four = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let mut summed = bytes.to_vec();
        summed.get_mut(8..HEADER)?.fill(0);
        if bytes.get(8..HEADER)? != crc32c(&summed).to_le_bytes() {
            return None;
        }
        let (chunk, own_tag) = match bytes.get(HEADER)? {
            1 => (Chunk::Init, four(HEADER + 4)?),
            2 => (Chunk::InitAck, four(HEADER + 4)?),
            6 => (Chunk::Abort, 0),
            _ => return None,
        };
        Some(Self { from: two(0)?, to: two(2)?, tag: four(4)?, chunk, own_tag })
    }

    /// What a host that listens at these ports answers.
    pub fn answer(&self, ports: &[u16]) -> Option<Self> {
        if self.chunk != Chunk::Init || self.own_tag == 0 {
            return None;
        }
        let (chunk, own_tag) =
            if ports.contains(&self.to) { (Chunk::InitAck, !self.own_tag | 1) } else { (Chunk::Abort, 0) };
        Some(Self { from: self.to, to: self.from, tag: self.own_tag, chunk, own_tag })
    }
}

/// The packet in what a raw socket delivers: for IPv4 that begins with the IP header.
pub fn payload<'a>(family: &SocketAddr, delivered: &'a [u8]) -> Option<&'a [u8]> {
    match family.ip() {
        IpAddr::V4(_) => delivered.get(usize::from(delivered.first()? & 0xf) * 4..),
        IpAddr::V6(_) => Some(delivered),
    }
}

/// CRC32c (Castagnoli), bit by bit: packets are short and few.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: Message = Message { from: 4000, to: 80, tag: 0, chunk: Chunk::Init, own_tag: 7 };

    #[test]
    fn the_checksum_is_that_of_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let ack = INIT.answer(&[80]).expect("an answer");
        let abort = INIT.answer(&[81]).expect("an answer");
        assert_eq!((ack.chunk, ack.from, ack.to, ack.tag), (Chunk::InitAck, 80, 4000, 7));
        assert_eq!((abort.chunk, abort.tag), (Chunk::Abort, 7));
        for message in [INIT, ack, abort] {
            let bytes = message.bytes();
            assert_eq!(Message::read(&bytes), Some(message));
            assert_eq!(bytes.len() % 4, 0);
            let mut spoilt = bytes.clone();
            spoilt[1] ^= 1;
            assert_eq!(Message::read(&spoilt), None, "a wrong checksum");
        }
        assert_eq!(Message::read(&[1, 2, 3]), None);
        assert_eq!(ack.answer(&[4000]), None, "answers are not answered");
    }
}
