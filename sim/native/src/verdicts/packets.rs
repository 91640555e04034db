//! The packets that open connections.

use std::net::IpAddr;

use dataplane_native::craft::Craft;
use sim_oracle::{Attempt, Protocol};

/// IP protocol SCTP.
const SCTP: u8 = 132;
/// TCP flag SYN.
const SYN: u8 = 2;

/// The first packet of an attempt. Each `index` is a connection of its own.
pub(super) fn opening(
    attempt: &Attempt,
    index: usize,
    src: IpAddr,
    dst: IpAddr,
    macs: [[u8; 6]; 2],
) -> Vec<u8> {
    let own = 20_000 + u16::try_from(index % 40_000).unwrap_or(0);
    let port = attempt.port.unwrap_or_default();
    let craft = Craft::new(src, dst).macs(macs[0], macs[1]);
    match attempt.protocol {
        Protocol::Tcp => craft.tcp(own, port, SYN, &[]),
        Protocol::Udp => craft.udp(own, port, b"?"),
        Protocol::Icmp => craft.echo(true, own, 1, b"ping"),
        Protocol::Sctp => {
            // Ports, verification tag 0, no checksum that anybody looks at, and an INIT chunk (RFC 9260, section 3.3.2).
            let mut packet = Vec::from(own.to_be_bytes());
            packet.extend(port.to_be_bytes());
            packet.extend([0; 8]);
            packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            craft.upper(SCTP, packet, None)
        }
    }
}
