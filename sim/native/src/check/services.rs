//! Services: who calls one reaches an endpoint that the objects allow.
//!
//! As for policies, of objects that change every combination of versions since the last quiet moment is possible, and nothing else is.
//! Only what says something of the address that is called is looked at, so that there are few combinations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane_abi::affinity::DATAGRAM_TIMEOUT_S;
use dataplane_abi::backends::{BackendEntry, BackendState};
use dataplane_abi::services::{ServiceEntry, ServiceKey, ServiceScope};
use dataplane_abi::{Addr, Be16};
use serde_json::Value;
use sim_api::object::{list_at, name, namespace, str_at};
use sim_api::resource::SERVICES;
use sim_oracle::{Cluster, End, Protocol, Translation};

use super::views::{Entry, Key, combined};
use crate::calls::Called;
use crate::queue::NodeId;
use crate::view::UDP;
use crate::world::World;

/// What may come of a call.
#[derive(Debug, Default)]
struct Possible {
    /// The address may be no service's.
    none: bool,
    /// There may be nobody.
    nobody: bool,
    /// Who may answer.
    backends: BTreeSet<SocketAddr>,
}

/// The history of services and slices, and who speaks with whom.
#[derive(Debug, Default)]
pub(crate) struct ServiceViews {
    log: Vec<Entry>,
    /// Sockets that send datagrams: whom they called, who answers, and when they have called last.
    conversations: BTreeMap<(NodeId, u64, SocketAddr), (SocketAddr, Duration)>,
}

fn ips(service: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    list_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok())
}

fn service_of(slice: &Value) -> &str {
    slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default()
}

/// Whether an endpoint of a slice keeps what it has: it is ready, or still serves while it is ending.
fn keeps(endpoint: &Value) -> bool {
    let flag = |name: &str| endpoint["conditions"][name].as_bool();
    let ready = flag("ready").unwrap_or(true);
    ready || (flag("serving").unwrap_or(ready) && flag("terminating").unwrap_or(false))
}

impl ServiceViews {
    /// Takes a change in.
    pub(crate) fn note(&mut self, now: Duration, object: &Value, deleted: bool) {
        let kind = str_at(object, &["kind"]);
        if !matches!(kind, "Service" | "EndpointSlice") {
            return;
        }
        let key = (kind.to_owned(), namespace(object).to_owned(), name(object).to_owned());
        self.log.push(Entry { at: now, key, object: (!deleted).then(|| object.clone()) });
    }

    /// Changes that say something of an address.
    fn about(&self, address: IpAddr) -> Vec<&Entry> {
        let has_it = |entry: &&Entry| entry.object.as_ref().is_some_and(|o| ips(o).any(|ip| ip == address));
        let services: BTreeSet<(&str, &str)> = self
            .log
            .iter()
            .filter(|entry| entry.key.0 == "Service")
            .filter(has_it)
            .map(|entry| (entry.key.1.as_str(), entry.key.2.as_str()))
            .collect();
        let slices: BTreeSet<&Key> = self
            .log
            .iter()
            .filter(|entry| entry.key.0 == "EndpointSlice")
            .filter(|entry| {
                let of = entry.object.as_ref().map(service_of).unwrap_or_default();
                services.contains(&(entry.key.1.as_str(), of))
            })
            .map(|entry| &entry.key)
            .collect();
        let counts = |entry: &&Entry| match entry.key.0.as_str() {
            "Service" => services.contains(&(entry.key.1.as_str(), entry.key.2.as_str())),
            _ => slices.contains(&entry.key),
        };
        self.log.iter().filter(counts).collect()
    }

    /// What may come of a call from a node, with all that counts since then; `None`: too much is under way to tell.
    fn possible(&self, node: &str, to: SocketAddr, protocol: Protocol, since: Duration) -> Option<Possible> {
        let entries = self.about(to.ip());
        let (old, new) = entries.split_at(entries.partition_point(|entry| entry.at < since));
        let mut base = Cluster::new();
        old.iter().for_each(|entry| entry.set_in(&mut base));
        let views = combined(base, new)?;
        let client = End::Node { name: node.to_owned() };
        let mut possible = Possible::default();
        for view in views {
            match view.translate(&client, to.ip(), protocol, to.port()) {
                Translation::NotAService => possible.none = true,
                Translation::NoEndpoints { .. } => possible.nobody = true,
                Translation::Backends(all) => {
                    possible.backends.extend(all.iter().map(|b| SocketAddr::new(b.ip, b.port)));
                }
            }
        }
        Some(possible)
    }

    /// Whether an endpoint keeps what it has in every version that counts.
    fn is_kept(&self, service: IpAddr, backend: SocketAddr, since: Duration) -> bool {
        let entries = self.about(service);
        let local = |entry: &&&Entry| {
            let policy = |object: &Value| object["spec"]["internalTrafficPolicy"] == "Local";
            entry.object.as_ref().is_some_and(policy)
        };
        if entries.iter().any(|entry| local(&entry)) {
            return false;
        }
        let has_it = |object: &Value| {
            let is_it = |endpoint: &&Value| endpoint["addresses"][0] == backend.ip().to_string();
            let port = |port: &Value| port["port"].as_u64() == Some(backend.port().into());
            list_at(object, &["endpoints"]).iter().find(is_it).is_some_and(keeps)
                && list_at(object, &["ports"]).iter().any(port)
        };
        let slices: BTreeSet<&Key> =
            entries.iter().filter(|e| e.key.0 == "EndpointSlice").map(|entry| &entry.key).collect();
        let lives = |key: &Key| {
            let versions: Vec<&&Entry> = entries.iter().filter(|entry| entry.key == *key).collect();
            let old = versions.partition_point(|entry| entry.at < since);
            // Without an old version some may not know it yet.
            old > 0 && versions[old - 1..].iter().all(|entry| entry.object.as_ref().is_some_and(has_it))
        };
        // To who has not heard of the service, or hears of it anew, it is none or another.
        let services: BTreeSet<&Key> =
            entries.iter().filter(|e| e.key.0 == "Service").map(|entry| &entry.key).collect();
        let stands = |key: &Key| {
            let versions: Vec<&&Entry> = entries.iter().filter(|entry| entry.key == *key).collect();
            versions.iter().all(|entry| entry.at < since)
        };
        services.len() == 1 && services.into_iter().all(stands) && slices.into_iter().any(lives)
    }
}

impl World {
    /// A process has made a call.
    pub(crate) fn check_call(&mut self, n: NodeId, called: Called) {
        if !self.cluster.kube_proxy_replacement {
            return;
        }
        self.look_for_rest();
        let since = self.check.views.rest();
        let node = self.nodes[n].name.clone();
        let Called { caller, datagram, to, became, told } = called;
        let protocol = if caller.protocol == UDP { Protocol::Udp } else { Protocol::Tcp };
        self.note(n, "call", u64::from(became.is_some_and(|peer| peer != to)));
        if became.is_some() && told != Some(to) {
            let message = format!("a process on {node} called {to} and is told that it was {told:?}");
            return self.violate("service", message);
        }
        let views = &self.check.services;
        let Some(possible) = views.possible(&node, to, protocol, since) else { return };
        let fits = match became {
            None => possible.nobody,
            Some(peer) if peer == to => possible.none,
            Some(peer) => possible.backends.contains(&peer),
        };
        let key = (n, caller.socket, to);
        let before = views.conversations.get(&key).copied().filter(|(_, at)| {
            datagram && self.now.saturating_sub(*at) <= Duration::from_secs(DATAGRAM_TIMEOUT_S.into())
        });
        let stays = before.is_some_and(|(peer, _)| became == Some(peer));
        if !fits && !stays {
            let text = became.map_or_else(|| "nowhere".to_owned(), |peer| peer.to_string());
            let message = format!("a call on {node} to {to} went to {text}, may be: {possible:?}");
            return self.violate("service", message);
        }
        if let Some((peer, _)) = before.filter(|_| !stays && became.is_some())
            && views.is_kept(to.ip(), peer, since)
            && !self.nodes[n].troubled
        {
            let message =
                format!("datagrams of a socket on {node} to {to} went to {peer}, now to {became:?}");
            return self.violate("service", message);
        }
        if let Some(peer) = became.filter(|_| datagram) {
            let now = self.now;
            self.check.services.conversations.insert(key, (peer, now));
        }
    }

    /// `SERVICES` and `BACKENDS` have what the objects ask for, and nothing else.
    pub(super) fn check_services(&self, n: NodeId) -> Option<(&'static str, String)> {
        let wrong = |what| Some(("tables", what));
        let node = &self.nodes[n];
        let tables = node.native.tables();
        let client = End::Node { name: node.name.clone() };
        let mut frontends = BTreeSet::new();
        let wanted =
            if self.cluster.kube_proxy_replacement { self.store.list(&SERVICES, "") } else { Vec::new() };
        for service in &wanted {
            for (ip, port) in ips(service)
                .flat_map(|ip| list_at(service, &["spec", "ports"]).iter().map(move |port| (ip, port)))
            {
                let udp = port["protocol"] == "UDP";
                let number = u16::try_from(port["port"].as_u64().unwrap_or_default()).unwrap_or_default();
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                let expected: BTreeSet<SocketAddr> =
                    match self.oracle.translate(&client, ip, protocol, number) {
                        Translation::NotAService => continue,
                        Translation::NoEndpoints { .. } => BTreeSet::new(),
                        Translation::Backends(all) => {
                            all.into_iter().map(|b| SocketAddr::new(b.ip, b.port)).collect()
                        }
                    };
                let (addr, family) = Addr::from_ip(ip);
                let proto = if udp { 17 } else { 6 };
                let key =
                    ServiceKey::frontend(addr, family, Be16::new(number), proto, ServiceScope::Internal);
                let count = tables.services.get(&key).map(|row| row.count);
                let slot = |slot| -> Option<SocketAddr> {
                    let ServiceEntry { backend, .. } = tables.services.get(&key.slot(slot))?;
                    let row: &BackendEntry = tables.backends.get(backend)?;
                    let active = row.state == BackendState::Active as u8;
                    active.then_some(SocketAddr::new(row.ip()?, row.port.get()))
                };
                let found: Option<BTreeSet<SocketAddr>> =
                    count.and_then(|count| (1..=count).map(slot).collect());
                if found.as_ref() != Some(&expected) {
                    return wrong(format!(
                        "SERVICES sends {ip} port {number} to {found:?}, not to {expected:?}"
                    ));
                }
                let slots = count.into_iter().flat_map(|count| 0..=count).map(|slot| key.slot(slot));
                frontends.extend(slots);
            }
        }
        let rows = tables.dump("SERVICES").unwrap_or_default().len();
        if rows != frontends.len() {
            return wrong(format!("SERVICES has {rows} rows, the objects ask for {}", frontends.len()));
        }
        if node.memory.sockets() != self.cluster.kube_proxy_replacement {
            return Some(("programs", "those on calls of sockets are not as they shall be".to_owned()));
        }
        None
    }
}
