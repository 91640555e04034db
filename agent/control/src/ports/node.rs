//! The node's links, routes, programs and state directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_abi::program::Program;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::PortError;
use crate::cni::Netns;
use crate::config::Routing;

/// The links and settings that every node needs before its first pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSpec {
    /// With [`Routing::Vxlan`] `bristle_vxlan` exists (external, UDP 8472, learning off, zero checksums taken over IPv6); with native routing it does not.
    pub routing: Routing,
    /// Name of the underlay device, for its sysctls.
    pub device: String,
    /// Router address on `bristle_host` as /32. Other IPv4 addresses on that link are removed.
    pub router_v4: Option<Ipv4Addr>,
    /// Router address on `bristle_host` as /128. Other global IPv6 addresses on that link are removed.
    pub router_v6: Option<Ipv6Addr>,
    /// MTU of `bristle_host`, `bristle_net` and `bristle_vxlan` in bytes: that of the underlay device.
    pub mtu: u32,
}

/// A link as it was found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkFacts {
    /// Index in the node's namespace.
    pub ifindex: u32,
    /// MAC address.
    pub mac: [u8; 6],
}

/// The base links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseFacts {
    /// `bristle_host`.
    pub host: LinkFacts,
    /// `bristle_net`.
    pub net: LinkFacts,
    /// `bristle_vxlan`, with VXLAN.
    pub overlay: Option<LinkFacts>,
}

/// A route in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; without one the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// A pod's interface as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterfaceSpec {
    /// Name of the host's end: `lxc` and 11 hexadecimal digits.
    pub host_name: String,
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
    /// Name of the pod's end (`CNI_IFNAME`).
    pub pod_name: String,
    /// MAC address of the pod's end.
    pub pod_mac: [u8; 6],
    /// The pod's namespace.
    pub netns: Netns,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// Addresses of the pod's end, /32 or /128 (IPv6 without duplicate address detection).
    pub addresses: Vec<IpNet>,
    /// Routes in the pod, in the order to add them.
    pub routes: Vec<PodRoute>,
}

/// A pod's interface as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodInterfaceFacts {
    /// Index of the host's end in the node's namespace.
    pub host_ifindex: u32,
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
    /// MAC address of the pod's end.
    pub pod_mac: [u8; 6],
}

/// The host's end of a pod's interface, as found on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodLink {
    /// Name, beginning with `lxc`.
    pub name: String,
    /// Index in the node's namespace.
    pub ifindex: u32,
    /// MAC address.
    pub mac: [u8; 6],
}

/// A route of ours: table main, protocol [`super::ROUTE_PROTOCOL`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination; there is at most one route of ours to it.
    pub dst: IpNet,
    /// Next hop. Without one the route has scope link (IPv4).
    pub gateway: Option<IpAddr>,
    /// Name of the outgoing link.
    pub device: String,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
}

/// A file of the state directory. The content is ours alone; the port only keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Document {
    /// Name without a directory and extension: lower case letters, digits and `-`.
    pub name: String,
    /// Content (JSON).
    pub content: Vec<u8>,
}

/// Everything the agent does to the node but for the maps.
pub trait NodeOps {
    /// Makes what is missing of the base links and settings and changes what differs; what is right is left alone, so that
    /// traffic does not notice. `bristle_host`/`bristle_net` are a veth pair without ARP (`IFF_NOARP`), both up;
    /// IP forwarding on, `rp_filter` 0 for all, `bristle_host` and the underlay device.
    fn ensure_base(&mut self, spec: &BaseSpec) -> Result<BaseFacts, PortError>;

    /// Attaches the program to the link, on its side ([`Program::on_egress`]); one that is there already (of an earlier agent too) is replaced in place.
    fn attach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError>;

    /// Detaches the program of ours from the link. Success if it is not there.
    fn detach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError>;

    /// Puts the programs on calls of sockets in place for all processes of the node, in place of those of an earlier agent; or takes
    /// them off. Success if that is how it is already.
    fn set_sockets(&mut self, on: bool) -> Result<(), PortError>;

    /// Programs of ours that are attached: link, its index (0 for one that is gone), program. A node that keeps no list of them
    /// says that there are none; then only those are taken off whose place is known.
    fn list_programs(&mut self) -> Result<Vec<(String, u32, Program)>, PortError> {
        Ok(Vec::new())
    }

    /// All routes of ours (protocol and table as above).
    fn list_routes(&mut self) -> Result<Vec<Route>, PortError>;

    /// Adds the route, or puts it in the place of the one of ours to the same destination.
    fn replace_route(&mut self, route: &Route) -> Result<(), PortError>;

    /// Removes the route of ours to this destination. Success if it is not there.
    fn delete_route(&mut self, route: &Route) -> Result<(), PortError>;

    /// Makes a veth pair, moves one end into the pod's namespace, and sets names, MAC addresses, MTU, addresses and routes; both ends are up at the end.
    /// A host link of the same name that is left from an earlier try is removed first. After an error nothing is left behind.
    /// Errors: [`super::PortErrorKind::NetnsGone`], [`super::PortErrorKind::InterfaceExists`] (the pod has an interface of that name).
    fn create_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<PodInterfaceFacts, PortError>;

    /// Compares the pod's interface with what it shall be; each difference is one sentence. No differences: all is well.
    fn check_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<Vec<String>, PortError>;

    /// Removes the pod's interface by the name of the host's end, and our pins for that link. Success if it is not there.
    fn delete_pod_interface(&mut self, host_name: &str) -> Result<(), PortError>;

    /// Says that these interfaces are about to be removed one by one, for a node that can do it faster together (the kernel waits some
    /// 20 ms for packets in flight, for one link as for a hundred). What could not be removed is found by [`Self::delete_pod_interface`].
    fn delete_pod_interfaces_soon(&mut self, _host_names: &[String]) {}

    /// All links of the node whose name begins with `lxc`. A read that could not be completed is an error.
    fn list_pod_links(&mut self) -> Result<Vec<PodLink>, PortError>;

    /// Writes the document to the state directory; a reader sees the old or the new one, whole (temporary file and rename).
    fn save_state(&mut self, document: &Document) -> Result<(), PortError>;

    /// Removes the document from the state directory. Success if it is not there.
    fn remove_state(&mut self, name: &str) -> Result<(), PortError>;
}
