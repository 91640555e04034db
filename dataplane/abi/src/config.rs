//! `CONFIG`: the one row that tells the programs about their node. Written by the agent.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::table;
use crate::{Identity, Mac};

table! {
    /// The table; its row is at index 0.
    Config = "CONFIG": Array<u32, NodeConfig>[1], flags 0, writer Agent
}

/// UDP port of the tunnel.
pub const VXLAN_PORT: u16 = 8472;

/// What the programs know of their node. All zero (never written): every program passes packets to the stack untouched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NodeConfig {
    /// [`crate::ABI_VERSION`]; zero: not written yet.
    pub abi_version: u32,
    /// Raised (wrapping, never to zero) after every change of endpoints, ipcache or policy that may change a verdict or a way;
    /// connections judged at another revision are judged again at their next packet.
    pub revision: u32,
    /// What is on.
    pub flags: ConfigFlags,
    /// [`Routing`] as number.
    pub routing: u8,
    /// Monitor aggregation level: 0 none, 1 low, 3 medium (see [`crate::events::Aggregation`]).
    pub aggregation: u8,
    /// TCP flags whose first appearance is reported at medium aggregation (RFC 9293 bits; default SYN, FIN, RST).
    pub monitor_flags: u8,
    /// Bytes of packet in an event, at most [`crate::events::PAYLOAD_MAX`].
    pub payload_len: u8,
    /// Ticks per second (see [`crate::clock`]).
    pub ticks_per_s: u32,
    /// Ticks between two reports of one connection and direction at medium aggregation (default 5 s).
    pub monitor_interval_ticks: u32,
    /// Device of the underlay.
    pub underlay_ifindex: u32,
    /// Overlay device (`bristle_vxlan`); zero in native mode.
    pub overlay_ifindex: u32,
    /// `bristle_host`.
    pub host_ifindex: u32,
    /// MTU of the underlay device in bytes.
    pub underlay_mtu: u32,
    /// Largest packet that fits through the tunnel: underlay MTU less the outer headers.
    pub overlay_mtu: u32,
    /// Identity of the node's own addresses ([`Identity::HOST`]).
    pub host_identity: Identity,
    /// MAC of the underlay device.
    pub underlay_mac: Mac,
    /// MAC of `bristle_host`.
    pub host_mac: Mac,
    /// MAC of the overlay device.
    pub overlay_mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
    /// Router address of the node, IPv4; zero: no IPv4.
    pub router_v4: [u8; 4],
    /// Router address of the node, IPv6; zero: no IPv6.
    pub router_v6: [u8; 16],
    /// The node's own IPv4 address on the underlay; zero: none.
    pub node_v4: [u8; 4],
    /// The node's own IPv6 address on the underlay; zero: none.
    pub node_v6: [u8; 16],
    /// Identity of addresses that no row of the ipcache covers, IPv4 (world, or world-ipv4 when both families are on).
    pub world_v4: Identity,
    /// The same for IPv6.
    pub world_v6: Identity,
    /// Sum over the rows of `ENDPOINTS` and `IPCACHE` that this revision stands for, kept by the agent so that the death of one
    /// between writing rows and raising the revision is noticed at the next start. The programs do not read it.
    pub rows_digest: [u8; 8],
    /// First port that services may have at every node; zero: they have none.
    pub node_port_min: u16,
    /// Last one.
    pub node_port_max: u16,
    /// First port that masqueraded connections may leave by; zero: there are none.
    pub snat_port_min: u16,
    /// Last one.
    pub snat_port_max: u16,
    /// Zero; room for what services need.
    pub reserved: [u8; 4],
}

/// How packets get to other nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Routing {
    /// VXLAN, identity in the VNI.
    Vxlan = 1,
    /// By the underlay's own routes.
    Native = 2,
}

/// What is on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ConfigFlags(pub u32);

bitflags! {
    impl ConfigFlags: u32 {
        /// Pods have IPv4 addresses.
        const IPV4 = 1;
        /// Pods have IPv6 addresses.
        const IPV6 = 2;
        /// Pods may send only from their own addresses and MAC.
        const SOURCE_CHECK = 4;
        /// Drop events are sent (drops are counted in any case).
        const DROP_EVENTS = 8;
        /// Trace events are sent.
        const TRACE_EVENTS = 16;
        /// Policy-verdict events are sent.
        const POLICY_EVENTS = 32;
        /// Connections of the node itself have rows in conntrack and are judged by the policy of its addresses.
        const HOST_FIREWALL = 64;
        /// Calls of pods to services are translated packet by packet, where no program on calls of sockets did it.
        const SERVICE_PACKETS = 128;
        /// What pods send to the world by IPv4 leaves with the node's address.
        const MASQUERADE_V4 = 256;
        /// The same for IPv6.
        const MASQUERADE_V6 = 512;
        /// Calls to services that come by the underlay from outside the cluster are translated.
        const OUTSIDE_CALLS = 1024;
    }
}

const _: () = assert!(size_of::<NodeConfig>() == 136);
