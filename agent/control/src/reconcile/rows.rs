//! Rows, programs and routes: computed for what is marked, written and removed in order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane_abi::config::{ConfigFlags, NodeConfig};
use dataplane_abi::endpoints::EndpointEntry;
use dataplane_abi::ipcache::IpCacheEntry;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::IntoBytes as _;

use super::policy::Unwritten;
use super::{Run, due};
use crate::agent::Agent;
use crate::controllers::{config, endpoints, ipcache, programs, routes};
use crate::ports::{MapStore, PortError, Table};
use crate::state::endpoints::{EndpointId, host_net};
use crate::tracked::{Knowledge, Pass};

/// Index of the only row of `CONFIG`.
const CONFIG_KEY: u32 = 0;

/// Writes a row of `IPCACHE`.
pub(super) fn put_prefix(
    maps: &mut dyn MapStore,
    prefix: &IpNet,
    entry: &IpCacheEntry,
) -> Result<(), PortError> {
    maps.upsert(Table::Ipcache, ipcache::key(prefix).as_bytes(), entry.as_bytes())
}

/// Writes a row of `ENDPOINTS`.
pub(super) fn put_endpoint(
    maps: &mut dyn MapStore,
    address: IpAddr,
    entry: &EndpointEntry,
) -> Result<(), PortError> {
    maps.upsert(Table::Endpoints, endpoints::key(address).as_bytes(), entry.as_bytes())
}

impl Agent {
    /// Computes again what is marked; returns how many things that were.
    pub(super) fn recompute(&mut self) -> usize {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut prefixes: BTreeSet<IpNet> = BTreeSet::new();
        if dirty.all {
            let state = &self.state;
            dirty.addresses.extend(self.outside.endpoints.all_wanted().map(|(address, _)| address));
            dirty.addresses.extend(self.plan.routers().chain(self.plan.host_addresses.iter().copied()));
            dirty.addresses.extend(state.ipam.used().map(|(address, _)| *address));
            for (_, node) in state.nodes.iter() {
                dirty.addresses.extend(&node.internal_ips);
                dirty.addresses.extend(node.routers());
                dirty.cidrs.extend(&node.pod_cidrs);
            }
            dirty.addresses.extend(state.policy.addresses());
            prefixes.extend(state.policy.cidrs().keys());
            dirty.endpoints.extend(state.endpoints.iter().map(|endpoint| endpoint.record.id));
            prefixes.extend(self.outside.ipcache.all_wanted().map(|(prefix, _)| prefix));
            prefixes.extend(self.outside.routes.all_wanted().map(|(prefix, _)| prefix));
            prefixes.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
            self.recompute_base_programs();
        }
        let mut computed = 0;
        for address in &dirty.addresses {
            self.recompute_address(*address);
            computed += 1;
        }
        prefixes.extend(dirty.cidrs);
        for prefix in prefixes {
            let firm = false;
            self.recompute_prefix(prefix, firm);
            computed += 1;
        }
        for id in dirty.endpoints {
            self.recompute_programs(id);
            computed += 1;
        }
        computed
    }

    fn recompute_address(&mut self, address: IpAddr) {
        let row = endpoints::row(&self.state, &self.plan, address);
        // Whose a local address is does not depend on what the API server has still to say.
        if self.state.ipam.owner(&address).is_some() {
            self.outside.endpoints.want_firmly(address, row);
        } else {
            self.outside.endpoints.want(address, row);
        }
        self.recompute_prefix(host_net(address), self.state.ipam.owner(&address).is_some());
    }

    fn recompute_prefix(&mut self, prefix: IpNet, firm: bool) {
        let row = ipcache::row(&self.state, &self.plan, prefix).map(|(_, row)| row);
        let route = routes::row(&self.state, &self.plan, prefix);
        if firm {
            self.outside.ipcache.want_firmly(prefix, row);
            self.outside.routes.want_firmly(prefix, route);
        } else {
            self.outside.ipcache.want(prefix, row);
            self.outside.routes.want(prefix, route);
        }
    }

    fn recompute_base_programs(&mut self) {
        let wanted = programs::base(&self.plan);
        let of_pods = |link: &str| link.starts_with(crate::ports::POD_LINK_PREFIX);
        let unwanted: Vec<_> = self
            .outside
            .programs
            .all_wanted()
            .map(|(key, _)| key)
            .filter(|key| !of_pods(&key.0) && !wanted.iter().any(|(wanted, _)| wanted == *key))
            .cloned()
            .collect();
        for key in unwanted {
            self.outside.programs.want(key, None);
        }
        for (key, ifindex) in wanted {
            self.outside.programs.want(key, Some(ifindex));
        }
    }

    fn recompute_programs(&mut self, id: EndpointId) {
        let Some(endpoint) = self.state.endpoints.get(id) else { return };
        let ifindex = programs::of_endpoint(endpoint);
        for program in programs::OF_POD {
            self.outside.programs.want((endpoint.record.host_name.clone(), program), ifindex);
        }
    }

    fn write_endpoints(&mut self, run: &mut Run<'_>, knowledge: Knowledge, unwritten: &Unwritten) {
        let not_bound_yet = self.not_bound_yet();
        let may_be = |entry: &EndpointEntry| {
            unwritten.allows_policy(entry.policy) && unwritten.allows_identity(entry.identity)
        };
        let pass = self.outside.endpoints.write_some(
            run.now,
            knowledge,
            |address, entry| may_be(entry) && !not_bound_yet.contains_key(address),
            |address, entry| put_endpoint(run.maps, *address, entry),
        );
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Endpoints, pass);
        for (address, entry) in not_bound_yet.into_iter().filter(|(_, entry)| may_be(entry)) {
            self.set_endpoint_aside(run, address, entry);
        }
    }

    /// Makes an endpoint something else than it shall be, until the next pass. Whether it is that.
    pub(super) fn set_endpoint_aside(
        &mut self,
        run: &mut Run<'_>,
        address: IpAddr,
        entry: EndpointEntry,
    ) -> bool {
        let mut pass = Pass::default();
        let act = |address: &IpAddr, entry: Option<&EndpointEntry>| match entry {
            Some(entry) => put_endpoint(run.maps, *address, entry),
            None => Ok(()),
        };
        let done = self.outside.endpoints.set_aside(run.now, address, Some(entry), act, &mut pass);
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Endpoints, pass);
        done
    }

    pub(super) fn write_rows(&mut self, run: &mut Run<'_>, knowledge: Knowledge, unwritten: &Unwritten) {
        self.write_endpoints(run, knowledge, unwritten);
        let pass = self.outside.ipcache.write_some(
            run.now,
            knowledge,
            |_, entry| unwritten.allows_identity(entry.identity),
            |prefix, entry| put_prefix(run.maps, prefix, entry),
        );
        self.outside.moved |= pass.done > 0;
        run.wrote(Table::Ipcache, pass);
    }

    pub(super) fn remove_rows(&mut self, run: &mut Run<'_>, knowledge: Knowledge, unwritten: &Unwritten) {
        let pass = self
            .outside
            .programs
            .remove(run.now, knowledge, |(link, program), ifindex| run.node.detach(link, *ifindex, *program));
        run.changed(pass);
        // Links that could not be made yet ask for no route; what an earlier agent made goes on, and so do its routes.
        if self.plan.base.is_some() || self.failures.base.is_none() {
            let pass =
                self.outside.routes.remove(run.now, knowledge, |_, route| run.node.delete_route(route));
            run.changed(pass);
        }
        let is_bound_still = self.is_bound_still();
        let pass = self.outside.ipcache.remove_some(
            run.now,
            knowledge,
            |_, entry| {
                unwritten.allows_loss_of(entry.identity) && !(is_bound_still && entry.identity.is_local())
            },
            |prefix, _| run.maps.delete(Table::Ipcache, ipcache::key(prefix).as_bytes()),
        );
        self.outside.moved |= pass.done > 0;
        run.removed(Table::Ipcache, pass);
        // Those that had to wait for that.
        self.write_endpoints(run, knowledge, unwritten);
        let pass = self.outside.endpoints.remove(run.now, knowledge, |address, _| {
            run.maps.delete(Table::Endpoints, endpoints::key(*address).as_bytes())
        });
        self.outside.moved |= pass.done > 0;
        run.removed(Table::Endpoints, pass);
        if knowledge == Knowledge::Full {
            for (table, key) in std::mem::take(&mut self.outside.garbage) {
                match run.maps.delete(table, &key) {
                    Ok(()) => *run.report.rows_removed.entry(table).or_default() += 1,
                    Err(error) => {
                        run.report.errors.push(error);
                        self.outside.garbage.insert((table, key));
                    }
                }
            }
        }
    }

    /// Writes where pods keep their address, before any is masqueraded. It follows from the configuration alone and waits for nothing.
    pub(super) fn write_no_masquerade(&mut self, run: &mut Run<'_>) {
        let pass = self.outside.no_masquerade.write(run.now, Knowledge::Full, |prefix, entry| {
            run.maps.upsert(Table::NoMasquerade, ipcache::key(prefix).as_bytes(), entry.as_bytes())
        });
        run.wrote(Table::NoMasquerade, pass);
    }

    /// Removes what an earlier agent was told otherwise.
    pub(super) fn remove_no_masquerade(&mut self, run: &mut Run<'_>) {
        let pass = self.outside.no_masquerade.remove(run.now, Knowledge::Full, |prefix, _| {
            run.maps.delete(Table::NoMasquerade, ipcache::key(prefix).as_bytes())
        });
        run.removed(Table::NoMasquerade, pass);
    }

    /// Writes `CONFIG` if it or any row has changed.
    pub(super) fn write_config(&mut self, run: &mut Run<'_>) {
        let Some(wanted) = self.wanted_config(run) else { return };
        let digest = self.rows_digest();
        let Some(next) = config::next(self.outside.config.as_ref(), wanted, digest, self.outside.moved)
        else {
            self.failures.config = None;
            return;
        };
        let result = run.maps.upsert(Table::Config, CONFIG_KEY.as_bytes(), next.as_bytes());
        let mut slot = self.failures.config.take();
        if run.note(&mut slot, result) {
            self.outside.config = Some(next);
            self.outside.moved = false;
            *run.report.rows_written.entry(Table::Config).or_default() += 1;
        }
        self.failures.config = slot;
    }

    /// The digest of all rows that programs look up.
    pub(super) fn rows_digest(&self) -> u64 {
        let outside = &self.outside;
        let digests = [
            outside.endpoints.digest(),
            outside.ipcache.digest(),
            outside.policy.digest(),
            outside.policy_blocks.digest(),
        ];
        digests.into_iter().fold(outside.policy_l4.digest(), u64::wrapping_add)
    }

    /// Rows went that nobody looked up any more: known connections need not look again, so the revision stays.
    /// `before`: the digest with these rows. If this is not noted, the next write of `CONFIG` raises the revision in vain.
    pub(super) fn note_removed(&mut self, run: &mut Run<'_>, before: u64) {
        let rows_digest = self.rows_digest().to_le_bytes();
        let Some(config) = self.outside.config else { return };
        if self.outside.moved
            || config.rows_digest != before.to_le_bytes()
            || config.rows_digest == rows_digest
        {
            return;
        }
        let next = NodeConfig { rows_digest, ..config };
        match run.maps.upsert(Table::Config, CONFIG_KEY.as_bytes(), next.as_bytes()) {
            Ok(()) => {
                self.outside.config = Some(next);
                *run.report.rows_written.entry(Table::Config).or_default() += 1;
            }
            Err(error) => run.report.errors.push(error),
        }
    }

    fn wanted_config(&mut self, run: &mut Run<'_>) -> Option<NodeConfig> {
        self.plan.base?;
        if self.outside.clock.is_none() {
            if !due(self.failures.config.as_ref(), run.now) {
                return None;
            }
            match run.maps.ct_clock() {
                Ok(clock) => self.outside.clock = Some(clock),
                Err(error) => {
                    let mut slot = self.failures.config.take();
                    run.note(&mut slot, Err(error));
                    self.failures.config = slot;
                    return None;
                }
            }
        }
        let ticks_per_s = self.outside.clock?.ticks_per_s;
        let mut row = config::row(&self.config, &self.plan, self.state.listeners, ticks_per_s)?;
        // Nobody is masqueraded before it is known to the programs where not.
        let masquerade = ConfigFlags::MASQUERADE_V4 | ConfigFlags::MASQUERADE_V6;
        if self.outside.no_masquerade.pending() > 0 {
            let before = self.outside.config.map_or(ConfigFlags(0), |config| config.flags);
            row.flags &= before | !masquerade;
        }
        Some(row)
    }

    /// Once for each set of base programs: what an earlier agent attached is not known, so it is looked for, and taken off the
    /// underlay device unseen.
    fn detach_leftovers(&mut self, run: &mut Run<'_>) {
        let base = programs::base(&self.plan);
        let clean = self.outside.clean_base.as_ref() == Some(&base);
        if base.is_empty() || clean || !due(self.failures.leftovers.as_ref(), run.now) {
            return;
        }
        let mut slot = self.failures.leftovers.take();
        let result = run.node.list_programs().and_then(|attached| {
            programs::leftovers(&self.plan, attached)
                .iter()
                .try_for_each(|(link, ifindex, program)| run.node.detach(link, *ifindex, *program))
        });
        if run.note(&mut slot, result) {
            self.outside.clean_base = Some(base);
        }
        self.failures.leftovers = slot;
    }

    pub(super) fn attach_and_route(&mut self, run: &mut Run<'_>, knowledge: Knowledge) {
        if self.outside.config.is_some() {
            self.detach_leftovers(run);
            // Nothing is known to be attached at start, so every program is put in place once by every agent.
            let pass = self.outside.programs.write(run.now, Knowledge::Full, |(link, program), ifindex| {
                run.node.attach(link, *ifindex, *program)
            });
            run.changed(pass);
        }
        let pass = self.outside.routes.write(run.now, knowledge, |_, route| run.node.replace_route(route));
        run.changed(pass);
    }
}
