//! Frames made by hand, and a second opinion about checksums.

use std::net::IpAddr;

use sim_net::{Action, Frame, Mac, PacketId, checksum};

pub(crate) const UDP: u8 = 17;

/// What a crafted packet differs in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Craft {
    pub(crate) to: Mac,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
}

impl Craft {
    pub(crate) fn new(to: Mac, source: IpAddr, destination: IpAddr) -> Self {
        Self { to, source, destination, hop_limit: 64, dont_fragment: true }
    }

    pub(crate) fn udp(&self, ports: (u16, u16), data: &[u8]) -> Frame {
        let mut segment = Vec::new();
        let length = u16::try_from(data.len() + 8).unwrap();
        for field in [ports.0, ports.1, length, 0] {
            segment.extend_from_slice(&field.to_be_bytes());
        }
        segment.extend_from_slice(data);
        let sum = checksum::transport(self.source, self.destination, UDP, &segment);
        segment[6..8].copy_from_slice(&if sum == 0 { 0xFFFF } else { sum }.to_be_bytes());
        self.packet(UDP, &segment)
    }

    /// A packet with any payload.
    pub(crate) fn packet(&self, protocol: u8, payload: &[u8]) -> Frame {
        let mut bytes = [self.to, [2, 9, 9, 9, 9, 9]].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend_from_slice(&[8, 0]);
                let length = u16::try_from(payload.len() + 20).unwrap().to_be_bytes();
                let flags = if self.dont_fragment { 0x40 } else { 0 };
                let mut header =
                    vec![0x45, 0, length[0], length[1], 0, 9, flags, 0, self.hop_limit, protocol, 0, 0];
                header.extend_from_slice(&source.octets());
                header.extend_from_slice(&destination.octets());
                let sum = checksum::of(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes.extend_from_slice(&header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend_from_slice(&[0x86, 0xDD, 0x60, 0, 0, 0]);
                bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(&[protocol, self.hop_limit]);
                bytes.extend_from_slice(&source.octets());
                bytes.extend_from_slice(&destination.octets());
            }
            _ => panic!("one family"),
        }
        bytes.extend_from_slice(payload);
        Frame { id: PacketId(1_000_000), bytes }
    }
}

/// The frames that leave, with their links.
pub(crate) fn sent(actions: &[Action]) -> Vec<(u32, &Frame)> {
    let of = |action| match action {
        &Action::Transmit { ifindex, ref frame } => Some((ifindex, frame)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

/// All checksums of an unfragmented packet without extension headers are right; of a fragment, that of the header. Says what is not.
pub(crate) fn judge(frame: &Frame) -> Result<(), String> {
    let packet = frame.bytes.get(14..).ok_or("short")?;
    let (source, destination, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) =
        if frame.bytes[12..14] == [8, 0] {
            if ones_complement(&packet[..20]) != 0xFFFF {
                return Err(format!("header checksum of {packet:?}"));
            }
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if total != packet.len() {
                return Err(format!("{total} is not {}", packet.len()));
            }
            if packet[6] & 0x3F != 0 || packet[7] != 0 {
                return Ok(());
            }
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
            (address(12).into(), address(16).into(), packet[9], &packet[20..])
        } else if frame.bytes[12..14] == [0x86, 0xDD] {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            if length + 40 != packet.len() {
                return Err(format!("{length} is not {}", packet.len() - 40));
            }
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap();
            (address(8).into(), address(24).into(), packet[6], &packet[40..])
        } else {
            return Ok(());
        };
    let mut covered = Vec::new();
    if protocol != 1 {
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => covered.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => covered.extend_from_slice(&address.octets()),
            }
        }
        covered.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        covered.extend_from_slice(&[0, 0, 0, protocol]);
    }
    covered.extend_from_slice(payload);
    let unsummed = protocol == UDP && payload[6..8] == [0, 0];
    if matches!(protocol, 1 | 6 | 17 | 58) && !unsummed && ones_complement(&covered) != 0xFFFF {
        return Err(format!("checksum of protocol {protocol}"));
    }
    Ok(())
}

/// Deliberately another way to sum than the crate's.
fn ones_complement(bytes: &[u8]) -> u64 {
    let high: u64 = bytes.iter().step_by(2).map(|byte| u64::from(*byte)).sum();
    let low: u64 = bytes.iter().skip(1).step_by(2).map(|byte| u64::from(*byte)).sum();
    let mut sum = high * 256 + low;
    while sum > 0xFFFF {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    sum
}
