//! The lab's wiring: a bridge in a namespace of its own that joins the nodes, and the router to the outside.
//!
//! With a software switch ([`crate::switch`]) the nodes' links end in the switch's namespace instead, and so does the link that takes the
//! place of the bridge.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use agent_node::address::Address;
use agent_node::link::{LinkChange, LinkSpec, LinkSpecKind, VethPeer};
use agent_node::route::Route;
use agent_node::{Netlink, NetlinkError, Netns, ethtool, sysctl};
use ipnet::IpNet;
use nix::errno::Errno;
use std::os::fd::AsFd as _;

use crate::machine::Machine;
use crate::ns::{NsError, NsSet};
use crate::plan::{API_PORT, Plan};
use crate::switch::{PortKind, Switch, SwitchError};

/// Host name of the machine that holds bridge and router.
pub const FABRIC: &str = "fabric";
/// Host name of the machine outside the cluster.
pub const OUTSIDE: &str = "outside";
/// The interface of nodes.
pub const NODE_DEVICE: &str = "eth0";
/// Name of the fabric's own link in the switch.
const UPLINK: &str = "fabric";
const BRIDGE: &str = "br0";

/// A link or address of the lab's wiring could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The kernel refused.
    #[error("wire {machine}")]
    Netlink {
        /// Which machine.
        machine: String,
        /// What.
        #[source]
        source: NetlinkError,
    },
    /// A machine could not be entered.
    #[error("enter {machine}")]
    Enter {
        /// Which machine.
        machine: String,
        /// Why.
        #[source]
        source: NsError,
    },
    /// The software switch.
    #[error("make the software switch")]
    Switch(#[from] SwitchError),
    /// The API server's address could not be bound.
    #[error("listen on {address} in the fabric")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Opens a netlink socket inside a machine and works with it there.
fn wire<T: Send>(
    machine: &str,
    ns: &NsSet,
    work: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError> + Send,
) -> Result<T, WiringError> {
    let named = |source| WiringError::Netlink { machine: machine.to_owned(), source };
    ns.run_blocking(|| work(&mut Netlink::open()?))
        .map_err(|source| WiringError::Enter { machine: machine.to_owned(), source })?
        .map_err(named)
}

fn up(netlink: &mut Netlink, device: &str) -> Result<u32, NetlinkError> {
    let index = netlink.link(device)?.index;
    netlink.set_link(index, &LinkChange::up())?;
    Ok(index)
}

fn add_addresses(netlink: &mut Netlink, link: u32, nets: &[IpNet]) -> Result<(), NetlinkError> {
    nets.iter().try_for_each(|net| netlink.add_address(&Address { link, net: *net }))
}

/// One end in the socket's namespace, the other in `peer`'s.
fn add_veth(
    netlink: &mut Netlink,
    mtu: u16,
    name: &str,
    master: Option<u32>,
    peer_name: &str,
    peer: &NsSet,
) -> Result<u32, NetlinkError> {
    let mtu = Some(mtu.into());
    let netns = peer.net().map(|fd| fd.as_fd());
    let kind = LinkSpecKind::Veth(VethPeer { mtu, netns, ..VethPeer::new(peer_name) });
    let link = netlink.create_link(&LinkSpec { mtu, master, up: true, ..LinkSpec::new(name, kind) })?;
    Ok(link.index)
}

/// Makes frames of a link complete, for the switch to read.
fn complete_frames(machine: &str, ns: &NsSet, device: &str) -> Result<(), WiringError> {
    let result = ns.run_blocking(|| ethtool::disable_offloads(device));
    result
        .map_err(|source| WiringError::Enter { machine: machine.to_owned(), source })?
        .map_err(|e| SwitchError::Io { step: e.to_string(), source: e.source }.into())
}

/// A namespace for the ends of links that a switch serves; what arrives there is the switch's alone.
pub fn switch_netns() -> Result<Netns, WiringError> {
    let netns = Netns::create_anonymous().map_err(SwitchError::from)?;
    let quiet = netns.run(|| {
        // The kernel must not look for routers and neighbours on these links by itself.
        match sysctl::write("net/ipv6/conf/default/disable_ipv6", "1") {
            Err(e) if !e.is_missing() => Err(e),
            _ => Ok(()),
        }
    });
    quiet
        .map_err(SwitchError::from)?
        .map_err(|e| SwitchError::Io { step: e.to_string(), source: e.source })?;
    Ok(netns)
}

/// One end in the switch's namespace, up, the other in a machine.
fn add_switch_veth(
    switch: &Netns,
    mtu: u16,
    name: &str,
    peer_name: &str,
    peer: &NsSet,
) -> Result<(), WiringError> {
    let named = |source| WiringError::Netlink { machine: "the switch".to_owned(), source };
    let mut netlink = Netlink::open_in(switch).map_err(named)?;
    add_veth(&mut netlink, mtu, name, None, peer_name, peer).map_err(named)?;
    Ok(())
}

/// Starts the switch between the links that [`set_up`] and [`join`] have made in its namespace.
pub fn start_switch(plan: &Plan, switch: Netns, seed: u64) -> Result<Switch, WiringError> {
    let nodes = (1..=plan.nodes).map(|n| (Plan::node_name(n), PortKind::Node));
    let links: Vec<_> = std::iter::once((UPLINK.to_owned(), PortKind::Fabric)).chain(nodes).collect();
    let api = plan.api_addresses().iter().map(IpNet::addr).collect();
    Ok(Switch::start(switch, &links, api, seed)?)
}

/// Makes the bridge with the addresses of router and API server, and the link to the outside. With a switch, a link to it has the
/// bridge's name and addresses.
pub fn set_up(
    plan: &Plan,
    fabric: &Machine,
    outside: &Machine,
    switch: Option<&Netns>,
) -> Result<(), WiringError> {
    if let Some(switch) = switch {
        add_switch_veth(switch, plan.mtu, UPLINK, BRIDGE, fabric.ns())?;
        complete_frames(FABRIC, fabric.ns(), BRIDGE)?;
    }
    wire(FABRIC, fabric.ns(), |netlink| {
        up(netlink, "lo")?;
        if switch.is_none() {
            let kind = LinkSpecKind::Bridge;
            netlink.create_link(&LinkSpec { mtu: Some(plan.mtu.into()), ..LinkSpec::new(BRIDGE, kind) })?;
        }
        let bridge = up(netlink, BRIDGE)?;
        add_addresses(netlink, bridge, &plan.router_addresses())?;
        add_addresses(netlink, bridge, &plan.api_addresses())?;
        let link = add_veth(netlink, plan.mtu, "outside0", None, NODE_DEVICE, outside.ns())?;
        add_addresses(netlink, link, &plan.outside_link(1))?;
        for server in plan.outside_servers().concat() {
            let via =
                plan.outside_link(2).iter().map(IpNet::addr).find(|via| via.is_ipv4() == server.is_ipv4());
            netlink.replace_route(&Route::new(IpNet::from(server), link, via))?;
        }
        Ok(())
    })?;
    wire(OUTSIDE, outside.ns(), |netlink| {
        let lo = up(netlink, "lo")?;
        for server in plan.outside_servers().concat() {
            netlink.add_address(&Address { link: lo, net: IpNet::from(server) })?;
        }
        let device = up(netlink, NODE_DEVICE)?;
        add_addresses(netlink, device, &plan.outside_link(2))?;
        for via in plan.outside_link(1) {
            netlink.replace_route(&Route::default_via(via.addr(), device))?;
        }
        Ok(())
    })
}

/// Joins the `number`th node (from 1) to the bridge or the switch and gives it its addresses and default route.
pub fn join(
    plan: &Plan,
    fabric: &Machine,
    switch: Option<&Netns>,
    number: u8,
    node: &Machine,
) -> Result<(), WiringError> {
    if let Some(switch) = switch {
        add_switch_veth(switch, plan.mtu, node.name(), NODE_DEVICE, node.ns())?;
        complete_frames(node.name(), node.ns(), NODE_DEVICE)?;
    } else {
        let node_ns = Arc::clone(node.ns());
        wire(FABRIC, fabric.ns(), |netlink| {
            let bridge = netlink.link(BRIDGE)?.index;
            add_veth(netlink, plan.mtu, node.name(), Some(bridge), NODE_DEVICE, &node_ns)
        })?;
    }
    wire(node.name(), node.ns(), |netlink| {
        up(netlink, "lo")?;
        let device = up(netlink, NODE_DEVICE)?;
        add_addresses(netlink, device, &plan.node_addresses(number))?;
        for router in plan.router_addresses() {
            netlink.replace_route(&Route::default_via(router.addr(), device))?;
        }
        Ok(())
    })
}

/// Gives the router a route to each node's pod CIDRs, by the node's address of the same family.
pub fn route_pods(fabric: &Machine, nodes: &[(Vec<IpNet>, Vec<IpAddr>)]) -> Result<(), WiringError> {
    wire(FABRIC, fabric.ns(), |netlink| {
        let bridge = netlink.link(BRIDGE)?.index;
        for (pod_cidrs, addresses) in nodes {
            for cidr in pod_cidrs {
                let via = addresses.iter().copied().find(|via| via.is_ipv4() == cidr.addr().is_ipv4());
                netlink.replace_route(&Route::new(*cidr, bridge, via))?;
            }
        }
        Ok(())
    })
}

/// Takes a node's end out of the bridge or puts it back (`connected`): the node keeps its interface, but nothing passes.
pub fn set_connected(fabric: &Machine, node: &str, connected: bool) -> Result<(), WiringError> {
    wire(FABRIC, fabric.ns(), |netlink| {
        let index = netlink.link(node)?.index;
        netlink.set_link(index, &LinkChange { up: Some(connected), ..LinkChange::default() })
    })
}

/// Sockets of the API server on its addresses inside the fabric.
pub fn api_listeners(plan: &Plan, fabric: &Machine) -> Result<Vec<TcpListener>, WiringError> {
    plan.api_addresses()
        .into_iter()
        .map(|net| {
            let address = SocketAddr::new(net.addr(), API_PORT);
            listen(fabric, address).map_err(|source| WiringError::Listen { address, source })
        })
        .collect()
}

/// Binds a TCP socket inside a machine. The address of a link that has just come up may need some milliseconds.
pub fn listen(machine: &Machine, address: SocketAddr) -> std::io::Result<TcpListener> {
    machine
        .ns()
        .run_blocking(|| {
            for _ in 0..200 {
                match TcpListener::bind(address) {
                    Err(e) if e.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32) => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    result => return result,
                }
            }
            TcpListener::bind(address)
        })
        .map_err(std::io::Error::other)?
}
