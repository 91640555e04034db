//! Is the cluster possible?

use std::ops::RangeInclusive;

use super::Walk;
use crate::model::{Enforcement, Translation};
use crate::path::Path;

const MTU: RangeInclusive<u16> = 1280..=9000;
const POD_CIDR_BITS: RangeInclusive<u8> = 16..=30;
/// Prefix length of the cluster's range (10.0.0.0/8, say) of which the nodes have their pod CIDRs.
const CLUSTER_BITS: u8 = 8;

pub(super) fn check(walk: &mut Walk<'_>) {
    walk.at = Path::of("cluster");
    let cluster = &walk.scenario.cluster;
    if cluster.nodes == 0 {
        walk.wrong("nodes", "a cluster has at least 1 node");
    }
    if !MTU.contains(&cluster.mtu) {
        walk.wrong("mtu", format!("{} is no possible MTU: 1280 to 9000", cluster.mtu));
    }
    let bits = cluster.pod_cidr_bits;
    if !POD_CIDR_BITS.contains(&bits) {
        walk.wrong("pod-cidr-bits", format!("{bits} is no possible prefix length of a pod CIDR: 16 to 30"));
    } else if u32::from(cluster.nodes) > 1 << (bits - CLUSTER_BITS) {
        walk.wrong(
            "nodes",
            format!("{} pod CIDRs of /{bits} do not fit into a /{CLUSTER_BITS}", cluster.nodes),
        );
    }
    if cluster.host_firewall && !cluster.policy {
        walk.wrong("host-firewall", "without `policy` nobody puts policies for nodes in force");
    }
    if (cluster.enforcement != Enforcement::Default || cluster.audit) && !cluster.policy {
        let field = if cluster.audit { "audit" } else { "enforcement" };
        walk.wrong(field, "without `policy` nobody enforces anything");
    }
    if cluster.kube_proxy_replacement && !cluster.policy {
        walk.wrong("kube-proxy-replacement", "without `policy` agents hear of no services here");
    }
    if cluster.service_translation != Translation::Socket && !cluster.kube_proxy_replacement {
        walk.wrong("service-translation", "without `kube-proxy-replacement` nothing is translated");
    }
    for (name, capacity) in &cluster.tables {
        walk.table(&format!("tables.{name}"), name);
        if *capacity == 0 {
            walk.wrong(&format!("tables.{name}"), "a table has at least 1 row");
        }
    }
}
