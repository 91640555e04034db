//! `ENDPOINTS`: pods of this node and the node's own addresses.

use std::net::IpAddr;

use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::row_hash;
use crate::plan::Plan;
use crate::ports::Row;
use crate::state::State;
use crate::state::policy::InForce;

/// The row of an address.
pub(crate) fn row(state: &State, plan: &Plan, address: IpAddr) -> Option<EndpointEntry> {
    let own = |kind: EndpointFlags| {
        let InForce { identity, policy, flags } = state.policy.of_host();
        EndpointEntry { flags: kind | flags, identity, policy, ..EndpointEntry::default() }
    };
    if plan.routers().any(|router| router == address) {
        return Some(own(EndpointFlags::HOST | EndpointFlags::ROUTER));
    }
    if plan.host_addresses.contains(&address) {
        return Some(own(EndpointFlags::HOST));
    }
    let record = &state.endpoint_at(&address)?.record;
    let InForce { identity, policy, flags } = state.policy.of_endpoint(record.id)?;
    Some(EndpointEntry {
        ifindex: record.ifindex,
        id: record.id,
        flags,
        identity,
        policy,
        mac: record.pod_mac,
        node_mac: record.host_mac,
        pad: [0; 4],
    })
}

/// Key bytes.
pub(crate) fn key(address: IpAddr) -> EndpointKey {
    EndpointKey::from_ip(address)
}

/// A row that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse(row: &Row) -> Option<(IpAddr, EndpointEntry)> {
    let found = EndpointKey::read_from_bytes(&row.key).ok()?;
    let address = found.ip()?;
    (key(address) == found).then_some(())?;
    Some((address, EndpointEntry::read_from_bytes(&row.value).ok()?))
}

/// For the digest of the tables.
pub(crate) fn hash(address: &IpAddr, entry: &EndpointEntry) -> u64 {
    row_hash(b'E', key(*address).as_bytes(), entry.as_bytes())
}
