//! core/v1 Pod.

use std::net::IpAddr;

use crate::attempt::{Family, Protocol};
use crate::error::OracleError;
use crate::field::Field;
use crate::identity::is_relevant;
use crate::objects::{Labels, PROTOCOLS};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Those of its labels that are part of its identity.
    pub(crate) identity_labels: Labels,
    /// Its service account.
    pub(crate) service_account: Option<String>,
    /// The node it was scheduled to.
    pub(crate) node: Option<String>,
    /// Whether it lives in the network namespace of its node.
    pub(crate) host_network: bool,
    /// Whether all its containers have ended for good (phase Succeeded or Failed): its address may be another's by now.
    pub(crate) finished: bool,
    /// Its addresses, at most one a family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Named ports of its containers.
    pub(crate) ports: Vec<NamedPort>,
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedPort {
    /// Its name, unique in the pod.
    pub(crate) name: String,
    /// Its number.
    pub(crate) number: u16,
    /// Its protocol.
    pub(crate) protocol: Protocol,
}

impl Pod {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        let phase = object.at("status.phase")?.text()?.unwrap_or("Pending");
        let labels = object.at("metadata.labels")?.texts()?;
        let account = object.at("spec.serviceAccountName")?.text()?;
        Ok(Self {
            identity_labels: labels
                .iter()
                .filter(|(key, _)| is_relevant(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            service_account: account.filter(|account| !account.is_empty()).map(str::to_owned),
            labels,
            node: object.at("spec.nodeName")?.text()?.filter(|node| !node.is_empty()).map(str::to_owned),
            host_network: object.at("spec.hostNetwork")?.flag()?.unwrap_or(false),
            finished: matches!(phase, "Succeeded" | "Failed"),
            addresses: addresses(object)?,
            ports: ports(object)?,
        })
    }

    /// Its address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}

/// `podIPs` lists all addresses; `podIP` is the first of them and stands alone in objects of old clients.
fn addresses(object: &Field<'_>) -> Result<Vec<IpAddr>, OracleError> {
    let mut addresses = Vec::new();
    for item in object.at("status.podIPs")?.items()? {
        addresses.extend(item.at("ip")?.parsed::<IpAddr>()?);
    }
    if addresses.is_empty() {
        addresses.extend(object.at("status.podIP")?.parsed::<IpAddr>()?);
    }
    Ok(addresses)
}

/// The named ports of containers, and of init containers that go on running beside them (`restartPolicy: Always`).
fn ports(object: &Field<'_>) -> Result<Vec<NamedPort>, OracleError> {
    let mut containers = object.at("spec.containers")?.items()?;
    for container in object.at("spec.initContainers")?.items()? {
        if container.at("restartPolicy")?.text()? == Some("Always") {
            containers.push(container);
        }
    }
    let mut ports = Vec::new();
    for container in containers {
        for port in container.at("ports")?.items()? {
            let number = port.at("containerPort")?.required_port()?;
            let protocol = port.at("protocol")?.word(PROTOCOLS)?.unwrap_or(Protocol::Tcp);
            if let Some(name) = port.at("name")?.text()?.filter(|name| !name.is_empty()) {
                ports.push(NamedPort { name: name.to_owned(), number, protocol });
            }
        }
    }
    Ok(ports)
}
