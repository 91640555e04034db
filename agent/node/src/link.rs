//! Links (network devices): make, change, delete, list.

mod encode;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use nix::libc;

use crate::mac::Mac;
use crate::netlink::wire::{Message, Received, attributes, read_str, read_u32};
use crate::netlink::{Netlink, NetlinkError};

use encode::index_message;
pub(crate) use encode::set as set_request;

/// Longest name of a link, in bytes.
pub const MAX_NAME_LEN: usize = 15;

/// Device group in which links are for the moment of their common deletion; a number that nobody else uses.
const DELETE_GROUP: u32 = 0x6272_7374;

/// Requests that go into one datagram without filling the socket's buffer.
const DELETE_CHUNK: usize = 256;

/// A link to be made.
#[derive(Debug, Clone)]
pub struct LinkSpec<'a> {
    /// Its name, at most [`MAX_NAME_LEN`] bytes.
    pub name: &'a str,
    /// What it is.
    pub kind: LinkSpecKind<'a>,
    /// MTU in bytes; the kernel's default without.
    pub mtu: Option<u32>,
    /// Its address; a random one without.
    pub mac: Option<Mac>,
    /// Index of the bridge to put it into.
    pub master: Option<u32>,
    /// The namespace to make it in; the socket's own without.
    pub netns: Option<BorrowedFd<'a>>,
    /// Bring it up at once.
    pub up: bool,
}

impl<'a> LinkSpec<'a> {
    /// A link with everything else at its default, down.
    pub const fn new(name: &'a str, kind: LinkSpecKind<'a>) -> Self {
        Self { name, kind, mtu: None, mac: None, master: None, netns: None, up: false }
    }
}

/// The kind of a link to be made.
#[derive(Debug, Clone)]
pub enum LinkSpecKind<'a> {
    /// One end of a pair; the other is made along with it.
    Veth(VethPeer<'a>),
    /// A bridge without spanning tree.
    Bridge,
    /// A VXLAN device.
    Vxlan(VxlanSpec),
}

/// The other end of a veth pair. It is down at first: the kernel cannot bring it up before the pair is complete.
#[derive(Debug, Clone)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Its address; a random one without.
    pub mac: Option<Mac>,
    /// The namespace to make it in; that of the first end without.
    pub netns: Option<BorrowedFd<'a>>,
}

impl<'a> VethPeer<'a> {
    /// A peer with everything else at its default.
    pub const fn new(name: &'a str) -> Self {
        Self { name, mtu: None, mac: None, netns: None }
    }
}

/// A VXLAN device to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanSpec {
    /// One network, or all of them with the choice left to programs and routes.
    pub vni: Vni,
    /// UDP destination port, in host order.
    pub port: u16,
    /// Learn addresses from what arrives.
    pub learning: bool,
    /// Source address of outer packets; without, by route (and for [`Vni::External`], by packet).
    pub local: Option<IpAddr>,
    /// Index of the underlay device, if it is bound to one.
    pub device: Option<u32>,
}

impl VxlanSpec {
    /// The overlay device: external, without learning; UDP checksums of zero over IPv6 are accepted and sent.
    pub const fn external(port: u16) -> Self {
        Self { vni: Vni::External, port, learning: false, local: None, device: None }
    }
}

/// Which VXLAN networks a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vni {
    /// All; tunnel metadata of each packet tells (`external`, collect metadata).
    External,
    /// This one.
    Fixed(u32),
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as the kernel's flags are")]
pub struct Link {
    /// Its index in its namespace; not reused before the counter wraps.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` for a device without.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier. Follows the carrier with up to a second's delay.
    pub running: bool,
    /// A loopback device.
    pub loopback: bool,
    /// Index of the bridge (or bond, …) it is in.
    pub master: Option<u32>,
    /// For a veth the index of its peer **in the peer's namespace**; for stacked devices the one below.
    pub peer: Option<u32>,
    /// The peer is in another namespace than this link.
    pub peer_elsewhere: bool,
}

/// The kind of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Vxlan {
        /// Which networks.
        vni: Vni,
        /// UDP port in host order.
        port: u16,
        /// Learns addresses.
        learning: bool,
    },
    /// Any other, by the kernel's name; empty for hardware and loopback.
    Other(String),
}

/// What to change about a link; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct LinkChange<'a> {
    /// Bring it up or down.
    pub up: Option<bool>,
    /// Resolve neighbours (true), or send to them without asking (false, `IFF_NOARP`).
    pub arp: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Its address.
    pub mac: Option<Mac>,
    /// Put it into this bridge; 0 takes it out.
    pub master: Option<u32>,
    /// A new name (the link must be down on kernels before 6.2).
    pub name: Option<&'a str>,
    /// Move it to another namespace.
    pub netns: Option<BorrowedFd<'a>>,
    /// Reverse path filter: 0 off, 1 strict, 2 loose. The larger of this and the namespace's `all` is in force.
    pub rp_filter: Option<u32>,
    /// Let the kernel make link-local IPv6 addresses (true) or none (false). Before it comes up.
    pub link_local: Option<bool>,
}

impl LinkChange<'_> {
    /// Bring it up.
    pub fn up() -> Self {
        Self { up: Some(true), ..Self::default() }
    }
}

impl Netlink {
    /// Makes a link; for a veth both ends, or neither.
    ///
    /// # Errors
    /// [`NetlinkError::already_exists`] if one of the names is taken where it should go; `EOPNOTSUPP` if the kernel lacks the kind.
    pub fn add_link(&mut self, spec: &LinkSpec<'_>) -> Result<(), NetlinkError> {
        self.request(encode::add(spec))
    }

    /// Makes a link in the socket's own namespace and returns it as it came out.
    ///
    /// # Errors
    /// As of [`Netlink::add_link`].
    pub fn create_link(&mut self, spec: &LinkSpec<'_>) -> Result<Link, NetlinkError> {
        self.add_link(spec)?;
        self.link(spec.name)
    }

    /// Changes a link.
    ///
    /// # Errors
    /// [`NetlinkError::is_missing`] if it is gone.
    pub fn set_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<(), NetlinkError> {
        self.request(encode::set(index, change))
    }

    /// Deletes a link, a veth with its peer. `false` if it was not there.
    ///
    /// # Errors
    /// When the kernel refuses (a device that cannot be deleted).
    pub fn delete_link(&mut self, index: u32) -> Result<bool, NetlinkError> {
        match self.request(encode::delete(index)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes many links in about the time that one takes: the kernel waits for packets in flight once for all of them (some 20 ms),
    /// not for each. Links that are gone count as done.
    ///
    /// # Errors
    /// When the kernel refuses; some may be deleted then.
    pub fn delete_links(&mut self, indices: &[u32]) -> Result<(), NetlinkError> {
        for indices in indices.chunks(DELETE_CHUNK) {
            let marks = indices.iter().map(|index| encode::set_group(*index, DELETE_GROUP)).collect();
            for marked in self.batch(marks) {
                marked.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })?;
            }
        }
        match self.request(encode::delete_group(DELETE_GROUP)) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// The link of a name.
    ///
    /// # Errors
    /// [`NetlinkError::is_missing`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        self.link_query(name, || encode::get_by_name(name))
    }

    /// The link of a name, if there is one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        optional(self.link(name))
    }

    /// The link of an index, if there is one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        optional(self.link_query(&format!("with index {index}"), || {
            index_message(libc::RTM_GETLINK, libc::NLM_F_ACK, index)
        }))
    }

    /// All links of the namespace, by index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = self.dump(
            "list links",
            "",
            || index_message(libc::RTM_GETLINK, libc::NLM_F_DUMP, 0),
            |message| parse(&message),
        )?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    fn link_query(&mut self, object: &str, make: impl Fn() -> Message) -> Result<Link, NetlinkError> {
        // A single get is answered by one message and by the acknowledgement that it asks for, which ends it as a dump.
        let found = self.dump("look up link", object, make, |message| parse(&message))?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| NetlinkError::new("look up link", object, nix::errno::Errno::ENODEV))
    }
}

fn optional(result: Result<Link, NetlinkError>) -> Result<Option<Link>, NetlinkError> {
    match result {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fixed part: family, padding, type (2), index (4), flags (4), change (4).
const IFINFOMSG_LEN: usize = 16;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;

fn parse(message: &Received<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let index = read_u32(message.payload, 4)?;
    let flags = read_u32(message.payload, 8)?.cast_signed();
    let mut link = Link {
        index,
        name: String::new(),
        kind: LinkKind::Other(String::new()),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        master: None,
        peer: None,
        peer_elsewhere: false,
    };
    for (kind, value) in attributes(message.payload.get(IFINFOMSG_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = read_str(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            libc::IFLA_MTU => link.mtu = read_u32(value, 0).unwrap_or(0),
            libc::IFLA_MASTER => link.master = read_u32(value, 0),
            libc::IFLA_LINK => link.peer = read_u32(value, 0).filter(|index| *index != 0),
            libc::IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            libc::IFLA_LINKINFO => link.kind = parse_kind(value),
            _ => {}
        }
    }
    Some(link)
}

fn parse_kind(info: &[u8]) -> LinkKind {
    let find = |wanted| attributes(info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let name = find(libc::IFLA_INFO_KIND).map(read_str).unwrap_or_default();
    match name.as_str() {
        "veth" => LinkKind::Veth,
        "bridge" => LinkKind::Bridge,
        "vxlan" => {
            let data = find(libc::IFLA_INFO_DATA).unwrap_or_default();
            let (mut id, mut port, mut learning, mut external) = (0, 0, false, false);
            for (kind, value) in attributes(data) {
                match kind {
                    IFLA_VXLAN_ID => id = read_u32(value, 0).unwrap_or(0),
                    IFLA_VXLAN_PORT => port = value.try_into().map_or(0, u16::from_be_bytes),
                    IFLA_VXLAN_LEARNING => learning = value.first().is_some_and(|byte| *byte != 0),
                    IFLA_VXLAN_COLLECT_METADATA => external = value.first().is_some_and(|byte| *byte != 0),
                    _ => {}
                }
            }
            LinkKind::Vxlan { vni: if external { Vni::External } else { Vni::Fixed(id) }, port, learning }
        }
        _ => LinkKind::Other(name),
    }
}

/// Used by the other modules to show an address next to a device.
pub(crate) fn describe(ip: impl std::fmt::Display, index: u32) -> String {
    format!("{ip} on the link with index {index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_short_attributes_are_ignored() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0).body(&[0; IFINFOMSG_LEN]);
        message.attribute_str(libc::IFLA_IFNAME, "eth0");
        message.attribute(libc::IFLA_ADDRESS, &[1, 2, 3]);
        message.attribute(libc::IFLA_MTU, &[1]);
        message.attribute(0x1fff, &[0; 9]);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.attribute_str(libc::IFLA_INFO_KIND, "vxlan");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_VXLAN_PORT, &8472_u16.to_be_bytes());
                data.attribute(IFLA_VXLAN_COLLECT_METADATA, &[1]);
            });
        });
        let bytes = message.finish(1, false);
        let received = crate::netlink::wire::messages(&bytes).next().unwrap();
        let link = parse(&received).unwrap();
        assert_eq!((link.name.as_str(), link.mac, link.mtu), ("eth0", None, 0));
        assert_eq!(link.kind, LinkKind::Vxlan { vni: Vni::External, port: 8472, learning: false });
    }
}
