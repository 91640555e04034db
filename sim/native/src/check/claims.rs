//! Who has which prefix, by the Node objects alone.
//!
//! docs/agent-control.md: of claims that overlap the own node's holds, else that of the older object, else by name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sim_scenario::model::Routing;

use crate::queue::NodeId;
use crate::world::World;

/// The Node object whose claim holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its name.
    pub(super) name: String,
    /// It is not the node that is asked.
    pub(super) remote: bool,
    addresses: Vec<IpAddr>,
}

/// Claims as a node sees them: pod CIDRs, and addresses as prefixes of full length.
#[derive(Debug)]
pub(super) struct Claims {
    /// By prefix.
    pub(super) holders: BTreeMap<IpNet, Holder>,
}

impl Claims {
    /// The claims that hold for a node.
    pub(super) fn of(world: &World, n: NodeId) -> Self {
        let own = &world.nodes[n].name;
        let mut objects: Vec<_> = world.node_log.present().collect();
        objects.sort_by_key(|object| (object.name != *own, object.created_s, &object.name));
        let mut holders: BTreeMap<IpNet, Holder> = BTreeMap::new();
        for object in objects {
            let addresses: Vec<IpAddr> =
                object.internal_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            let holder = Holder { name: object.name.clone(), remote: object.name != *own, addresses };
            let cidrs = object.pod_cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok());
            for net in cidrs {
                let overlaps = |held: &IpNet| held.contains(&net) || net.contains(held);
                let mut nets = holders.keys().filter(|held| held.prefix_len() < held.max_prefix_len());
                if !nets.any(overlaps) {
                    holders.insert(net, holder.clone());
                }
            }
            for net in holder.addresses.iter().copied().map(IpNet::from) {
                holders.entry(net).or_insert_with(|| holder.clone());
            }
        }
        Self { holders }
    }

    /// The addresses of other nodes on the links of their pods: the first of each pod CIDR.
    pub(super) fn routers(&self) -> impl Iterator<Item = IpAddr> {
        let cidrs = self.holders.iter().filter(|(net, _)| net.prefix_len() < net.max_prefix_len());
        cidrs.filter(|(_, holder)| holder.remote).map(|(net, _)| match net.network() {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first) + 1).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + 1).into()),
        })
    }

    /// The address by which a node shall reach a prefix, if it is behind another.
    pub(super) fn behind(&self, world: &World, n: NodeId, prefix: IpNet) -> Option<IpAddr> {
        let is_address = prefix.prefix_len() == prefix.max_prefix_len() && self.holders.contains_key(&prefix);
        // Pods are behind the node whose pod CIDR they are in.
        let around = || self.holders.iter().find(|(net, _)| net.contains(&prefix)).map(|(_, holder)| holder);
        let holder = self.holders.get(&prefix).or_else(around).filter(|holder| holder.remote)?;
        let v4 = match world.cluster.routing {
            // Nodes share a link, so each is its own next hop.
            Routing::Native if is_address => return Some(prefix.addr()),
            Routing::Native => prefix.addr().is_ipv4(),
            Routing::Vxlan => world.nodes[n].addresses.iter().any(IpAddr::is_ipv4),
        };
        holder.addresses.iter().find(|ip| ip.is_ipv4() == v4).copied()
    }
}
