//! Capture files: reads what tcpdump wrote (pcap or pcapng, Ethernet, cooked or raw) into packets.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pcap_parser::data::{PacketData, get_packetdata};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

use crate::packet::{Packet, decode_ethernet, decode_network};

/// Room for one block: more than the largest frame tcpdump writes (262144 bytes) and its header.
const BUFFER_BYTES: usize = 512 * 1024;

/// Why a capture could not be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("open the capture {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds nothing, not even a header: the tool that should have written it never started.
    #[error("the capture is empty")]
    Empty,
    /// It is not a capture.
    #[error("not a capture: {0}")]
    Format(String),
}

/// What a capture holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// Its IP packets in the order of the file.
    pub packets: Vec<Packet>,
    /// Frames that are not IP.
    pub other: usize,
    /// Frames that could not be decoded.
    pub undecoded: usize,
}

/// Reads a capture file.
pub fn read_file(path: &Path) -> Result<Capture, CaptureError> {
    let file = File::open(path).map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
    read(file)
}

/// Reads a capture; a last block that is cut short (the writer was killed) is left out.
pub fn read(input: impl Read + Send) -> Result<Capture, CaptureError> {
    let mut reader = match create_reader(BUFFER_BYTES, input) {
        Ok(reader) => reader,
        Err(PcapError::Eof) => return Err(CaptureError::Empty),
        Err(error) => return Err(CaptureError::Format(format!("{error:?}"))),
    };
    let mut capture = Capture::default();
    // pcapng describes each interface of a capture in a block of its own.
    let mut links: Vec<Linktype> = Vec::new();
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(frame) => {
                        let link = links.first().copied().unwrap_or(Linktype::NULL);
                        capture.take(link, frame.data, frame.caplen as usize);
                    }
                    PcapBlockOwned::NG(pcap_parser::Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(pcap_parser::Block::InterfaceDescription(interface)) => {
                        links.push(interface.linktype);
                    }
                    PcapBlockOwned::NG(pcap_parser::Block::EnhancedPacket(frame)) => {
                        let link = links.get(frame.if_id as usize).copied().unwrap_or(Linktype::NULL);
                        capture.take(link, frame.data, frame.caplen as usize);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                used
            }
            Err(PcapError::Eof | PcapError::UnexpectedEof) => return Ok(capture),
            Err(PcapError::Incomplete(_)) => {
                if reader.reader_exhausted() {
                    return Ok(capture);
                }
                reader.refill().map_err(|error| CaptureError::Format(format!("{error:?}")))?;
                continue;
            }
            Err(error) => return Err(CaptureError::Format(format!("{error:?}"))),
        };
        reader.consume(used);
    }
}

impl Capture {
    fn take(&mut self, link: Linktype, data: &[u8], captured: usize) {
        let decoded = match get_packetdata(data, link, captured) {
            Some(PacketData::L2(frame)) => decode_ethernet(frame),
            Some(PacketData::L3(ethertype, packet)) => decode_network(ethertype, packet),
            _ => Ok(None),
        };
        match decoded {
            Ok(Some(packet)) => self.packets.push(packet),
            Ok(None) => self.other += 1,
            Err(_) => self.undecoded += 1,
        }
    }
}

#[cfg(test)]
pub(crate) mod build {
    //! Capture files for tests.

    /// A pcap file (microseconds, little endian) of the given link type.
    pub(crate) fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(0xa1b2_c3d4_u32.to_le_bytes());
        out.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(262_144_u32.to_le_bytes());
        out.extend(link.to_le_bytes());
        for frame in frames {
            let len = u32::try_from(frame.len()).expect("small").to_le_bytes();
            out.extend([1, 0, 0, 0, 2, 0, 0, 0]);
            out.extend(len);
            out.extend(len);
            out.extend(frame);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{build as frames, flags};

    fn syn() -> Vec<u8> {
        frames::frame("10.0.0.1", "10.0.0.2", 6, &frames::tcp(4000, 8080, flags::SYN))
    }

    #[test]
    fn packets_other_frames_and_broken_ones_are_told_apart() {
        let mut arp = vec![0xff; 12];
        arp.extend([8, 6, 0, 0]);
        let file = build::pcap(1, &[syn(), arp, syn()[..30].to_vec()]);
        let capture = read(&file[..]).expect("is a capture");
        assert_eq!((capture.packets.len(), capture.other, capture.undecoded), (1, 1, 1));
        assert_eq!(capture.packets[0].source.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_cut_last_block_is_left_out_and_an_empty_file_is_an_error() {
        let file = build::pcap(1, &[syn(), syn()]);
        let capture = read(&file[..file.len() - 10]).expect("is a capture");
        assert_eq!(capture.packets.len(), 1);
        assert!(matches!(read(&[][..]), Err(CaptureError::Empty)));
        assert!(matches!(
            read(&b"tcpdump: no such device, and more text than a header is long"[..]),
            Err(CaptureError::Format(_))
        ));
        let header_only = read(&build::pcap(1, &[])[..]).expect("is a capture");
        assert_eq!(header_only, Capture::default());
    }

    #[test]
    fn cooked_captures_of_the_any_device_are_read() {
        // LINUX_SLL2: protocol, reserved, ifindex, ARPHRD, packet type, address length, address.
        let mut frame = vec![8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
        frame.extend(&syn()[14..]);
        let capture = read(&build::pcap(276, &[frame])[..]).expect("is a capture");
        assert_eq!(capture.packets.len(), 1);
    }

    #[test]
    fn frames_larger_than_a_read_come_whole() {
        let mut big = syn();
        big.resize(60_000, 0);
        let capture = read(&build::pcap(1, &vec![big; 20])[..]).expect("is a capture");
        assert_eq!(capture.packets.len(), 20);
    }
}
