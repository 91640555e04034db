//! What the daemon is told by flags and keeps for its whole life.

use std::ops::RangeInclusive;
use std::time::Duration;

use agent_crd::{CiliumIdentity, LabelFilter};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// VXLAN over UDP 8472; the VNI carries the source identity.
    Vxlan,
    /// Plain routes to the other nodes, which must share a link.
    Native,
}

/// Whether an address family is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FamilyMode {
    /// Used when the own node has a pod CIDR of it.
    Auto,
    /// Wanted: without a pod CIDR of it the node is not ready.
    On,
    /// Not used: pod CIDRs and addresses of it are left alone.
    Off,
}

/// How many trace events the dataplane sends (compat: monitor aggregation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MonitorAggregation {
    /// Every event.
    None,
    /// No events at the `from-*` points.
    Low,
    /// As low; of a known connection only the first packet, new TCP flags, and one in each report interval.
    Medium,
}

/// When the conntrack tables are searched for dead entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtGcConfig {
    /// First interval after start.
    pub start: Duration,
    /// Shortest interval.
    pub min: Duration,
    /// Longest interval.
    pub max: Duration,
    /// Rows looked at in one reconcile: a large table is searched in slices so that CNI requests do not wait for it. So are the tables of
    /// the inspection.
    pub slice_rows: usize,
}

impl Default for CtGcConfig {
    fn default() -> Self {
        Self {
            start: Duration::from_mins(5),
            min: Duration::from_secs(10),
            max: Duration::from_hours(12),
            slice_rows: 4096,
        }
    }
}

/// Ports that API servers give to services at every node unless they are told otherwise.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// Where calls to services are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceTranslation {
    /// At the socket: calls of all processes of the node.
    #[default]
    Socket,
    /// Packet by packet: what pods of the node send.
    Packet,
    /// At the socket, and packet by packet what was not translated there.
    Both,
}

impl ServiceTranslation {
    /// The programs on calls of sockets are in place.
    pub(crate) const fn sockets(self) -> bool {
        matches!(self, Self::Socket | Self::Both)
    }

    /// The programs on packets translate.
    pub(crate) const fn packets(self) -> bool {
        matches!(self, Self::Packet | Self::Both)
    }
}

/// Ports by which masqueraded connections leave, unless told otherwise: those above the ports of services at every node.
pub const SNAT_PORTS: RangeInclusive<u16> = 32_768..=65_535;

/// What pods send to the world leaves with the node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// By IPv4.
    pub ipv4: bool,
    /// By IPv6.
    pub ipv6: bool,
    /// Ports by which it leaves. No port of services at every node and not the tunnel's may be among them.
    pub ports: RangeInclusive<u16>,
    /// Where the network routes pods' addresses, so that they are kept.
    pub native_routing: Vec<IpNet>,
    /// Where else pods' addresses are kept.
    pub excluded: Vec<IpNet>,
}

impl Default for Masquerade {
    fn default() -> Self {
        Self { ipv4: false, ipv6: false, ports: SNAT_PORTS, native_routing: Vec::new(), excluded: Vec::new() }
    }
}

impl Masquerade {
    /// Pods are masqueraded by one family at least.
    pub const fn is_on(&self) -> bool {
        self.ipv4 || self.ipv6
    }
}

/// The agent's configuration. Nothing in it changes while the process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the own Node object.
    pub node_name: String,
    /// How packets travel between nodes.
    pub routing: Routing,
    /// Use of IPv4.
    pub ipv4: FamilyMode,
    /// Use of IPv6.
    pub ipv6: FamilyMode,
    /// MTU of the underlay in bytes, where it shall not be that of the device.
    pub mtu: Option<u32>,
    /// How many trace events the dataplane sends.
    pub monitor_aggregation: MonitorAggregation,
    /// Trace events of a known connection come at least this far apart (monitor aggregation medium).
    pub report_interval: Duration,
    /// How long a released address stays unused.
    pub quarantine: Duration,
    /// How often base links, routes and tables are compared with what is really there, so that what others broke is mended.
    pub inspect_interval: Duration,
    /// Conntrack garbage collection. The timeouts are part of `dataplane-abi`.
    pub ct_gc: CtGcConfig,
    /// Identities and policy; `None`: pods have no identity of their own and nothing is enforced.
    pub policy: Option<PolicyConfig>,
    /// Calls of this node's pods and processes to services go to their endpoints, so that no kube-proxy is needed for them.
    pub kube_proxy_replacement: bool,
    /// Where calls to services are translated, if they are.
    pub service_translation: ServiceTranslation,
    /// Calls to services that come from outside the cluster are translated too, if those of this node's pods are.
    pub node_port: bool,
    /// Ports that the API server gives to services at every node.
    pub node_ports: RangeInclusive<u16>,
    /// Masquerade of what pods send to the world.
    pub masquerade: Masquerade,
}

/// Identities and policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// What the engine is told. Families are those of the node.
    pub engine: agent_policy::Config,
    /// Which labels are part of identities; the operator must have the same.
    pub labels: LabelFilter,
    /// How long the ADD of a pod waits for its identity; after that the pod runs without, and is isolated until it has one.
    pub identity_wait: Duration,
    /// How long an identity has been heard of before a pod changes to it from another one, so that by then every node has its rows.
    pub identity_change_grace_period: Duration,
    /// Policies for nodes (`nodeSelector`) are in force for the node itself.
    pub host_firewall: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            engine: agent_policy::Config::default(),
            labels: LabelFilter::default(),
            identity_wait: CiliumIdentity::WAIT,
            identity_change_grace_period: CiliumIdentity::CHANGE_GRACE,
            host_firewall: false,
        }
    }
}

impl Config {
    /// Policies for nodes are in force.
    pub(crate) fn host_firewall(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.host_firewall)
    }

    /// Calls from outside the cluster are translated.
    pub(crate) const fn outside_calls(&self) -> bool {
        self.kube_proxy_replacement && self.node_port
    }

    /// The defaults for the node `node_name`.
    pub fn new(node_name: impl Into<String>, routing: Routing) -> Self {
        Self {
            node_name: node_name.into(),
            routing,
            ipv4: FamilyMode::Auto,
            ipv6: FamilyMode::Auto,
            mtu: None,
            monitor_aggregation: MonitorAggregation::Medium,
            report_interval: Duration::from_secs(5),
            quarantine: Duration::from_secs(30),
            inspect_interval: Duration::from_mins(1),
            ct_gc: CtGcConfig::default(),
            policy: None,
            kube_proxy_replacement: false,
            service_translation: ServiceTranslation::default(),
            node_port: true,
            node_ports: NODE_PORTS,
            masquerade: Masquerade::default(),
        }
    }
}
