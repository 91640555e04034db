//! `GET /v1/status` and `GET /v1/health`: how the agent and its surroundings are.

use crate::time::Timestamp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Where the agent is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// Restoring state; traffic of known endpoints flows by what is pinned.
    #[default]
    Starting,
    /// Runs, but its own Node object has no pod CIDR yet: pods cannot be added.
    WaitingForPodCidr,
    /// Serves ADDs.
    Ready,
    /// Serves, but the last reconcile failed or the API server is out of reach.
    Degraded,
}

/// How pods on different nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingMode {
    /// VXLAN to UDP port 8472, the source identity in the VNI.
    #[default]
    Vxlan,
    /// Plain packets; the network between nodes routes pod CIDRs (or nodes share a segment).
    Native,
}

/// How programs are attached on this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachKind {
    /// TCX links, replaced in place (Linux 6.6 and later).
    #[default]
    Tcx,
    /// Filters of the clsact queueing discipline.
    Clsact,
}

/// The whole of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Name of the Node object that this agent serves.
    pub node: String,
    /// Where the agent is in its life.
    pub state: AgentState,
    /// One sentence why `state` is not `ready`; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this process started.
    pub started: Timestamp,
    /// Seconds since then.
    pub uptime_s: u64,
    /// Resident memory of the agent in bytes.
    pub resident_bytes: u64,
    /// The node's network as the agent sees it.
    pub network: NetworkStatus,
    /// The watch on the API server.
    pub kubernetes: KubernetesStatus,
    /// Endpoints by state.
    pub endpoints: EndpointCounts,
    /// Known nodes, this one included.
    pub nodes: usize,
    /// Rows in the ipcache.
    pub ipcache: usize,
    /// Address pools, one per pod CIDR.
    pub ipam: Vec<IpamStatus>,
    /// The loop that makes kernel state equal to desired state.
    pub reconcile: ReconcileStatus,
    /// The eBPF side.
    pub dataplane: DataplaneStatus,
    /// Conntrack tables.
    pub conntrack: ConntrackStatus,
    /// The event stream.
    pub monitor: MonitorStatus,
}

/// The node's network as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// How pods on different nodes reach each other.
    pub routing: RoutingMode,
    /// Pods get IPv4 addresses.
    pub ipv4: bool,
    /// Pods get IPv6 addresses.
    pub ipv6: bool,
    /// The underlay device; empty while unknown.
    pub device: String,
    /// MTU of the underlay device in bytes; 0 while unknown.
    pub mtu_bytes: u32,
    /// MTU of pod devices in bytes; 0 while unknown.
    pub pod_mtu_bytes: u32,
    /// This node's own addresses, from its Node object.
    pub node_ips: Vec<IpAddr>,
    /// This node's pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// The addresses on `bristle_host` that pods have as their gateway.
    pub router_ips: Vec<IpAddr>,
}

/// The watch on the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// URL of the API server; empty when no configuration was found yet.
    pub server: String,
    /// The last request was answered, and a watch that began is still there.
    pub connected: bool,
    /// A complete list has been seen since the agent started.
    pub synced: bool,
    /// The last error, until the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the watch last delivered anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
}

/// Endpoints by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    /// All of them.
    pub total: usize,
    /// Those whose links, rows and programs are in place.
    pub ready: usize,
}

/// One address pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamStatus {
    /// The pod CIDR.
    pub cidr: IpNet,
    /// Addresses that pods may have.
    pub capacity: u64,
    /// Addresses in use by endpoints.
    pub used: u64,
    /// Addresses released lately and not yet free again.
    pub quarantined: u64,
}

/// The loop that makes kernel state equal to desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileStatus {
    /// Runs since start.
    pub runs: u64,
    /// Runs in which something failed.
    pub failed_runs: u64,
    /// Rows and links that still wait to be written or removed, and pods that wait to change their identity.
    pub pending: u64,
    /// Duration of the last run in microseconds.
    pub last_us: u64,
    /// The last error, until a run succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The eBPF side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// The object file that was loaded.
    pub object: String,
    /// Version of the boundary between agent and programs (also in the pin path).
    pub abi: u32,
    /// How programs are attached.
    pub attach: AttachKind,
    /// Kernel release.
    pub kernel: String,
    /// Programs attached, all devices together.
    pub links: usize,
}

/// Conntrack tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackStatus {
    /// Entries at the last collection, both families.
    pub entries: u64,
    /// Room, both families.
    pub capacity: u64,
    /// When the last collection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_gc: Option<Timestamp>,
}

/// The event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStatus {
    /// Which traces the programs send: `none` (all), `low`, `medium`.
    pub aggregation: String,
    /// Readers connected now.
    pub readers: usize,
    /// Events read from the ring buffer since start.
    pub events: u64,
    /// Events that found the ring buffer full, since the maps were made.
    pub lost: u64,
}

/// `GET /v1/health`: 200 with `ok` when pods can be added, 503 with the failing checks otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// All checks passed.
    pub ok: bool,
    /// Each check with its result, in a fixed order.
    pub checks: Vec<HealthCheck>,
}

/// One check of [`Health`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Short name: `kubernetes`, `pod-cidr`, `dataplane`, `reconcile`.
    pub name: String,
    /// It passed.
    pub ok: bool,
    /// What was seen and, if it failed, what to do.
    pub message: String,
}
