//! `GET /v1/services`: services as this node's agent knows them, and `GET /v1/lb`: what the dataplane makes of calls to them.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A port of a service in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Namespace of the service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the port, empty where it is the only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port: String,
    /// Protocol in words: `tcp` or `udp`.
    pub protocol: String,
    /// How it is called.
    pub frontends: Vec<ServiceFrontend>,
    /// Endpoints that callers on this node may reach.
    pub backends: Vec<ServiceBackend>,
    /// Seconds for which a client stays with its backend; absent without session affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_s: Option<u32>,
    /// The node whose endpoints alone count; absent: those of all nodes do (a traffic policy says `Local`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only endpoints that hints mean for this node or its zone take new connections.
    #[serde(default)]
    pub hinted: bool,
    /// No endpoint is ready: those that are ending take new connections.
    #[serde(default)]
    pub ending: bool,
}

/// One way to call a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFrontend {
    /// Address and port; the address zero stands for every address of every node.
    pub address: SocketAddr,
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: String,
    /// Only for what comes from outside the cluster: inside the same address may have other endpoints.
    #[serde(default)]
    pub outside: bool,
}

/// An endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceBackend {
    /// Address and port.
    pub address: SocketAddr,
    /// `active`: takes new connections; `terminating`: keeps those it has and takes none.
    pub state: String,
}

/// A frontend in the tables of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LbFrontend {
    /// Address and port under which it is called.
    pub frontend: SocketAddr,
    /// Protocol in words.
    pub protocol: String,
    /// From where it is seen: `internal` or `external`.
    pub scope: String,
    /// Number of the service's port, as `AFFINITY` and `BACKENDS` have it.
    pub service: u32,
    /// Seconds for which a client stays with its backend; 0: it need not.
    pub affinity_s: u32,
    /// What is in its slots, in order. A slot without a row is left out.
    pub backends: Vec<LbBackend>,
}

/// A backend in the tables of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LbBackend {
    /// Its slot, from 1.
    pub slot: u16,
    /// Its number.
    pub id: u32,
    /// Address and port; absent if there is no row of that number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// `active` or `terminating`; empty without a row.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}
