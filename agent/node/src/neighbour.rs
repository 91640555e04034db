//! Neighbours (ARP, ND) and forwarding entries of bridges and VXLAN devices.

use std::net::IpAddr;

use nix::libc;

use crate::link::describe;
use crate::mac::Mac;
use crate::netlink::wire::{Message, Received, attributes, family, ip_bytes, read_ip, read_u32};
use crate::netlink::{Netlink, NetlinkError, Request};

/// `AF_BRIDGE` as the byte that messages carry.
const AF_BRIDGE: u8 = 7;

/// A neighbour with a known address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

impl Netlink {
    /// Sets a permanent neighbour entry, in the place of whatever was known.
    ///
    /// # Errors
    /// [`NetlinkError::is_missing`] if the link is gone.
    pub fn replace_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), NetlinkError> {
        let mut message = message(
            libc::RTM_NEWNEIGH,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            neighbour.link,
            neighbour.ip,
        );
        message.attribute(libc::NDA_LLADDR, &neighbour.mac.octets());
        self.request(Request::new("set neighbour", describe(neighbour.ip, neighbour.link), message))
    }

    /// Deletes a neighbour entry. `false` if it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_neighbour(&mut self, link: u32, ip: IpAddr) -> Result<bool, NetlinkError> {
        let message = message(libc::RTM_DELNEIGH, 0, link, ip);
        match self.request(Request::new("delete neighbour", describe(ip, link), message)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Neighbours whose Ethernet address is known, of one link if an index is given.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn neighbours(&mut self, link: Option<u32>) -> Result<Vec<Neighbour>, NetlinkError> {
        let request = || Message::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP).body(&[0; 12]);
        let mut neighbours = self.dump("list neighbours", "", request, |message| parse(&message))?;
        neighbours.retain(|neighbour| link.is_none_or(|index| neighbour.link == index));
        neighbours.sort();
        Ok(neighbours)
    }

    /// Tells a VXLAN device behind which host an Ethernet address is (`bridge fdb append … self permanent`).
    /// The address of zeros stands for all that are unknown.
    ///
    /// # Errors
    /// [`NetlinkError::is_missing`] if the link is gone.
    pub fn append_vxlan_fdb(&mut self, link: u32, mac: Mac, remote: IpAddr) -> Result<(), NetlinkError> {
        let body = ndmsg(AF_BRIDGE, link, libc::NTF_SELF);
        let mut message =
            Message::new(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_APPEND).body(&body);
        message.attribute(libc::NDA_LLADDR, &mac.octets());
        message.attribute(libc::NDA_DST, &ip_bytes(remote));
        self.request(Request::new(
            "append forwarding entry",
            describe(format_args!("{mac} behind {remote}"), link),
            message,
        ))
    }
}

fn message(kind: u16, flags: i32, link: u32, ip: IpAddr) -> Message {
    let mut message = Message::new(kind, flags).body(&ndmsg(family(ip), link, 0));
    message.attribute(libc::NDA_DST, &ip_bytes(ip));
    message
}

/// `struct ndmsg`: family, padding (3), index (4), state (2), flags, type.
fn ndmsg(family: u8, link: u32, flags: u8) -> [u8; 12] {
    let mut body = [0; 12];
    body[0] = family;
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    body[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
    body[10] = flags;
    body
}

fn parse(message: &Received<'_>) -> Option<Neighbour> {
    if message.kind != libc::RTM_NEWNEIGH {
        return None;
    }
    let link = read_u32(message.payload, 4)?;
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(message.payload.get(12..)?) {
        match kind {
            libc::NDA_DST => ip = read_ip(value),
            libc::NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { link, ip: ip?, mac: mac? })
}
