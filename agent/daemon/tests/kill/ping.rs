//! ICMP echo requests at a hundred per second, each of which is accounted for.

use agent_node::Netns;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests on their way from a namespace to an address.
#[derive(Debug)]
pub(crate) struct Ping {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
}

/// What became of them.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Requests sent.
    pub(crate) sent: u64,
    /// Requests answered, each counted once.
    pub(crate) answered: u64,
}

const INTERVAL: Duration = Duration::from_millis(10);
/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(1);

fn open(netns: &Netns, ip: IpAddr) -> OwnedFd {
    let make = || -> nix::Result<OwnedFd> {
        let (family, protocol) = match ip {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
        match ip {
            IpAddr::V4(ip) => connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, 0)))?,
            IpAddr::V6(ip) => {
                connect(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)))?;
            }
        }
        Ok(socket)
    };
    netns.run(make).expect("enter").expect("a raw socket")
}

/// Internet checksum (RFC 1071); the kernel fills in that of version 6.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

fn request(v6: bool, identifier: u16, sequence: u16, number: u64) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = if v6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The number of an answer to one of ours.
fn answer(v6: bool, identifier: u16, packet: &[u8]) -> Option<u64> {
    let icmp = if v6 { packet } else { packet.get(usize::from(packet.first()? & 15) * 4..)? };
    let ours = *icmp.first()? == if v6 { 129 } else { 0 } && icmp.get(4..6)? == identifier.to_be_bytes();
    ours.then(|| icmp.get(8..16).map(|number| u64::from_be_bytes(number.try_into().expect("eight bytes"))))?
}

impl Ping {
    /// Begins.
    pub(crate) fn start(from: &Netns, ip: IpAddr) -> Self {
        let socket = Arc::new(open(from, ip));
        let stop = Arc::new(AtomicBool::new(false));
        let v6 = ip.is_ipv6();
        // Each gets an identifier of its own: raw sockets see each other's answers.
        static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1000);
        let identifier = NEXT.fetch_add(1, Ordering::Relaxed);
        let sender = std::thread::spawn({
            let (socket, stop) = (Arc::clone(&socket), Arc::clone(&stop));
            move || {
                let mut due = Instant::now();
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let sequence = u16::try_from(sent % 65536).expect("below 65536");
                    send(socket.as_raw_fd(), &request(v6, identifier, sequence, sent), MsgFlags::empty())
                        .expect("send");
                    sent += 1;
                    due += INTERVAL;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                sent
            }
        });
        let receiver = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut answered = BTreeSet::new();
                let mut ended: Option<Instant> = None;
                let mut packet = [0; 256];
                while ended.is_none_or(|at| at.elapsed() < GRACE) {
                    if let Ok(length) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                        answered.extend(answer(v6, identifier, &packet[..length]));
                    }
                    if ended.is_none() && stop.load(Ordering::Relaxed) {
                        ended = Some(Instant::now());
                    }
                }
                answered.len() as u64
            }
        });
        Self { stop, sender, receiver }
    }

    /// Ends it and waits for the last answers.
    pub(crate) fn stop(self) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender met no error");
        Figures { sent, answered: self.receiver.join().expect("the receiver met no error") }
    }
}
