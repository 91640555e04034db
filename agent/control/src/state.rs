//! What the agent knows: the ground truth from which all rows are computed.

pub(crate) mod claims;
pub(crate) mod documents;
pub(crate) mod endpoints;
pub(crate) mod ipam;
pub(crate) mod nodes;
