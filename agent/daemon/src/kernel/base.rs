//! The base links and settings of a node, made idempotently: what is right is left alone, so that a restart is not noticed.

use super::later;
use agent_control::PortError;
use agent_control::Routing;
use agent_control::ports::{BaseFacts, BaseSpec, HOST_LINK, LinkFacts, NET_LINK, OVERLAY_LINK, VXLAN_PORT};
use agent_node::address::Address;
use agent_node::link::{Link, LinkChange, LinkKind, LinkSpec, LinkSpecKind, VethPeer, Vni, VxlanSpec};
use agent_node::{Netlink, sysctl};
use ipnet::IpNet;
use std::net::IpAddr;
use tracing::{info, warn};

/// Makes what is missing and changes what differs.
pub(super) fn ensure(netlink: &mut Netlink, spec: &BaseSpec) -> Result<BaseFacts, PortError> {
    forward(spec)?;
    let host = ensure_host_pair(netlink, spec)?;
    let net = link(netlink, NET_LINK)?;
    let overlay = match spec.routing {
        Routing::Vxlan => Some(ensure_overlay(netlink, spec)?),
        Routing::Native => {
            remove(netlink, OVERLAY_LINK)?;
            None
        }
    };
    ensure_router(netlink, &host, spec)?;
    for name in [HOST_LINK, NET_LINK].into_iter().chain(overlay.is_some().then_some(OVERLAY_LINK)) {
        set_if_there(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    }
    Ok(BaseFacts { host: facts(&host), net: facts(&net), overlay: overlay.as_ref().map(facts) })
}

fn facts(link: &Link) -> LinkFacts {
    LinkFacts { ifindex: link.index, mac: link.mac.map(agent_node::Mac::octets).unwrap_or_default() }
}

fn link(netlink: &mut Netlink, name: &str) -> Result<Link, PortError> {
    netlink.link(name).map_err(|error| later(format!("find {name}"), &error))
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, PortError> {
    netlink.find_link(name).map_err(|error| later(format!("find {name}"), &error))
}

fn remove(netlink: &mut Netlink, name: &str) -> Result<(), PortError> {
    if let Some(old) = find(netlink, name)? {
        netlink.delete_link(old.index).map_err(|error| later(format!("remove {name}"), &error))?;
        info!(device = name, "link removed");
    }
    Ok(())
}

fn change(netlink: &mut Netlink, link: &Link, change: &LinkChange<'_>) -> Result<(), PortError> {
    netlink.set_link(link.index, change).map_err(|error| later(format!("change {}", link.name), &error))
}

/// Brings a link to its MTU and up; touches nothing that is so already.
fn ensure_up(netlink: &mut Netlink, link: &Link, mtu: u32) -> Result<(), PortError> {
    if link.mtu != mtu {
        change(netlink, link, &LinkChange { mtu: Some(mtu), ..LinkChange::default() })?;
    }
    if !link.up {
        change(netlink, link, &LinkChange::up())?;
    }
    Ok(())
}

/// Settings before the link comes up for the first time: no link-local addresses (nobody is to speak to the node's stack
/// there) and no neighbour resolution (packets are for the program on the link, not for a neighbour).
fn quiet() -> LinkChange<'static> {
    LinkChange { arp: Some(false), link_local: sysctl::has_ipv6().then_some(false), ..LinkChange::default() }
}

fn ensure_host_pair(netlink: &mut Netlink, spec: &BaseSpec) -> Result<Link, PortError> {
    let (host, net) = (find(netlink, HOST_LINK)?, find(netlink, NET_LINK)?);
    let paired = match (&host, &net) {
        (Some(host), Some(net)) => {
            host.kind == LinkKind::Veth && host.peer == Some(net.index) && net.peer == Some(host.index)
        }
        _ => false,
    };
    if !paired {
        // Half a pair or something else of that name: of no use to anybody.
        remove(netlink, HOST_LINK)?;
        remove(netlink, NET_LINK)?;
        let peer = VethPeer { mtu: Some(spec.mtu), ..VethPeer::new(NET_LINK) };
        let pair = LinkSpec { mtu: Some(spec.mtu), ..LinkSpec::new(HOST_LINK, LinkSpecKind::Veth(peer)) };
        netlink.add_link(&pair).map_err(|error| later(format!("add {HOST_LINK}"), &error))?;
        info!(device = HOST_LINK, peer = NET_LINK, "link made");
        for name in [HOST_LINK, NET_LINK] {
            let end = link(netlink, name)?;
            change(netlink, &end, &quiet())?;
        }
    }
    for name in [NET_LINK, HOST_LINK] {
        let end = link(netlink, name)?;
        ensure_up(netlink, &end, spec.mtu)?;
    }
    link(netlink, HOST_LINK)
}

fn ensure_overlay(netlink: &mut Netlink, spec: &BaseSpec) -> Result<Link, PortError> {
    let wanted = LinkKind::Vxlan { vni: Vni::External, port: VXLAN_PORT, learning: false };
    if find(netlink, OVERLAY_LINK)?.is_none_or(|old| old.kind != wanted) {
        remove(netlink, OVERLAY_LINK)?;
        let device = LinkSpec {
            mtu: Some(spec.mtu),
            ..LinkSpec::new(OVERLAY_LINK, LinkSpecKind::Vxlan(VxlanSpec::external(VXLAN_PORT)))
        };
        netlink.add_link(&device).map_err(|error| {
            // Another program's VXLAN device holds the port.
            PortError::retryable(
                format!("add {OVERLAY_LINK}"),
                format!("{error}; if another VXLAN device uses UDP port {VXLAN_PORT}, remove it (`ip -d link show type vxlan`)"),
            )
        })?;
        info!(device = OVERLAY_LINK, port = VXLAN_PORT, "link made");
        let made = link(netlink, OVERLAY_LINK)?;
        change(netlink, &made, &quiet())?;
    }
    let device = link(netlink, OVERLAY_LINK)?;
    ensure_up(netlink, &device, spec.mtu)?;
    Ok(device)
}

fn ensure_router(netlink: &mut Netlink, host: &Link, spec: &BaseSpec) -> Result<(), PortError> {
    let failed = |error| later(format!("address of {HOST_LINK}"), &error);
    let wanted: Vec<IpAddr> =
        spec.router_v4.map(IpAddr::from).into_iter().chain(spec.router_v6.map(IpAddr::from)).collect();
    let there = netlink.addresses(Some(host.index)).map_err(failed)?;
    // First the new address, then the old one away: pods use it as gateway at each moment.
    for &ip in &wanted {
        if !there.iter().any(|address| address.net == IpNet::from(ip)) {
            netlink.add_address(&Address { link: host.index, net: IpNet::from(ip) }).map_err(failed)?;
            info!(device = HOST_LINK, address = %ip, "router address set");
        }
    }
    for address in there {
        let link_local = matches!(address.net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !link_local && !wanted.iter().any(|&ip| address.net == IpNet::from(ip)) {
            netlink.delete_address(&address).map_err(failed)?;
            info!(device = HOST_LINK, address = %address.net, "old router address removed");
        }
    }
    Ok(())
}

/// Forwarding on, reverse path filters off where pods' packets pass.
fn forward(spec: &BaseSpec) -> Result<(), PortError> {
    let underlay = &spec.device;
    if sysctl::has_ipv6() {
        // Forwarding makes the kernel deaf to router advertisements (ndisc: accept_ra 1 means "unless forwarding");
        // a node that has its default route from them would lose it.
        let key = format!("net/ipv6/conf/{underlay}/accept_ra");
        if sysctl::read(&key).is_ok_and(|value| value == "1") {
            set_if_there(&key, "2")?;
        }
        set_if_there("net/ipv6/conf/all/forwarding", "1")?;
    }
    set_if_there("net/ipv4/ip_forward", "1")?;
    // The stricter of `all` and the device's own value counts.
    for name in ["all", underlay] {
        if sysctl::read(&format!("net/ipv4/conf/{name}/rp_filter")).is_ok_and(|value| value == "1") {
            set_if_there(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
    }
    Ok(())
}

/// Sets a value; a setting that this kernel does not have is none to make.
fn set_if_there(key: &str, value: &str) -> Result<(), PortError> {
    match sysctl::ensure(key, value) {
        Ok(true) => {
            info!(setting = key, value, "sysctl set");
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => {
            warn!(setting = key, value, "sysctl cannot be set; set it by hand or mount /proc/sys writable");
            Err(later(format!("set {key} = {value}"), &error))
        }
    }
}
