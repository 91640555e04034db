//! `CONFIG`: what the programs know of their node.

use dataplane_abi::config::{ConfigFlags, NodeConfig, Routing as AbiRouting};
use dataplane_abi::{ABI_VERSION, Identity, events};

use super::ipcache::world;
use super::masquerade;
use crate::config::{Config, MonitorAggregation, Routing};
use crate::plan::Plan;

/// TCP flags whose first appearance is reported: FIN, SYN, RST (RFC 9293 bits).
const MONITOR_FLAGS: u8 = 0x07;

/// The row, without revision and digest; `None` while too little is known.
pub(crate) fn row(config: &Config, plan: &Plan, listeners: bool, ticks_per_s: u32) -> Option<NodeConfig> {
    let (base, underlay) = (plan.base?, plan.underlay.as_ref()?);
    let mut flags = ConfigFlags::SOURCE_CHECK | ConfigFlags::DROP_EVENTS;
    flags.set(ConfigFlags::TRACE_EVENTS, listeners);
    flags.set(ConfigFlags::POLICY_EVENTS, listeners);
    flags.set(ConfigFlags::HOST_FIREWALL, config.host_firewall());
    flags.set(ConfigFlags::IPV4, plan.v4);
    flags.set(ConfigFlags::IPV6, plan.v6);
    let packets = config.kube_proxy_replacement && config.service_translation.packets();
    flags.set(ConfigFlags::SERVICE_PACKETS, packets);
    let (masquerade_v4, masquerade_v6) =
        (masquerade::is_on(config, plan, true), masquerade::is_on(config, plan, false));
    flags.set(ConfigFlags::MASQUERADE_V4, masquerade_v4);
    flags.set(ConfigFlags::MASQUERADE_V6, masquerade_v6);
    flags.set(ConfigFlags::OUTSIDE_CALLS, plan.outside_calls);
    let (snat_port_min, snat_port_max) = if masquerade_v4 || masquerade_v6 || plan.outside_calls {
        (*config.masquerade.ports.start(), *config.masquerade.ports.end())
    } else {
        (0, 0)
    };
    let (first, last) = (*config.node_ports.start(), *config.node_ports.end());
    let (node_port_min, node_port_max) = if config.kube_proxy_replacement { (first, last) } else { (0, 0) };
    let interval_ms = u128::from(ticks_per_s).saturating_mul(config.report_interval.as_millis()) / 1000;
    Some(NodeConfig {
        abi_version: ABI_VERSION,
        revision: 0,
        flags,
        routing: match plan.routing {
            Routing::Vxlan => AbiRouting::Vxlan,
            Routing::Native => AbiRouting::Native,
        } as u8,
        aggregation: match config.monitor_aggregation {
            MonitorAggregation::None => 0,
            MonitorAggregation::Low => 1,
            MonitorAggregation::Medium => 3,
        },
        monitor_flags: MONITOR_FLAGS,
        payload_len: u8::try_from(events::PAYLOAD_MAX).unwrap_or(u8::MAX),
        ticks_per_s,
        monitor_interval_ticks: u32::try_from(interval_ms).unwrap_or(u32::MAX),
        underlay_ifindex: underlay.ifindex,
        overlay_ifindex: base.overlay.map_or(0, |overlay| overlay.ifindex),
        host_ifindex: base.host.ifindex,
        underlay_mtu: plan.mtu,
        overlay_mtu: plan.pod_mtu,
        host_identity: Identity::HOST,
        underlay_mac: underlay.mac,
        host_mac: base.host.mac,
        overlay_mac: base.overlay.map_or([0; 6], |overlay| overlay.mac),
        router_v4: plan.router_v4.map_or([0; 4], |router| router.octets()),
        router_v6: plan.router_v6.map_or([0; 16], |router| router.octets()),
        node_v4: plan.node_v4.map_or([0; 4], |node| node.octets()),
        node_v6: plan.node_v6.map_or([0; 16], |node| node.octets()),
        world_v4: world(plan, true),
        world_v6: world(plan, false),
        node_port_min,
        node_port_max,
        snat_port_min,
        snat_port_max,
        ..NodeConfig::default()
    })
}

/// What to write over `present` so that the programs use the rows summed up in `digest`: nothing if they already do.
/// `moved`: rows have changed since `present` was written, perhaps there and back.
pub(crate) fn next(
    present: Option<&NodeConfig>,
    wanted: NodeConfig,
    digest: u64,
    moved: bool,
) -> Option<NodeConfig> {
    let revision = present.map_or(0, |present| present.revision);
    let rows_digest = digest.to_le_bytes();
    let same = NodeConfig { revision, rows_digest, ..wanted };
    if revision != 0 && !moved && present == Some(&same) {
        return None;
    }
    // Never zero: that stands for "not judged yet" in conntrack.
    let revision = revision.checked_add(1).unwrap_or(1);
    Some(NodeConfig { revision, ..same })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_moves_with_rows_and_fields_only() {
        let wanted = NodeConfig { abi_version: 1, ..NodeConfig::default() };
        let first = next(None, wanted, 5, false).unwrap();
        assert_eq!(first.revision, 1);
        assert_eq!(next(Some(&first), wanted, 5, false), None);
        let second = next(Some(&first), wanted, 6, false).unwrap();
        assert_eq!(second.revision, 2);
        assert_eq!(next(Some(&second), wanted, 6, true).unwrap().revision, 3, "there and back");
        let last = NodeConfig { revision: u32::MAX, ..second };
        assert_eq!(next(Some(&last), wanted, 7, false).unwrap().revision, 1, "zero is left out");
    }
}
