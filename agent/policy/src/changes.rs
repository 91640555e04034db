//! What has to be written, in the order in which it has to be written.

use std::sync::Arc;

use dataplane_abi::Identity;
use ipnet::IpNet;

use crate::endpoint::EndpointId;
use crate::rows::{Blocks, EndpointPolicy, L4Set, Row, RowKey};

/// The steps from what was asked for before to what is asked for now.
///
/// Written in the order of the fields, each single write moves one identity in one direction from its old decision to
/// its new one; at no time is anything decided that is neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// 1. New port sets. Whole, before a row points to them.
    pub sets: Vec<(u32, Arc<L4Set>)>,
    /// 1. After them new sets of blocks, which point to them. Whole, before a row points to them.
    pub blocks: Vec<(u32, Arc<Blocks>)>,
    /// 2. Rows for CIDRs and nodes that are told apart from now on: what has held for their addresses so far.
    pub split: Vec<(RowKey, Row)>,
    /// 3. Those CIDRs in the ipcache.
    pub prefixes: Vec<(IpNet, Identity)>,
    /// 3. Nodes with another identity, by name.
    ///
    /// One that nobody has had so far goes with those CIDRs into the ipcache, since it begins with what has held for its
    /// node; any other goes with the endpoints, after its rows.
    pub nodes: Vec<(String, Identity)>,
    /// 4. Rows of identities.
    pub rows: Vec<(RowKey, Row)>,
    /// 5. Rows of everybody.
    pub everybody: Vec<(RowKey, Row)>,
    /// 6. Rows to delete: for those identities the row of everybody holds now.
    pub removed: Vec<RowKey>,
    /// 7. Endpoints whose policy or flags are others now.
    pub endpoints: Vec<(EndpointId, EndpointPolicy)>,
    /// 8. CIDRs that are not told apart any more, to delete from the ipcache.
    pub prefixes_removed: Vec<(IpNet, Identity)>,
    /// 9. After the revision of the configuration has been raised: rows that nobody looks up any more.
    pub unused: Vec<RowKey>,
    /// 10. Sets of blocks that no row points to any more.
    pub blocks_removed: Vec<(u32, Arc<Blocks>)>,
    /// 10. After them port sets that nothing points to any more.
    pub sets_removed: Vec<(u32, Arc<L4Set>)>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
