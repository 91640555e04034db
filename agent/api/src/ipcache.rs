//! `GET /v1/ipcache`: which identity an address has and how it is reached.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One row: the longest matching prefix of an address decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcacheEntry {
    /// The prefix.
    pub prefix: IpNet,
    /// Security identity of all addresses under it.
    pub identity: u32,
    /// The identity in words, such as `remote-node`; empty for identities without a reserved name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Address of the node that packets are tunnelled to; absent where there is no tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<IpAddr>,
    /// What made the row: `endpoint`, `node`, `pod-cidr`, `host`, `world`.
    pub source: String,
}
