//! What a node is like: which device carries what.

use std::net::IpAddr;

use crate::link::Link;
use crate::netlink::{Netlink, NetlinkError};
use crate::route::{RouteFilter, TABLE_MAIN};

/// The link that has an address, such as the node's `InternalIP`. `None` if none has it.
///
/// # Errors
/// When the kernel does not answer.
pub fn device_with_address(netlink: &mut Netlink, ip: IpAddr) -> Result<Option<Link>, NetlinkError> {
    let addresses = netlink.addresses(None)?;
    match addresses.iter().find(|address| address.net.addr() == ip) {
        Some(address) => netlink.link_by_index(address.link),
        None => Ok(None),
    }
}

/// The link of the default route with the smallest metric, IPv4 before IPv6. `None` if there is no default route.
///
/// # Errors
/// When the kernel does not answer.
pub fn default_device(netlink: &mut Netlink) -> Result<Option<Link>, NetlinkError> {
    for ipv6 in [false, true] {
        let routes = netlink.routes(RouteFilter {
            ipv6: Some(ipv6),
            table: Some(TABLE_MAIN),
            ..RouteFilter::default()
        })?;
        let best = routes
            .into_iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .min_by_key(|route| route.priority);
        if let Some(route) = best {
            return netlink.link_by_index(route.link);
        }
    }
    Ok(None)
}

/// The addresses of a link, IPv4 first, without link-local ones.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses_of(netlink: &mut Netlink, link: u32) -> Result<Vec<IpAddr>, NetlinkError> {
    let addresses = netlink.addresses(Some(link))?;
    Ok(addresses
        .into_iter()
        .map(|address| address.net.addr())
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .collect())
}
