//! Captures in the classic format of libpcap, with nanoseconds.

use std::io::{self, Write};
use std::time::Duration;

use crate::Frame;

/// Says that times have nanoseconds, and by its byte order the one of the file.
const MAGIC: u32 = 0xA1B2_3C4D;
const LINKTYPE_ETHERNET: u32 = 1;
/// No packet is longer.
const SNAPLEN: u32 = 262_144;

/// Writes frames to a capture.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&MAGIC.to_le_bytes());
        for version in [2_u16, 4] {
            header.extend_from_slice(&version.to_le_bytes());
        }
        for field in [0, 0, SNAPLEN, LINKTYPE_ETHERNET] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Adds a frame that passed at a time.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&mut self, at: Duration, frame: &Frame) -> io::Result<()> {
        let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let captured = length.min(SNAPLEN);
        // The format ends with the 136th year.
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        for field in [seconds, at.subsec_nanos(), captured, length] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(&frame.bytes[..captured as usize])
    }

    /// Ends the capture and gives back what it was written to.
    ///
    /// # Errors
    /// What flushing says.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PacketId;

    #[test]
    fn bytes_of_a_capture() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let frame = Frame { id: PacketId(1), bytes: vec![7; 15] };
        writer.write(Duration::new(3, 5), &frame).unwrap();
        let bytes = writer.finish().unwrap();
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
        };
        assert_eq!(words(&bytes[..24]), [0xA1B2_3C4D, 0x0004_0002, 0, 0, 262_144, 1]);
        assert_eq!(words(&bytes[24..40]), [3, 5, 15, 15]);
        assert_eq!(bytes[40..], [7; 15]);
    }
}
