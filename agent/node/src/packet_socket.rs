//! Sockets that send and receive whole Ethernet frames of one link (`AF_PACKET`, packet(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, sockopt};

/// Room for frames that wait to be read, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h, since Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A socket on one link: reads what arrives there (not what the link's own namespace sends), and sends frames as they are.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on the link with this index in the calling thread's network namespace. It never blocks.
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_NET_RAW`, no such link).
    pub fn open(link: u32) -> io::Result<Self> {
        // Protocol 0 until the socket is bound: frames of other links must not get in meanwhile.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        // Without CAP_NET_ADMIN the system's limit stays; then bursts may be lost.
        let _ = socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(&socket, link)?;
        Ok(Self { socket })
    }

    /// Reads one frame into `buffer` and returns its whole length, which is more than the buffer's if it did not fit; `None` when none
    /// waits.
    ///
    /// # Errors
    /// When the link is down (`ENETDOWN`) or gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match socket::recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends one frame, beginning with its Ethernet header.
    ///
    /// # Errors
    /// When the frame is larger than the link's MTU, the link is down, or its queue is full (`ENOBUFS`, `EAGAIN`).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        socket::send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("four bytes");
    // SAFETY: the descriptor is open, and pointer and length describe `value`, which outlives the call; the kernel only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    Errno::result(result)?;
    Ok(())
}

fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("a small number"),
        sll_protocol: u16::try_from(libc::ETH_P_ALL).expect("a small number").to_be(),
        sll_ifindex: i32::try_from(link).map_err(|_| Errno::ENODEV)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("twenty bytes");
    // SAFETY: the descriptor is open, and pointer and length describe `address`, which outlives the call; the kernel only reads it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result)?;
    Ok(())
}
