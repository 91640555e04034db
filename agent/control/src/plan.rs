//! What follows for the whole node from the own Node object, the underlay and the configuration. All rows are computed from it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::{Config, FamilyMode, Routing};
use crate::event::DeviceFacts;
use crate::ports::{BaseFacts, BaseSpec};
use crate::state::State;
use crate::state::ipam::router_of;

/// Bytes that VXLAN adds over IPv4: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
const VXLAN_OVER_V4: u32 = 50;
/// The same over IPv6.
const VXLAN_OVER_V6: u32 = 70;

/// See the module's words. Equal plans give equal rows for equal nodes and endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(crate) struct Plan {
    pub(crate) routing: Routing,
    /// The node's own connections are judged.
    pub(crate) host_firewall: bool,
    /// What pods send to the world is masqueraded, by one family at least.
    pub(crate) masquerade: bool,
    /// Calls to services from outside the cluster are translated.
    pub(crate) outside_calls: bool,
    /// Pods have IPv4 addresses.
    pub(crate) v4: bool,
    /// Pods have IPv6 addresses.
    pub(crate) v6: bool,
    pub(crate) router_v4: Option<Ipv4Addr>,
    pub(crate) router_v6: Option<Ipv6Addr>,
    /// Tunnel endpoints are IPv4 addresses.
    pub(crate) outer_v4: bool,
    pub(crate) underlay: Option<DeviceFacts>,
    /// MTU of the underlay, zero while it is not known.
    pub(crate) mtu: u32,
    /// MTU of pods.
    pub(crate) pod_mtu: u32,
    pub(crate) node_v4: Option<Ipv4Addr>,
    pub(crate) node_v6: Option<Ipv6Addr>,
    /// All addresses of the node itself, of the families in use.
    pub(crate) host_addresses: BTreeSet<IpAddr>,
    /// Pod CIDRs of the own node that it really has, of the families in use.
    pub(crate) pools: Vec<IpNet>,
    /// The base links, once they are there.
    pub(crate) base: Option<BaseFacts>,
}

impl Plan {
    /// The plan before anything is known.
    pub(crate) fn empty(routing: Routing) -> Self {
        Self {
            routing,
            host_firewall: false,
            masquerade: false,
            outside_calls: false,
            v4: false,
            v6: false,
            router_v4: None,
            router_v6: None,
            outer_v4: true,
            underlay: None,
            mtu: 0,
            pod_mtu: 0,
            node_v4: None,
            node_v6: None,
            host_addresses: BTreeSet::new(),
            pools: Vec::new(),
            base: None,
        }
    }

    /// The plan that follows from the state.
    pub(crate) fn of(config: &Config, state: &State) -> Self {
        let own = state.nodes.own();
        let claimed: Vec<IpNet> = own.map(|own| own.pod_cidrs.clone()).unwrap_or_default();
        // A CIDR of the own node always wins against other nodes', but not against an own one that overlaps it.
        let held: Vec<IpNet> = claimed
            .into_iter()
            .filter(|cidr| state.nodes.cidr_holder(cidr).is_some_and(|holder| !holder.remote))
            .collect();
        // Pods keep the router that is in their routes for as long as they live, also when the node's pod CIDRs change.
        let in_use = |v4: bool| {
            let gateways = state.endpoints.iter().flat_map(|endpoint| &endpoint.record.gateways);
            gateways.copied().find(|gateway| gateway.is_ipv4() == v4)
        };
        let router = |v4: bool| {
            in_use(v4).or_else(|| held.iter().filter(|cidr| cidr.addr().is_ipv4() == v4).find_map(router_of))
        };
        let family = |mode: FamilyMode, v4: bool| match mode {
            FamilyMode::Off => false,
            FamilyMode::On => true,
            FamilyMode::Auto => router(v4).is_some(),
        };
        let (v4, v6) = (family(config.ipv4, true), family(config.ipv6, false));
        let enabled = |ip: &IpAddr| if ip.is_ipv4() { v4 } else { v6 };
        let underlay = state.underlay.clone();
        let device_addresses = underlay.iter().flat_map(|device| device.addresses.iter().copied());
        let node_ips = own.iter().flat_map(|own| own.internal_ips.iter().copied());
        let addresses: Vec<IpAddr> = node_ips.chain(device_addresses).map(|ip| ip.to_canonical()).collect();
        let outer_v4 = own.is_none_or(|own| own.internal_ips.is_empty() || own.ip(true).is_some());
        let mtu = config.mtu.or(underlay.as_ref().map(|device| device.mtu)).unwrap_or(0);
        let overhead = match (config.routing, outer_v4) {
            (Routing::Native, _) => 0,
            (Routing::Vxlan, true) => VXLAN_OVER_V4,
            (Routing::Vxlan, false) => VXLAN_OVER_V6,
        };
        Self {
            routing: config.routing,
            host_firewall: config.host_firewall(),
            masquerade: config.masquerade.is_on(),
            outside_calls: config.outside_calls(),
            v4,
            v6,
            router_v4: router(true).filter(|_| v4).and_then(as_v4),
            router_v6: router(false).filter(|_| v6).and_then(as_v6),
            outer_v4,
            mtu,
            pod_mtu: mtu.saturating_sub(overhead),
            node_v4: addresses.iter().copied().find_map(as_v4),
            node_v6: addresses.iter().copied().find_map(as_v6),
            host_addresses: addresses.into_iter().filter(|ip| enabled(ip)).collect(),
            pools: held.into_iter().filter(|cidr| enabled(&cidr.addr())).collect(),
            base: state.base.filter(|_| underlay.is_some()),
            underlay,
        }
    }

    /// Whether pods have addresses of the family of this one.
    pub(crate) fn enabled(&self, ip: &IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// The router address of this family.
    pub(crate) fn router(&self, v4: bool) -> Option<IpAddr> {
        if v4 { self.router_v4.map(IpAddr::V4) } else { self.router_v6.map(IpAddr::V6) }
    }

    /// All router addresses.
    pub(crate) fn routers(&self) -> impl Iterator<Item = IpAddr> {
        [self.router(true), self.router(false)].into_iter().flatten()
    }

    /// The base links as they shall be; `None` while too little is known.
    pub(crate) fn base_spec(&self) -> Option<BaseSpec> {
        let underlay = self.underlay.as_ref()?;
        self.routers().next()?;
        Some(BaseSpec {
            routing: self.routing,
            device: underlay.name.clone(),
            router_v4: self.router_v4,
            router_v6: self.router_v6,
            mtu: self.mtu,
        })
    }

    /// Families of pods' addresses (true: IPv4), in the order of the node's pod CIDRs; wanted families without one come last.
    pub(crate) fn families(&self) -> Vec<bool> {
        let mut families: Vec<bool> = Vec::new();
        let wanted = [(true, self.v4), (false, self.v6)].into_iter().filter(|(_, on)| *on).map(|(v4, _)| v4);
        for v4 in self.pools.iter().map(|pool| pool.addr().is_ipv4()).chain(wanted) {
            if !families.contains(&v4) {
                families.push(v4);
            }
        }
        families
    }
}

fn as_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}
