//! `IPCACHE`: which identity an address has and behind which node it is.
//!
//! A prefix gets its row from the first of: the node's own addresses, pods of this node, other nodes' addresses, pods of other nodes,
//! with the tunnel other nodes' addresses on their pods' links, pod CIDRs, CIDRs that policies tell apart, the world. So a CIDR of a policy never stands for a pod or a node.

use std::net::IpAddr;

use dataplane_abi::Identity;
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use ipnet::IpNet;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::row_hash;
use crate::config::Routing;
use crate::plan::Plan;
use crate::ports::Row;
use crate::state::State;

/// Where a row comes from, in the words of the local API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Host,
    Endpoint,
    Node,
    RemoteEndpoint,
    PodCidr,
    Cidr,
    World,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Endpoint => "endpoint",
            Self::Node => "node",
            Self::RemoteEndpoint => "remote-endpoint",
            Self::PodCidr => "pod-cidr",
            Self::Cidr => "cidr",
            Self::World => "world",
        }
    }
}

/// The row of a prefix and its source.
pub(crate) fn row(state: &State, plan: &Plan, prefix: IpNet) -> Option<(Source, IpCacheEntry)> {
    let address = prefix.addr();
    if !plan.enabled(&address) {
        return None;
    }
    if prefix.prefix_len() == prefix.max_prefix_len() {
        if plan.routers().any(|router| router == address) || plan.host_addresses.contains(&address) {
            return Some((Source::Host, IpCacheEntry::new(Identity::HOST)));
        }
        if let Some(endpoint) = state.endpoint_at(&address) {
            let in_force = state.policy.of_endpoint(endpoint.record.id)?;
            return Some((Source::Endpoint, IpCacheEntry::new(in_force.identity)));
        }
        if let Some(holder) = state.nodes.address_holder(&address).filter(|holder| holder.remote) {
            // Native: the nodes share a link, so the node is its own next hop.
            let node = match plan.routing {
                Routing::Vxlan => state.nodes.get(&holder.name).and_then(|node| node.ip(plan.outer_v4)),
                Routing::Native => Some(address),
            };
            return Some((Source::Node, behind(state.policy.identity_of_node(&holder.name, &address), node)));
        }
        if let Some(entry) = remote_endpoint(state, plan, address) {
            return Some((Source::RemoteEndpoint, entry));
        }
        if let Some(entry) = remote_router(state, plan, address) {
            return Some((Source::Node, entry));
        }
    }
    if let Some(holder) = state.nodes.cidr_holder(&prefix) {
        let node =
            if holder.remote { node_of_cidr(state, plan, &holder.name, address.is_ipv4()) } else { None };
        return Some((Source::PodCidr, behind(Identity::UNMANAGED, node)));
    }
    if let Some(identity) = state.policy.cidrs().get(&prefix)
        && !state.nodes.is_pod_cidr(&prefix)
    {
        return Some((Source::Cidr, IpCacheEntry::new(*identity)));
    }
    (prefix.prefix_len() == 0).then(|| (Source::World, IpCacheEntry::new(world(plan, address.is_ipv4()))))
}

/// A pod of another node, as the agent there says. What is not in a pod CIDR of that very node is not believed.
fn remote_endpoint(state: &State, plan: &Plan, address: IpAddr) -> Option<IpCacheEntry> {
    let object = state.policy.endpoint_at(&address)?;
    let holder = state.nodes.cidr_holder_around(&address).filter(|holder| holder.remote)?;
    let is_there = state.nodes.get(&holder.name)?.internal_ips.contains(&object.node?);
    let node = node_of_cidr(state, plan, &holder.name, address.is_ipv4());
    is_there.then(|| behind(object.identity(), node))
}

/// Another node by the address from which it sends to pods through the tunnel. The tunnel says only that it is some node.
fn remote_router(state: &State, plan: &Plan, address: IpAddr) -> Option<IpCacheEntry> {
    let holder = state.nodes.router_holder(&address).filter(|_| plan.routing == Routing::Vxlan)?;
    let identity = state.policy.identity_of_node(&holder.name, &address);
    Some(behind(identity, node_of_cidr(state, plan, &holder.name, address.is_ipv4())))
}

/// Address of the node behind which a pod CIDR is: its tunnel endpoint, or the next hop.
pub(crate) fn node_of_cidr(state: &State, plan: &Plan, node: &str, v4: bool) -> Option<IpAddr> {
    let record = state.nodes.get(node)?;
    match plan.routing {
        Routing::Vxlan => record.ip(plan.outer_v4),
        Routing::Native => record.ip(v4),
    }
}

fn behind(identity: Identity, node: Option<IpAddr>) -> IpCacheEntry {
    node.map_or_else(|| IpCacheEntry::new(identity), |node| IpCacheEntry::behind(identity, node))
}

/// Identity of addresses that are not in the cluster: split by family only where both are in use.
pub(crate) fn world(plan: &Plan, v4: bool) -> Identity {
    match (plan.v4 && plan.v6, v4) {
        (false, _) => Identity::WORLD,
        (true, true) => Identity::WORLD_IPV4,
        (true, false) => Identity::WORLD_IPV6,
    }
}

/// Key bytes.
pub(crate) fn key(prefix: &IpNet) -> IpCacheKey {
    IpCacheKey::prefix(prefix.addr(), prefix.prefix_len())
}

/// A row that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse(row: &Row) -> Option<(IpNet, IpCacheEntry)> {
    let found = IpCacheKey::read_from_bytes(&row.key).ok()?;
    let (address, len) = found.to_prefix()?;
    let prefix = IpNet::new(address, len).ok()?;
    (key(&prefix) == found).then_some(())?;
    Some((prefix, IpCacheEntry::read_from_bytes(&row.value).ok()?))
}

/// For the digest of the tables.
pub(crate) fn hash(prefix: &IpNet, entry: &IpCacheEntry) -> u64 {
    row_hash(b'I', key(prefix).as_bytes(), entry.as_bytes())
}
