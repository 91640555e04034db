//! Rows of policy, in an order in which no packet meets a decision that is neither the old nor the new one:
//!
//! 1. sets of ports, then sets of blocks, whole, before a row names them;
//! 2. CIDRs and nodes that are told apart from now on: first their identities get the rows that hold now for their addresses, then they
//!    come into the ipcache, which changes nothing yet. Those that are not told apart any more get such rows too, so that nothing
//!    changes for them before they leave the ipcache, and in new policies the rows of whom they will be;
//! 3. policy by policy: endpoints that leave it move, then rows of identities, then the row of everybody, then identities to whom
//!    the row of everybody holds now lose their own;
//!    then new identities, to which addresses are about to change, get the rows of whom they are now where a policy is left behind
//!    that somebody still has (`identities.rs`);
//! 4. after this module, what points to them: endpoints that are no longer bound in a direction, CIDRs that leave the ipcache,
//!    endpoints that are bound from now on; and addresses of identities;
//! 5. after the revision was raised, what nobody looks up any more.
//!
//! What cannot be written holds back what rests on it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use agent_policy::{Changes, Direction, EVERYBODY, Families, Policy, Row as Decision, RowKey, Verdict};
use dataplane_abi::Identity;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags};
use ipnet::IpNet;
use zerocopy::IntoBytes as _;

use super::Run;
use super::rows::put_prefix;
use crate::agent::Agent;
use crate::controllers::ipcache;
use crate::controllers::policy::{self, BlockRow, L4Row};
use crate::plan::Plan;
use crate::ports::{MapStore, PortError, Table};
use crate::state::State;
use crate::state::endpoints::{EndpointId, host_net};
use crate::state::host::NODE;
use crate::tracked::{Knowledge, Pass, Tracked};

/// What is not as it shall be yet, so that nothing may point to it.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    /// Policies with rows that are missing.
    policies: BTreeSet<u32>,
    /// Identities with rows that are missing.
    identities: BTreeSet<Identity>,
    /// CIDRs or new nodes are missing in the ipcache, or what holds for those that go is not noted.
    cidrs: bool,
}

impl Unwritten {
    /// Whether an endpoint may have this policy.
    pub(crate) fn allows_policy(&self, number: u32) -> bool {
        !self.policies.contains(&number)
    }

    /// Whether an address may lose this identity. A CIDR that is not told apart any more falls to the one around it,
    /// whose rows must be there before.
    pub(crate) fn allows_loss_of(&self, identity: Identity) -> bool {
        !identity.is_local() || (!self.cidrs && self.policies.is_empty())
    }

    /// Whether an address may be given this identity. CIDRs have been given theirs before.
    pub(crate) fn allows_identity(&self, identity: Identity) -> bool {
        let is_new_node = identity.is_local_node() && self.cidrs;
        !identity.is_local_cidr() && !is_new_node && !self.identities.contains(&identity)
    }
}

/// All rows of a policy.
fn rows_of(number: u32) -> RangeInclusive<RowKey> {
    let first = RowKey { policy: number, direction: Direction::Ingress, identity: EVERYBODY };
    first..=RowKey { policy: number, direction: Direction::Egress, identity: Identity(u32::MAX) }
}

/// As whom the node's policy judges an address; `None`: it does not, as for the node itself, which is reached without a device.
fn judged_as(state: &State, plan: &Plan, address: IpAddr) -> Option<Identity> {
    let own = plan.routers().chain(plan.host_addresses.iter().copied()).any(|own| own == address);
    let mut around = std::iter::successors(Some(host_net(address)), IpNet::supernet);
    let row =
        around.find_map(|net| ipcache::row(state, plan, net)).filter(|_| !own && !address.is_loopback());
    row.map(|(_, entry)| entry.identity)
}

fn put_decision(maps: &mut dyn MapStore, key: &RowKey, decision: &Decision) -> Result<(), PortError> {
    maps.upsert(Table::Policy, policy::key(key).as_bytes(), policy::entry(decision).as_bytes())
}

/// Whether all is written that a row points to.
fn is_whole(
    decision: &Decision,
    engine: &Policy,
    sets: &Tracked<L4Row, Verdict>,
    blocks: Option<&Tracked<BlockRow, Decision>>,
) -> bool {
    let has_set = |number: u32| {
        let all_are_whole = sets.pending() == 0;
        let set = engine.set(number);
        set.is_some_and(|set| {
            all_are_whole || set.0.iter().all(|(prefix, _)| sets.settled(&(number, *prefix)))
        })
    };
    let has_blocks = |number: u32| {
        let found = engine.blocks(number).zip(blocks);
        found.is_some_and(|(all, rows)| all.0.iter().all(|(block, _)| rows.settled(&(number, *block))))
    };
    match decision {
        Decision::All(_) => true,
        Decision::Set(set) => has_set(*set),
        Decision::Blocks { set, blocks } => has_set(*set) && has_blocks(*blocks),
    }
}

impl Agent {
    /// Works out what was heard of identities and policies, and marks what follows.
    pub(super) fn commit_policy(&mut self, run: &Run<'_>) {
        for id in self.state.policy.stop_waiting(run.now) {
            self.mark_endpoint(id);
        }
        let families = Families { v4: self.plan.v4, v6: self.plan.v6 };
        let Some(changes) = self.state.policy.commit(run.now, families, &self.state.nodes) else { return };
        for id in self.state.policy.forget_restored() {
            self.mark_endpoint(id);
        }
        self.want_policy(&changes);
        for prefix in changes.prefixes.iter().chain(&changes.prefixes_removed).map(|(prefix, _)| *prefix) {
            self.dirty.cidrs.insert(prefix);
        }
        for node in changes.nodes.iter().filter_map(|(name, _)| self.state.nodes.get(name)) {
            self.dirty.addresses.extend(&node.internal_ips);
            self.dirty.addresses.extend(node.routers());
        }
        let (state, plan) = (&self.state, &self.plan);
        let of_host = changes.endpoints.iter().any(|(id, _)| *id == NODE);
        let identities: BTreeMap<IpAddr, Option<Identity>> = if state.policy.host.enabled() {
            let servers = state.policy.api_servers();
            servers.iter().map(|server| (server.ip(), judged_as(state, plan, server.ip()))).collect()
        } else {
            BTreeMap::new()
        };
        if self.state.policy.look_for_cuts(|address| identities.get(address).copied().flatten()) || of_host {
            self.dirty.addresses.extend(self.plan.routers().chain(self.plan.host_addresses.iter().copied()));
        }
        for (id, _) in &changes.endpoints {
            if let Ok(id) = EndpointId::try_from(id.0) {
                self.mark_endpoint(id);
            }
        }
    }

    fn want_policy(&mut self, changes: &Changes) {
        let outside = &mut self.outside;
        for (number, set) in &changes.sets {
            for (prefix, verdict) in &set.0 {
                outside.policy_l4.want((*number, *prefix), Some(*verdict));
            }
        }
        for (number, set) in &changes.sets_removed {
            for (prefix, _) in &set.0 {
                outside.policy_l4.want((*number, *prefix), None);
            }
        }
        for (number, blocks) in &changes.blocks {
            for (block, row) in &blocks.0 {
                outside.policy_blocks.want((*number, *block), Some(*row));
            }
        }
        for (number, blocks) in &changes.blocks_removed {
            for (block, _) in &blocks.0 {
                outside.policy_blocks.want((*number, *block), None);
            }
        }
        // What splits off a CIDR is found in the tables themselves, which may be those of an earlier agent.
        for (key, row) in changes.split.iter().chain(&changes.rows).chain(&changes.everybody) {
            outside.policy.want(*key, Some(*row));
        }
        for key in changes.removed.iter().chain(&changes.unused) {
            outside.policy.want(*key, None);
        }
    }

    pub(crate) fn mark_endpoint(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.state.endpoints.get(id) {
            self.dirty.endpoint(id, &endpoint.record.addresses);
        }
    }

    /// Writes what has to be there before endpoints and addresses point to it. Returns what is missing.
    pub(super) fn write_policy(&mut self, run: &mut Run<'_>) -> Unwritten {
        if self.state.policy.engine().is_none() {
            return Unwritten::default();
        }
        let pass = self.outside.policy_l4.write(run.now, Knowledge::Full, |row, verdict| {
            run.maps.upsert(
                Table::PolicyL4,
                policy::l4_key(row).as_bytes(),
                policy::verdict(verdict).as_bytes(),
            )
        });
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::PolicyL4, pass);
        self.write_blocks(run);

        let cidrs = !(self.spare_host(run) && self.write_new_cidrs(run) && self.keep_old_cidrs(run));
        if !cidrs {
            // Of policies that nobody has any more nothing is written.
            let of_all = |number: &u32| {
                let everybody = |direction| RowKey { policy: *number, direction, identity: EVERYBODY };
                Direction::BOTH.iter().any(|d| self.outside.policy.wanted(&everybody(*d)).is_some())
            };
            let mut policies: Vec<u32> = self.outside.policy.open().map(|key| key.policy).collect();
            policies.sort_unstable();
            policies.dedup();
            policies.retain(of_all);
            self.write_policies(run, policies);
        }
        let identities = self.hold_fresh_identities(run);
        let mut unwritten = Unwritten { identities, cidrs, ..Unwritten::default() };
        for key in self.unwritten_rows() {
            unwritten.policies.insert(key.policy);
            unwritten.identities.insert(key.identity);
        }
        unwritten
    }

    /// Rows of policies that are not as they shall be. One that is still to be removed is not missed by anybody.
    fn unwritten_rows(&self) -> impl Iterator<Item = &RowKey> {
        self.outside.policy.open().filter(|key| self.outside.policy.wanted(key).is_some())
    }

    fn write_blocks(&mut self, run: &mut Run<'_>) {
        let Some(engine) = self.state.policy.engine() else { return };
        let sets = &self.outside.policy_l4;
        let pass = self.outside.policy_blocks.write_range(
            run.now,
            Knowledge::Full,
            ..,
            |_, decision| is_whole(decision, engine, sets, None),
            |row, decision| {
                run.maps.upsert(
                    Table::PolicyBlocks,
                    policy::block_key(row).as_bytes(),
                    policy::entry(decision).as_bytes(),
                )
            },
        );
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::PolicyBlocks, pass);
    }

    /// What the node opens is audited before the rows are written that would cut it off. Whether that is so now.
    fn spare_host(&mut self, run: &mut Run<'_>) -> bool {
        let endpoints = &self.outside.endpoints;
        let audits = |entry: &EndpointEntry| entry.flags.contains(EndpointFlags::AUDIT_EGRESS);
        let late: Vec<(IpAddr, EndpointEntry)> = endpoints
            .all_present(..)
            .filter(|(_, entry)| entry.flags.contains(EndpointFlags::HOST) && entry.policy != 0)
            .filter(|(address, entry)| !audits(entry) && endpoints.wanted(address).is_some_and(audits))
            .map(|(address, entry)| (*address, *entry))
            .collect();
        late.into_iter().all(|(address, mut entry)| {
            entry.flags |= EndpointFlags::AUDIT_EGRESS;
            self.set_endpoint_aside(run, address, entry)
        })
    }

    /// CIDRs without a row in the ipcache, and addresses of nodes with an identity that nobody has yet, get theirs, after what
    /// holds now for their addresses has been noted for their identity in every policy. Whether all of them have one now.
    fn write_new_cidrs(&mut self, run: &mut Run<'_>) -> bool {
        let ipcache = &self.outside.ipcache;
        let cidrs = self.state.policy.cidrs();
        let mut fresh: Vec<(IpNet, Identity)> = ipcache
            .open()
            .filter_map(|prefix| Some((*prefix, *cidrs.get(prefix)?)))
            .filter(|(prefix, identity)| {
                ipcache.wanted(prefix).is_some_and(|entry| entry.identity == *identity)
            })
            .collect();
        fresh.extend(self.new_nodes());
        // Those around others first: what holds for an inner one is what holds for the one around it. Of nodes with one identity
        // those first that are there already: the identity begins as what they have been.
        fresh.sort_by_key(|(prefix, identity)| {
            let is_late = identity.is_local_node() && ipcache.present(prefix).is_none();
            (is_late, prefix.prefix_len(), *prefix)
        });
        let mut noted: BTreeSet<Identity> = BTreeSet::new();
        fresh.into_iter().all(|(prefix, identity)| {
            let around = std::iter::successors(Some(prefix), IpNet::supernet)
                .find_map(|net| self.outside.ipcache.present(&net));
            let now_in = around.map_or(EVERYBODY, |entry| entry.identity);
            let is_noted = !noted.insert(identity);
            (is_noted || self.note_what_holds(run, now_in, identity)) && self.write_prefix(run, prefix)
        })
    }

    /// Addresses of nodes that shall have an identity that no address has yet.
    fn new_nodes(&self) -> Vec<(IpNet, Identity)> {
        let ipcache = &self.outside.ipcache;
        let mut fresh: Vec<(IpNet, Identity)> = ipcache
            .open()
            .filter_map(|prefix| Some((*prefix, ipcache.wanted(prefix)?.identity)))
            .filter(|(_, identity)| identity.is_local_node())
            .collect();
        if !fresh.is_empty() {
            let had: BTreeSet<Identity> = ipcache.all_present(..).map(|(_, entry)| entry.identity).collect();
            fresh.retain(|(_, identity)| !had.contains(identity));
        }
        fresh
    }

    /// Identities of CIDRs that are in the ipcache and not told apart any more, with the identity that their addresses will have.
    fn old_cidrs(&self) -> BTreeMap<Identity, Identity> {
        let ipcache = &self.outside.ipcache;
        let goes = |prefix: &IpNet| {
            let identity = ipcache.present(prefix)?.identity;
            let stays = ipcache.wanted(prefix).is_some_and(|entry| entry.identity == identity);
            let mut around = std::iter::successors(Some(*prefix), IpNet::supernet);
            let mut then =
                || around.find_map(|net| ipcache.wanted(&net)).map_or(EVERYBODY, |entry| entry.identity);
            (identity.is_local() && !stays).then(|| (identity, then()))
        };
        ipcache.open().filter_map(goes).collect()
    }

    /// CIDRs that are not told apart any more keep what holds now until they have left the ipcache: the row of everybody, which
    /// holds for some of them, changes before. In policies that are new they have what will hold for them. Whether all of that
    /// is noted.
    fn keep_old_cidrs(&mut self, run: &mut Run<'_>) -> bool {
        self.old_cidrs().into_iter().all(|(identity, then)| {
            self.note_what_holds(run, identity, identity) && self.note_what_will_hold(run, then, identity)
        })
    }

    /// Endpoints that keep a policy and are to be bound by it where they are not yet, and must wait: while rows are there that only
    /// held for who is not bound (of CIDRs that have not left the ipcache, and such as could not be removed), these would decide.
    /// With each the row that it may have until then: all of the new one but that.
    pub(super) fn not_bound_yet(&self) -> BTreeMap<IpAddr, EndpointEntry> {
        let endpoints = &self.outside.endpoints;
        let until_then = |address: &IpAddr| {
            let (is, will) = endpoints.present(address).zip(endpoints.wanted(address))?;
            let binds = EndpointFlags::ENFORCE_INGRESS.0 | EndpointFlags::ENFORCE_EGRESS.0;
            let audits = EndpointFlags::AUDIT_EGRESS.0 | EndpointFlags::AUDIT.0;
            let bound = will.flags.0 & !is.flags.0 & binds;
            let audited = is.flags.0 & !will.flags.0 & audits;
            let flags = EndpointFlags((will.flags.0 & !bound) | audited);
            (is.policy == will.policy && bound | audited != 0)
                .then_some((*address, EndpointEntry { flags, ..*will }))
        };
        let bound: Vec<(IpAddr, EndpointEntry)> = endpoints.open().filter_map(until_then).collect();
        let are_old = !bound.is_empty() && !self.old_cidrs().is_empty();
        let waits = |number: u32| are_old || !self.now_everybodys(number).is_empty();
        bound.into_iter().filter(|(_, entry)| waits(entry.policy)).collect()
    }

    /// Whether an endpoint is still bound by its policy where it shall not be, or has not left it yet: what CIDRs fall to that leave
    /// would decide for it.
    pub(super) fn is_bound_still(&self) -> bool {
        let endpoints = &self.outside.endpoints;
        let binds = EndpointFlags::ENFORCE_INGRESS.0 | EndpointFlags::ENFORCE_EGRESS.0;
        endpoints.open().any(|address| {
            let rows = endpoints.present(address).zip(endpoints.wanted(address));
            rows.is_some_and(|(is, will)| {
                let leaves = is.policy != will.policy;
                is.policy != 0 && (leaves || is.flags.0 & !will.flags.0 & binds != 0)
            })
        })
    }

    fn write_prefix(&mut self, run: &mut Run<'_>, prefix: IpNet) -> bool {
        let pass = self.outside.ipcache.write_range(
            run.now,
            Knowledge::Full,
            prefix..=prefix,
            |_, _| true,
            |prefix, entry| put_prefix(run.maps, prefix, entry),
        );
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Ipcache, pass);
        self.outside.ipcache.settled(&prefix)
    }

    /// Gives an identity the rows that hold now for another one, in every policy.
    fn note_what_holds(&mut self, run: &mut Run<'_>, now_in: Identity, identity: Identity) -> bool {
        let rows = &self.outside.policy;
        let everybody = |key: &RowKey| RowKey { identity: EVERYBODY, ..*key };
        // From one policy and direction to the next, over all rows in between.
        let next = |last: &RowKey| {
            let end = RowKey { identity: Identity(u32::MAX), ..*last };
            rows.all_present((Bound::Excluded(end), Bound::Unbounded)).next().map(|(key, _)| everybody(key))
        };
        let first = rows.all_present(..).next().map(|(key, _)| everybody(key));
        let notes: Vec<(RowKey, Option<Decision>)> = std::iter::successors(first, next)
            .map(|everybody| {
                let own = rows.present(&RowKey { identity: now_in, ..everybody });
                (RowKey { identity, ..everybody }, own.or_else(|| rows.present(&everybody)).copied())
            })
            .collect();
        self.set_rows_aside(run, notes)
    }

    /// Makes rows something else than they shall be, until the next pass or their removal. Whether all of it succeeded.
    pub(super) fn set_rows_aside(
        &mut self,
        run: &mut Run<'_>,
        rows: Vec<(RowKey, Option<Decision>)>,
    ) -> bool {
        let mut pass = Pass::default();
        let done = rows.into_iter().all(|(key, decision)| {
            let act = |key: &RowKey, decision: Option<&Decision>| match decision {
                Some(decision) => put_decision(run.maps, key, decision),
                None => run.maps.delete(Table::Policy, policy::key(key).as_bytes()),
            };
            self.outside.policy.set_aside(run.now, key, decision, act, &mut pass)
        });
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Policy, pass);
        done
    }

    /// Gives an identity the rows that another one shall have, in every policy of which nothing is there yet.
    fn note_what_will_hold(&mut self, run: &mut Run<'_>, then: Identity, identity: Identity) -> bool {
        let Some(engine) = self.state.policy.engine() else { return true };
        let rows = &self.outside.policy;
        let (sets, blocks) = (&self.outside.policy_l4, &self.outside.policy_blocks);
        let is_new = |key: &&RowKey| key.identity == EVERYBODY && rows.present(key).is_none();
        let notes: Vec<(RowKey, Option<Decision>)> = rows
            .open()
            .filter(is_new)
            .filter_map(|everybody| {
                let whole = rows.wanted(everybody)?;
                let decision = rows.wanted(&RowKey { identity: then, ..*everybody }).unwrap_or(whole);
                Some((RowKey { identity, ..*everybody }, Some(*decision)))
            })
            .collect();
        let mut decisions = notes.iter().filter_map(|(_, decision)| decision.as_ref());
        if !decisions.all(|decision| is_whole(decision, engine, sets, Some(blocks))) {
            return false;
        }
        self.set_rows_aside(run, notes)
    }

    /// Policies with rows to write. Where endpoints leave one for another, that one is written first, and they move before the rows
    /// change that they leave: what they leave may be for others what neither their old nor their new policy is. While they cannot
    /// move, the rows wait too. Only in a circle somebody sees the rows change first.
    fn write_policies(&mut self, run: &mut Run<'_>, mut policies: Vec<u32>) {
        let mut moves: BTreeMap<u32, Vec<(IpAddr, u32)>> = BTreeMap::new();
        let endpoints = &self.outside.endpoints;
        for address in endpoints.open() {
            let (Some(is), Some(will)) = (endpoints.present(address), endpoints.wanted(address)) else {
                continue;
            };
            // An end of auditing has to wait for other things.
            if is.policy != will.policy && !is.flags.contains(EndpointFlags::HOST) {
                moves.entry(is.policy).or_default().push((*address, will.policy));
            }
        }
        let (mut begun, mut written) = (BTreeSet::new(), BTreeSet::new());
        policies.reverse();
        while let Some(number) = policies.pop() {
            let away = moves.get(&number).map(Vec::as_slice).unwrap_or_default();
            if begun.insert(number) && !away.is_empty() {
                policies.push(number);
                policies.extend(away.iter().map(|(_, to)| *to).filter(|to| !begun.contains(to)));
                continue;
            }
            // One that was held back stays so, however often it is asked for.
            if !written.insert(number) {
                continue;
            }
            let mut is_left = true;
            for (address, to) in moves.remove(&number).unwrap_or_default() {
                if self.misses_rows(to, true) {
                    is_left &= !written.contains(&to);
                } else {
                    is_left &= self.move_endpoint(run, address);
                }
            }
            if is_left {
                self.write_one_policy(run, number);
            }
        }
    }

    /// Gives an endpoint its policy; another identity, for which others have to be ready, comes later. Whether it has it.
    fn move_endpoint(&mut self, run: &mut Run<'_>, address: IpAddr) -> bool {
        let endpoints = &self.outside.endpoints;
        let Some((is, will)) = endpoints.present(&address).zip(endpoints.wanted(&address)) else {
            return true;
        };
        if is.policy == will.policy || !endpoints.is_due(&address) {
            return is.policy == will.policy;
        }
        let entry = EndpointEntry { identity: is.identity, ..*will };
        self.set_endpoint_aside(run, address, entry)
    }

    fn write_one_policy(&mut self, run: &mut Run<'_>, number: u32) {
        self.write_rows_of_policy(run, number, |key| key.identity != EVERYBODY);
        if self.misses_rows(number, false) {
            return;
        }
        self.write_rows_of_policy(run, number, |_| true);
        if self.misses_rows(number, true) {
            return;
        }
        let now_everybodys = self.now_everybodys(number);
        self.remove_rows_of_policy(run, rows_of(number), |key| now_everybodys.contains(key));
    }

    /// Rows that are to be removed while packets may still have the identity: the row of everybody holds for them now.
    fn now_everybodys(&self, number: u32) -> BTreeSet<RowKey> {
        let Some(engine) = self.state.policy.engine() else { return BTreeSet::new() };
        let policy = &self.outside.policy;
        let judged = |key: &RowKey| policy.wanted(&RowKey { identity: EVERYBODY, ..*key }).is_some();
        policy
            .open_range(rows_of(number))
            .filter(|key| policy.wanted(key).is_none())
            .filter(|key| judged(key) && engine.labels(key.identity).is_some())
            .copied()
            .collect()
    }

    /// Whether a policy has rows that are not written yet: those of identities, or those of everybody too.
    fn misses_rows(&self, number: u32, everybody_too: bool) -> bool {
        let policy = &self.outside.policy;
        let mut open = policy.open_range(rows_of(number));
        open.any(|key| (everybody_too || key.identity != EVERYBODY) && policy.wanted(key).is_some())
    }

    fn write_rows_of_policy(&mut self, run: &mut Run<'_>, number: u32, which: impl Fn(&RowKey) -> bool) {
        let Some(engine) = self.state.policy.engine() else { return };
        let (sets, blocks) = (&self.outside.policy_l4, &self.outside.policy_blocks);
        let pass = self.outside.policy.write_range(
            run.now,
            Knowledge::Full,
            rows_of(number),
            |key, decision| which(key) && is_whole(decision, engine, sets, Some(blocks)),
            |key, decision| put_decision(run.maps, key, decision),
        );
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Policy, pass);
    }

    fn remove_rows_of_policy(
        &mut self,
        run: &mut Run<'_>,
        range: impl RangeBounds<RowKey>,
        which: impl Fn(&RowKey) -> bool,
    ) {
        let pass = self.outside.policy.remove_range(
            run.now,
            Knowledge::Full,
            range,
            |key, _| which(key),
            |key, _| run.maps.delete(Table::Policy, policy::key(key).as_bytes()),
        );
        self.outside.moved |= pass.done > 0;
        run.removed(Table::Policy, pass);
    }

    /// Removes what nobody looks up any more: nothing that is in the tables points to it.
    pub(super) fn remove_policy(&mut self, run: &mut Run<'_>) {
        let settled = self.outside.endpoints.pending() == 0
            && self.outside.ipcache.pending() == 0
            && self.failures.config.is_none()
            && self.state.nodes.synced();
        if self.state.policy.engine().is_none() || !settled {
            return;
        }
        let (moved, before) = (self.outside.moved, self.rows_digest());
        // Where rows are missing, those that nobody asks for may be what holds until they are there.
        let missing: BTreeSet<u32> = self.unwritten_rows().map(|key| key.policy).collect();
        self.remove_rows_of_policy(run, .., |key| !missing.contains(&key.policy));
        if self.outside.policy.pending() == 0 {
            let pass = self.outside.policy_blocks.remove(run.now, Knowledge::Full, |row, _| {
                run.maps.delete(Table::PolicyBlocks, policy::block_key(row).as_bytes())
            });
            run.removed(Table::PolicyBlocks, pass);
        }
        if self.outside.policy.pending() == 0 && self.outside.policy_blocks.pending() == 0 {
            let pass = self.outside.policy_l4.remove(run.now, Knowledge::Full, |row, _| {
                run.maps.delete(Table::PolicyL4, policy::l4_key(row).as_bytes())
            });
            run.removed(Table::PolicyL4, pass);
            if self.outside.policy_l4.pending() == 0 {
                self.state.policy.settle();
            }
        }
        self.outside.moved = moved;
        self.note_removed(run, before);
    }
}
