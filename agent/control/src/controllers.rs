//! From state to rows: pure functions, one file for each table, and the marks that say which rows to compute again.

pub(crate) mod config;
pub(crate) mod endpoints;
pub(crate) mod ipcache;
pub(crate) mod policy;
pub(crate) mod programs;
pub(crate) mod routes;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::state::endpoints::EndpointId;
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
    // FNV-1a over the bytes, then a mixing step so that sums of similar rows do not meet.
    let bytes = std::iter::once(&table).chain(key).chain(value);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
