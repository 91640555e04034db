//! From what was noted to changes of rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane_abi::Identity;
use ipnet::IpNet;

use super::class::{PolicyId, Sort, selects_by_sort};
use super::{Compiled, DirectionRows, Policy, Prefix, SpecId, Stale};
use crate::changes::Changes;
use crate::compile::{Compilation, names_peer_ports};
use crate::config::Enforcement;
use crate::endpoint::EndpointId;
use crate::ports::NamedPort;
use crate::rows::{Direction, EVERYBODY, EndpointPolicy, Row, RowKey};
use crate::selector::Selector;
use crate::tables::Scratch;

/// What a compilation found out for a direction.
struct Found {
    everybody: Option<Row>,
    rows: FoundRows,
}

enum FoundRows {
    All(Vec<(Identity, Row)>),
    Some(Vec<(Identity, Option<Row>)>),
}

impl Policy {
    /// Works out what was noted, and gives what has to be written for it. Where nothing was noted it looks at nothing.
    pub fn commit(&mut self) -> Changes {
        let mut changes = Changes::default();
        if self.is_idle() {
            return changes;
        }
        self.ask_for_policies();
        self.tell_nodes_apart(&mut changes);
        self.split(&mut changes);
        let mut touched = std::mem::take(&mut self.pending.policies);
        for number in &touched {
            self.refresh(*number, &mut changes);
        }
        self.hand_out(&mut changes);
        changes.sets = self.tables.sets.publish();
        changes.blocks = self.tables.blocks.publish();
        changes.prefixes = self.prefixes.publish().into_iter().map(prefix).collect();
        touched.append(&mut self.pending.policies);
        self.clean_up(touched, &mut changes);
        changes
    }

    /// Nothing was noted since the last commit.
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.nodes.is_told() && self.prefixes.is_steady()
    }

    /// Each endpoint that something has changed for asks for the policy that its rules make.
    fn ask_for_policies(&mut self) {
        for id in std::mem::take(&mut self.pending.endpoints) {
            let (number, specs) = match self.policy_of(id) {
                Some((policy, specs)) => (self.numbers.acquire(policy), specs),
                None => (0, Vec::new()),
            };
            if let Some(policy) = self.policy_or_new(number) {
                policy.wanted += 1;
            }
            self.set_specs(number, &specs);
            if let Some(state) = self.endpoints.get_mut(&id) {
                let before = std::mem::replace(&mut state.wanted, number);
                self.unwant(before);
            }
        }
        let unwanted: Vec<u32> = self
            .pending
            .policies
            .iter()
            .filter(|number| self.policies.get(number).is_some_and(|policy| policy.wanted == 0))
            .copied()
            .collect();
        for number in unwanted {
            self.set_specs(number, &[]);
        }
    }

    /// What the rules for an endpoint make, and the rules. `None`: nothing is enforced.
    fn policy_of(&self, id: EndpointId) -> Option<(PolicyId, Vec<SpecId>)> {
        let endpoint = &self.endpoints.get(&id)?.endpoint;
        if endpoint.mode(&self.config) == Enforcement::Never {
            return None;
        }
        let mut found: Vec<_> = self
            .subjects
            .selecting(id)
            .into_iter()
            .filter_map(|selector| self.by_subject.get(&selector))
            .flatten()
            .filter_map(|id| self.specs.get(id).map(|state| (&state.spec, *id)))
            .filter(|(spec, _)| spec.host == endpoint.host)
            .collect();
        found.sort_by(|(a, _), (b, _)| (&a.object, a.index).cmp(&(&b.object, b.index)));
        let subjects: BTreeSet<&Arc<Selector>> =
            found.iter().map(|(spec, _)| &spec.subject).filter(|subject| !selects_by_sort(subject)).collect();
        let closed = endpoint.closed(&self.config);
        if found.is_empty() && !closed {
            return None;
        }
        let named = |port: &&NamedPort| {
            let mut rules = found.iter().flat_map(|(spec, _)| spec.rules(Direction::Ingress));
            rules.any(|rule| rule.ports.names().any(|name| name.means(port)))
        };
        let ports: BTreeSet<&NamedPort> = endpoint.named_ports.iter().filter(named).collect();
        let policy = PolicyId::OfRules {
            sort: Sort::of(endpoint),
            subjects: subjects.into_iter().cloned().collect(),
            ports: ports.into_iter().cloned().collect(),
            closed,
        };
        Some((policy, found.into_iter().map(|(_, id)| id).collect()))
    }

    fn policy_or_new(&mut self, number: u32) -> Option<&mut Compiled> {
        let id = Arc::clone(self.numbers.get(number)?);
        let new = || Compiled {
            id,
            specs: Vec::new(),
            rows: [DirectionRows::default(), DirectionRows::default()],
            good: false,
            too_many: None,
            stale: Some(Stale::All),
            names_peer_ports: false,
            wanted: 0,
            used: 0,
        };
        self.pending.policies.insert(number);
        Some(self.policies.entry(number).or_insert_with(new))
    }

    fn set_specs(&mut self, number: u32, specs: &[SpecId]) {
        let Some(policy) = self.policies.get_mut(&number) else { return };
        if policy.specs == specs {
            return;
        }
        let before = std::mem::replace(&mut policy.specs, specs.to_vec());
        for id in specs.iter().filter(|id| !before.contains(id)) {
            self.use_spec(*id, number);
        }
        for id in before.iter().filter(|id| !specs.contains(id)) {
            self.leave_spec(*id, number);
        }
        let names =
            specs.iter().filter_map(|id| self.specs.get(id)).any(|state| names_peer_ports(&state.spec));
        if let Some(policy) = self.policies.get_mut(&number) {
            policy.names_peer_ports = names;
        }
        self.make_stale(number, None);
    }

    /// CIDRs that are told apart from now on begin with the rows of the CIDR around them: no rule so far has made a difference.
    fn split(&mut self, changes: &mut Changes) {
        let fresh: Vec<(Identity, IpNet)> =
            self.prefixes.fresh().map(|(number, prefix)| (Identity(number), prefix.0)).collect();
        for (identity, net) in &fresh {
            let parent = |net: &IpNet| self.peers.matcher.parent(net);
            let mut around = parent(net);
            // Others that are new have no rows yet.
            while let Some(new) = around.filter(|around| self.prefixes.is_fresh(around.0)) {
                let facts = self.peers.matcher.facts(new);
                around = facts.and_then(|facts| facts.prefix.as_ref()).and_then(parent);
            }
            let Some(around) = around else { continue };
            for (number, policy) in &mut self.policies {
                for direction in Direction::BOTH {
                    let rows = &mut policy.rows[direction as usize];
                    let Some(row) = rows.get(around) else { continue };
                    if let Err(at) = rows.identities.binary_search_by_key(identity, |(own, _)| *own) {
                        rows.identities.insert(at, (*identity, row));
                        self.tables.retain(row);
                        let key = RowKey { policy: *number, direction, identity: *identity };
                        changes.split.push((key, row));
                    }
                }
            }
        }
    }

    /// Brings the rows of a policy up to date.
    fn refresh(&mut self, number: u32, changes: &mut Changes) {
        let Some(policy) = self.policies.get_mut(&number) else { return };
        if policy.wanted == 0 {
            policy.stale = None;
            return;
        }
        let Some(mut stale) = policy.stale.take() else { return };
        if policy.too_many.is_some() || !policy.good {
            stale = Stale::All;
        }
        self.compile(number, &stale, changes);
    }

    fn compile(&mut self, number: u32, stale: &Stale, changes: &mut Changes) {
        let Some(policy) = self.policies.get(&number) else { return };
        let specs: Vec<_> = policy
            .specs
            .iter()
            .filter_map(|id| self.specs.get(id))
            .filter_map(|state| Some((&*state.spec, &*state.used.as_ref()?.peers)))
            .collect();
        let mut scratch = Scratch::default();
        let tables = &mut self.tables;
        let (ports, closed) = policy.id.parts();
        let found = Direction::BOTH.map(|direction| {
            let compilation = Compilation::new(direction, &specs, closed, ports, &self.peers);
            let Some(compilation) = compilation else {
                return Found { everybody: None, rows: FoundRows::All(Vec::new()) };
            };
            match (stale, policy.rows[direction as usize].everybody) {
                (Stale::Identities(identities), Some(everybody)) => Found {
                    everybody: Some(everybody),
                    rows: FoundRows::Some(
                        identities
                            .iter()
                            .map(|identity| {
                                (*identity, compilation.one(*identity, everybody, tables, &mut scratch))
                            })
                            .collect(),
                    ),
                },
                _ => {
                    let everybody = compilation.everybody(tables, &mut scratch);
                    let rows = compilation.all(everybody, tables, &mut scratch);
                    Found { everybody: Some(everybody), rows: FoundRows::All(rows) }
                }
            }
        });
        let rows: usize = found.iter().zip(&policy.rows).map(|(found, rows)| rows_then(found, rows)).sum();
        let by_identity = rows - found.iter().filter(|found| found.everybody.is_some()).count();
        let Some(policy) = self.policies.get_mut(&number) else { return };
        if rows > self.config.max_rows && by_identity > 0 {
            policy.too_many = Some(rows);
        } else {
            policy.too_many = None;
            policy.good = true;
            for (direction, found) in Direction::BOTH.into_iter().zip(found) {
                self.apply(number, direction, found, changes);
            }
        }
        self.tables.drop_scratch(scratch);
    }

    fn apply(&mut self, number: u32, direction: Direction, found: Found, changes: &mut Changes) {
        let Some(policy) = self.policies.get_mut(&number) else { return };
        let rows = &mut policy.rows[direction as usize];
        let key = |identity| RowKey { policy: number, direction, identity };
        let everybody = std::mem::replace(&mut rows.everybody, found.everybody);
        let mut edits: Vec<(Identity, Option<Row>, Option<Row>)> = Vec::new();
        match found.rows {
            FoundRows::All(new) => {
                let old = std::mem::replace(&mut rows.identities, new);
                edits.extend(differences(&old, &rows.identities));
            }
            FoundRows::Some(new) => {
                for (identity, row) in new {
                    let at = rows.identities.binary_search_by_key(&identity, |(own, _)| *own);
                    let before = match (at, row) {
                        (Ok(at), Some(row)) => Some(std::mem::replace(&mut rows.identities[at].1, row)),
                        (Ok(at), None) => Some(rows.identities.remove(at).1),
                        (Err(at), Some(row)) => {
                            rows.identities.insert(at, (identity, row));
                            None
                        }
                        (Err(_), None) => None,
                    };
                    edits.push((identity, before, row));
                }
            }
        }
        // The row of everybody is written after the others.
        edits.push((EVERYBODY, everybody, found.everybody));
        let judged = found.everybody.is_some();
        for (identity, before, after) in edits.into_iter().filter(|(_, before, after)| before != after) {
            if let Some(row) = after {
                self.tables.retain(row);
                let list = if identity == EVERYBODY { &mut changes.everybody } else { &mut changes.rows };
                list.push((key(identity), row));
            }
            if let Some(row) = before {
                self.tables.release(row);
            }
            if after.is_none() {
                // As long as the endpoint is judged, or packets have the identity, its row is looked up.
                let looked_up = judged && self.peers.matcher.facts(identity).is_some();
                let list = if looked_up { &mut changes.removed } else { &mut changes.unused };
                list.push(key(identity));
            }
        }
    }

    /// Each endpoint gets the policy that it asks for. One that cannot be had leaves it with the one that it has, or closed.
    fn hand_out(&mut self, changes: &mut Changes) {
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            let Some(state) = self.endpoints.get(&id) else { continue };
            let (wanted, has) = (state.wanted, state.has);
            let good = |number: u32| self.policies.get(&number).is_some_and(|policy| policy.good);
            let gets = if wanted == 0 || good(wanted) {
                wanted
            } else if good(has) {
                has
            } else {
                self.closed(changes)
            };
            if gets != has {
                self.numbers.retain(gets);
                if let Some(policy) = self.policies.get_mut(&gets) {
                    policy.used += 1;
                }
                self.unuse(has);
            }
            let judged = |direction: Direction| {
                self.policies.get(&gets).is_some_and(|p| p.rows[direction as usize].everybody.is_some())
            };
            let (ingress, egress) = (judged(Direction::Ingress), judged(Direction::Egress));
            let Some(state) = self.endpoints.get_mut(&id) else { continue };
            state.has = gets;
            let audit = state.endpoint.audit.unwrap_or(self.config.audit);
            let policy = EndpointPolicy { number: gets, ingress, egress, audit };
            if state.told != Some(policy) {
                state.told = Some(policy);
                changes.endpoints.push((id, policy));
            }
        }
    }

    /// Number of the policy under which nothing passes.
    fn closed(&mut self, changes: &mut Changes) -> u32 {
        let number = self.numbers.acquire(PolicyId::Nothing);
        self.policy_or_new(number);
        if self.policies.get(&number).is_some_and(|policy| !policy.good) {
            self.compile(number, &Stale::All, changes);
        }
        // Whoever uses it holds the number.
        self.numbers.release(number);
        number
    }

    /// Lets go of what nothing needs any more. `touched`: policies that something has changed for.
    fn clean_up(&mut self, touched: BTreeSet<u32>, changes: &mut Changes) {
        for number in touched {
            let is_unused = |policy: &Compiled| policy.wanted == 0 && policy.used == 0;
            if !self.policies.get(&number).is_some_and(is_unused) {
                continue;
            }
            self.set_specs(number, &[]);
            let Some(policy) = self.policies.remove(&number) else { continue };
            for (direction, rows) in Direction::BOTH.into_iter().zip(policy.rows) {
                let all = rows.identities.into_iter().chain(rows.everybody.map(|row| (EVERYBODY, row)));
                for (identity, row) in all {
                    self.tables.release(row);
                    changes.unused.push(RowKey { policy: number, direction, identity });
                }
            }
        }
        self.release_retired();
        self.release_nodes();
        for identity in std::mem::take(&mut self.pending.gone) {
            for (number, policy) in &mut self.policies {
                for direction in Direction::BOTH {
                    let rows = &mut policy.rows[direction as usize].identities;
                    if let Ok(at) = rows.binary_search_by_key(&identity, |(own, _)| *own) {
                        let (_, row) = rows.remove(at);
                        self.tables.release(row);
                        changes.unused.push(RowKey { policy: *number, direction, identity });
                    }
                }
            }
        }
        self.pending.policies.clear();
        changes.prefixes_removed = self.prefixes.sweep().removed.into_iter().map(prefix).collect();
        let removed = self.tables.sweep();
        (changes.blocks_removed, changes.sets_removed) = (removed.blocks, removed.sets);
        self.numbers.publish();
        self.numbers.sweep();
    }
}

fn prefix((number, prefix): (u32, Arc<Prefix>)) -> (IpNet, Identity) {
    (prefix.0, Identity(number))
}

/// Rows of a direction after the change.
fn rows_then(found: &Found, rows: &DirectionRows) -> usize {
    let everybody = usize::from(found.everybody.is_some());
    match &found.rows {
        FoundRows::All(new) => new.len() + everybody,
        FoundRows::Some(new) => {
            let had = |identity: &Identity| rows.get(*identity).is_some();
            let more = new.iter().filter(|(identity, row)| row.is_some() && !had(identity)).count();
            let fewer = new.iter().filter(|(identity, row)| row.is_none() && had(identity)).count();
            rows.len() + more - fewer
        }
    }
}

/// Identities whose rows differ, with the row before and after.
fn differences(
    old: &[(Identity, Row)],
    new: &[(Identity, Row)],
) -> Vec<(Identity, Option<Row>, Option<Row>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Vec::new();
    loop {
        let identity = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some((identity, _)), None) | (None, Some((identity, _))) => *identity,
            (Some((a, _)), Some((b, _))) => *a.min(b),
        };
        let before = old.next_if(|(own, _)| *own == identity).map(|(_, row)| *row);
        let after = new.next_if(|(own, _)| *own == identity).map(|(_, row)| *row);
        if before != after {
            found.push((identity, before, after));
        }
    }
}
