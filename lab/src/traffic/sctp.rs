//! Requests for SCTP associations: INIT is sent, and INIT ACK counts as the answer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, send, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::datagrams::{Datagrams, Received};
use super::until;
use crate::sctp::{Chunk, Message, payload};

/// Tags of this process, so that each request has another one.
static TAGS: AtomicU32 = AtomicU32::new(1);

/// A socket to one server.
pub(super) struct Client {
    socket: OwnedFd,
    server: SocketAddr,
    /// Differs from process to process.
    start: u32,
    /// What was sent, by tag.
    sent: BTreeMap<u32, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
        // So that only what the server says comes back, and ICMP errors as errors of the socket.
        let peer = SockaddrStorage::from(SocketAddr::new(server.ip(), 0));
        socket::connect(socket.as_raw_fd(), &peer)?;
        let start = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos() ^ std::process::id();
        Ok(Self { socket, server, start, sent: BTreeMap::new(), buffer: vec![0; 1 << 16] })
    }
}

impl Datagrams for Client {
    fn send(&mut self, _number: u32, payload: &[u8]) -> io::Result<()> {
        let tag = self.start.wrapping_add(TAGS.fetch_add(1, Ordering::Relaxed)) | (1 << 31);
        let [_, _, high, low] = tag.to_be_bytes();
        let from = 32_768 | (u16::from_be_bytes([high, low]) >> 1);
        let init = Message { from, to: self.server.port(), tag: 0, chunk: Chunk::Init, own_tag: tag };
        self.sent.insert(tag, payload.to_vec());
        send(self.socket.as_raw_fd(), &init.bytes(), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Received>> {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            let left = i64::try_from(until(end).as_micros()).unwrap_or(i64::MAX).max(1);
            socket::setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(left))?;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let message = payload(&self.server, &self.buffer[..length]).and_then(Message::read);
                    // What is for others of the same pod carries another tag.
                    let ours = message.and_then(|message| Some((message, self.sent.get(&message.tag)?)));
                    match ours {
                        Some((message, sent)) if message.chunk == Chunk::InitAck => {
                            return Ok(Some(Received::Answer(sent.clone())));
                        }
                        Some(_) => return Ok(Some(Received::Error)),
                        None => {}
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(
                    Errno::ECONNREFUSED
                    | Errno::EHOSTUNREACH
                    | Errno::ENETUNREACH
                    | Errno::ENOPROTOOPT
                    | Errno::EPROTO,
                ) => {
                    return Ok(Some(Received::Error));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }
}
