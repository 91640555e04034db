//! The API's objects as text for people.

use crate::table::{Facts, Table};
use agent_api::status::{AgentState, AttachKind, RoutingMode};
use agent_api::{CtEntry, Endpoint, EndpointState, IpcacheEntry, MapDump, MapInfo, NatEntry, Node, Status};
use std::fmt::Display;

/// Reserved identities have names; others are numbers.
pub(crate) fn identity(number: u32) -> String {
    let name = match number {
        0 => "unknown",
        1 => "host",
        2 => "world",
        3 => "unmanaged",
        4 => "health",
        5 => "init",
        6 => "remote-node",
        7 => "kube-apiserver",
        8 => "ingress",
        9 => "world-ipv4",
        10 => "world-ipv6",
        number => return number.to_string(),
    };
    name.to_owned()
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn optional<T: Display>(item: Option<&T>) -> String {
    item.map(ToString::to_string).unwrap_or_default()
}

/// A span in the largest two units that matter.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes in the largest binary unit that leaves a number above one.
fn bytes(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let value = number as f64;
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{:.1} KiB", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.1} GiB", value / 1_073_741_824.0),
    }
}

/// `bristle status`
pub(crate) fn status(status: &Status) -> String {
    let mut facts = Facts::default();
    let state = match status.state {
        AgentState::Starting => "starting",
        AgentState::WaitingForPodCidr => "waiting for pod CIDR",
        AgentState::Ready => "ready",
        AgentState::Degraded => "degraded",
    };
    facts.fact(
        "Agent",
        status.reason.as_ref().map_or_else(|| state.to_owned(), |reason| format!("{state}: {reason}")),
    );
    facts.fact("Node", &status.node);
    facts.fact(
        "Version",
        format!(
            "{}, up {}, {} resident",
            status.version,
            span(status.uptime_s),
            bytes(status.resident_bytes)
        ),
    );
    let kubernetes = &status.kubernetes;
    let connection = match (kubernetes.connected, &kubernetes.error) {
        (true, _) if kubernetes.synced => format!("connected to {}, in sync", kubernetes.server),
        (true, _) => format!("connected to {}, reading", kubernetes.server),
        (false, Some(problem)) => problem.clone(),
        (false, None) => "not connected yet".to_owned(),
    };
    facts.fact("Kubernetes", connection);
    let network = &status.network;
    let routing = match network.routing {
        RoutingMode::Vxlan => "vxlan",
        RoutingMode::Native => "native",
    };
    let families = [(network.ipv4, "IPv4"), (network.ipv6, "IPv6")];
    let families: Vec<&str> = families.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    facts.fact(
        "Routing",
        format!(
            "{routing}, {}",
            if families.is_empty() { "no address family yet".to_owned() } else { families.join(" and ") }
        ),
    );
    if !network.device.is_empty() {
        facts.fact(
            "Device",
            format!("{}, MTU {} (pods {})", network.device, network.mtu_bytes, network.pod_mtu_bytes),
        );
    }
    facts.fact("Node IPs", list(&network.node_ips));
    facts.fact("Router IPs", list(&network.router_ips));
    for pool in &status.ipam {
        let quarantined =
            if pool.quarantined > 0 { format!(", {} resting", pool.quarantined) } else { String::new() };
        facts.fact(
            "Pod CIDR",
            format!("{}: {} of {} in use{quarantined}", pool.cidr, pool.used, pool.capacity),
        );
    }
    facts.fact("Endpoints", format!("{}, {} ready", status.endpoints.total, status.endpoints.ready));
    facts.fact("Nodes", format!("{}, {} ipcache rows", status.nodes, status.ipcache));
    let reconcile = &status.reconcile;
    let wait = if reconcile.pending > 0 { format!(", {} waiting", reconcile.pending) } else { String::new() };
    let error = reconcile.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    facts.fact(
        "Reconcile",
        format!(
            "{} runs, {} failed, last {} µs{wait}{error}",
            reconcile.runs, reconcile.failed_runs, reconcile.last_us
        ),
    );
    let attach = match status.dataplane.attach {
        AttachKind::Tcx => "TCX links",
        AttachKind::Clsact => "clsact filters",
    };
    facts.fact(
        "Dataplane",
        format!(
            "{} {attach}, kernel {}, ABI {}",
            status.dataplane.links, status.dataplane.kernel, status.dataplane.abi
        ),
    );
    facts.fact("Conntrack", format!("{} of {}", status.conntrack.entries, status.conntrack.capacity));
    let monitor = &status.monitor;
    facts.fact(
        "Monitor",
        format!(
            "aggregation {}, {} events, {} lost, {} readers",
            monitor.aggregation, monitor.events, monitor.lost, monitor.readers
        ),
    );
    facts.to_string()
}

const fn endpoint_state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Restoring => "restoring",
        EndpointState::Creating => "creating",
        EndpointState::Ready => "ready",
        EndpointState::Disconnecting => "disconnecting",
    }
}

/// Which directions are judged.
fn enforced(endpoint: &Endpoint) -> String {
    let Some(policy) = endpoint.policy else { return "off".to_owned() };
    let directions = match (policy.ingress, policy.egress) {
        (false, false) => return "none".to_owned(),
        (true, false) => "ingress",
        (false, true) => "egress",
        (true, true) => "ingress+egress",
    };
    if policy.audit { format!("{directions} (audit)") } else { directions.to_owned() }
}

fn pod(endpoint: &Endpoint) -> String {
    if endpoint.pod.is_empty() { String::new() } else { format!("{}/{}", endpoint.namespace, endpoint.pod) }
}

/// `bristle endpoint list`
pub(crate) fn endpoints(endpoints: &[Endpoint]) -> String {
    let mut table = Table::new(&["ID", "POD", "IPV4", "IPV6", "IDENTITY", "POLICY", "STATE", "DEVICE"]);
    for endpoint in endpoints {
        table.row([
            endpoint.id.to_string(),
            pod(endpoint),
            optional(endpoint.ipv4.as_ref()),
            optional(endpoint.ipv6.as_ref()),
            identity(endpoint.identity),
            enforced(endpoint),
            endpoint_state(endpoint.state).to_owned(),
            endpoint.device.clone(),
        ]);
    }
    table.to_string()
}

/// `bristle endpoint get`
pub(crate) fn endpoint(endpoint: &Endpoint) -> String {
    let mut facts = Facts::default();
    facts.fact("Endpoint", endpoint.id.to_string());
    facts.fact("State", endpoint_state(endpoint.state));
    facts.fact("Pod", pod(endpoint));
    facts.fact("Pod UID", &endpoint.pod_uid);
    facts.fact("Container", &endpoint.container_id);
    facts.fact("Identity", identity(endpoint.identity));
    let number = endpoint.policy.filter(|policy| policy.number != 0).map(|policy| policy.number);
    facts.fact(
        "Policy",
        number
            .map_or_else(|| enforced(endpoint), |number| format!("{}, number {number}", enforced(endpoint))),
    );
    facts.fact("IPv4", optional(endpoint.ipv4.as_ref()));
    facts.fact("IPv6", optional(endpoint.ipv6.as_ref()));
    facts.fact("In the pod", format!("{} {}", endpoint.ifname, endpoint.mac));
    facts.fact(
        "On the node",
        format!("{} (index {}) {}", endpoint.device, endpoint.ifindex, endpoint.device_mac),
    );
    facts.fact("Created", optional(endpoint.created.as_ref()));
    facts.to_string()
}

/// `bristle ipcache list`
pub(crate) fn ipcache(entries: &[IpcacheEntry]) -> String {
    let mut table = Table::new(&["PREFIX", "IDENTITY", "TUNNEL", "SOURCE"]);
    for entry in entries {
        table.row([
            entry.prefix.to_string(),
            identity(entry.identity),
            optional(entry.tunnel.as_ref()),
            entry.source.clone(),
        ]);
    }
    table.to_string()
}

/// `bristle node list`
pub(crate) fn nodes(nodes: &[Node]) -> String {
    let mut table = Table::new(&["NAME", "INTERNAL IPS", "POD CIDRS"]);
    for node in nodes {
        let name = if node.local { format!("{} (this node)", node.name) } else { node.name.clone() };
        table.row([name, list(&node.internal_ips), list(&node.pod_cidrs)]);
    }
    table.to_string()
}

/// `bristle bpf ct list`
pub(crate) fn connections(entries: &[CtEntry]) -> String {
    let mut table = Table::new(&[
        "PROTO", "FROM", "TO", "STATE", "IDENTITY", "PACKETS", "BYTES", "IDLE", "EXPIRES", "THERE", "BACK",
    ]);
    for entry in entries {
        table.row([
            entry.protocol.clone(),
            entry.source.to_string(),
            entry.destination.to_string(),
            entry.state.clone(),
            identity(entry.source_identity),
            entry.packets.to_string(),
            entry.bytes.to_string(),
            span(entry.idle_s),
            span(entry.expires_s),
            entry.forward.clone(),
            entry.reverse.clone(),
        ]);
    }
    table.to_string()
}

/// `bristle bpf nat list`
pub(crate) fn ports(entries: &[NatEntry]) -> String {
    let mut table = Table::new(&["PROTO", "FROM", "LEAVES AS", "TO", "WHOSE", "STATE", "IDLE", "EXPIRES"]);
    for entry in entries {
        table.row([
            entry.protocol.clone(),
            entry.source.to_string(),
            entry.node.to_string(),
            entry.destination.to_string(),
            if entry.own { "node" } else { "pod" }.to_owned(),
            entry.state.clone(),
            span(entry.idle_s),
            span(entry.expires_s),
        ]);
    }
    table.to_string()
}

/// `bristle bpf map list`
pub(crate) fn maps(maps: &[MapInfo]) -> String {
    let mut table = Table::new(&["NAME", "KIND", "KEY", "VALUE", "ENTRIES", "ROOM", "WRITER"]);
    for map in maps {
        table.row([
            map.name.clone(),
            map.kind.clone(),
            format!("{} B", map.key_bytes),
            format!("{} B", map.value_bytes),
            optional(map.entries.as_ref()),
            map.max_entries.to_string(),
            map.writer.clone(),
        ]);
    }
    table.to_string()
}

/// `bristle bpf map get`
pub(crate) fn map(dump: &MapDump) -> String {
    let mut table = Table::new(&["KEY", "VALUE"]);
    for row in &dump.rows {
        table.row([row.key.clone(), row.value.clone()]);
    }
    let more = if dump.truncated { "… and more rows, left out\n" } else { "" };
    format!("{table}{more}")
}

#[cfg(test)]
mod tests {
    use super::{bytes, endpoints, span, status};
    use agent_api::status::{AgentState, KubernetesStatus, Status};
    use agent_api::{Endpoint, EndpointState};

    #[test]
    fn spans_and_sizes_read_well() {
        assert_eq!([span(5), span(65), span(3700), span(90_000)], ["5s", "1m5s", "1h1m", "1d1h"]);
        assert_eq!(
            [bytes(5), bytes(2048), bytes(30 << 20), bytes(3 << 30)],
            ["5 B", "2.0 KiB", "30.0 MiB", "3.0 GiB"]
        );
    }

    #[test]
    fn a_status_says_why_it_is_not_ready() {
        let text = status(&Status {
            state: AgentState::WaitingForPodCidr,
            reason: Some("Node n1 has no spec.podCIDRs".into()),
            kubernetes: KubernetesStatus {
                error: Some("connection refused".into()),
                ..KubernetesStatus::default()
            },
            ..Status::default()
        });
        assert!(text.contains("waiting for pod CIDR: Node n1 has no spec.podCIDRs"), "{text}");
        assert!(text.contains("Kubernetes:  connection refused"), "{text}");
    }

    #[test]
    fn endpoints_are_a_table() {
        let endpoint = Endpoint {
            id: 12,
            namespace: "default".into(),
            pod: "a".into(),
            ipv4: Some([10, 0, 0, 7].into()),
            identity: 5,
            state: EndpointState::Ready,
            device: "lxc0123456789a".into(),
            ..Endpoint::default()
        };
        assert_eq!(
            endpoints(&[endpoint]),
            "ID  POD        IPV4      IPV6  IDENTITY  POLICY  STATE  DEVICE\n12  default/a  10.0.0.7  -     init      off     ready  lxc0123456789a\n"
        );
    }
}
