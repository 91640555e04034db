//! The start: what an earlier agent left in maps, routes and links becomes known, and endpoints of the state directory meet their links.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags};
use tracing::{info, warn};
use zerocopy::FromBytes as _;

use super::Run;
use crate::agent::Agent;
use crate::controllers;
use crate::finding::Finding;
use crate::ports::{PodLink, PortError, Row, Table};
use crate::state::endpoints::{Endpoint, EndpointId, EndpointRecord, Leaving, Phase};
use crate::state::policy::InForce;
use crate::time::Now;

/// All that is read, before any of it is believed.
struct Found {
    config: Vec<Row>,
    endpoints: Vec<Row>,
    ipcache: Vec<Row>,
    policy: Vec<Row>,
    policy_blocks: Vec<Row>,
    policy_l4: Vec<Row>,
    services: Vec<Row>,
    backends: Vec<Row>,
    no_masquerade: Vec<Row>,
    routes: Vec<crate::ports::Route>,
    links: Vec<PodLink>,
}

impl Found {
    fn read(run: &mut Run<'_>) -> Result<Self, PortError> {
        Ok(Self {
            config: run.maps.dump(Table::Config)?,
            endpoints: run.maps.dump(Table::Endpoints)?,
            ipcache: run.maps.dump(Table::Ipcache)?,
            policy: run.maps.dump(Table::Policy)?,
            policy_blocks: run.maps.dump(Table::PolicyBlocks)?,
            policy_l4: run.maps.dump(Table::PolicyL4)?,
            services: run.maps.dump(Table::Services)?,
            backends: run.maps.dump(Table::Backends)?,
            no_masquerade: run.maps.dump(Table::NoMasquerade)?,
            routes: run.node.list_routes()?,
            links: run.node.list_pod_links()?,
        })
    }
}

impl Agent {
    /// Reads everything back, or nothing. Whether it succeeded.
    pub(super) fn read_back(&mut self, run: &mut Run<'_>) -> bool {
        let found = match Found::read(run) {
            Ok(found) => found,
            Err(error) => {
                let mut slot = self.failures.read_back.take();
                run.note(&mut slot, Err(error));
                self.failures.read_back = slot;
                return false;
            }
        };
        self.failures.read_back = None;
        self.known = true;
        let config = found.config.first().and_then(|row| NodeConfig::read_from_bytes(&row.value).ok());
        // Never written: all zero, as the kernel makes it.
        self.outside.config = config.filter(|config| config.abi_version == dataplane_abi::ABI_VERSION);

        let mut rows: BTreeMap<IpAddr, EndpointEntry> = BTreeMap::new();
        for row in found.endpoints {
            match controllers::endpoints::parse(&row) {
                Some((address, entry)) => drop(rows.insert(address, entry)),
                None => drop(self.outside.garbage.insert((Table::Endpoints, row.key))),
            }
        }
        self.meet_links(&found.links, &rows);
        self.meet_policies(run.now, &rows);
        self.outside.endpoints.read_back(rows);

        let mut prefixes = Vec::new();
        for row in found.ipcache {
            match controllers::ipcache::parse(&row) {
                Some(parsed) => prefixes.push(parsed),
                None => drop(self.outside.garbage.insert((Table::Ipcache, row.key))),
            }
        }
        if !prefixes.is_empty() || !found.routes.is_empty() {
            self.state.nodes.let_others_wait();
        }
        let alone = |prefix: &ipnet::IpNet| prefix.prefix_len() == prefix.max_prefix_len();
        let addresses = prefixes.iter().filter(|(prefix, _)| alone(prefix));
        self.state.policy.restore_nodes(addresses.map(|(prefix, entry)| (prefix.addr(), entry.identity)));
        self.outside.ipcache.read_back(prefixes);
        self.read_back_policy(found.policy, found.policy_blocks, found.policy_l4);
        self.read_back_services(found.services, found.backends);
        self.read_back_no_masquerade(found.no_masquerade);
        self.outside.routes.read_back(found.routes.into_iter().map(|route| (route.dst, route)));
        self.dirty.all = true;
        info!(endpoints = self.state.endpoints.len(), "state read back");
        true
    }

    fn read_back_policy(&mut self, rows: Vec<Row>, block_rows: Vec<Row>, l4_rows: Vec<Row>) {
        let mut decisions = Vec::new();
        for row in rows {
            match controllers::policy::parse(&row) {
                Some(parsed) => decisions.push(parsed),
                None => drop(self.outside.garbage.insert((Table::Policy, row.key))),
            }
        }
        self.outside.policy.read_back(decisions);
        let mut blocks = Vec::new();
        for row in block_rows {
            match controllers::policy::parse_block(&row) {
                Some(parsed) => blocks.push(parsed),
                None => drop(self.outside.garbage.insert((Table::PolicyBlocks, row.key))),
            }
        }
        self.outside.policy_blocks.read_back(blocks);
        let mut verdicts = Vec::new();
        for row in l4_rows {
            match controllers::policy::parse_l4(&row) {
                Some(parsed) => verdicts.push(parsed),
                None => drop(self.outside.garbage.insert((Table::PolicyL4, row.key))),
            }
        }
        self.outside.policy_l4.read_back(verdicts);
    }

    fn read_back_no_masquerade(&mut self, rows: Vec<Row>) {
        let mut prefixes = Vec::new();
        for row in rows {
            match controllers::masquerade::parse(&row) {
                Some(parsed) => prefixes.push(parsed),
                None => drop(self.outside.garbage.insert((Table::NoMasquerade, row.key))),
            }
        }
        self.outside.no_masquerade.read_back(prefixes);
    }

    fn read_back_services(&mut self, rows: Vec<Row>, backend_rows: Vec<Row>) {
        let mut services = Vec::new();
        for row in rows {
            match controllers::services::parse(&row) {
                Some(parsed) => services.push(parsed),
                None => drop(self.outside.garbage.insert((Table::Services, row.key))),
            }
        }
        let mut backends = Vec::new();
        for row in backend_rows {
            match controllers::services::parse_backend(&row) {
                Some(parsed) => backends.push(parsed),
                None => drop(self.outside.garbage.insert((Table::Backends, row.key))),
            }
        }
        self.state.frontends.restore(&services, &backends);
        self.outside.services.read_back(services);
        self.outside.backends.read_back(backends);
    }

    /// What holds for the endpoints that are there goes on until it is known what shall.
    fn meet_policies(&mut self, now: Now, rows: &BTreeMap<IpAddr, EndpointEntry>) {
        let mut of_host = rows.values().filter(|entry| entry.flags.contains(EndpointFlags::HOST));
        self.state.policy.host.restore(of_host.find(|entry| entry.policy != 0).map(InForce::from));
        for endpoint in self.state.endpoints.iter() {
            let record = &endpoint.record;
            // One whose document is lost may have got another number, as an old document has its own.
            let is_its = |id| id == record.id || record.attachment.is_none();
            let its = |address: &IpAddr| {
                rows.get(address).filter(|entry| is_its(entry.id) && entry.ifindex == record.ifindex)
            };
            let restored = record.addresses.iter().find_map(its).map(InForce::from);
            self.state.policy.add_own(now, record, restored, None);
        }
    }

    fn meet_links(&mut self, links: &[PodLink], rows: &BTreeMap<IpAddr, EndpointEntry>) {
        let by_name: BTreeMap<&str, &PodLink> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        let ids: Vec<EndpointId> = self.state.endpoints.iter().map(|endpoint| endpoint.record.id).collect();
        for id in ids {
            let Some(endpoint) = self.state.endpoints.get_mut(id) else { continue };
            // A DEL may have come before the links could be read.
            let Phase::Restoring = endpoint.phase else { continue };
            let name = endpoint.record.display_name();
            match by_name.get(endpoint.record.host_name.as_str()) {
                Some(link) if endpoint.record.ready => {
                    if endpoint.record.ifindex != link.ifindex {
                        endpoint.record.ifindex = link.ifindex;
                        self.unsaved.insert(id);
                    }
                    endpoint.phase = Phase::Ready;
                }
                link => {
                    let why = if link.is_some() { "its ADD was not finished" } else { "its link is gone" };
                    warn!(endpoint = id, pod = name, "endpoint is not restored: {why}");
                    endpoint.phase = Phase::Leaving(Leaving { was_used: true, ..Leaving::default() });
                    if endpoint.record.ready {
                        self.lasting_findings.push(Finding::warning(
                            format!("endpoint/{id}"),
                            format!("{name} was removed when the agent started: {why}"),
                        ));
                    }
                }
            }
        }
        for link in links {
            if self.state.endpoints.by_host_name(&link.name).is_none() {
                self.adopt(link, rows);
            }
        }
    }

    /// An endpoint that is gone may still claim the address in an old document: the tables know better who has it now.
    fn take_from_stale(&mut self, address: IpAddr) {
        let Some(owner) = self.state.ipam.owner(&address) else { return };
        let Some(stale) = self.state.endpoints.get_mut(owner) else { return };
        if matches!(stale.phase, Phase::Leaving(_)) {
            stale.record.addresses.retain(|claimed| *claimed != address);
            self.unsaved.insert(owner);
            self.state.ipam.give_back(address, owner);
        }
    }

    /// A link without a document: its pod runs, so if the tables know its addresses they stay its own.
    fn adopt(&mut self, link: &PodLink, rows: &BTreeMap<IpAddr, EndpointEntry>) {
        let its = rows.iter().filter(|(_, entry)| {
            entry.ifindex == link.ifindex
                && entry.node_mac == link.mac
                && !entry.flags.contains(EndpointFlags::HOST)
        });
        let its: Vec<(IpAddr, EndpointEntry)> = its.map(|(address, entry)| (*address, *entry)).collect();
        let subject = format!("link/{}", link.name);
        let Some((_, entry)) = its.first() else {
            self.lasting_findings.push(Finding::warning(
                subject,
                "the link belongs to no endpoint; DEL of its container or GC removes it",
            ));
            return;
        };
        let free = entry.id != 0 && self.state.endpoints.get(entry.id).is_none();
        let Some(id) = free.then_some(entry.id).or_else(|| self.state.endpoints.next_id()) else { return };
        let mut addresses: Vec<IpAddr> = its.iter().map(|(address, _)| *address).collect();
        for address in &addresses {
            self.take_from_stale(*address);
        }
        addresses.retain(|address| self.state.ipam.restore(*address, id));
        let config = self.outside.config;
        let gateways = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(_) => config.map(|config| IpAddr::from(config.router_v4)),
            IpAddr::V6(_) => config.map(|config| IpAddr::from(config.router_v6)),
        });
        let record = EndpointRecord {
            id,
            host_name: link.name.clone(),
            attachment: None,
            pod: None,
            netns: String::new(),
            gateways: gateways.filter(|gateway| !gateway.is_unspecified()).collect(),
            addresses,
            host_mac: link.mac,
            pod_mac: entry.mac,
            ifindex: link.ifindex,
            mtu: config.map_or(0, |config| config.overlay_mtu),
            ready: true,
            created: None,
            config: agent_api::EndpointConfig::default(),
        };
        self.lasting_findings.push(Finding::warning(
            subject,
            format!(
                "the document of endpoint {id} is lost; its pod keeps its addresses, its name is not known"
            ),
        ));
        if self.state.endpoints.insert(Endpoint { record, phase: Phase::Ready }) {
            self.unsaved.insert(id);
        }
    }
}
