//! The lab's wiring: a bridge in a namespace of its own that joins the nodes, and the router to the outside.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use agent_node::address::Address;
use agent_node::link::{LinkChange, LinkSpec, LinkSpecKind, VethPeer};
use agent_node::route::Route;
use agent_node::{Netlink, NetlinkError};
use ipnet::IpNet;
use nix::errno::Errno;
use std::os::fd::AsFd as _;

use crate::machine::Machine;
use crate::ns::{NsError, NsSet};
use crate::plan::{API_PORT, Plan};

/// Host name of the machine that holds bridge and router.
pub const FABRIC: &str = "fabric";
/// Host name of the machine outside the cluster.
pub const OUTSIDE: &str = "outside";
/// The interface of nodes.
pub const NODE_DEVICE: &str = "eth0";
/// MTU of every link in bytes.
pub const MTU: u32 = 1500;
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
    name: &str,
    master: Option<u32>,
    peer_name: &str,
    peer: &NsSet,
) -> Result<u32, NetlinkError> {
    let netns = peer.net().map(|fd| fd.as_fd());
    let kind = LinkSpecKind::Veth(VethPeer { mtu: Some(MTU), netns, ..VethPeer::new(peer_name) });
    let link =
        netlink.create_link(&LinkSpec { mtu: Some(MTU), master, up: true, ..LinkSpec::new(name, kind) })?;
    Ok(link.index)
}

/// Makes the bridge with the addresses of router and API server, and the link to the outside.
pub fn set_up(plan: &Plan, fabric: &Machine, outside: &Machine) -> Result<(), WiringError> {
    wire(FABRIC, fabric.ns(), |netlink| {
        up(netlink, "lo")?;
        let bridge = netlink
            .create_link(&LinkSpec {
                mtu: Some(MTU),
                up: true,
                ..LinkSpec::new(BRIDGE, LinkSpecKind::Bridge)
            })?
            .index;
        add_addresses(netlink, bridge, &plan.router_addresses())?;
        add_addresses(netlink, bridge, &plan.api_addresses())?;
        let link = add_veth(netlink, "outside0", None, NODE_DEVICE, outside.ns())?;
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

/// Joins the `number`th node (from 1) to the bridge and gives it its addresses and default route.
pub fn join(plan: &Plan, fabric: &Machine, number: u8, node: &Machine) -> Result<(), WiringError> {
    let node_ns = Arc::clone(node.ns());
    wire(FABRIC, fabric.ns(), |netlink| {
        let bridge = netlink.link(BRIDGE)?.index;
        add_veth(netlink, node.name(), Some(bridge), NODE_DEVICE, &node_ns)
    })?;
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
