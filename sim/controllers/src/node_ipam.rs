//! Gives every node its pod CIDRs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::json;
use sim_api::Sub;
use sim_api::object::{at, list_at, name, set};
use sim_api::resource::NODES;

use crate::{Context, tried};

pub(crate) fn run(ctx: &Context<'_>) {
    if ctx.options.pod_cidrs.is_empty() {
        return;
    }
    let nodes = ctx.store.list(&NODES, "");
    let mut used: BTreeSet<IpNet> = nodes
        .iter()
        .flat_map(|n| list_at(n, &["spec", "podCIDRs"]).iter().filter_map(|c| c.as_str()?.parse().ok()))
        .collect();
    for node in nodes.iter().filter(|n| at(n, &["spec", "podCIDR"]).is_null()) {
        let given: Option<Vec<IpNet>> =
            ctx.options.pod_cidrs.iter().map(|(range, prefix)| next_block(range, *prefix, &used)).collect();
        let Some(given) = given else {
            crate::event::record(
                ctx,
                "cidrAllocator",
                node,
                "Warning",
                "CIDRNotAvailable",
                "no pod CIDR is left for this node",
            );
            continue;
        };
        used.extend(given.iter().copied());
        let done = ctx.store.modify(&NODES, "", name(node), Sub::Main, |n| {
            set(n, &["spec", "podCIDR"], json!(given[0].to_string()));
            set(n, &["spec", "podCIDRs"], given.iter().map(|c| json!(c.to_string())).collect());
        });
        tried("pod CIDR", done);
    }
}

/// The first block of `range` that does not overlap a used one.
fn next_block(range: &IpNet, prefix: u8, used: &BTreeSet<IpNet>) -> Option<IpNet> {
    let bits = prefix.checked_sub(range.prefix_len())?;
    let host_bits = range.max_prefix_len().checked_sub(prefix)?;
    let count = 1_u128.checked_shl(u32::from(bits))?;
    (0..count).find_map(|i| {
        let offset = i.checked_shl(u32::from(host_bits))?;
        let address = match range.network() {
            IpAddr::V4(a) => {
                IpAddr::V4(Ipv4Addr::from(u32::from(a).checked_add(u32::try_from(offset).ok()?)?))
            }
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a).checked_add(offset)?)),
        };
        let block = IpNet::new(address, prefix).ok()?;
        let free = used.iter().all(|u| !u.contains(&block) && !block.contains(u));
        free.then_some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap() {
        let range: IpNet = "10.0.0.0/22".parse().unwrap();
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(block) = next_block(&range, 24, &used) {
            used.insert(block);
            given.push(block.to_string());
        }
        assert_eq!(given, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
        let six: IpNet = "fd00:10::/64".parse().unwrap();
        assert_eq!(next_block(&six, 112, &BTreeSet::new()).unwrap().to_string(), "fd00:10::/112");
        assert_eq!(next_block(&range, 16, &BTreeSet::new()), None);
    }
}
