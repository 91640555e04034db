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
use sim_api::resource::{ENDPOINTSLICES, SERVICES};
use sim_oracle::{Backend, Cluster, End, Protocol, Translation as Answer};
use sim_scenario::model::Translation;

use super::views::{Entry, Key, combined};
use crate::calls::Called;
use crate::queue::NodeId;
use crate::view::UDP;
use crate::world::World;

/// What may come of a call.
#[derive(Debug, Default)]
pub(super) struct Possible {
    /// The address may be no service's.
    pub(super) none: bool,
    /// There may be nobody.
    pub(super) nobody: bool,
    /// Who may answer.
    pub(super) backends: BTreeSet<SocketAddr>,
}

/// The history of services and slices, and who speaks with whom.
#[derive(Debug, Default)]
pub(crate) struct ServiceViews {
    log: Vec<Entry>,
    /// Sockets that send datagrams: whom they called, who answers, and when they have called last.
    conversations: BTreeMap<(NodeId, u64, SocketAddr), (SocketAddr, Duration)>,
}

/// Addresses of a service itself.
fn ips(service: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    let external = list_at(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str);
    let ingress = list_at(service, &["status", "loadBalancer", "ingress"]).iter();
    let balanced = ingress.filter_map(|ingress| ingress["ip"].as_str());
    cluster_ips(service).chain(external.chain(balanced).filter_map(|ip| ip.parse().ok()))
}

fn cluster_ips(service: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    list_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok())
}

/// Addresses of a node.
fn node_ips(node: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    let all = list_at(node, &["status", "addresses"]).iter();
    all.filter_map(|address| address["address"].as_str()?.parse().ok())
}

fn number(port: &Value, field: &str) -> u16 {
    port[field].as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or_default()
}

/// Whether a service has a port at every node.
fn has_node_port(service: &Value, port: u16) -> bool {
    list_at(service, &["spec", "ports"]).iter().any(|its| port != 0 && number(its, "nodePort") == port)
}

/// Whether a service gives different endpoints to callers at different places.
fn is_local(service: &Value) -> bool {
    ["internalTrafficPolicy", "externalTrafficPolicy"].iter().any(|policy| service["spec"][policy] == "Local")
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

/// Whether a slice has an endpoint that keeps what it has.
fn has_endpoint(slice: &Value, backend: SocketAddr) -> bool {
    let is_it = |endpoint: &&Value| endpoint["addresses"][0] == backend.ip().to_string();
    let is_port = |port: &Value| port["port"].as_u64() == Some(backend.port().into());
    list_at(slice, &["endpoints"]).iter().find(is_it).is_some_and(keeps)
        && list_at(slice, &["ports"]).iter().any(is_port)
}

impl ServiceViews {
    /// Takes a change in.
    pub(crate) fn note(&mut self, now: Duration, object: &Value, deleted: bool) {
        let kind = str_at(object, &["kind"]);
        if !matches!(kind, "Service" | "EndpointSlice" | "Node") {
            return;
        }
        let key = (kind.to_owned(), namespace(object).to_owned(), name(object).to_owned());
        let addresses = |node: &Value| node_ips(node).collect::<BTreeSet<_>>();
        let last =
            self.log.iter().rev().find(|entry| entry.key == key).and_then(|entry| entry.object.as_ref());
        if kind == "Node" && !deleted && last.is_some_and(|last| addresses(last) == addresses(object)) {
            // Nodes tell all the time that they are there.
            return;
        }
        self.log.push(Entry { at: now, key, object: (!deleted).then(|| object.clone()) });
    }

    /// Changes that say something of an address and a port.
    fn about(&self, to: SocketAddr) -> Vec<&Entry> {
        let nodes: BTreeSet<&Key> = self
            .log
            .iter()
            .filter(|entry| entry.key.0 == "Node")
            .filter(|entry| entry.object.as_ref().is_some_and(|o| node_ips(o).any(|ip| ip == to.ip())))
            .map(|entry| &entry.key)
            .collect();
        let has_it = |entry: &&Entry| {
            entry.object.as_ref().is_some_and(|service| {
                ips(service).any(|ip| ip == to.ip())
                    || (!nodes.is_empty() && has_node_port(service, to.port()))
            })
        };
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
            "Node" => nodes.contains(&entry.key),
            _ => slices.contains(&entry.key),
        };
        self.log.iter().filter(counts).collect()
    }

    /// What may come of a call from a node, with all that counts since then; `None`: too much is under way to tell.
    pub(super) fn possible(
        &self,
        node: &str,
        to: SocketAddr,
        protocol: Protocol,
        since: Duration,
    ) -> Option<Possible> {
        let entries = self.about(to);
        let (old, new) = entries.split_at(entries.partition_point(|entry| entry.at < since));
        let mut base = Cluster::new();
        old.iter().for_each(|entry| entry.set_in(&mut base));
        let views = combined(base, new)?;
        let client = End::Node { name: node.to_owned() };
        let mut possible = Possible::default();
        for view in views {
            match view.translate(&client, to.ip(), protocol, to.port()) {
                Answer::NotAService => possible.none = true,
                Answer::NoEndpoints { .. } => possible.nobody = true,
                Answer::Backends(all) => {
                    possible.backends.extend(all.iter().map(|b| SocketAddr::new(b.ip, b.port)));
                }
            }
        }
        Some(possible)
    }

    /// Whether a version that counts of what stands behind an address has an endpoint, be it one that is ending.
    pub(super) fn is_named(&self, called: SocketAddr, backend: SocketAddr, since: Duration) -> bool {
        let entries = self.about(called);
        let counts = |nth: usize, entry: &Entry| {
            entry.at >= since
                || !entries[nth + 1..].iter().any(|next| next.key == entry.key && next.at < since)
        };
        let mut counting = entries.iter().enumerate().filter(|(nth, entry)| counts(*nth, entry));
        counting.any(|(_, entry)| entry.object.as_ref().is_some_and(|slice| has_endpoint(slice, backend)))
    }

    /// Whether an endpoint keeps what it has in every version that counts.
    pub(super) fn is_kept(&self, called: SocketAddr, backend: SocketAddr, since: Duration) -> bool {
        let entries = self.about(called);
        if entries.iter().any(|entry| entry.object.as_ref().is_some_and(is_local)) {
            return false;
        }
        let slices: BTreeSet<&Key> =
            entries.iter().filter(|e| e.key.0 == "EndpointSlice").map(|entry| &entry.key).collect();
        let lives = |key: &Key| {
            let versions: Vec<&&Entry> = entries.iter().filter(|entry| entry.key == *key).collect();
            let old = versions.partition_point(|entry| entry.at < since);
            // Without an old version some may not know it yet.
            old > 0
                && versions[old - 1..]
                    .iter()
                    .all(|entry| entry.object.as_ref().is_some_and(|slice| has_endpoint(slice, backend)))
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
        // An address that is no service's any more is called as it is.
        if let Some((peer, _)) = before.filter(|_| !stays && became.is_some_and(|peer| peer != to))
            && views.is_kept(to, peer, since)
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
        let tables = self.nodes[n].native.tables();
        let mut expected = BTreeMap::new();
        if self.cluster.kube_proxy_replacement {
            for service in self.store.list(&SERVICES, "") {
                self.expect_frontends(n, &service, &mut expected);
            }
        }
        let mut rows = 0;
        for (key, backends) in &expected {
            let count = tables.services.get(key).map(|row| row.count);
            let slot = |slot| -> Option<SocketAddr> {
                let ServiceEntry { backend, .. } = tables.services.get(&key.slot(slot))?;
                let row: &BackendEntry = tables.backends.get(backend)?;
                let active = row.state == BackendState::Active as u8;
                active.then_some(SocketAddr::new(row.ip()?, row.port.get()))
            };
            let found: Option<BTreeSet<SocketAddr>> = count.and_then(|count| (1..=count).map(slot).collect());
            if found.as_ref() != Some(backends) {
                let (ip, port) = (key.ip(), key.port.get());
                return wrong(format!(
                    "SERVICES sends {ip:?} port {port} of protocol {}, scope {}, to {found:?}, not to {backends:?}",
                    key.proto, key.scope
                ));
            }
            rows += usize::from(count.unwrap_or_default()) + 1;
        }
        let found = tables.dump("SERVICES").unwrap_or_default().len();
        if rows != found {
            return wrong(format!("SERVICES has {found} rows, the objects ask for {rows}"));
        }
        let at_sockets = self.cluster.service_translation != Translation::Packet;
        if self.nodes[n].memory.sockets() != (self.cluster.kube_proxy_replacement && at_sockets) {
            return Some(("programs", "those on calls of sockets are not as they shall be".to_owned()));
        }
        None
    }

    /// The frontends of a service that a node shall have, with their backends.
    fn expect_frontends(
        &self,
        n: NodeId,
        service: &Value,
        expected: &mut BTreeMap<ServiceKey, BTreeSet<SocketAddr>>,
    ) {
        let here = self.nodes[n].name.as_str();
        let inside = End::Node { name: here.to_owned() };
        // Somebody whose packets come to this node.
        let outside = End::Outside(IpAddr::from([203, 0, 113, 9]));
        let is_external_local = service["spec"]["externalTrafficPolicy"] == "Local";
        for port in list_at(service, &["spec", "ports"]) {
            let udp = port["protocol"] == "UDP";
            let (protocol, proto) = if udp { (Protocol::Udp, 17) } else { (Protocol::Tcp, 6) };
            let key = |ip: IpAddr, port: u16, scope| {
                let (addr, family) = Addr::from_ip(ip);
                ServiceKey::frontend(addr, family, Be16::new(port), proto, scope)
            };
            // `None`: it is not to be found there.
            let backends =
                |client: &End, ip: IpAddr, port: u16| match self.oracle.translate(client, ip, protocol, port)
                {
                    Answer::NotAService => None,
                    Answer::NoEndpoints { .. } => Some(Vec::new()),
                    Answer::Backends(all) => Some(all),
                };
            let places = |all: &[Backend]| all.iter().map(|b| SocketAddr::new(b.ip, b.port)).collect();
            let number = number(port, "port");
            for ip in ips(service) {
                if let Some(all) = backends(&inside, ip, number) {
                    expected.insert(key(ip, number, ServiceScope::Internal), places(&all));
                }
                if let Some(mut all) = backends(&outside, ip, number)
                    && is_external_local
                {
                    all.retain(|backend| backend.node.as_deref() == Some(here));
                    expected.insert(key(ip, number, ServiceScope::External), places(&all));
                }
            }
            let number = self::number(port, "nodePort");
            if number == 0 {
                continue;
            }
            for is_v4 in [true, false] {
                let every = if is_v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
                let mut known = false;
                for node in &self.nodes {
                    let addresses = node.addresses.iter().filter(|ip| ip.is_ipv4() == is_v4);
                    for (ip, all) in addresses.filter_map(|ip| Some((*ip, backends(&inside, *ip, number)?))) {
                        known = true;
                        // Nodes are different where each has its own endpoints, and those without are alike.
                        if is_external_local && !self.endpoints_of(service, is_v4, &node.name, port) {
                            continue;
                        }
                        if is_external_local {
                            expected.insert(key(ip, number, ServiceScope::Internal), places(&all));
                        } else {
                            expected.insert(key(every, number, ServiceScope::Internal), places(&all));
                        }
                    }
                }
                // In a family in which no node has an address nobody can call it there.
                let has_family = cluster_ips(service).any(|ip| ip.is_ipv4() == is_v4);
                if (is_external_local && known) || (has_family && !known) {
                    expected.insert(key(every, number, ServiceScope::Internal), BTreeSet::new());
                }
            }
        }
    }

    /// Whether a slice has an endpoint of a service's port on a node, be it of no use.
    fn endpoints_of(&self, service: &Value, is_v4: bool, node: &str, port: &Value) -> bool {
        let family = if is_v4 { "IPv4" } else { "IPv6" };
        self.store.list(&ENDPOINTSLICES, namespace(service)).iter().any(|slice| {
            service_of(slice) == name(service)
                && slice["addressType"] == family
                && list_at(slice, &["ports"]).iter().any(|its| {
                    str_at(its, &["name"]) == str_at(port, &["name"])
                        && (its["protocol"] == "UDP") == (port["protocol"] == "UDP")
                })
                && list_at(slice, &["endpoints"]).iter().any(|endpoint| endpoint["nodeName"] == node)
        })
    }
}
