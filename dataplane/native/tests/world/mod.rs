//! A node with two pods, another node with one, and the rows that an agent would write.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::IpAddr;

use dataplane_abi::clock::ClockEntry;
use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing};
use dataplane_abi::conntrack::{Ct4, Ct6, CtEntry, CtKey4, CtKey6};
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use dataplane_abi::events::{Event, EventKind};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::Direction;
use dataplane_abi::nat::{Nat4, Nat6};
use dataplane_abi::policy::{self, BlockKey, L4Key, PolicyEntry, PolicyKey, PolicyVerdict};
use dataplane_abi::program::Program;
use dataplane_abi::{ABI_VERSION, Addr, Be16, Identity, Table};
use dataplane_core::Verdict;
use dataplane_native::craft::Craft;
use dataplane_native::tables::LruTable;
use dataplane_native::{Frame, Native, Tunnel};

// Protocols, and flags of TCP.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const SYN_ACK: u8 = 18;

pub(crate) const HZ: u32 = 250;
/// That pods are masqueraded.
pub(crate) const MASQUERADE: ConfigFlags = ConfigFlags::MASQUERADE_V4.union(ConfigFlags::MASQUERADE_V6);
pub(crate) const UNDERLAY: u32 = 2;
pub(crate) const OVERLAY: u32 = 3;
pub(crate) const HOST: u32 = 4;
pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 4, 4];

/// A pod: its addresses, host side device, endpoint id, identity, MAC and gateway MAC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    pub(crate) ifindex: u32,
    pub(crate) id: u16,
    pub(crate) identity: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) gateway: [u8; 6],
}

const fn v4(c: u8, d: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 1, c, d))
}

const fn v6(c: u16, d: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 1, c, 0, 0, 0, 0, d))
}

const fn pod(node: u8, n: u8) -> Pod {
    Pod {
        v4: v4(node, n),
        v6: v6(node as u16, n as u16),
        ifindex: 10 + n as u32,
        id: 100 + n as u16,
        identity: 1000 + n as u32,
        mac: [2, 1, node, 0, 0, n],
        gateway: [2, 2, node, 0, 0, n],
    }
}

pub(crate) const A1: Pod = pod(1, 11);
pub(crate) const A2: Pod = pod(1, 12);
pub(crate) const B1: Pod = pod(2, 21);

impl Pod {
    pub(crate) const fn ip(&self, family: u8) -> IpAddr {
        if family == 4 { self.v4 } else { self.v6 }
    }
}

pub(crate) const fn router(node: u8, family: u8) -> IpAddr {
    if family == 4 { v4(node, 1) } else { v6(node as u16, 1) }
}

pub(crate) const fn node_ip(node: u8, family: u8) -> IpAddr {
    if family == 4 {
        IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, node))
    } else {
        IpAddr::V6(std::net::Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, node as u16))
    }
}

pub(crate) fn outside(family: u8) -> IpAddr {
    if family == 4 {
        "192.0.2.7".parse().expect("an address")
    } else {
        "2001:db8::7".parse().expect("an address")
    }
}

pub(crate) const FAMILIES: [u8; 2] = [4, 6];

/// A node and what is around it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) native: Native,
    pub(crate) config: NodeConfig,
    pub(crate) node: u8,
}

impl World {
    /// Node 1 with pods A1 and A2 (or node 2 with B1).
    pub(crate) fn node(node: u8, routing: Routing) -> Self {
        let mut config = NodeConfig {
            abi_version: ABI_VERSION,
            revision: 1,
            flags: ConfigFlags::all() - ConfigFlags::HOST_FIREWALL - ConfigFlags::OUTSIDE_CALLS - MASQUERADE,
            routing: routing as u8,
            aggregation: 3,
            monitor_flags: 7,
            payload_len: 128,
            ticks_per_s: HZ,
            monitor_interval_ticks: 5 * HZ,
            underlay_ifindex: UNDERLAY,
            overlay_ifindex: OVERLAY,
            host_ifindex: HOST,
            underlay_mtu: 1500,
            overlay_mtu: 1450,
            host_identity: Identity::HOST,
            host_mac: HOST_MAC,
            world_v4: Identity::WORLD_IPV4,
            world_v6: Identity::WORLD_IPV6,
            ..NodeConfig::default()
        };
        config.router_v4 = Addr::from_ip(router(node, 4)).0.to_v4();
        config.router_v6 = Addr::from_ip(router(node, 6)).0.0;
        config.node_v4 = Addr::from_ip(node_ip(node, 4)).0.to_v4();
        config.node_v6 = Addr::from_ip(node_ip(node, 6)).0.0;
        let mut world = Self { native: Native::new(), config, node };
        world.native.set_clock(ClockEntry { ticks: 4_294_900_000, ktime_ns: 1_000_000_000 });
        world.write_config();
        let other = 3 - node;
        for family in FAMILIES {
            world.endpoint(node_ip(node, family), None);
            world.endpoint(router(node, family), None);
            for pod in if node == 1 { &[A1, A2][..] } else { &[B1][..] } {
                world.endpoint(pod.ip(family), Some(pod));
            }
            let (len, via) =
                if family == 4 { (24, 4) } else { (48, if routing == Routing::Vxlan { 4 } else { 6 }) };
            let via = node_ip(other, via);
            world.ipcache(router(other, family), len, IpCacheEntry::behind(Identity::UNMANAGED, via));
            let node_row = match routing {
                Routing::Vxlan => IpCacheEntry::behind(Identity::REMOTE_NODE, via),
                Routing::Native => IpCacheEntry::new(Identity::REMOTE_NODE),
            };
            world.ipcache(node_ip(other, family), 128, node_row);
        }
        world
    }

    pub(crate) fn vxlan() -> Self {
        Self::node(1, Routing::Vxlan)
    }

    pub(crate) fn write_config(&mut self) {
        self.native.tables_mut().config.set(0, self.config);
    }

    pub(crate) fn revise(&mut self) {
        self.config.revision += 1;
        self.write_config();
    }

    pub(crate) fn endpoint(&mut self, ip: IpAddr, pod: Option<&Pod>) {
        let entry = match pod {
            Some(pod) => EndpointEntry {
                ifindex: pod.ifindex,
                id: pod.id,
                identity: Identity(pod.identity),
                mac: pod.mac,
                node_mac: pod.gateway,
                ..EndpointEntry::default()
            },
            None => EndpointEntry {
                flags: EndpointFlags::HOST,
                identity: Identity::HOST,
                ..EndpointEntry::default()
            },
        };
        assert!(self.native.tables_mut().endpoints.insert(EndpointKey::from_ip(ip), entry));
    }

    /// Puts a policy in force for a pod of the node.
    pub(crate) fn guard(&mut self, pod: &Pod, policy: u32, flags: EndpointFlags) {
        for family in FAMILIES {
            let key = EndpointKey::from_ip(pod.ip(family));
            let endpoints = &mut self.native.tables_mut().endpoints;
            let entry = EndpointEntry { policy, flags, ..*endpoints.get(&key).expect("a pod of the node") };
            assert!(endpoints.insert(key, entry));
        }
    }

    /// Writes a row of a policy.
    pub(crate) fn rule(&mut self, policy: u32, direction: policy::Direction, peer: u32, entry: PolicyEntry) {
        let key = PolicyKey::new(policy, direction, Identity(peer));
        assert!(self.native.tables_mut().policy.insert(key, entry));
    }

    /// Removes a row of a policy.
    pub(crate) fn no_rule(&mut self, policy: u32, direction: policy::Direction, peer: u32) {
        let key = PolicyKey::new(policy, direction, Identity(peer));
        assert!(self.native.tables_mut().policy.remove(&key).is_some());
    }

    /// Writes a row of a set of protocols and ports.
    pub(crate) fn l4(&mut self, key: L4Key, verdict: PolicyVerdict) {
        self.native.tables_mut().policy_l4.insert(key, verdict).expect("room in the table");
    }

    /// Writes a block of addresses.
    pub(crate) fn block(&mut self, key: BlockKey, entry: PolicyEntry) {
        self.native.tables_mut().policy_blocks.insert(key, entry).expect("room in the table");
    }

    /// How many connections have a row.
    pub(crate) fn connections(&self) -> usize {
        self.native.tables().ct4.borrow().len() + self.native.tables().ct6.borrow().len()
    }

    /// Loses every connection, as tables that are full lose some.
    pub(crate) fn forget(&mut self) {
        *self.native.tables_mut().ct4.get_mut() = LruTable::new(Ct4::SPEC.max_entries);
        *self.native.tables_mut().ct6.get_mut() = LruTable::new(Ct6::SPEC.max_entries);
    }

    /// Loses every row of a port.
    pub(crate) fn forget_ports(&mut self) {
        *self.native.tables_mut().nat4.get_mut() = LruTable::new(Nat4::SPEC.max_entries);
        *self.native.tables_mut().nat6.get_mut() = LruTable::new(Nat6::SPEC.max_entries);
    }

    /// What was told of a kind since the last look.
    pub(crate) fn told(&self, kind: EventKind) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.header.kind == kind as u8).collect()
    }

    pub(crate) fn ipcache(&mut self, ip: IpAddr, len: u8, entry: IpCacheEntry) {
        self.native
            .tables_mut()
            .ipcache
            .insert(IpCacheKey::prefix(ip, len), entry)
            .expect("room in the table");
    }

    pub(crate) fn seconds(&self, seconds: u64) {
        self.native.advance(seconds * 1_000_000_000, HZ);
    }

    /// Runs a program on a frame that is on a device.
    pub(crate) fn run(&self, program: Program, bytes: &[u8], ifindex: u32) -> (Verdict, Frame) {
        let mut frame = Frame::new(bytes.to_vec(), ifindex);
        let verdict = self.native.run(program, &mut frame);
        (verdict, frame)
    }

    /// A pod sends.
    pub(crate) fn pod_sends(&self, pod: &Pod, bytes: &[u8]) -> (Verdict, Frame) {
        self.run(Program::FromContainer, bytes, pod.ifindex)
    }

    /// A pod sends, and the packet goes on.
    pub(crate) fn forwards(&self, pod: &Pod, bytes: &[u8]) {
        let (verdict, _) = self.pod_sends(pod, bytes);
        assert!(!matches!(verdict, Verdict::Drop(_) | Verdict::Skip), "{verdict:?}");
    }

    /// A frame comes out of the tunnel.
    pub(crate) fn tunnel_brings(&self, bytes: &[u8], key: u32) -> (Verdict, Frame) {
        let mut frame = Frame::new(bytes.to_vec(), OVERLAY);
        frame.accepted = false;
        frame.from_tunnel = Some(Tunnel { node: [0; 16], family: 1, key });
        let verdict = self.native.run(Program::FromOverlay, &mut frame);
        (verdict, frame)
    }

    /// Every counter that is not zero, as (reason, direction, packets).
    pub(crate) fn counters(&self) -> Vec<(u8, Direction, u64)> {
        self.native.counters()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.native.drain_events()
    }

    /// The row of a connection.
    pub(crate) fn ct(&self, src: IpAddr, dst: IpAddr, sport: u16, dport: u16, proto: u8) -> Option<CtEntry> {
        let (sport, dport) = (Be16::new(sport), Be16::new(dport));
        match (src, dst) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let (key, _) = CtKey4::of_packet(a.octets(), b.octets(), sport, dport, proto);
                self.native.tables().ct4.borrow().peek(&key).copied()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let (key, _) = CtKey6::of_packet(a.octets(), b.octets(), sport, dport, proto);
                self.native.tables().ct6.borrow().peek(&key).map(|row| row.entry)
            }
            _ => None,
        }
    }
}

/// A frame from a pod to an address.
pub(crate) fn craft(pod: &Pod, dst: IpAddr) -> Craft {
    Craft::new(pod.ip(if dst.is_ipv4() { 4 } else { 6 }), dst).macs(pod.mac, pod.gateway)
}
