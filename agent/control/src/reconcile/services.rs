//! Rows of services, in an order in which each call finds a backend that is right, whenever it looks:
//!
//! 1. backends, before slots name them;
//! 2. slots, each of which names a backend that takes connections before and after;
//! 3. frontends, whose count covers slots that are written; new ones first, for one that stands for all nodes may lose what a
//!    node has from now on for itself; of these that of each node before that for all of them, which may be one without backends;
//! 4. what is not covered any more: frontends of services that are gone, then slots above the count;
//! 5. backends that no slot names.
//!
//! The programs that read them are put in place when the agent starts: without rows every call goes on as it is. An agent that shall not
//! look at services takes them off before it removes the rows that an earlier one has left.
//!
//! Nothing is touched before all services, slices and nodes have been heard of once: what an earlier agent has written goes on.
//! What cannot be written holds back what rests on it, and nothing else.

use std::collections::BTreeSet;

use dataplane_abi::Addr;
use dataplane_abi::services::{ServiceEntry, ServiceKey};
use zerocopy::IntoBytes as _;

use super::{Run, due};
use crate::agent::Agent;
use crate::ports::Table;
use crate::tracked::Knowledge;

impl Agent {
    /// Works out what was heard of services.
    pub(super) fn commit_services(&mut self) {
        let known = self.state.policy.services_synced() && self.state.nodes.synced();
        if self.state.frontends.enabled() && !known {
            return;
        }
        let mut touched = self.state.policy.take_touched_services();
        touched.extend(self.state.frontends.locate(&self.state.nodes, &self.plan.host_addresses));
        let zone = self.state.nodes.own().and_then(|own| own.labels.get(ZONE)).map(String::as_str);
        let changes = self.state.frontends.commit(self.state.policy.services(), touched, zone);
        for (number, entry) in changes.backends {
            self.outside.backends.want(number, entry);
        }
        for (key, entry) in changes.services {
            self.outside.services.want(key, entry);
        }
    }

    /// Makes the tables of services equal to what is wanted.
    pub(super) fn write_services(&mut self, run: &mut Run<'_>) {
        self.place_sockets(run);
        // Nobody may look at rows that go because services are not looked at any more.
        let is_read = !self.state.frontends.enabled() && !self.outside.sockets;
        if !self.state.frontends.may_write() || is_read {
            return;
        }
        let pending = |agent: &Self| agent.outside.services.pending() + agent.outside.backends.pending();
        if pending(self) > 0 {
            self.write_backends(run);
            self.write_slots(run);
            self.write_frontends(run);
            self.remove_frontends(run);
            self.remove_backends(run);
        }
        if pending(self) == 0 {
            self.state.frontends.settle();
        }
    }

    /// Puts the programs in place or takes them off, once.
    fn place_sockets(&mut self, run: &mut Run<'_>) {
        if self.outside.sockets || !due(self.failures.sockets.as_ref(), run.now) {
            return;
        }
        let result =
            run.node.set_sockets(self.state.frontends.enabled() && self.config.service_translation.sockets());
        let mut slot = self.failures.sockets.take();
        self.outside.sockets = run.note(&mut slot, result);
        self.failures.sockets = slot;
    }

    fn write_backends(&mut self, run: &mut Run<'_>) {
        let pass = self.outside.backends.write(run.now, Knowledge::Full, |number, entry| {
            run.maps.upsert(Table::Backends, number.as_bytes(), entry.as_bytes())
        });
        run.wrote(Table::Backends, pass);
    }

    fn write_slots(&mut self, run: &mut Run<'_>) {
        let (services, backends) = (&mut self.outside.services, &self.outside.backends);
        let is_whole =
            |key: &ServiceKey, slot: &ServiceEntry| key.slot != 0 && backends.settled(&slot.backend);
        let pass = services.write_some(run.now, Knowledge::Full, is_whole, |key, entry| {
            run.maps.upsert(Table::Services, key.as_bytes(), entry.as_bytes())
        });
        run.wrote(Table::Services, pass);
    }

    fn write_frontends(&mut self, run: &mut Run<'_>) {
        let services = &self.outside.services;
        let is_whole = |key: &ServiceKey| {
            let count = services.wanted(key).map_or(0, |frontend| frontend.count);
            (1..=count).all(|slot| services.settled(&key.slot(slot)))
        };
        let whole = services.open().filter(|key| key.slot == 0 && is_whole(key)).copied();
        let (known, new): (BTreeSet<ServiceKey>, BTreeSet<ServiceKey>) =
            whole.partition(|key| services.present(key).is_some());
        let (for_all_nodes, new) = new.into_iter().partition(|key| key.addr == Addr::ZERO);
        for some in [new, for_all_nodes, known] {
            let pass = self.outside.services.write_some(
                run.now,
                Knowledge::Full,
                |key, _| some.contains(key),
                |key, entry| run.maps.upsert(Table::Services, key.as_bytes(), entry.as_bytes()),
            );
            run.wrote(Table::Services, pass);
        }
    }

    fn remove_frontends(&mut self, run: &mut Run<'_>) {
        let pass = self.outside.services.remove_some(
            run.now,
            Knowledge::Full,
            |key, _| key.slot == 0,
            |key, _| run.maps.delete(Table::Services, key.as_bytes()),
        );
        run.removed(Table::Services, pass);
        let services = &self.outside.services;
        let is_covered =
            |key: &ServiceKey| services.present(&key.slot(0)).is_some_and(|front| front.count >= key.slot);
        let free: BTreeSet<ServiceKey> =
            services.open().filter(|key| key.slot != 0 && !is_covered(key)).copied().collect();
        let pass = self.outside.services.remove_some(
            run.now,
            Knowledge::Full,
            |key, _| free.contains(key),
            |key, _| run.maps.delete(Table::Services, key.as_bytes()),
        );
        run.removed(Table::Services, pass);
    }

    fn remove_backends(&mut self, run: &mut Run<'_>) {
        // Only where a row of `SERVICES` could not be written or removed is one of them still named.
        let services = &self.outside.services;
        let named: BTreeSet<u32> = if services.pending() == 0 {
            BTreeSet::new()
        } else {
            services.all_present(..).map(|(_, entry)| entry.backend).collect()
        };
        let pass = self.outside.backends.remove_some(
            run.now,
            Knowledge::Full,
            |number, _| !named.contains(number),
            |number, _| run.maps.delete(Table::Backends, number.as_bytes()),
        );
        run.removed(Table::Backends, pass);
    }
}

/// Label of a node with the zone that it is in.
const ZONE: &str = "topology.kubernetes.io/zone";
