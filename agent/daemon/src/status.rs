//! The status of the agent, put together from its sources.

use crate::control::View;
use agent_api::EndpointState;
use agent_api::Timestamp;
use agent_api::status::{
    AgentState, AttachKind, DataplaneStatus, EndpointCounts, Health, HealthCheck, MonitorStatus, Status,
};
use agent_control::MonitorAggregation;
use dataplane_loader::Pins;

/// What does not change while the process lives.
#[derive(Debug)]
pub struct Fixed {
    /// When the process started.
    pub started: Timestamp,
    /// Name of the Node object.
    pub node: String,
    /// The object file that was loaded.
    pub object: String,
    /// How programs are attached.
    pub attach: AttachKind,
    /// Kernel release.
    pub kernel: String,
    /// Where maps and links are pinned.
    pub pins: Pins,
}

/// What the control thread knows. The rest is filled in by the caller.
pub fn of(view: &View<'_>, fixed: &Fixed) -> Status {
    let agent = view.agent;
    let endpoints = agent.endpoints();
    let (state, reason) = agent.state();
    let aggregation = match agent.config().monitor_aggregation {
        MonitorAggregation::None => "none",
        MonitorAggregation::Low => "low",
        MonitorAggregation::Medium => "medium",
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: fixed.node.clone(),
        state,
        reason,
        started: fixed.started,
        uptime_s: Timestamp::now().unix_seconds().saturating_sub(fixed.started.unix_seconds()),
        network: agent.network(),
        endpoints: EndpointCounts {
            total: endpoints.len(),
            ready: endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready).count(),
        },
        nodes: agent.nodes().len(),
        ipcache: agent.ipcache().len(),
        ipam: agent.ipam(view.now),
        reconcile: view.reconcile.clone(),
        dataplane: DataplaneStatus {
            object: fixed.object.clone(),
            abi: dataplane_abi::ABI_VERSION,
            attach: fixed.attach,
            kernel: fixed.kernel.clone(),
            links: 0,
        },
        monitor: MonitorStatus { aggregation: aggregation.to_owned(), ..MonitorStatus::default() },
        ..Status::default()
    }
}

/// A ready agent without its API server still serves, but what changes in the cluster does not reach it.
pub fn judge(status: &mut Status) {
    if status.state == AgentState::Ready && !status.kubernetes.connected {
        status.state = AgentState::Degraded;
        let why = status.kubernetes.error.as_deref().unwrap_or("the API server is not connected yet");
        status.reason = Some(format!("{why}; pods keep their network, changes of nodes are not seen"));
    }
}

/// The checks behind `/v1/health`.
pub fn health(status: &Status) -> Health {
    let check = |name: &str, ok: bool, good: String, bad: String| HealthCheck {
        name: name.to_owned(),
        ok,
        message: if ok { good } else { bad },
    };
    let network = &status.network;
    let checks = vec![
        check(
            "kubernetes",
            status.kubernetes.connected,
            format!("connected to {}", status.kubernetes.server),
            status.kubernetes.error.clone().unwrap_or_else(|| "not connected yet".to_owned()),
        ),
        check(
            "pod-cidr",
            !network.pod_cidrs.is_empty(),
            network.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            format!(
                "Node {} has no spec.podCIDRs; let the cluster's controller manager allocate node CIDRs",
                status.node
            ),
        ),
        check(
            "dataplane",
            status.dataplane.links > 0,
            format!("{} programs attached", status.dataplane.links),
            "no program is attached yet; the agent's log says why".to_owned(),
        ),
        check(
            "reconcile",
            status.reconcile.error.is_none(),
            format!("{} runs, the last took {} µs", status.reconcile.runs, status.reconcile.last_us),
            status.reconcile.error.clone().unwrap_or_default(),
        ),
    ];
    // Without its API server the agent still serves what it knows: that alone must not make a runtime restart it.
    let ok = matches!(status.state, AgentState::Ready | AgentState::Degraded)
        && checks.iter().all(|check| check.ok || check.name == "kubernetes");
    Health { ok, checks }
}

#[cfg(test)]
mod tests {
    use super::{health, judge};
    use agent_api::status::{AgentState, DataplaneStatus, KubernetesStatus, NetworkStatus, Status};

    fn ready() -> Status {
        Status {
            state: AgentState::Ready,
            kubernetes: KubernetesStatus { connected: true, synced: true, ..KubernetesStatus::default() },
            network: NetworkStatus {
                pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
                ..NetworkStatus::default()
            },
            dataplane: DataplaneStatus { links: 6, ..DataplaneStatus::default() },
            ..Status::default()
        }
    }

    #[test]
    fn a_lost_api_server_degrades_but_is_no_reason_to_restart() {
        let mut status = ready();
        status.kubernetes.connected = false;
        status.kubernetes.error = Some("timed out".into());
        judge(&mut status);
        assert_eq!(status.state, AgentState::Degraded);
        assert!(status.reason.as_ref().unwrap().contains("timed out"));
        let health = health(&status);
        assert!(health.ok);
        assert!(!health.checks[0].ok);
    }

    #[test]
    fn without_pod_cidr_or_programs_pods_cannot_be_added() {
        assert!(health(&ready()).ok);
        let mut status = ready();
        status.network.pod_cidrs.clear();
        assert!(!health(&status).ok);
        let mut status = ready();
        status.dataplane.links = 0;
        assert!(!health(&status).ok);
        let mut status = ready();
        status.state = AgentState::Starting;
        assert!(!health(&status).ok);
    }
}
