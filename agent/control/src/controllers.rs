//! From state to rows: pure functions, one file for each table, and the marks that say which rows to compute again.

pub(crate) mod config;
pub(crate) mod endpoints;
pub(crate) mod ipcache;
pub(crate) mod masquerade;
pub(crate) mod policy;
pub(crate) mod programs;
pub(crate) mod routes;
pub(crate) mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::state::endpoints::EndpointId;
use crate::state::ipam::router_of;
use crate::state::nodes::Touched;

/// What has changed since rows were last computed.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Everything: the plan has changed.
    pub(crate) all: bool,
    /// Single addresses: of pods, nodes, the router.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Pod CIDRs.
    pub(crate) cidrs: BTreeSet<IpNet>,
    /// Endpoints whose programs may differ.
    pub(crate) endpoints: BTreeSet<EndpointId>,
}

impl Dirty {
    /// Nothing has.
    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.addresses.is_empty() && self.cidrs.is_empty() && self.endpoints.is_empty()
    }

    /// Notes what a change of nodes touched.
    pub(crate) fn nodes(&mut self, touched: Touched) {
        self.addresses.extend(touched.addresses);
        self.addresses.extend(touched.cidrs.iter().filter_map(router_of));
        self.cidrs.extend(touched.cidrs);
    }

    /// Notes that an endpoint changed.
    pub(crate) fn endpoint(&mut self, id: EndpointId, addresses: &[IpAddr]) {
        self.endpoints.insert(id);
        self.addresses.extend(addresses);
    }
}

/// A number for a row of a table, to be summed up. Not a defence against anybody: it tells contents apart that came about by accident.
pub(crate) fn row_hash(table: u8, key: &[u8], value: &[u8]) -> u64 {
    // Eight bytes at a time, as FNV-1a takes them one by one; then a mixing step so that sums of similar rows do not meet.
    // Keys and values of a table have one length each, so what is filled up with zeroes cannot be taken for something else.
    let chunks = key.chunks(8).chain(value.chunks(8));
    let mut hash = chunks.fold(0xcbf2_9ce4_8422_2325_u64 ^ u64::from(table), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
