//! Views for the local API.

use agent_api::status::{AgentState, IpamStatus, NetworkStatus, RoutingMode};
use std::net::{IpAddr, SocketAddr};

use agent_api::{
    Endpoint, EndpointPolicy, EndpointState, IpcacheEntry, Node, Service, ServiceBackend, ServiceFrontend,
};
use dataplane_abi::backends::BackendState;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags};
use dataplane_abi::services::{ServiceFlags, ServiceKey, ServiceScope};

use super::Agent;
use crate::config::Routing;
use crate::controllers::ipcache;
use crate::controllers::services::{Frontend, Offer, Reach};
use crate::finding::Finding;
use crate::objects::ObjectName;
use crate::ports::PortError;
use crate::state::endpoints::{Phase, mac_text};
use crate::time::Now;

/// Smallest MTU that IPv6 works with (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// What is enforced by an endpoint's row; nothing passes that has no row.
fn policy(entry: Option<&EndpointEntry>) -> EndpointPolicy {
    let has = |flag| entry.is_some_and(|entry| entry.flags.contains(flag));
    EndpointPolicy {
        number: entry.map_or(0, |entry| entry.policy),
        ingress: has(EndpointFlags::ENFORCE_INGRESS),
        egress: has(EndpointFlags::ENFORCE_EGRESS),
        audit: has(EndpointFlags::AUDIT),
    }
}

/// Which row of `SERVICES`, for people.
fn place(key: &ServiceKey) -> String {
    let address = key.ip().map_or_else(String::new, |ip| ip.to_string());
    format!("{address} port {} protocol {} slot {}", key.port, key.proto, key.slot)
}

impl Agent {
    /// All endpoints, by id.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let view = |endpoint: &crate::state::endpoints::Endpoint| {
            let record = &endpoint.record;
            let pod = record.pod.clone();
            let entry = record.addresses.first().and_then(|address| self.outside.endpoints.wanted(address));
            Endpoint {
                id: record.id,
                state: match endpoint.phase {
                    Phase::Restoring => EndpointState::Restoring,
                    Phase::Creating { .. } => EndpointState::Creating,
                    Phase::Ready => EndpointState::Ready,
                    Phase::Leaving(_) => EndpointState::Disconnecting,
                },
                identity: entry.map_or(dataplane_abi::Identity::INIT.0, |entry| entry.identity.0),
                namespace: pod.as_ref().map(|pod| pod.namespace.clone()).unwrap_or_default(),
                pod: pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default(),
                pod_uid: pod.and_then(|pod| pod.uid).unwrap_or_default(),
                container_id: record.attachment.as_ref().map(|a| a.container_id.clone()).unwrap_or_default(),
                ifname: record.attachment.as_ref().map(|a| a.ifname.clone()).unwrap_or_default(),
                ipv4: record.addresses.iter().find_map(|address| match address {
                    IpAddr::V4(address) => Some(*address),
                    IpAddr::V6(_) => None,
                }),
                ipv6: record.addresses.iter().find_map(|address| match address {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(address) => Some(*address),
                }),
                mac: mac_text(record.pod_mac),
                device: record.host_name.clone(),
                ifindex: record.ifindex,
                device_mac: mac_text(record.host_mac),
                created: record.created,
                policy: self.state.policy.enabled().then(|| policy(entry)),
                config: record.config,
            }
        };
        self.state.endpoints.iter().map(view).collect()
    }

    /// Whether what is known of an endpoint is in the state directory, so that the next agent knows it too.
    pub fn is_kept(&self, id: u16) -> bool {
        !self.unsaved.contains(&id)
    }

    /// Services, port by port and family by family, as callers on this node meet them. Empty unless services are looked at.
    pub fn services(&self) -> Vec<Service> {
        let backend = |state: &str, (address, port): &(IpAddr, u16)| ServiceBackend {
            address: SocketAddr::new(*address, *port),
            state: state.to_owned(),
        };
        let frontend = |(frontend, own): (&Frontend, &ServiceFlags)| ServiceFrontend {
            address: SocketAddr::new(frontend.address, frontend.port),
            kind: own.kind().to_owned(),
            outside: frontend.scope == ServiceScope::External,
        };
        let view = |offer: &Offer| {
            let active = offer.active.iter().map(|place| backend(BackendState::Active.name(), place));
            let kept = offer.kept.iter().map(|place| backend(BackendState::Terminating.name(), place));
            let ObjectName { namespace, name } = (*offer.name.service).clone();
            Service {
                namespace,
                name,
                port: offer.name.port.to_string(),
                protocol: if offer.name.proto == agent_policy::proto::UDP { "udp" } else { "tcp" }.to_owned(),
                frontends: offer.frontends.iter().map(frontend).collect(),
                backends: active.chain(kept).collect(),
                affinity_s: (offer.affinity_s != 0).then_some(offer.affinity_s),
                node: match &offer.name.reach {
                    Reach::Node(node) => Some(node.to_string()),
                    Reach::Cluster | Reach::Nobody => None,
                },
                hinted: offer.flags.contains(ServiceFlags::ZONE_HINTS),
                ending: offer.flags.contains(ServiceFlags::ENDING),
            }
        };
        // At nodes without endpoints there is nothing to show of a service that gives only their own.
        let offers = self.state.frontends.offers().filter(|offer| offer.name.reach != Reach::Nobody);
        offers.map(view).collect()
    }

    /// The ipcache as it shall be.
    pub fn ipcache(&self) -> Vec<IpcacheEntry> {
        let view = |(prefix, entry): (&ipnet::IpNet, &dataplane_abi::ipcache::IpCacheEntry)| IpcacheEntry {
            prefix: *prefix,
            identity: entry.identity.0,
            name: entry.identity.reserved_name().unwrap_or_default().to_owned(),
            tunnel: entry.node_ip().filter(|_| self.plan.routing == Routing::Vxlan),
            source: ipcache::row(&self.state, &self.plan, *prefix)
                .map_or("", |(source, _)| source.name())
                .to_owned(),
        };
        self.outside.ipcache.all_wanted().map(view).collect()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Node> {
        let view = |(name, record): (&String, &crate::state::nodes::NodeRecord)| Node {
            name: name.clone(),
            local: *name == self.config.node_name,
            internal_ips: record.internal_ips.clone(),
            pod_cidrs: record.pod_cidrs.clone(),
        };
        self.state.nodes.iter().map(view).collect()
    }

    /// The node's network.
    pub fn network(&self) -> NetworkStatus {
        let own = self.state.nodes.own();
        NetworkStatus {
            routing: match self.plan.routing {
                Routing::Vxlan => RoutingMode::Vxlan,
                Routing::Native => RoutingMode::Native,
            },
            ipv4: self.plan.v4,
            ipv6: self.plan.v6,
            device: self.plan.underlay.as_ref().map(|device| device.name.clone()).unwrap_or_default(),
            mtu_bytes: self.plan.mtu,
            pod_mtu_bytes: self.plan.pod_mtu,
            node_ips: own.map(|own| own.internal_ips.clone()).unwrap_or_default(),
            pod_cidrs: self.plan.pools.clone(),
            router_ips: self.plan.routers().collect(),
        }
    }

    /// Address pools, one per pod CIDR of the node.
    pub fn ipam(&self, now: Now) -> Vec<IpamStatus> {
        let view = |cidr: &ipnet::IpNet| {
            let (capacity, used, quarantined) = self.state.ipam.usage(now, cidr);
            IpamStatus { cidr: *cidr, capacity, used, quarantined }
        };
        self.plan.pools.iter().map(view).collect()
    }

    /// Where the agent is in its life, and why it is not ready.
    pub fn state(&self) -> (AgentState, Option<String>) {
        let failure = self.failures().into_iter().next();
        match self.can_add() {
            Ok(()) => match failure {
                Some((object, error)) => (AgentState::Degraded, Some(format!("{object}: {error}"))),
                None => (AgentState::Ready, None),
            },
            Err(why) if !self.known => (AgentState::Starting, Some(why)),
            Err(why) if self.plan.routers().next().is_none() => (AgentState::WaitingForPodCidr, Some(why)),
            Err(why) if failure.is_some() => (AgentState::Degraded, Some(why)),
            Err(why) => (AgentState::Starting, Some(why)),
        }
    }

    /// What failed and waits to be tried again, by object.
    pub fn failures(&self) -> Vec<(String, PortError)> {
        let outside = &self.outside;
        let mut failures: Vec<(String, PortError)> =
            self.failures.iter().map(|(name, failure)| (name.to_owned(), failure.error.clone())).collect();
        failures.extend(
            outside.endpoints.failures().map(|(key, error)| (format!("ENDPOINTS {key}"), error.clone())),
        );
        failures
            .extend(outside.ipcache.failures().map(|(key, error)| (format!("IPCACHE {key}"), error.clone())));
        let of_policy =
            outside.policy.failures().map(|(key, error)| (format!("POLICY {key:?}"), error.clone()));
        failures.extend(of_policy);
        let of_blocks = outside.policy_blocks.failures();
        failures.extend(of_blocks.map(|(key, error)| (format!("POLICY_BLOCKS {key:?}"), error.clone())));
        let of_sets = outside.policy_l4.failures();
        failures.extend(of_sets.map(|(key, error)| (format!("POLICY_L4 {key:?}"), error.clone())));
        let of_services = outside.services.failures();
        failures.extend(of_services.map(|(key, error)| (format!("SERVICES {}", place(key)), error.clone())));
        let of_backends = outside.backends.failures();
        failures.extend(of_backends.map(|(number, error)| (format!("BACKENDS {number}"), error.clone())));
        let of_prefixes = outside.no_masquerade.failures();
        failures.extend(of_prefixes.map(|(key, error)| (format!("NO_MASQUERADE {key}"), error.clone())));
        failures
            .extend(outside.routes.failures().map(|(key, error)| (format!("route {key}"), error.clone())));
        failures.extend(
            outside
                .programs
                .failures()
                .map(|((link, program), error)| (format!("{} on {link}", program.name()), error.clone())),
        );
        for endpoint in self.state.endpoints.iter() {
            if let Phase::Leaving(leaving) = &endpoint.phase
                && let Some(failure) = &leaving.failure
            {
                failures.push((format!("endpoint {}", endpoint.record.id), failure.error.clone()));
            }
        }
        failures.extend(self.ct_gc.failure().map(|error| ("conntrack".to_owned(), error.clone())));
        failures
    }

    /// What is wrong with the input at present.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.lasting_findings.clone();
        findings.extend(self.state.nodes.findings());
        findings.extend(self.state.policy.findings());
        findings.extend(self.state.frontends.findings());
        let own = format!("node/{}", self.config.node_name);
        let strays: Vec<String> = self
            .state
            .ipam
            .used()
            .filter(|(address, _)| !self.plan.pools.iter().any(|pool| pool.contains(*address)))
            .map(|(address, _)| address.to_string())
            .collect();
        if !strays.is_empty() && self.state.nodes.own().is_some() {
            findings.push(Finding::warning(
                &own,
                format!(
                    "{} pod addresses are outside the node's present pod CIDRs and stay until their pods go: {}",
                    strays.len(),
                    strays.join(", ")
                ),
            ));
        }
        if self.plan.v6 && self.plan.pod_mtu != 0 && self.plan.pod_mtu < IPV6_MIN_MTU {
            findings.push(Finding::error(
                &own,
                format!("pods get an MTU of {} bytes, IPv6 needs {IPV6_MIN_MTU}", self.plan.pod_mtu),
            ));
        }
        for (name, record) in self.state.nodes.iter().filter(|(name, _)| **name != self.config.node_name) {
            findings.extend(self.unreachable(name, record));
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// Pod CIDRs of a node to which there is no way.
    fn unreachable(&self, name: &str, record: &crate::state::nodes::NodeRecord) -> Vec<Finding> {
        let enabled = record.pod_cidrs.iter().filter(|cidr| self.plan.enabled(&cidr.addr()));
        let no_way = enabled.filter(|cidr| {
            ipcache::node_of_cidr(&self.state, &self.plan, name, cidr.addr().is_ipv4()).is_none()
        });
        let find = |cidr: &ipnet::IpNet| {
            let family = match (self.plan.routing, self.plan.outer_v4, cidr.addr().is_ipv4()) {
                (Routing::Vxlan, true, _) | (Routing::Native, _, true) => "IPv4",
                _ => "IPv6",
            };
            let message = format!("pod CIDR {cidr} cannot be reached: the node has no {family} InternalIP");
            Finding::error(format!("node/{name}"), message)
        };
        no_way.map(find).collect()
    }

    /// Connections that the last garbage collection left, both families.
    pub fn conntrack_entries(&self) -> u64 {
        self.ct_gc.entries()
    }

    /// A complete list of nodes has been seen since the agent started.
    pub fn nodes_synced(&self) -> bool {
        self.state.nodes.synced()
    }
}
