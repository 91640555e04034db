//! Datagrams.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::datagrams::{Datagrams, Received};

/// A socket to one server.
pub(super) struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// So that ICMP errors come back as errors of the socket.
    is_connected: bool,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        Ok(Self { socket, server, is_connected: false, buffer: vec![0; 1 << 16] })
    }
}

impl Datagrams for Client {
    fn send(&mut self, _number: u32, payload: &[u8]) -> io::Result<()> {
        // A service without endpoints refuses here, until it has some.
        if !self.is_connected {
            self.socket.connect(self.server)?;
            self.is_connected = true;
        }
        self.socket.send(payload).map(drop)
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Received>> {
        self.socket.set_read_timeout(Some(wait))?;
        match self.socket.recv(&mut self.buffer) {
            Ok(length) => Ok(Some(Received::Answer(self.buffer[..length].to_vec()))),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(Some(Received::Error)),
            // Other ICMP errors (no route at a router) say the same.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) =>
            {
                Ok(Some(Received::Error))
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}
