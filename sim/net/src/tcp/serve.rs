//! The servers' side of TCP: a connection each, from its SYN to its end.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::IpListenEndpoint;

use super::{Patience, Tcp, new_socket};
use crate::sockets::ServerKind;

/// A request that is longer than this is none.
const MOST_REQUEST: usize = 1024;
/// The longest body that is asked for and given.
const MOST_BODY: usize = 65_535;

/// The fields of an answer's head that say who answers, and whom.
pub(crate) const SERVER: &str = "Bristle-Server: ";
pub(crate) const CALLER: &str = "Bristle-Caller: ";

/// A connection of a server.
pub(super) struct Connection {
    handle: SocketHandle,
    work: Work,
    patience: Patience,
}

impl Connection {
    /// When it is given up if nothing happens.
    pub(super) fn until(&self) -> Option<Duration> {
        self.patience.until()
    }
}

enum Work {
    Request { bytes: Vec<u8>, ends: Ends, fails: bool },
    Answer { bytes: Vec<u8>, sent: usize },
    Echo,
}

/// Both ends of a connection, the server's first.
#[derive(Clone, Copy)]
struct Ends(SocketAddr, SocketAddr);

impl Tcp {
    /// Waits for the connection that a SYN is about to open.
    pub(crate) fn listen(&mut self, local: SocketAddr, remote: SocketAddr, kind: ServerKind, buffer: usize) {
        let (mut socket, work) = match kind {
            ServerKind::Http | ServerKind::HttpFails => {
                let fails = kind == ServerKind::HttpFails;
                let request = Work::Request { bytes: Vec::new(), ends: Ends(local, remote), fails };
                (new_socket(MOST_REQUEST, buffer), request)
            }
            ServerKind::TcpEcho | ServerKind::UdpEcho => (new_socket(buffer, buffer), Work::Echo),
        };
        let at = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        if socket.listen(at).is_ok() {
            let handle = self.sockets.add(socket);
            self.pairs.insert((local, remote), handle);
            self.served.push(Connection { handle, work, patience: Patience::default() });
        }
    }

    /// Lets every server do what it can.
    pub(super) fn serve(&mut self, now: Duration) {
        let mut served = std::mem::take(&mut self.served);
        served.retain_mut(|connection| {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
            connection.work.act(socket);
            // A listener that is still one, or one again, has lost its SYN.
            let over = matches!(socket.state(), State::Closed | State::Listen | State::TimeWait);
            if over {
                self.remove(connection.handle);
            } else if connection.patience.is_over(now, socket) {
                self.break_off(now, connection.handle);
            } else {
                return true;
            }
            false
        });
        self.served = served;
    }
}

impl Work {
    fn act(&mut self, socket: &mut Socket<'_>) {
        match self {
            Self::Echo => echo(socket),
            Self::Request { bytes: request, ends, fails } => {
                while socket.can_recv() && request.len() <= MOST_REQUEST {
                    let taken = socket.recv(|bytes| {
                        request.extend_from_slice(bytes);
                        (bytes.len(), bytes.len())
                    });
                    if taken.is_err() {
                        break;
                    }
                }
                if request.windows(4).any(|end| end == b"\r\n\r\n") {
                    *self = Self::Answer { bytes: answer(request, *ends, *fails), sent: 0 };
                    self.act(socket);
                } else if request.len() > MOST_REQUEST || half_closed(socket) {
                    socket.close();
                }
            }
            Self::Answer { bytes, sent } => {
                while socket.can_send() && *sent < bytes.len() {
                    match socket.send_slice(&bytes[*sent..]) {
                        Ok(count) => *sent += count,
                        Err(_) => return,
                    }
                }
                if *sent == bytes.len() && socket.may_send() {
                    socket.close();
                }
            }
        }
    }
}

fn half_closed(socket: &Socket<'_>) -> bool {
    socket.state() == State::CloseWait && !socket.can_recv()
}

fn echo(socket: &mut Socket<'_>) {
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let Ok(bytes) = socket.recv(|bytes| {
            let count = bytes.len().min(room);
            (count, bytes[..count].to_vec())
        }) else {
            return;
        };
        if socket.send_slice(&bytes).is_err() {
            return;
        }
    }
    if half_closed(socket) {
        socket.close();
    }
}

/// `GET /N` gets N bytes, any other request a short greeting. The head says who answers whom.
fn answer(request: &[u8], Ends(local, remote): Ends, fails: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    let mut words = text.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let (status, body) = match (method, target.trim_start_matches('/').parse::<usize>()) {
        _ if fails => ("503 Service Unavailable", Vec::new()),
        (Some("GET"), Ok(size)) => ("200 OK", vec![b'x'; size.min(MOST_BODY)]),
        (Some("GET"), Err(_)) => ("200 OK", b"hello\n".to_vec()),
        _ => ("405 Method Not Allowed", Vec::new()),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{SERVER}{}\r\n{CALLER}{}\r\n\r\n",
        body.len(),
        local.ip(),
        remote.ip()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}
