//! core/v1 Service.

use std::net::IpAddr;

use crate::attempt::{Family, Protocol};
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::{Labels, PROTOCOLS};

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its cluster IPs, at most one a family. None if it is headless.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Addresses under which nodes accept traffic for it: externalIPs, and the ingress addresses of its load balancer.
    pub(crate) external_ips: Vec<IpAddr>,
    /// The families that it serves.
    pub(crate) families: Vec<Family>,
    /// Its ports.
    pub(crate) ports: Vec<ServicePort>,
    /// Whether clients at a cluster IP get endpoints of their own node only (internalTrafficPolicy Local).
    pub(crate) internal_local: bool,
    /// Whether traffic from outside gets endpoints of the node that received it only (externalTrafficPolicy Local).
    pub(crate) external_local: bool,
    /// Seconds for which a client stays with its backend (sessionAffinity ClientIP).
    pub(crate) affinity_s: Option<u64>,
}

/// What policies must know of a service, of whatever type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRole {
    pub(crate) labels: Labels,
    /// The labels of the pods behind it; empty if its endpoints are somebody else's matter.
    pub(crate) selector: Labels,
}

impl ServiceRole {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        Ok(Self {
            labels: object.at("metadata.labels")?.texts()?,
            selector: object.at("spec.selector")?.texts()?,
        })
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Its name; may be empty if it is the only one. EndpointSlices refer to it.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// The port on every node; none for types without.
    pub(crate) node_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

const TYPES: &[(&str, Type)] = &[
    ("ClusterIP", Type::ClusterIp),
    ("NodePort", Type::NodePort),
    ("LoadBalancer", Type::LoadBalancer),
    ("ExternalName", Type::ExternalName),
];

/// The values of both traffic policies: whether it is Local.
const LOCAL: &[(&str, bool)] = &[("Cluster", false), ("Local", true)];

/// The time of a session unless said: three hours.
const AFFINITY_S: u64 = 10_800;

impl Service {
    /// Reads it; nothing if no service proxy has to do with it.
    pub(crate) fn read(object: &Field<'_>) -> Result<Option<Self>, OracleError> {
        let spec = object.at("spec")?;
        let kind = spec.at("type")?.word(TYPES)?.unwrap_or(Type::ClusterIp);
        if kind == Type::ExternalName || is_anothers(object)? || is_headless(&spec)? {
            return Ok(None);
        }
        let cluster_ips = cluster_ips(&spec)?;
        let mut external_ips: Vec<IpAddr> = spec.at("externalIPs")?.all_parsed()?;
        if kind == Type::LoadBalancer {
            external_ips.extend(ingress_ips(object)?);
        }
        let has_node_ports = matches!(kind, Type::NodePort | Type::LoadBalancer);
        Ok(Some(Self {
            families: families(&spec, &cluster_ips)?,
            ports: ports(&spec, has_node_ports)?,
            internal_local: spec.at("internalTrafficPolicy")?.word(LOCAL)?.unwrap_or(false),
            external_local: spec.at("externalTrafficPolicy")?.word(LOCAL)?.unwrap_or(false),
            affinity_s: affinity_s(&spec)?,
            cluster_ips,
            external_ips,
        }))
    }
}

/// The label `service.kubernetes.io/service-proxy-name` gives a service to another proxy; the cluster's leaves it alone, as it does one
/// with the label `service.kubernetes.io/headless`.
fn is_anothers(object: &Field<'_>) -> Result<bool, OracleError> {
    let labels = object.at("metadata.labels")?.texts()?;
    let left = ["service-proxy-name", "headless"];
    Ok(left.iter().any(|label| labels.contains_key(&format!("service.kubernetes.io/{label}"))))
}

/// Cluster IP "None" makes a service headless: it has no virtual address and no proxying. One without any address yet has none either.
fn is_headless(spec: &Field<'_>) -> Result<bool, OracleError> {
    Ok(matches!(spec.at("clusterIP")?.text()?, None | Some("" | "None"))
        && spec
            .at("clusterIPs")?
            .items()?
            .iter()
            .all(|item| matches!(item.text(), Ok(None | Some("" | "None")))))
}

/// `clusterIPs` lists all addresses; `clusterIP` is the first of them.
fn cluster_ips(spec: &Field<'_>) -> Result<Vec<IpAddr>, OracleError> {
    let all: Vec<IpAddr> = spec.at("clusterIPs")?.all_parsed()?;
    if all.is_empty() { Ok(spec.at("clusterIP")?.parsed()?.into_iter().collect()) } else { Ok(all) }
}

/// `ipFamilies` says which families are served; objects without it serve those of their cluster IPs.
fn families(spec: &Field<'_>, cluster_ips: &[IpAddr]) -> Result<Vec<Family>, OracleError> {
    let mut families = Vec::new();
    for item in spec.at("ipFamilies")?.items()? {
        families.extend(item.word(&[("IPv4", Family::V4), ("IPv6", Family::V6)])?);
    }
    if families.is_empty() {
        families.extend(cluster_ips.iter().map(|address| Family::of(*address)));
    }
    Ok(families)
}

/// The load balancer's addresses. With `ipMode: Proxy` it sends to node ports or pods by itself and nodes must not take the address for their own.
fn ingress_ips(object: &Field<'_>) -> Result<Vec<IpAddr>, OracleError> {
    let mut addresses = Vec::new();
    for item in object.at("status.loadBalancer.ingress")?.items()? {
        let is_virtual = item.at("ipMode")?.word(&[("VIP", true), ("Proxy", false)])?.unwrap_or(true);
        if is_virtual {
            addresses.extend(item.at("ip")?.parsed::<IpAddr>()?);
        }
    }
    Ok(addresses)
}

fn ports(spec: &Field<'_>, has_node_ports: bool) -> Result<Vec<ServicePort>, OracleError> {
    spec.at("ports")?
        .items()?
        .iter()
        .map(|port| {
            let node_port = port.at("nodePort")?;
            // Zero stands for "none allocated", with allocateLoadBalancerNodePorts false.
            let node_port = if node_port.number(0, 0).is_ok() { None } else { node_port.port()? };
            Ok(ServicePort {
                name: port.at("name")?.text()?.unwrap_or_default().to_owned(),
                protocol: port.at("protocol")?.word(PROTOCOLS)?.unwrap_or(Protocol::Tcp),
                port: port.at("port")?.required_port()?,
                node_port: node_port.filter(|_| has_node_ports),
            })
        })
        .collect()
}

/// Affinity is off unless it is ClientIP; its time is one second to one day.
fn affinity_s(spec: &Field<'_>) -> Result<Option<u64>, OracleError> {
    let is_on = spec.at("sessionAffinity")?.word(&[("None", false), ("ClientIP", true)])?.unwrap_or(false);
    let timeout = spec.at("sessionAffinityConfig.clientIP.timeoutSeconds")?.number(1, 86_400)?;
    Ok(is_on.then(|| timeout.unwrap_or(AFFINITY_S)))
}
