//! The objects, reduced to what the answers need. Each is read from JSON with the defaults of the API.

pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod selector;
pub(crate) mod service;
pub(crate) mod slice;

use std::collections::BTreeMap;

use crate::attempt::Protocol;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The protocols that objects can name.
pub(crate) const PROTOCOLS: &[(&str, Protocol)] =
    &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
