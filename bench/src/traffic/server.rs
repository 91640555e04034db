//! The generator's server: one thread with epoll for connections, one for datagrams, one per sink.

use std::collections::HashMap;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};

use super::{Purpose, Report, cpu_ns};

/// Datagrams taken by one system call.
const BATCH: usize = 64;
/// Room for one datagram.
const DATAGRAM_BYTES: usize = 2048;
/// The listener's token; connections have their descriptor.
const LISTENER: u64 = u64::MAX;

#[derive(Default)]
struct Counters {
    datagrams: AtomicU64,
    sink_bytes: AtomicU64,
}

/// A connection that the event loop serves.
struct Peer {
    stream: TcpStream,
    echo: bool,
}

/// Serves until the process is killed; says `ready` on stdout when it can be reached.
pub fn serve(port: u16) -> anyhow::Result<()> {
    let (listener, datagrams) = bind(port)?;
    let counters = Arc::new(Counters::default());
    start_datagrams(datagrams, Arc::clone(&counters));
    println!("ready");
    std::io::stdout().flush().context("say ready")?;
    serve_connections(&listener, &counters)
}

#[cfg(test)]
pub(super) fn spawn_for_test() -> u16 {
    let (listener, datagrams) = bind(0).expect("binds on loopback");
    let port = listener.local_addr().expect("has an address").port();
    let counters = Arc::new(Counters::default());
    start_datagrams(datagrams, Arc::clone(&counters));
    std::thread::spawn(move || serve_connections(&listener, &counters));
    port
}

/// Both sockets on one port, on every address of both families where there are two.
fn bind(port: u16) -> anyhow::Result<(TcpListener, UdpSocket)> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let listener = any.iter().find_map(|address| TcpListener::bind(SocketAddr::new(*address, port)).ok());
    let listener = listener.with_context(|| format!("listen on TCP port {port}"))?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    let address = listener.local_addr().context("read the listener's address")?;
    let datagrams = UdpSocket::bind(address).with_context(|| format!("bind UDP port {port}"))?;
    // A larger buffer loses less of a burst; without the privilege the default has to do.
    let _: nix::Result<()> = setsockopt(&datagrams, sockopt::RcvBufForce, &(8 << 20));
    Ok((listener, datagrams))
}

fn start_datagrams(socket: UdpSocket, counters: Arc<Counters>) {
    std::thread::spawn(move || {
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut memory = vec![0_u8; BATCH * DATAGRAM_BYTES];
        loop {
            let mut buffers = memory.chunks_exact_mut(DATAGRAM_BYTES);
            let mut slices: [_; BATCH] =
                std::array::from_fn(|_| [IoSliceMut::new(buffers.next().unwrap_or_default())]);
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
                Ok(received) => {
                    counters.datagrams.fetch_add(received.count() as u64, Ordering::Relaxed);
                }
                Err(nix::Error::EINTR) => {}
                Err(_) => return,
            }
        }
    });
}

fn serve_connections(listener: &TcpListener, counters: &Arc<Counters>) -> anyhow::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).context("watch the listener")?;
    let mut peers: HashMap<RawFd, Peer> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error).context("wait for connections"),
        };
        for event in &events[..ready] {
            if event.data() == LISTENER {
                if let Ok((stream, _)) = listener.accept() {
                    let descriptor = stream.as_raw_fd();
                    let token = u64::try_from(descriptor).unwrap_or_default();
                    if stream.set_nodelay(true).is_ok()
                        && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token)).is_ok()
                    {
                        peers.insert(descriptor, Peer { stream, echo: false });
                    }
                }
                continue;
            }
            let descriptor = RawFd::try_from(event.data()).unwrap_or(-1);
            let Some(peer) = peers.get_mut(&descriptor) else { continue };
            match turn(peer, counters) {
                Turn::Stay => {}
                // Closing the descriptor takes it out of the epoll set.
                Turn::Close => drop(peers.remove(&descriptor)),
                Turn::Sink => {
                    if let Some(peer) = peers.remove(&descriptor) {
                        let _: nix::Result<()> = epoll.delete(&peer.stream);
                        let counters = Arc::clone(counters);
                        std::thread::spawn(move || sink(peer.stream, &counters));
                    }
                }
            }
        }
    }
}

enum Turn {
    Stay,
    Close,
    Sink,
}

/// Reads once from a connection that has something, and answers.
fn turn(peer: &mut Peer, counters: &Counters) -> Turn {
    let mut buffer = [0; 64];
    let room = if peer.echo { buffer.len() } else { 1 };
    let len = match peer.stream.read(&mut buffer[..room]) {
        Ok(0) | Err(_) => return Turn::Close,
        Ok(len) => len,
    };
    if peer.echo {
        return if peer.stream.write_all(&buffer[..len]).is_ok() { Turn::Stay } else { Turn::Close };
    }
    match Purpose::of(buffer[0]) {
        Some(Purpose::Echo) => {
            peer.echo = true;
            Turn::Stay
        }
        Some(Purpose::Sink) => Turn::Sink,
        Some(Purpose::Once) => {
            // The client counts a failure; there is nothing to do about it here.
            let _: std::io::Result<()> = peer.stream.write_all(&buffer[..1]);
            Turn::Close
        }
        Some(Purpose::Report) => {
            let report = Report {
                datagrams: counters.datagrams.load(Ordering::Relaxed),
                sink_bytes: counters.sink_bytes.load(Ordering::Relaxed),
                cpu_ns: cpu_ns(),
            };
            let _: std::io::Result<()> = peer.stream.write_all(&report.to_bytes());
            Turn::Close
        }
        None => Turn::Close,
    }
}

fn sink(mut stream: TcpStream, counters: &Counters) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 {
            return;
        }
        counters.sink_bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
}
