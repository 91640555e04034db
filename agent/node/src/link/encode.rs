//! Requests about links, as bytes.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

use super::{
    IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_ID, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, LinkChange, LinkSpec,
    LinkSpecKind, VethPeer, Vni, VxlanSpec,
};
use crate::mac::Mac;
use crate::netlink::Request;
use crate::netlink::wire::{Message, ip_bytes};

const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_EUI64: u8 = 0;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A message with nothing but `struct ifinfomsg`.
pub(crate) fn index_message(kind: u16, flags: i32, index: u32) -> Message {
    Message::new(kind, flags).body(&ifinfomsg(index, None))
}

pub(super) fn get_by_name(name: &str) -> Message {
    let mut message = index_message(libc::RTM_GETLINK, libc::NLM_F_ACK, 0);
    message.attribute_str(libc::IFLA_IFNAME, name);
    message
}

pub(super) fn delete(index: u32) -> Request {
    Request::new("delete link", format!("with index {index}"), index_message(libc::RTM_DELLINK, 0, index))
}

pub(super) fn set_group(index: u32, group: u32) -> Request {
    let mut message = index_message(libc::RTM_NEWLINK, 0, index);
    message.attribute_u32(libc::IFLA_GROUP, group);
    Request::new("change group of link", format!("with index {index}"), message)
}

pub(super) fn delete_group(group: u32) -> Request {
    let mut message = index_message(libc::RTM_DELLINK, 0, 0);
    message.attribute_u32(libc::IFLA_GROUP, group);
    Request::new("delete links", format!("of group {group:#x}"), message)
}

pub(super) fn add(spec: &LinkSpec<'_>) -> Request {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWLINK, flags).body(&ifinfomsg(0, spec.up.then_some(true)));
    common(&mut message, spec.name, spec.mtu, spec.mac, spec.netns);
    if let Some(master) = spec.master {
        message.attribute_u32(libc::IFLA_MASTER, master);
    }
    if matches!(spec.kind, LinkSpecKind::Veth(_)) {
        one_queue(&mut message);
    }
    message.nest(libc::IFLA_LINKINFO, |info| {
        let kind = match spec.kind {
            LinkSpecKind::Veth(_) => "veth",
            LinkSpecKind::Bridge => "bridge",
            LinkSpecKind::Vxlan(_) => "vxlan",
        };
        info.attribute_str(libc::IFLA_INFO_KIND, kind);
        match &spec.kind {
            LinkSpecKind::Veth(end) => info.nest(libc::IFLA_INFO_DATA, |data| peer(data, end)),
            LinkSpecKind::Bridge => {}
            LinkSpecKind::Vxlan(device) => info.nest(libc::IFLA_INFO_DATA, |data| vxlan(data, device)),
        }
    });
    let object = match &spec.kind {
        LinkSpecKind::Veth(end) => format!("{} with peer {}", spec.name, end.name),
        LinkSpecKind::Bridge | LinkSpecKind::Vxlan(_) => spec.name.to_owned(),
    };
    Request::new("add link", object, message)
}

pub(crate) fn set(index: u32, change: &LinkChange<'_>) -> Request {
    let mut body = ifinfomsg(index, change.up);
    if let Some(arp) = change.arp {
        let with = |bytes: &mut [u8], on: bool| {
            let old = u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
            let flag = libc::IFF_NOARP.cast_unsigned();
            bytes.copy_from_slice(&(if on { old | flag } else { old & !flag }).to_ne_bytes());
        };
        with(&mut body[8..12], !arp);
        with(&mut body[12..16], true);
    }
    let mut message = Message::new(libc::RTM_NEWLINK, 0).body(&body);
    if let Some(name) = change.name {
        message.attribute_str(libc::IFLA_IFNAME, name);
    }
    if let Some(mtu) = change.mtu {
        message.attribute_u32(libc::IFLA_MTU, mtu);
    }
    if let Some(mac) = change.mac {
        message.attribute(libc::IFLA_ADDRESS, &mac.octets());
    }
    if let Some(master) = change.master {
        message.attribute_u32(libc::IFLA_MASTER, master);
    }
    if let Some(netns) = change.netns {
        netns_attribute(&mut message, netns);
    }
    if change.link_local.is_some() || change.rp_filter.is_some() {
        message.nest(libc::IFLA_AF_SPEC, |families| family_settings(families, change));
    }
    Request::new("change link", format!("with index {index}"), message)
}

/// Settings of IPv4 and IPv6. Unlike files below /proc/sys they reach the namespace of the socket, whatever thread asks.
fn family_settings(families: &mut Message, change: &LinkChange<'_>) {
    if let Some(rp_filter) = change.rp_filter {
        families.nest(AF_INET, |inet| {
            inet.nest(IFLA_INET_CONF, |conf| conf.attribute_u32(IPV4_DEVCONF_RP_FILTER, rp_filter));
        });
    }
    if let Some(link_local) = change.link_local {
        let mode = if link_local { ADDR_GEN_MODE_EUI64 } else { ADDR_GEN_MODE_NONE };
        families.nest(AF_INET6, |inet6| inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[mode]));
    }
}

fn common(
    message: &mut Message,
    name: &str,
    mtu: Option<u32>,
    mac: Option<Mac>,
    netns: Option<BorrowedFd<'_>>,
) {
    message.attribute_str(libc::IFLA_IFNAME, name);
    if let Some(mtu) = mtu {
        message.attribute_u32(libc::IFLA_MTU, mtu);
    }
    if let Some(mac) = mac {
        message.attribute(libc::IFLA_ADDRESS, &mac.octets());
    }
    if let Some(netns) = netns {
        netns_attribute(message, netns);
    }
}

fn netns_attribute(message: &mut Message, netns: BorrowedFd<'_>) {
    message.attribute(libc::IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
}

fn peer(data: &mut Message, end: &VethPeer<'_>) {
    data.nest(VETH_INFO_PEER, |message| {
        message.raw(&ifinfomsg(0, None));
        common(message, end.name, end.mtu, end.mac, end.netns);
        one_queue(message);
    });
}

/// A veth sends at once, without locks and on the sender's CPU: more queues are of no use to it. The kernel's default is
/// one for each possible CPU in each direction, which makes a pair take twice as long already where there are two CPUs.
fn one_queue(message: &mut Message) {
    message.attribute_u32(libc::IFLA_NUM_TX_QUEUES, 1);
    message.attribute_u32(libc::IFLA_NUM_RX_QUEUES, 1);
}

fn vxlan(data: &mut Message, device: &VxlanSpec) {
    match device.vni {
        Vni::External => data.attribute(IFLA_VXLAN_COLLECT_METADATA, &[1]),
        Vni::Fixed(vni) => data.attribute_u32(IFLA_VXLAN_ID, vni),
    }
    data.attribute(IFLA_VXLAN_PORT, &device.port.to_be_bytes());
    data.attribute(IFLA_VXLAN_LEARNING, &[device.learning.into()]);
    // Inner packets have checksums of their own; over IPv4 the outer one is zero as well.
    data.attribute(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, &[1]);
    data.attribute(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, &[1]);
    if let Some(local) = device.local {
        let kind = if matches!(local, IpAddr::V4(_)) { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
        data.attribute(kind, &ip_bytes(local));
    }
    if let Some(index) = device.device {
        data.attribute_u32(IFLA_VXLAN_LINK, index);
    }
}

/// `struct ifinfomsg`; `up` sets or clears the flag, `None` leaves it.
fn ifinfomsg(index: u32, up: Option<bool>) -> [u8; 16] {
    let flag = libc::IFF_UP.to_ne_bytes();
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up == Some(true) {
        bytes[8..12].copy_from_slice(&flag);
    }
    if up.is_some() {
        bytes[12..16].copy_from_slice(&flag);
    }
    bytes
}
