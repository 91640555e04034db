//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::libc;

use crate::link::describe;
use crate::netlink::wire::{Message, Received, attributes, family, ip_bytes, read_ip, read_u32};
use crate::netlink::{Netlink, NetlinkError, Request};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address with the length of its prefix; host bits are kept.
    pub net: IpNet,
}

impl Netlink {
    /// Gives a link an address; one that it has already counts as done.
    ///
    /// IPv6 addresses are usable at once: duplicate address detection is skipped (`nodad`), because the addresses come from one allocator
    /// and a pod must be able to speak from its first packet.
    /// No route to the prefix is left out: for a /32 or /128 there is none.
    ///
    /// # Errors
    /// [`NetlinkError::is_missing`] if the link is gone.
    pub fn add_address(&mut self, address: &Address) -> Result<(), NetlinkError> {
        self.request(add(address))
    }

    /// Takes an address from a link. `false` if it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_address(&mut self, address: &Address) -> Result<bool, NetlinkError> {
        let message = message(libc::RTM_DELADDR, 0, address);
        match self.request(Request::new("delete address", describe(address.net, address.link), message)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All addresses of the namespace, IPv4 first; of one link if an index is given.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let index = link.unwrap_or(0);
        let request = || {
            let mut body = [0; 8];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP).body(&body)
        };
        let mut addresses = self.dump("list addresses", "", request, |message| parse(&message))?;
        // Kernels without strict checking send all of them.
        addresses.retain(|address| link.is_none_or(|index| address.link == index));
        Ok(addresses)
    }
}

pub(crate) fn add(address: &Address) -> Request {
    // REPLACE without EXCL: an address that is there already is no error.
    let message = message(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, address);
    Request::new("add address", describe(address.net, address.link), message)
}

/// `struct ifaddrmsg` and the address.
fn message(kind: u16, flags: i32, address: &Address) -> Message {
    let ip = address.net.addr();
    let mut body = [family(ip), address.net.prefix_len(), 0, 0, 0, 0, 0, 0];
    if ip.is_ipv6() {
        body[2] = u8::try_from(libc::IFA_F_NODAD).expect("the flag is in the low byte");
    }
    body[4..8].copy_from_slice(&address.link.to_ne_bytes());
    let mut message = Message::new(kind, flags).body(&body);
    message.attribute(libc::IFA_LOCAL, &ip_bytes(ip));
    message.attribute(libc::IFA_ADDRESS, &ip_bytes(ip));
    message
}

fn parse(message: &Received<'_>) -> Option<Address> {
    if message.kind != libc::RTM_NEWADDR {
        return None;
    }
    let prefix_len = *message.payload.get(1)?;
    let link = read_u32(message.payload, 4)?;
    let mut ip: Option<IpAddr> = None;
    for (kind, value) in attributes(message.payload.get(8..)?) {
        // IPv4 has both, and on point-to-point links ADDRESS is the peer's; IPv6 has only ADDRESS as a rule.
        match kind {
            libc::IFA_LOCAL => ip = read_ip(value),
            libc::IFA_ADDRESS => ip = ip.or_else(|| read_ip(value)),
            _ => {}
        }
    }
    Some(Address { link, net: IpNet::new(ip?, prefix_len).ok()? })
}
