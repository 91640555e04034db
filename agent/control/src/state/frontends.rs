//! What is offered under the addresses of services: from objects to the rows that `SERVICES` and `BACKENDS` shall have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::services::{ServiceEntry, ServiceKey};

use super::nodes::Nodes;
use super::numbers::Numbers;
use super::services::Services;
use crate::controllers::services::{self, BackendName, Frontend, Offer, Place, PortName, Reach};
use crate::few::{Few, FewMap};
use crate::finding::Finding;
use crate::objects::ObjectName;

/// Rows that shall be, or shall not be any more (`None`). What goes comes first: another service may have taken its place.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) services: Vec<(ServiceKey, Option<ServiceEntry>)>,
    pub(crate) backends: Vec<(u32, Option<BackendEntry>)>,
}

/// Who wants to be reached under a frontend. Addresses are given out once, so of two the later service has it: the other is gone,
/// and the news of it is under way.
type Claim = (Box<str>, Arc<ObjectName>);

/// A number is no further than this from its name's hash: so many names never hash alike.
const NEAR: u32 = 64;

/// What one service has.
#[derive(Debug, Default)]
struct Held {
    created: Box<str>,
    offers: Box<[Offer]>,
    rows: FewMap<ServiceKey, ServiceEntry>,
    backends: FewMap<u32, BackendEntry>,
    ports: Few<PortName>,
}

impl Held {
    fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.offers.iter().flat_map(|offer| offer.frontends.keys())
    }

    /// Whether addresses of nodes are among its frontends, or would be if they were known.
    fn is_bound_to_nodes(&self) -> bool {
        self.offers.iter().any(|offer| offer.name.reach == Reach::Nobody)
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Frontends {
    /// Whether services are looked at.
    enabled: bool,
    /// All services and slices have been heard of once, and what follows from them is known.
    started: bool,
    place: Place,
    /// Nodes have other addresses than in `place`, or may have.
    nodes_moved: bool,
    ports: Numbers<PortName>,
    backends: Numbers<BackendName>,
    held: BTreeMap<Arc<ObjectName>, Held>,
    /// Services that are different at each node.
    bound: BTreeSet<Arc<ObjectName>>,
    claims: BTreeMap<Frontend, Few<Claim>>,
    /// Numbers of frontends that rows of an earlier agent have.
    restored: BTreeMap<Frontend, u32>,
}

impl Frontends {
    /// Nothing known. Not `enabled`: nothing will be, and what an earlier agent left goes.
    pub(crate) fn new(enabled: bool, node: &str) -> Self {
        Self {
            enabled,
            started: false,
            place: Place { node: node.to_owned(), ..Place::default() },
            nodes_moved: true,
            ports: Numbers::new(),
            backends: Numbers::new(),
            held: BTreeMap::new(),
            bound: BTreeSet::new(),
            claims: BTreeMap::new(),
            restored: BTreeMap::new(),
        }
    }

    /// Whether services are looked at.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether rows may be touched. Before all has been heard once, what is in the tables stays as it is.
    pub(crate) fn may_write(&self) -> bool {
        self.started || !self.enabled
    }

    /// What the rows of an earlier agent say of numbers.
    pub(crate) fn restore(&mut self, rows: &[(ServiceKey, ServiceEntry)], backends: &[(u32, BackendEntry)]) {
        for (key, entry) in rows {
            self.ports.found(entry.service, None);
            // Of a frontend that was half written slots alone may be there.
            match Frontend::of(key) {
                Some(frontend) if key.slot == 0 => drop(self.restored.insert(frontend, entry.service)),
                Some(frontend) => drop(self.restored.entry(frontend).or_insert(entry.service)),
                None => {}
            }
        }
        for (number, entry) in backends {
            self.backends.found(*number, BackendName::of(entry));
        }
    }

    /// Nodes have come, gone, or changed.
    pub(crate) fn nodes_moved(&mut self) {
        self.nodes_moved = true;
    }

    /// Takes over the addresses of nodes; `own` are this one's.
    pub(crate) fn locate(&mut self, nodes: &Nodes, own: &BTreeSet<IpAddr>) -> BTreeSet<Arc<ObjectName>> {
        let is_known = self.place.addresses.get(self.place.node.as_str()) == Some(own);
        if !self.enabled || (is_known && !self.nodes_moved) {
            return BTreeSet::new();
        }
        self.nodes_moved = false;
        let others = nodes.iter().filter(|(name, _)| **name != self.place.node);
        let others = others.map(|(name, node)| {
            (name.as_str().into(), node.internal_ips.iter().copied().collect::<BTreeSet<_>>())
        });
        let addresses = others.chain([(self.place.node.as_str().into(), own.clone())]).collect();
        if self.place.addresses == addresses {
            return BTreeSet::new();
        }
        self.place.addresses = addresses;
        self.bound.clone()
    }

    /// Works out what follows from services and slices of which something was heard.
    pub(crate) fn commit(
        &mut self,
        services: &Services,
        mut touched: BTreeSet<Arc<ObjectName>>,
        zone: Option<&str>,
    ) -> Changes {
        if !self.enabled {
            return Changes::default();
        }
        if !self.started || self.place.zone.as_deref() != zone {
            self.place.zone = zone.map(str::to_owned);
            touched.extend(services.names().cloned());
            self.started = true;
        }
        let mut moved = BTreeSet::new();
        for name in &touched {
            moved.extend(self.hear(services, name));
        }
        // Who else wants one of these frontends may have it now, or have it no more.
        for frontend in &moved {
            touched.extend(self.claims.get(frontend).into_iter().flatten().map(|(_, name)| Arc::clone(name)));
        }
        for name in &touched {
            self.take_restored(name);
        }
        let mut changes = Changes::default();
        let mut wanted = Changes::default();
        for name in touched {
            self.recompute(&name, &mut changes, &mut wanted);
        }
        changes.services.extend(wanted.services);
        changes.backends.extend(wanted.backends);
        changes
    }

    /// Takes note of what a service offers now. Frontends that are claimed differently from before.
    fn hear(&mut self, services: &Services, name: &Arc<ObjectName>) -> Vec<Frontend> {
        let service = services.service(name);
        let offers = service.map_or_else(Vec::new, |service| {
            services::offers((name, service), &services.slices(name), &self.place)
        });
        let created = service.map(|service| service.created.clone()).unwrap_or_default();
        let held = self.held.entry(Arc::clone(name)).or_default();
        let claims = |held: &Held| -> BTreeSet<(Frontend, Box<str>)> {
            held.frontends().map(|frontend| (*frontend, held.created.clone())).collect()
        };
        let before = claims(held);
        (held.offers, held.created) = (offers.into_boxed_slice(), created);
        let after = claims(held);
        if held.is_bound_to_nodes() {
            self.bound.insert(Arc::clone(name));
        } else {
            self.bound.remove(name);
        }
        let mut moved = Vec::new();
        for (frontend, created) in before.difference(&after) {
            if let Some(all) = self.claims.get_mut(frontend) {
                all.remove(&(created.clone(), Arc::clone(name)));
                if all.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            moved.push(*frontend);
        }
        for (frontend, created) in after.difference(&before) {
            self.claims.entry(*frontend).or_default().insert((created.clone(), Arc::clone(name)));
            moved.push(*frontend);
        }
        moved
    }

    fn owner(&self, frontend: &Frontend) -> Option<&ObjectName> {
        self.claims.get(frontend)?.last().map(|(_, name)| &**name)
    }

    /// Ports of a service whose frontends have rows of an earlier agent take the numbers of those.
    fn take_restored(&mut self, name: &ObjectName) {
        if self.restored.is_empty() {
            return;
        }
        for offer in self.held.get(name).map(|held| held.offers.clone()).unwrap_or_default() {
            let its = |frontend: &&Frontend| self.owner(frontend) == Some(name);
            let of_rows = offer.frontends.keys().filter(its).find_map(|frontend| self.restored.get(frontend));
            // A traffic policy that has changed has given the frontend to other endpoints: the number is theirs no more.
            let hash = offer.name.hash();
            if let Some(number) = of_rows.copied().filter(|number| number.wrapping_sub(hash) < NEAR) {
                self.ports.take(&offer.name, Some(number), hash);
            }
        }
    }

    /// Computes the rows of a service again. `gone`: those that it has no more; `wanted`: those that are other ones than before.
    fn recompute(&mut self, name: &Arc<ObjectName>, gone: &mut Changes, wanted: &mut Changes) {
        let Some(mut held) = self.held.remove(name) else { return };
        let (mut rows, mut backends, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for offer in &held.offers {
            let its = |(frontend, _): &(&Frontend, &_)| self.owner(frontend) == Some(&**name);
            let frontends: Vec<_> = offer.frontends.iter().filter(its).map(|(f, own)| (*f, *own)).collect();
            if frontends.is_empty() {
                continue;
            }
            let number = self.ports.take(&offer.name, None, offer.name.hash());
            ports.push(offer.name.clone());
            let mut active = Vec::with_capacity(offer.active.len());
            let states = [(&offer.active, BackendState::Active), (&offer.kept, BackendState::Terminating)];
            for (places, state) in states {
                for place in places {
                    let backend = BackendName { service: number, place: *place };
                    let of_backend = self.backends.take(&backend, None, backend.hash());
                    if state == BackendState::Active {
                        active.push(of_backend);
                    }
                    backends.push((of_backend, services::backend(&backend, offer.name.proto, state)));
                }
            }
            for (frontend, own) in &frontends {
                rows.extend(services::rows((frontend, *own), offer, number, &active));
            }
        }
        let now = Held {
            created: std::mem::take(&mut held.created),
            offers: std::mem::take(&mut held.offers),
            rows: rows.into_iter().collect(),
            backends: backends.into_iter().collect(),
            ports: ports.into_iter().collect(),
        };
        let lost = |key: &&ServiceKey| now.rows.get(*key).is_none();
        gone.services.extend(held.rows.keys().filter(lost).map(|key| (*key, None)));
        let lost = |(number, _): &(&u32, &BackendEntry)| now.backends.get(*number).is_none();
        for (number, entry) in held.backends.iter().filter(lost) {
            gone.backends.push((*number, None));
            // Whoever has written it has told from it whose it is.
            BackendName::of(entry).iter().for_each(|name| self.backends.leave(name));
        }
        let is_new = |(key, entry): &(&ServiceKey, &ServiceEntry)| held.rows.get(*key) != Some(*entry);
        wanted.services.extend(now.rows.iter().filter(is_new).map(|(key, entry)| (*key, Some(*entry))));
        let is_new = |(number, entry): &(&u32, &BackendEntry)| held.backends.get(*number) != Some(*entry);
        wanted.backends.extend(now.backends.iter().filter(is_new).map(|(n, entry)| (*n, Some(*entry))));
        held.ports.difference(&now.ports).for_each(|name| self.ports.leave(name));
        if !now.offers.is_empty() {
            self.held.insert(Arc::clone(name), now);
        }
    }

    /// The tables hold what was asked for: numbers that were given up are free.
    pub(crate) fn settle(&mut self) {
        self.ports.forget_left();
        self.backends.forget_left();
        self.restored.clear();
    }

    /// What is offered, service by service.
    pub(crate) fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.held.values().flat_map(|held| &held.offers)
    }

    /// What is wrong with the objects.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Finding> {
        let contested = self.claims.iter().filter(|(_, claims)| claims.len() > 1);
        contested.flat_map(|(frontend, claims)| {
            let owner = claims.last().map(|(_, name)| format!("{}/{}", name.namespace, name.name));
            let others = claims.iter().rev().skip(1);
            others.map(move |(_, name)| {
                let message = format!(
                    "{} port {} is that of {} too, which was made later and has it",
                    frontend.address,
                    frontend.port,
                    owner.as_deref().unwrap_or_default()
                );
                Finding::warning(format!("Service/{}/{}", name.namespace, name.name), message)
            })
        })
    }
}
