//! discovery.k8s.io/v1 EndpointSlice.

use std::net::IpAddr;

use crate::attempt::{Family, ObjectName, Protocol};
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::PROTOCOLS;

/// A slice: some endpoints of a service, of one family, all with the same ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Name of the service, by the label `kubernetes.io/service-name`.
    pub(crate) service: Option<String>,
    /// Family of the addresses; none with names (addressType FQDN), which nobody proxies.
    pub(crate) family: Option<Family>,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A port of all endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlicePort {
    /// Name of the service's port.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// The number at the endpoints.
    pub(crate) number: u16,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) node: Option<String>,
    pub(crate) pod: Option<ObjectName>,
    /// Takes traffic. Not known counts as yes.
    pub(crate) ready: bool,
    /// Would be ready if it did not end. Not known counts as `ready`.
    pub(crate) serving: bool,
    /// Is about to end. Not known counts as no.
    pub(crate) terminating: bool,
}

impl Slice {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        let kind = object.at("addressType")?;
        let family = kind
            .word(&[("IPv4", Some(Family::V4)), ("IPv6", Some(Family::V6)), ("FQDN", None)])?
            .ok_or_else(|| kind.wrong("must be set"))?;
        let mut endpoints = Vec::new();
        if family.is_some() {
            for item in object.at("endpoints")?.items()? {
                endpoints.push(endpoint(&item, family)?);
            }
        }
        Ok(Self {
            service: object.at("metadata.labels")?.texts()?.remove("kubernetes.io/service-name"),
            family,
            ports: ports(object)?,
            endpoints,
        })
    }
}

/// Of several addresses only the first counts; all are of the slice's family.
fn endpoint(item: &Field<'_>, family: Option<Family>) -> Result<Endpoint, OracleError> {
    let list = item.at("addresses")?;
    let addresses: Vec<IpAddr> = list.all_parsed()?;
    let Some(address) = addresses.first().copied() else {
        return Err(list.wrong("must not be empty"));
    };
    if Some(Family::of(address)) != family {
        return Err(list.wrong(format!("{address} is not of the slice's addressType")));
    }
    let ready = item.at("conditions.ready")?.flag()?.unwrap_or(true);
    Ok(Endpoint {
        address,
        node: item.at("nodeName")?.text()?.map(str::to_owned),
        pod: pod(item)?,
        ready,
        serving: item.at("conditions.serving")?.flag()?.unwrap_or(ready),
        terminating: item.at("conditions.terminating")?.flag()?.unwrap_or(false),
    })
}

fn pod(item: &Field<'_>) -> Result<Option<ObjectName>, OracleError> {
    let target = item.at("targetRef")?;
    if target.at("kind")?.text()? != Some("Pod") {
        return Ok(None);
    }
    Ok(Some(ObjectName {
        namespace: target.at("namespace")?.required_text()?.to_owned(),
        name: target.at("name")?.required_text()?.to_owned(),
    }))
}

/// A port without a number stands for "no restriction", which means nothing to a service.
fn ports(object: &Field<'_>) -> Result<Vec<SlicePort>, OracleError> {
    let mut ports = Vec::new();
    for item in object.at("ports")?.items()? {
        if let Some(number) = item.at("port")?.port()? {
            ports.push(SlicePort {
                name: item.at("name")?.text()?.unwrap_or_default().to_owned(),
                protocol: item.at("protocol")?.word(PROTOCOLS)?.unwrap_or(Protocol::Tcp),
                number,
            });
        }
    }
    Ok(ports)
}
