//! Where the sockets are and which paths the HTTP API has.

/// Directory of both sockets and of the state directory.
pub const RUN_DIR: &str = "/run/bristle";
/// HTTP/JSON socket.
pub const API_SOCKET: &str = "/run/bristle/bristle.sock";
/// Name of the HTTP/JSON socket below the runtime directory.
pub const API_SOCKET_NAME: &str = "bristle.sock";

/// [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// [`crate::Health`]; 503 when a check fails.
pub const HEALTH: &str = "/v1/health";
/// List of [`crate::Endpoint`]; one of them below it by id. Below that, `config` takes a [`crate::EndpointConfigChange`].
pub const ENDPOINTS: &str = "/v1/endpoints";
/// List of [`crate::IpcacheEntry`].
pub const IPCACHE: &str = "/v1/ipcache";
/// List of [`crate::Node`].
pub const NODES: &str = "/v1/nodes";
/// List of [`crate::policy::Identity`].
pub const IDENTITIES: &str = "/v1/identities";
/// List of [`crate::policy::Policy`].
pub const POLICIES: &str = "/v1/policies";
/// [`crate::policy::Explanation`] of `?from=END&to=END&port=N&protocol=TCP`; with a [`crate::policy::Change`] posted, a
/// [`crate::policy::WhatIf`].
pub const EXPLAIN: &str = "/v1/policies/explain";
/// List of [`crate::Service`].
pub const SERVICES: &str = "/v1/services";
/// List of [`crate::LbFrontend`].
pub const LB: &str = "/v1/lb";
/// List of [`crate::MapInfo`]; one [`crate::MapDump`] below it by name.
pub const MAPS: &str = "/v1/maps";
/// List of [`crate::CtEntry`].
pub const CT: &str = "/v1/ct";
/// List of [`crate::NatEntry`].
pub const NAT: &str = "/v1/nat";
/// Stream of [`crate::MonitorEvent`], one per line.
pub const MONITOR: &str = "/v1/monitor";
/// Prometheus text.
pub const METRICS: &str = "/metrics";
