//! What holds now, for those who look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_abi::Identity;
use ipnet::IpNet;

use super::{Compiled, Policy};
use crate::endpoint::EndpointId;
use crate::finding::Finding;
use crate::label::LabelSet;
use crate::rows::{
    Blocks, Direction, EVERYBODY, EndpointPolicy, L4Prefix, L4Set, Outcome, Row, RowKey, Staged, Verdict,
};
use crate::rule::{ObjectRef, Origin};
use crate::store::Store;

/// A decision without numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CanonicalVerdict {
    /// What was decided.
    pub outcome: Outcome,
    /// By what.
    pub origins: Vec<Origin>,
    /// What staged policies would change.
    pub staged: Staged,
    /// By what.
    pub staged_origins: Vec<Origin>,
}

/// A row without numbers. A row without ports has one verdict for [`L4Prefix::ANY`].
pub type CanonicalRow = Vec<(L4Prefix, CanonicalVerdict)>;

/// What holds for an endpoint, without numbers: rows by direction and peer, who is named by number or by CIDR;
/// of pods in a block of addresses, `NUMBER at BLOCK`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CanonicalEndpoint {
    /// Connections to it are judged.
    pub ingress: bool,
    /// Connections from it are judged.
    pub egress: bool,
    /// What would be dropped passes.
    pub audit: bool,
    /// Rows.
    pub rows: BTreeMap<(Direction, String), CanonicalRow>,
}

impl Policy {
    /// The objects, as they are in force.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        self.policies.iter().flat_map(|(number, policy)| {
            Direction::BOTH.into_iter().zip(&policy.rows).flat_map(move |(direction, rows)| {
                let everybody = rows.everybody.map(|row| (EVERYBODY, row));
                everybody
                    .into_iter()
                    .chain(rows.identities.iter().copied())
                    .map(move |(identity, row)| (RowKey { policy: *number, direction, identity }, row))
            })
        })
    }

    /// A row.
    pub fn row(&self, key: RowKey) -> Option<Row> {
        self.policies.get(&key.policy)?.rows[key.direction as usize].get(key.identity)
    }

    /// All port sets.
    pub fn sets(&self) -> impl Iterator<Item = (u32, &Arc<L4Set>)> {
        self.tables.sets.iter()
    }

    /// A port set.
    pub fn set(&self, number: u32) -> Option<&L4Set> {
        self.tables.sets.get(number).map(|set| &**set)
    }

    /// All sets of blocks.
    pub fn all_blocks(&self) -> impl Iterator<Item = (u32, &Arc<Blocks>)> {
        self.tables.blocks.iter()
    }

    /// A set of blocks.
    pub fn blocks(&self, number: u32) -> Option<&Blocks> {
        self.tables.blocks.get(number).map(|blocks| &**blocks)
    }

    /// CIDRs that have identities of their own.
    pub fn prefixes(&self) -> impl Iterator<Item = (IpNet, Identity)> {
        self.prefixes.iter().map(|(number, prefix)| (prefix.0, Identity(number)))
    }

    /// What the endpoint's row says.
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointPolicy> {
        self.endpoints.get(&id)?.told
    }

    /// Labels of an identity, also of CIDRs and reserved ones.
    pub fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.peers.matcher.facts(identity).map(|facts| &facts.labels)
    }

    /// What a cookie in a verdict or an event stands for. Known until the tables have settled.
    pub fn origins(&self, cookie: u32) -> &[Origin] {
        self.tables.cookies.get_late(cookie).map_or(&[], |origins| &origins.0)
    }

    /// The decision for a connection, looked up as the dataplane does. Without the peer's `address` blocks do not count.
    /// `None`: nothing is judged.
    pub fn look_up(
        &self,
        id: EndpointId,
        direction: Direction,
        peer: Identity,
        address: Option<IpAddr>,
        proto: u8,
        port: u16,
    ) -> Option<Verdict> {
        let policy = self.endpoint(id)?;
        let judged = match direction {
            Direction::Ingress => policy.ingress,
            Direction::Egress => policy.egress,
        };
        if policy.number == 0 || !judged {
            return None;
        }
        let key = |identity| RowKey { policy: policy.number, direction, identity };
        let nothing =
            Verdict { outcome: Outcome::NoRule, cookie: 0, staged: Staged::Nothing, staged_cookie: 0 };
        let mut row = self.row(key(peer)).or_else(|| self.row(key(EVERYBODY)));
        if let Some(Row::Blocks { blocks, .. }) = row
            && let Some(address) = address.filter(|_| peer.is_pod())
        {
            row = self.blocks(blocks).and_then(|blocks| blocks.look_up(address));
        }
        Some(match row {
            None => nothing,
            Some(Row::All(verdict)) => verdict,
            Some(Row::Set(set) | Row::Blocks { set, .. }) => {
                self.set(set).and_then(|set| set.look_up(proto, port)).unwrap_or(nothing)
            }
        })
    }

    /// Objects with something to be said about them, and endpoints that do not have the policy they should have.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (object, stored) in &self.store.objects {
            findings.extend(stored.findings.iter().cloned());
            let refs = stored.specs.iter().flat_map(|spec| &spec.rules).flat_map(|rule| &rule.peers.refs);
            findings.extend(
                refs.filter_map(|peer| self.store.missing(peer))
                    .map(|message| Finding::warning(object, message)),
            );
        }
        for state in self.endpoints.values() {
            let Some(policy) = self.policies.get(&state.wanted) else { continue };
            let Some(rows) = policy.too_many else { continue };
            let stays = if policy.good || state.has != state.wanted && self.is_open(state.has) {
                "it keeps the rows that it has"
            } else {
                "nothing passes"
            };
            let message =
                format!("its policy would have {rows} rows, more than {}: {stays}", self.config.max_rows);
            findings.push(Finding::error(&format!("endpoint/{}", state.endpoint.name), message));
            let specs = policy.specs.iter().filter_map(|id| self.specs.get(id));
            for object in specs.map(|state| &state.spec.object) {
                let message = format!(
                    "not enforced as it is for endpoint {}: its rows would be {rows}, more than {}",
                    state.endpoint.name, self.config.max_rows
                );
                findings.push(Finding::error(object, message));
            }
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// Whether a policy is another than one under which nothing passes.
    fn is_open(&self, number: u32) -> bool {
        let has_rows = |policy: &Compiled| policy.rows.iter().any(|rows| !rows.identities.is_empty());
        self.policies.get(&number).is_some_and(|policy| has_rows(policy) || !policy.id.parts().1)
    }

    /// Endpoints that an object selects now.
    pub fn selected_by(&self, object: &ObjectRef) -> Vec<EndpointId> {
        let object = Arc::new(object.clone());
        let specs = self.current.range((Arc::clone(&object), 0)..=(object, u16::MAX));
        let used = specs.filter_map(|(_, id)| self.specs.get(id)?.used.as_ref());
        let policies: BTreeSet<u32> = used.flat_map(|used| used.by.iter().copied()).collect();
        if policies.is_empty() {
            return Vec::new();
        }
        let selected = self.endpoints.iter().filter(|(_, state)| policies.contains(&state.wanted));
        selected.map(|(id, _)| *id).collect()
    }

    /// What holds, without numbers: equal for equal input, whatever the way to it.
    pub fn canonical(&self) -> BTreeMap<EndpointId, CanonicalEndpoint> {
        self.endpoints
            .iter()
            .filter_map(|(id, state)| Some((*id, self.canonical_endpoint(state.told?))))
            .collect()
    }

    fn canonical_endpoint(&self, told: EndpointPolicy) -> CanonicalEndpoint {
        let mut rows = BTreeMap::new();
        if let Some(policy) = self.policies.get(&told.number) {
            for (direction, own) in Direction::BOTH.into_iter().zip(&policy.rows) {
                let everybody = own.everybody.map(|row| (EVERYBODY, row));
                for (identity, row) in own.identities.iter().copied().chain(everybody) {
                    let peer = match self.peers.matcher.facts(identity).and_then(|facts| facts.prefix) {
                        Some(prefix) => prefix.to_string(),
                        None => identity.0.to_string(),
                    };
                    if let Row::Blocks { blocks, .. } = row {
                        for (block, row) in self.blocks(blocks).iter().flat_map(|blocks| &blocks.0) {
                            rows.insert((direction, format!("{peer} at {block}")), self.canonical_row(*row));
                        }
                    }
                    rows.insert((direction, peer), self.canonical_row(row));
                }
            }
        }
        CanonicalEndpoint { ingress: told.ingress, egress: told.egress, audit: told.audit, rows }
    }

    fn canonical_row(&self, row: Row) -> CanonicalRow {
        let verdict = |verdict: Verdict| CanonicalVerdict {
            outcome: verdict.outcome,
            origins: self.origins(verdict.cookie).to_vec(),
            staged: verdict.staged,
            staged_origins: self.origins(verdict.staged_cookie).to_vec(),
        };
        match row {
            Row::All(all) => vec![(L4Prefix::ANY, verdict(all))],
            Row::Set(set) | Row::Blocks { set, .. } => self.set(set).map_or_else(Vec::new, |set| {
                set.0.iter().map(|(prefix, v)| (*prefix, verdict(*v))).collect()
            }),
        }
    }
}
