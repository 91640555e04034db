//! What a link's hardware (or the kernel in its place) does for the stack: offloads, by ethtool's ioctl.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use crate::link::MAX_NAME_LEN;

/// The offloads that make frames on a link differ from those on a wire, by their commands in linux/ethtool.h.
const OFFLOADS: [u32; 5] = [
    0x17, // ETHTOOL_STXCSUM: checksums left to be filled in by the device
    0x1f, // ETHTOOL_STSO: TCP segments left to be cut by the device
    0x24, // ETHTOOL_SGSO: the same for the kernel's last moment, needs the one before
    0x2c, // ETHTOOL_SGRO: received segments glued together
    0x19, // ETHTOOL_SSG: data in pieces
];

/// Why offloads could not be switched off.
#[derive(Debug, thiserror::Error)]
#[error("switch off offloads of {link}")]
pub struct OffloadError {
    /// Name of the link.
    pub link: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Makes what a link in the calling thread's network namespace sends complete: every checksum is there, no frame is larger than the
/// MTU. For links whose frames are read by a [`crate::PacketSocket`] at the other end.
///
/// # Errors
/// When there is no such link or no `CAP_NET_ADMIN`.
pub fn disable_offloads(link: &str) -> Result<(), OffloadError> {
    let failed = |source: io::Error| OffloadError { link: link.to_owned(), source };
    let socket = socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    for command in OFFLOADS {
        match set(&socket, link, command) {
            // A driver without this offload has nothing to switch off.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

fn set(socket: &impl std::os::fd::AsFd, link: &str, command: u32) -> Result<(), Errno> {
    if link.len() > MAX_NAME_LEN {
        return Err(Errno::ENODEV);
    }
    let mut value = Value { command, data: 0 };
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(link.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; `request` is a whole ifreq whose data points to `value`, which has the layout that these commands
    // ask for; both outlive the call.
    let result = unsafe { libc::ioctl(descriptor, libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    Errno::result(result).map(drop)
}
