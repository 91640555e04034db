//! The objects, reduced to what the answers need. Each is read from JSON with the defaults of the API.

pub(crate) mod cilium;
pub(crate) mod cluster_policy;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod selector;
pub(crate) mod service;
pub(crate) mod slice;

use std::collections::BTreeMap;

use crate::attempt::Protocol;
use crate::error::OracleError;
use crate::field::Field;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The protocols that objects can name.
pub(crate) const PROTOCOLS: &[(&str, Protocol)] =
    &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

/// A policy with the annotation `bristle.io/staged: "true"` is only staged: it is not in force, but what it would do can be asked.
pub(crate) fn is_staged(object: &Field<'_>) -> Result<bool, OracleError> {
    Ok(object
        .at("metadata.annotations")?
        .texts()?
        .get("bristle.io/staged")
        .is_some_and(|value| value == "true"))
}
