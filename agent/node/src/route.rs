//! Routes.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::libc;

use crate::netlink::wire::{Message, Received, attributes, family, ip_bytes, read_ip, read_u32};
use crate::netlink::{Netlink, NetlinkError, Request};

/// The table `main`.
pub const TABLE_MAIN: u32 = 254;

/// Routes made by the kernel itself.
pub const PROTOCOL_KERNEL: u8 = 2;

/// Routes made by hand; what `ip route` writes if nothing else is said.
pub const PROTOCOL_BOOT: u8 = 3;

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination; host bits are cut off.
    pub destination: IpNet,
    /// Index of the link to send by.
    pub link: u32,
    /// Next hop; without, destinations are neighbours on the link.
    pub via: Option<IpAddr>,
    /// Preferred source address of the host's own packets.
    pub source: Option<IpAddr>,
    /// MTU in bytes of this path.
    pub mtu: Option<u32>,
    /// How far destinations are; the kernel uses it for IPv4 only.
    pub scope: Scope,
    /// The next hop is on the link although no address of the link says so.
    pub onlink: bool,
    /// Who made it, so that one can tell one's own (`proto`).
    pub protocol: u8,
    /// Metric; 0 stands for the kernel's default (0 for IPv4, 1024 for IPv6).
    pub priority: u32,
    /// Table.
    pub table: u32,
}

impl Route {
    /// A route in the main table with everything else at its default: link scope without a next hop, global with one.
    pub fn new(destination: IpNet, link: u32, via: Option<IpAddr>) -> Self {
        Self {
            destination,
            link,
            via,
            source: None,
            mtu: None,
            scope: if via.is_some() { Scope::Global } else { Scope::Link },
            onlink: false,
            protocol: PROTOCOL_BOOT,
            priority: 0,
            table: TABLE_MAIN,
        }
    }

    /// The default route of the next hop's family.
    pub fn default_via(via: IpAddr, link: u32) -> Self {
        Self::new(default_destination(via.is_ipv6()), link, Some(via))
    }
}

/// `0.0.0.0/0` or `::/0`.
pub fn default_destination(ipv6: bool) -> IpNet {
    if ipv6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() }
}

/// Scope of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Anywhere.
    Global,
    /// On the link.
    Link,
    /// This host.
    Host,
    /// Another, by number.
    Other(u8),
}

impl Scope {
    const fn number(self) -> u8 {
        match self {
            Self::Global => 0,
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Global,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }
}

/// Which routes to list; what is `None` does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// Only IPv4 (`false`) or IPv6 (`true`).
    pub ipv6: Option<bool>,
    /// Only of this table.
    pub table: Option<u32>,
    /// Only of this maker.
    pub protocol: Option<u8>,
    /// Only by this link.
    pub link: Option<u32>,
}

impl RouteFilter {
    fn admits(&self, route: &Route) -> bool {
        self.ipv6.is_none_or(|ipv6| route.destination.addr().is_ipv6() == ipv6)
            && self.table.is_none_or(|table| route.table == table)
            && self.protocol.is_none_or(|protocol| route.protocol == protocol)
            && self.link.is_none_or(|link| route.link == link)
    }
}

impl Netlink {
    /// Adds a route, or puts it in the place of the one with the same destination, priority and table.
    ///
    /// # Errors
    /// `ENETUNREACH` if the next hop is not a neighbour, [`NetlinkError::is_missing`] if the link is gone, `ENETDOWN` if it is down.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.request(replace(route))
    }

    /// Deletes a route. `false` if it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, NetlinkError> {
        let request = Request::new("delete route", describe(route), message(libc::RTM_DELROUTE, 0, route));
        match self.request(request) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unicast routes with one next hop, sorted. Others (multipath, blackhole, local, multicast) are none of ours and left out, and so are
    /// copies that the kernel caches.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for default in [default_destination(false), default_destination(true)] {
            if filter.ipv6.is_some_and(|wanted| wanted != default.addr().is_ipv6()) {
                continue;
            }
            let mut body = [0; 12];
            body[0] = family(default.addr());
            body[5] = filter.protocol.unwrap_or(0);
            let request = || Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP).body(&body);
            routes.extend(self.dump("list routes", "", request, |message| parse(&message))?);
        }
        routes.retain(|route| filter.admits(route));
        routes.sort();
        Ok(routes)
    }
}

fn describe(route: &Route) -> String {
    let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
    format!("to {}{via} by the link with index {}", route.destination, route.link)
}

pub(crate) fn replace(route: &Route) -> Request {
    let message = message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, route);
    Request::new("set route", describe(route), message)
}

const RTAX_MTU: u16 = 2;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;

/// `struct rtmsg` and attributes.
fn message(kind: u16, flags: i32, route: &Route) -> Message {
    let destination = route.destination.trunc();
    let mut body = [0; 12];
    body[0] = family(destination.addr());
    body[1] = destination.prefix_len();
    body[4] = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    body[5] = route.protocol;
    body[6] = route.scope.number();
    body[7] = libc::RTN_UNICAST;
    if route.onlink {
        body[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags).body(&body);
    if destination.prefix_len() > 0 {
        message.attribute(libc::RTA_DST, &ip_bytes(destination.addr()));
    }
    message.attribute_u32(libc::RTA_TABLE, route.table);
    message.attribute_u32(libc::RTA_OIF, route.link);
    match route.via {
        Some(via) if via.is_ipv6() == destination.addr().is_ipv6() => {
            message.attribute(libc::RTA_GATEWAY, &ip_bytes(via));
        }
        Some(via) => {
            // A next hop of the other family (RFC 5549): family in front of the address.
            let mut value = u16::from(family(via)).to_ne_bytes().to_vec();
            value.extend(ip_bytes(via));
            message.attribute(libc::RTA_VIA, &value);
        }
        None => {}
    }
    if let Some(source) = route.source {
        message.attribute(libc::RTA_PREFSRC, &ip_bytes(source));
    }
    if route.priority != 0 {
        message.attribute_u32(libc::RTA_PRIORITY, route.priority);
    }
    if let Some(mtu) = route.mtu {
        message.nest(libc::RTA_METRICS, |metrics| metrics.attribute_u32(RTAX_MTU, mtu));
    }
    message
}

fn parse(message: &Received<'_>) -> Option<Route> {
    let header: [u8; 12] = message.payload.get(..12)?.try_into().ok()?;
    let flags = read_u32(&header, 8)?;
    if message.kind != libc::RTM_NEWROUTE || header[7] != libc::RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let ipv6 = i32::from(header[0]) == libc::AF_INET6;
    let mut route = Route::new(default_destination(ipv6), 0, None);
    route.protocol = header[5];
    route.scope = Scope::from_number(header[6]);
    route.onlink = flags & RTNH_F_ONLINK != 0;
    route.table = header[4].into();
    for (kind, value) in attributes(&message.payload[12..]) {
        match kind {
            libc::RTA_DST => route.destination = IpNet::new(read_ip(value)?, header[1]).ok()?,
            libc::RTA_OIF => route.link = read_u32(value, 0)?,
            libc::RTA_GATEWAY => route.via = read_ip(value),
            libc::RTA_VIA => route.via = read_ip(value.get(2..)?),
            libc::RTA_PREFSRC => route.source = read_ip(value),
            libc::RTA_PRIORITY => route.priority = read_u32(value, 0)?,
            libc::RTA_TABLE => route.table = read_u32(value, 0)?,
            libc::RTA_METRICS => {
                let mtu = attributes(value).find(|(kind, _)| *kind == RTAX_MTU);
                route.mtu = mtu.and_then(|(_, value)| read_u32(value, 0)).filter(|mtu| *mtu != 0);
            }
            _ => {}
        }
    }
    // No link: multipath.
    (route.link != 0).then_some(route)
}
