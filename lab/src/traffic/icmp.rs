//! ICMP echo (RFC 792, RFC 4443) over raw sockets, which also show ICMP errors.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::datagrams::{Datagrams, Received};
use super::until;

/// Bytes of an echo message before its payload.
const HEADER: usize = 8;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;

/// A socket for pings to one address.
pub(super) struct Pinger {
    socket: OwnedFd,
    to: IpAddr,
    /// Tells our pings from others of the same pod or node.
    id: u16,
    buffer: Vec<u8>,
}

impl Pinger {
    pub(super) fn open(to: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos();
        let id = u16::try_from((now ^ std::process::id()) & 0xffff).unwrap_or_default();
        Ok(Self { socket, to, id, buffer: vec![0; 1 << 16] })
    }
}

impl Datagrams for Pinger {
    fn send(&mut self, number: u32, payload: &[u8]) -> io::Result<()> {
        let message = request(self.to, self.id, number, payload);
        let address = SockaddrStorage::from(SocketAddr::new(self.to, 0));
        sendto(self.socket.as_raw_fd(), &message, &address, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Received>> {
        let end = Instant::now() + wait;
        // Raw sockets see what is for others too.
        while Instant::now() < end {
            let left = i64::try_from(until(end).as_micros()).unwrap_or(i64::MAX).max(1);
            socket::setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(left))?;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let received = read(self.to, self.id, &self.buffer[..length]);
                    if received.is_some() {
                        return Ok(received);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }
}

/// An echo request. The kernel fills in ICMPv6's checksum, which covers addresses that only it knows.
fn request(to: IpAddr, id: u16, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(u16::try_from(number & 0xffff).unwrap_or_default().to_be_bytes());
    message.extend(payload);
    if to.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What a raw socket delivered means for our pings. For IPv4 it begins with the IP header.
fn read(to: IpAddr, id: u16, packet: &[u8]) -> Option<Received> {
    let v4 = to.is_ipv4();
    let (source, message) = if v4 {
        let length = usize::from(packet.first()? & 0xf) * 4;
        (Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)), packet.get(length..)?)
    } else {
        (None, packet)
    };
    let ours = |echo: &[u8]| echo.get(4..6) == Some(&id.to_be_bytes());
    match (v4, *message.first()?) {
        (true, 0) | (false, 129) if ours(message) && source.is_none_or(|source| source == to) => {
            Some(Received::Answer(message.get(HEADER..)?.to_vec()))
        }
        // Destination unreachable; the packet that could not be delivered is quoted.
        (true, 3) => {
            let quoted = message.get(HEADER..)?;
            let length = usize::from(quoted.first()? & 0xf) * 4;
            ours(quoted.get(length..)?).then_some(Received::Error)
        }
        (false, 1) => ours(message.get(HEADER + IPV6_HEADER..)?).then_some(Received::Error),
        _ => None,
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip4(source: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&source);
        packet.extend(message);
        packet
    }

    #[test]
    fn requests_have_a_right_checksum_and_their_number() {
        let v4: IpAddr = "10.0.0.1".parse().expect("v4");
        let message = request(v4, 7, 65_537, b"odd");
        assert_eq!(checksum(&message), 0);
        assert_eq!((message[0], &message[4..8], &message[8..]), (8, &[0, 7, 0, 1][..], &b"odd"[..]));
        assert_eq!(request("fd00::1".parse().expect("v6"), 7, 1, b"")[0], 128);
    }

    #[test]
    fn only_answers_and_errors_to_our_pings_count() {
        let to: IpAddr = "10.0.0.1".parse().expect("v4");
        let mut reply = request(to, 7, 1, b"abc");
        reply[0] = 0;
        let answer = Some(Received::Answer(b"abc".to_vec()));
        assert_eq!(read(to, 7, &ip4([10, 0, 0, 1], &reply)), answer);
        assert_eq!(read(to, 8, &ip4([10, 0, 0, 1], &reply)), None, "another's");
        assert_eq!(read(to, 7, &ip4([10, 0, 0, 2], &reply)), None, "from elsewhere");
        let own = request(to, 7, 1, b"abc");
        assert_eq!(read(to, 7, &ip4([10, 0, 0, 9], &own)), None, "a request");
        let unreachable = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &ip4([10, 0, 0, 9], &own)].concat();
        assert_eq!(read(to, 7, &ip4([10, 0, 0, 3], &unreachable)), Some(Received::Error));

        let to: IpAddr = "fd00::1".parse().expect("v6");
        let mut reply = request(to, 7, 1, b"abc");
        reply[0] = 129;
        assert_eq!(read(to, 7, &reply), answer);
        let unreachable =
            [&[1, 3, 0, 0, 0, 0, 0, 0][..], &[0; IPV6_HEADER], &request(to, 7, 1, b"abc")].concat();
        assert_eq!(read(to, 7, &unreachable), Some(Received::Error));
        assert_eq!(read(to, 7, &[]), None);
    }
}
