//! The pods of this node: one endpoint per container interface.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_api::cni::{Attachment, CniResult, Interface, Ip, PodRef, ResultRoute};
use agent_api::{EndpointConfig, Timestamp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backoff::Failure;
use crate::cni::{Netns, RequestId};
use crate::ports::{POD_LINK_PREFIX, PodInterfaceSpec, PodRoute};

/// Number of an endpoint, unique on this node, not zero.
pub(crate) type EndpointId = u16;

/// What is kept of an endpoint in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) id: EndpointId,
    /// Host's end of its interface; derived from the attachment, so it names the owner even where the attachment is not known.
    pub(crate) host_name: String,
    /// Whose it is. Not known of an endpoint that was found on the node without its document.
    #[serde(default)]
    pub(crate) attachment: Option<Attachment>,
    #[serde(default)]
    pub(crate) pod: Option<PodRef>,
    /// Path of the namespace, as the runtime named it.
    #[serde(default)]
    pub(crate) netns: String,
    /// The order is that of the result.
    pub(crate) addresses: Vec<IpAddr>,
    /// Router addresses in the pod's routes, in the order of `addresses`.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) host_mac: [u8; 6],
    pub(crate) pod_mac: [u8; 6],
    /// Index of the host's end, zero before it is made.
    pub(crate) ifindex: u32,
    pub(crate) mtu: u32,
    /// ADD has been answered, or is about to be. Otherwise the endpoint is half made.
    pub(crate) ready: bool,
    #[serde(default)]
    pub(crate) created: Option<Timestamp>,
    /// What is set for it alone.
    #[serde(default)]
    pub(crate) config: EndpointConfig,
}

/// Where an endpoint is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// Read from the state directory; its link has not been looked for yet.
    Restoring,
    /// ADD is being served.
    Creating {
        request: RequestId,
        netns: Netns,
        /// The interface exists.
        made: bool,
    },
    /// Traffic flows.
    Ready,
    /// Being taken down: link, then rows, then addresses and document.
    Leaving(Leaving),
}

/// What is left to do for an endpoint that goes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Leaving {
    /// Requests to answer when it is done, or when it fails.
    pub(crate) waiters: Vec<RequestId>,
    /// The link is gone.
    pub(crate) link_gone: bool,
    /// The addresses have been in use.
    pub(crate) was_used: bool,
    /// The last failure.
    pub(crate) failure: Option<Failure>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) record: EndpointRecord,
    pub(crate) phase: Phase,
}

impl Endpoint {
    /// Whether its addresses shall have rows in the tables.
    pub(crate) fn has_rows(&self) -> bool {
        match &self.phase {
            Phase::Restoring | Phase::Ready => true,
            Phase::Creating { made, .. } => *made,
            Phase::Leaving(leaving) => !leaving.link_gone && self.record.ifindex != 0,
        }
    }

    /// Whether programs shall be attached to its link.
    pub(crate) fn has_programs(&self) -> bool {
        match &self.phase {
            Phase::Creating { made, .. } => *made,
            Phase::Ready => true,
            Phase::Restoring | Phase::Leaving(_) => false,
        }
    }
}

impl EndpointRecord {
    /// Name in messages: the pod's, or else the attachment's.
    pub(crate) fn display_name(&self) -> String {
        match (&self.pod, &self.attachment) {
            (Some(pod), _) => format!("{}/{}", pod.namespace, pod.name),
            (None, Some(attachment)) => {
                format!("{} of container {}", attachment.ifname, attachment.container_id)
            }
            (None, None) => format!("behind {}", self.host_name),
        }
    }

    /// The interface as it shall be, in the given namespace.
    pub(crate) fn interface(&self, netns: Netns) -> PodInterfaceSpec {
        PodInterfaceSpec {
            host_name: self.host_name.clone(),
            host_mac: self.host_mac,
            pod_name: self
                .attachment
                .as_ref()
                .map_or_else(|| "eth0".to_owned(), |attachment| attachment.ifname.clone()),
            pod_mac: self.pod_mac,
            netns,
            mtu: self.mtu,
            addresses: self.addresses.iter().map(|address| host_net(*address)).collect(),
            routes: self.routes(),
        }
    }

    /// The router on the link, and everything else by way of it.
    fn routes(&self) -> Vec<PodRoute> {
        let to = |gateway: &IpAddr| {
            let default =
                if gateway.is_ipv4() { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) };
            [
                PodRoute { dst: host_net(*gateway), gateway: None },
                PodRoute { dst: default, gateway: Some(*gateway) },
            ]
        };
        self.gateways.iter().flat_map(to).collect()
    }

    /// The result of ADD.
    pub(crate) fn result(&self) -> CniResult {
        let interface = |name: &str, mac: [u8; 6], sandbox: &str| Interface {
            name: name.to_owned(),
            mac: mac_text(mac),
            mtu: Some(self.mtu),
            sandbox: sandbox.to_owned(),
            ..Interface::default()
        };
        let pod_name = self.attachment.as_ref().map_or("", |attachment| &attachment.ifname);
        CniResult {
            interfaces: vec![
                interface(&self.host_name, self.host_mac, ""),
                interface(pod_name, self.pod_mac, &self.netns),
            ],
            ips: self
                .addresses
                .iter()
                .zip(&self.gateways)
                .map(|(address, gateway)| Ip {
                    address: host_net(*address),
                    gateway: Some(*gateway),
                    interface: Some(1),
                })
                .collect(),
            routes: self
                .routes()
                .into_iter()
                .map(|route| ResultRoute::new(route.dst, route.gateway))
                .collect(),
            ..CniResult::default()
        }
    }
}

/// The host's end of an attachment's interface: `lxc` and 11 hexadecimal digits of SHA-256(container id + interface name).
pub(crate) fn host_name(attachment: &Attachment) -> String {
    let hash =
        Sha256::new().chain_update(&attachment.container_id).chain_update(&attachment.ifname).finalize();
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).take(6).collect();
    format!("{POD_LINK_PREFIX}{}", &digits[..11])
}

/// A MAC address for one end of an interface: locally administered, and always the same for the same name, so that nothing is random here.
pub(crate) fn mac_for(host_name: &str, end: &str) -> [u8; 6] {
    let hash = Sha256::new().chain_update(host_name).chain_update("/").chain_update(end).finalize();
    let mut mac = [0; 6];
    mac.copy_from_slice(&hash[..6]);
    mac[0] = mac[0] & 0xfe | 0x02;
    mac
}

/// As `aa:bb:cc:dd:ee:ff`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address alone, as a network.
pub(crate) fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// All endpoints.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    by_id: BTreeMap<EndpointId, Endpoint>,
    by_host_name: BTreeMap<String, EndpointId>,
    last_id: EndpointId,
}

impl Endpoints {
    /// None yet; ids go on after `last_id`.
    pub(crate) fn new(last_id: EndpointId) -> Self {
        Self { last_id, ..Self::default() }
    }

    /// The id given out last.
    pub(crate) fn last_id(&self) -> EndpointId {
        self.last_id
    }

    /// A free id, as different from recent ones as possible. `None` if 65535 endpoints exist.
    pub(crate) fn next_id(&mut self) -> Option<EndpointId> {
        let after = (self.last_id..u16::MAX).map(|id| id + 1);
        let id = after.chain(1..=self.last_id).find(|id| !self.by_id.contains_key(id))?;
        self.last_id = id;
        Some(id)
    }

    /// Adds an endpoint. False if its id or its link is taken.
    #[must_use]
    pub(crate) fn insert(&mut self, endpoint: Endpoint) -> bool {
        let (id, name) = (endpoint.record.id, &endpoint.record.host_name);
        if id == 0 || self.by_id.contains_key(&id) || self.by_host_name.contains_key(name) {
            return false;
        }
        self.by_host_name.insert(name.clone(), id);
        self.by_id.insert(id, endpoint);
        true
    }

    pub(crate) fn remove(&mut self, id: EndpointId) -> Option<Endpoint> {
        let endpoint = self.by_id.remove(&id)?;
        self.by_host_name.remove(&endpoint.record.host_name);
        Some(endpoint)
    }

    pub(crate) fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        self.by_id.get_mut(&id)
    }

    /// The endpoint behind this link.
    pub(crate) fn by_host_name(&self, name: &str) -> Option<&Endpoint> {
        self.by_host_name.get(name).and_then(|id| self.by_id.get(id))
    }

    /// All of them by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_id.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment { container_id: container.to_owned(), ifname: ifname.to_owned() }
    }

    #[test]
    fn links_are_named_for_their_owner() {
        let name = host_name(&attachment("c1", "eth0"));
        // First digits of `printf c1eth0 | sha256sum`.
        assert_eq!(name, "lxc63877c11219");
        assert_eq!(name.len(), 14);
        assert_ne!(name, host_name(&attachment("c2", "eth0")));
        let mac = mac_for(&name, "pod");
        assert_eq!(mac[0] & 3, 2, "locally administered, not a group");
        assert_ne!(mac, mac_for(&name, "host"));
    }

    #[test]
    fn ids_come_back_late() {
        let mut endpoints = Endpoints::new(u16::MAX - 1);
        assert_eq!(endpoints.next_id(), Some(u16::MAX));
        assert_eq!(endpoints.next_id(), Some(1));
        assert_eq!(endpoints.next_id(), Some(2));
    }
}
