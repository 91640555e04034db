//! cilium.io/v2 CiliumCIDRGroup.

use ipnet::IpNet;

use crate::error::OracleError;
use crate::field::Field;
use crate::objects::Labels;
use crate::objects::cilium::peer::cidr;

/// Addresses under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CidrGroup {
    pub(crate) labels: Labels,
    pub(crate) cidrs: Vec<IpNet>,
}

impl CidrGroup {
    pub(crate) fn read(object: &Field<'_>) -> Result<Self, OracleError> {
        Ok(Self {
            labels: object.at("metadata.labels")?.texts()?,
            cidrs: object.at("spec.externalCIDRs")?.items()?.iter().map(cidr).collect::<Result<_, _>>()?,
        })
    }
}
