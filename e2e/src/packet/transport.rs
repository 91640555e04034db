//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and `ICMPv6` (RFC 4443): the fields that tell packets apart.

use super::{DecodeError, be16};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// TCP flags.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// Sender's port.
        source_port: u16,
        /// Receiver's port.
        destination_port: u16,
        /// Flag byte, see [`flags`].
        flags: u8,
    },
    /// A UDP datagram.
    Udp {
        /// Sender's port.
        source_port: u16,
        /// Receiver's port.
        destination_port: u16,
    },
    /// An ICMP message.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// An `ICMPv6` message.
    Icmp6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// A fragment other than the first: its ports are in another packet.
    Fragment,
    /// Anything else.
    Other {
        /// IP protocol number.
        protocol: u8,
    },
}

/// Decodes the payload of an IP packet that is whole or a first fragment.
pub fn decode(protocol: u8, payload: &[u8]) -> Result<Transport, DecodeError> {
    let port = |at, header| be16(payload, at).ok_or(DecodeError::Short(header));
    let byte = |at: usize, header| payload.get(at).copied().ok_or(DecodeError::Short(header));
    Ok(match protocol {
        TCP => Transport::Tcp {
            source_port: port(0, "TCP")?,
            destination_port: port(2, "TCP")?,
            flags: byte(13, "TCP")?,
        },
        UDP => Transport::Udp { source_port: port(0, "UDP")?, destination_port: port(2, "UDP")? },
        ICMP => Transport::Icmp { kind: byte(0, "ICMP")?, code: byte(1, "ICMP")? },
        ICMP6 => Transport::Icmp6 { kind: byte(0, "ICMPv6")?, code: byte(1, "ICMPv6")? },
        _ => Transport::Other { protocol },
    })
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use super::*;

    #[test]
    fn each_protocol_gives_its_fields() {
        for (protocol, payload, expected) in [
            (
                6,
                build::tcp(443, 5, flags::SYN | flags::ACK),
                Transport::Tcp { source_port: 443, destination_port: 5, flags: flags::SYN | flags::ACK },
            ),
            (17, build::udp(53, 999, b""), Transport::Udp { source_port: 53, destination_port: 999 }),
            (1, build::icmp(8), Transport::Icmp { kind: 8, code: 0 }),
            (58, build::icmp(129), Transport::Icmp6 { kind: 129, code: 0 }),
            (132, vec![], Transport::Other { protocol: 132 }),
        ] {
            assert_eq!(decode(protocol, &payload), Ok(expected));
        }
    }

    #[test]
    fn a_cut_header_names_itself() {
        for (protocol, len, header) in [(6, 13, "TCP"), (17, 3, "UDP"), (1, 1, "ICMP"), (58, 0, "ICMPv6")] {
            assert_eq!(decode(protocol, &[0; 20][..len]), Err(DecodeError::Short(header)));
        }
    }
}
