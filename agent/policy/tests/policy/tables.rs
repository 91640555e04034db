//! The dataplane's tables, written one write after the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use agent_policy::{
    Blocks, Changes, Direction, EVERYBODY, EndpointId, EndpointPolicy, Families, L4Set, Policy, Row, RowKey,
};
use dataplane_abi::Identity;
use ipnet::IpNet;

/// One write.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Set(u32, Arc<L4Set>),
    SetGone(u32),
    Blocks(u32, Arc<Blocks>),
    BlocksGone(u32),
    Row(RowKey, Row),
    RowGone(RowKey),
    Prefix(IpNet, Identity),
    PrefixGone(IpNet),
    Endpoint(EndpointId, EndpointPolicy),
    /// Whether nobody has had the identity so far.
    Node(String, Identity, bool),
}

/// The writes that changes ask for, in order.
pub(crate) fn writes(changes: &Changes, nodes: &BTreeMap<String, Identity>) -> Vec<Write> {
    let is_new = |identity: &Identity| identity.is_local_node() && !nodes.values().any(|had| had == identity);
    let nodes = changes.nodes.iter().map(|(name, new)| Write::Node(name.clone(), *new, is_new(new)));
    let (new, others): (Vec<_>, Vec<_>) = nodes.partition(|write| matches!(write, Write::Node(_, _, true)));
    let rows = |rows: &[(RowKey, Row)]| rows.iter().map(|(k, r)| Write::Row(*k, *r)).collect::<Vec<_>>();
    let mut all: Vec<Write> = changes.sets.iter().map(|(n, set)| Write::Set(*n, Arc::clone(set))).collect();
    all.extend(changes.blocks.iter().map(|(n, blocks)| Write::Blocks(*n, Arc::clone(blocks))));
    all.extend(rows(&changes.split));
    all.extend(changes.prefixes.iter().map(|(net, identity)| Write::Prefix(*net, *identity)));
    all.extend(new);
    all.extend(rows(&changes.rows));
    all.extend(rows(&changes.everybody));
    all.extend(changes.removed.iter().map(|key| Write::RowGone(*key)));
    all.extend(changes.endpoints.iter().map(|(id, policy)| Write::Endpoint(*id, *policy)));
    all.extend(others);
    all.extend(changes.prefixes_removed.iter().map(|(net, _)| Write::PrefixGone(*net)));
    all.extend(changes.unused.iter().map(|key| Write::RowGone(*key)));
    all.extend(changes.blocks_removed.iter().map(|(n, _)| Write::BlocksGone(*n)));
    all.extend(changes.sets_removed.iter().map(|(n, _)| Write::SetGone(*n)));
    all
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub(crate) sets: BTreeMap<u32, Arc<L4Set>>,
    pub(crate) blocks: BTreeMap<u32, Arc<Blocks>>,
    pub(crate) rows: BTreeMap<RowKey, Row>,
    pub(crate) prefixes: BTreeMap<IpNet, Identity>,
    pub(crate) endpoints: BTreeMap<EndpointId, EndpointPolicy>,
    pub(crate) nodes: BTreeMap<String, Identity>,
}

impl Tables {
    /// Everything that the engine wants, at once.
    pub(crate) fn wanted(policy: &Policy, endpoints: impl Iterator<Item = EndpointId>) -> Self {
        Self {
            sets: policy.sets().map(|(n, set)| (n, Arc::clone(set))).collect(),
            blocks: policy.all_blocks().map(|(n, blocks)| (n, Arc::clone(blocks))).collect(),
            rows: policy.rows().collect(),
            prefixes: policy.prefixes().collect(),
            endpoints: endpoints.filter_map(|id| Some((id, policy.endpoint(id)?))).collect(),
            nodes: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, write: &Write) {
        match write {
            Write::Set(number, set) => {
                let before = self.sets.insert(*number, Arc::clone(set));
                assert!(before.is_none(), "a set is written once");
            }
            Write::SetGone(number) => {
                assert!(self.sets.remove(number).is_some(), "a set that was there");
                let of_blocks = self.blocks.values().flat_map(|blocks| &blocks.0).map(|(_, row)| row);
                let mut rows = self.rows.values().chain(of_blocks);
                let pointed =
                    rows.any(|row| matches!(row, Row::Set(set) | Row::Blocks { set, .. } if set == number));
                assert!(!pointed, "nobody points to a set that goes");
            }
            Write::Blocks(number, blocks) => {
                blocks.0.iter().for_each(|(_, row)| self.points_to_what_is_there(*row));
                let before = self.blocks.insert(*number, Arc::clone(blocks));
                assert!(before.is_none(), "blocks are written once");
            }
            Write::BlocksGone(number) => {
                assert!(self.blocks.remove(number).is_some(), "blocks that were there");
                let pointed = self
                    .rows
                    .values()
                    .any(|row| matches!(row, Row::Blocks { blocks, .. } if blocks == number));
                assert!(!pointed, "nobody points to blocks that go");
            }
            Write::Row(key, row) => {
                self.points_to_what_is_there(*row);
                self.rows.insert(*key, *row);
            }
            Write::RowGone(key) => assert!(self.rows.remove(key).is_some(), "a row that was there"),
            Write::Prefix(net, identity) => {
                let taken = self.prefixes.values().any(|other| other == identity);
                assert!(!taken, "one identity for one prefix");
                self.prefixes.insert(*net, *identity);
            }
            Write::PrefixGone(net) => assert!(self.prefixes.remove(net).is_some(), "a prefix that was there"),
            Write::Node(name, identity, _) => {
                self.nodes.insert(name.clone(), *identity);
            }
            Write::Endpoint(id, policy) => {
                self.endpoints.insert(*id, *policy);
            }
        }
    }

    fn points_to_what_is_there(&self, row: Row) {
        let (set, blocks) = match row {
            Row::All(_) => (None, None),
            Row::Set(set) => (Some(set), None),
            Row::Blocks { set, blocks } => (Some(set), Some(blocks)),
        };
        assert!(set.is_none_or(|set| self.sets.contains_key(&set)), "a set is there before it is pointed to");
        assert!(
            blocks.is_none_or(|n| self.blocks.contains_key(&n)),
            "blocks are there before they are pointed to"
        );
    }

    /// The identity that a number of this world stands for.
    pub(crate) fn known(&self, number: Identity) -> Identity {
        if !number.is_local_node() {
            return number;
        }
        self.nodes.get(&crate::world::node_name(number)).copied().unwrap_or(Identity::REMOTE_NODE)
    }

    /// The identity of an address that is not in the cluster.
    pub(crate) fn identity(&self, families: Families, address: IpAddr) -> Identity {
        self.prefixes
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(families.world(address.is_ipv4()), |(_, identity)| *identity)
    }

    /// Whether it passes, looked up as the dataplane does.
    pub(crate) fn passes(
        &self,
        endpoint: EndpointId,
        direction: Direction,
        peer: Identity,
        address: Option<IpAddr>,
        (proto, port): (u8, u16),
    ) -> bool {
        let Some(policy) = self.endpoints.get(&endpoint) else { return true };
        let judged = if direction == Direction::Ingress { policy.ingress } else { policy.egress };
        if policy.number == 0 || !judged {
            return true;
        }
        let row = |identity| self.rows.get(&RowKey { policy: policy.number, direction, identity });
        let mut found = row(peer).or_else(|| row(EVERYBODY)).copied();
        if let Some(Row::Blocks { blocks, .. }) = found
            && let Some(address) = address.filter(|_| peer.is_pod())
        {
            found = self.blocks[&blocks].look_up(address);
        }
        match &found {
            None => false,
            Some(Row::All(verdict)) => verdict.outcome.passes(),
            Some(Row::Set(set) | Row::Blocks { set, .. }) => self
                .sets
                .get(set)
                .and_then(|set| set.look_up(proto, port))
                .is_some_and(|verdict| verdict.outcome.passes()),
        }
    }
}
