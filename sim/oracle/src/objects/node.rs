//! core/v1 Node.

use std::net::IpAddr;

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::Labels;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its addresses of the types InternalIP and ExternalIP.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Node {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        let mut addresses = Vec::new();
        for item in object.at("status.addresses")?.items()? {
            if matches!(item.at("type")?.required_text()?, "InternalIP" | "ExternalIP") {
                let address = item.at("address")?;
                addresses.push(address.parsed()?.ok_or_else(|| address.wrong("must be set"))?);
            }
        }
        Ok(Self { labels: object.at("metadata.labels")?.texts()?, addresses })
    }
}
