//! The agent: state, and the two calls that move it.

mod cni;
mod health;
mod names;
mod policy_status;
mod policy_views;
mod publish;
mod views;
mod what_if;

pub(crate) use cni::{done, refuse};
pub use health::ServiceHealth;
pub use names::{PartyNames, RuleNames};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent_api::EndpointConfigChange;
use agent_policy::{Row as Decision, RowKey, Verdict};
use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::endpoints::EndpointEntry;
use dataplane_abi::ipcache::IpCacheEntry;
use dataplane_abi::no_masquerade::NoMasqueradeEntry;
use dataplane_abi::services::{ServiceEntry, ServiceKey};
use ipnet::IpNet;

use crate::backoff::Failure;
use crate::cni::{Reply, RequestId};
use crate::config::Config;
use crate::controllers::policy::{BlockRow, L4Row};
use crate::controllers::{self, Dirty};
use crate::event::Event;
use crate::finding::Finding;
use crate::plan::Plan;
use crate::ports::{BaseSpec, CtClock, Document, PortError, Program, Route, Table};
use crate::reconcile::conntrack::CtGc;
use crate::reconcile::inspect::Inspection;
use crate::reconcile::staged::StagedCounts;
use crate::state::State;
use crate::state::documents::{IpamDocument, Restored};
use crate::state::endpoints::{Endpoint, EndpointId, Endpoints, Leaving, Phase, host_net};
use crate::state::frontends::Frontends;
use crate::state::ipam::Ipam;
use crate::state::nodes::Nodes;
use crate::state::policy::{PolicyState, Touched};
use crate::time::Now;
use crate::tracked::Tracked;

/// What one [`Agent::reconcile`] did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReconcileReport {
    /// Answers to requests that are finished now.
    pub replies: Vec<Reply>,
    /// Rows written, by table.
    pub rows_written: BTreeMap<Table, usize>,
    /// Rows removed, by table (connections that expired too).
    pub rows_removed: BTreeMap<Table, usize>,
    /// Routes, links, programs and documents that were changed.
    pub node_changes: usize,
    /// Rows, routes and links that were computed again because something they depend on changed.
    pub recomputed: usize,
    /// Endpoints of this node came or went, or what is in force for one of them, or said of it, may be something else than before.
    pub endpoints_touched: bool,
    /// What failed; it will be tried again, see [`Agent::next_deadline`].
    pub errors: Vec<PortError>,
    /// Rows, routes and links that still wait.
    pub pending: usize,
    /// Pods that keep an identity which is not that of their labels any more until others know the new one.
    pub changing: usize,
}

impl ReconcileReport {
    /// Rows written and removed, all tables together.
    pub fn rows_changed(&self) -> usize {
        self.rows_written.values().chain(self.rows_removed.values()).sum()
    }
}

/// A GC request that is being served.
#[derive(Debug)]
pub(crate) struct GcRequest {
    /// Links of the attachments that are valid.
    pub(crate) valid: BTreeSet<String>,
    /// Links without an endpoint have been looked for.
    pub(crate) links_done: bool,
    /// Endpoints that are still being taken down for it.
    pub(crate) outstanding: BTreeSet<EndpointId>,
    /// What failed.
    pub(crate) errors: Vec<String>,
}

/// Requests that wait for a reconcile.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// DEL of attachments that have no endpoint: the link's name.
    pub(crate) unknown_del: Vec<(RequestId, String)>,
    /// CHECK.
    pub(crate) check: Vec<(RequestId, EndpointId, crate::cni::Netns)>,
    /// GC.
    pub(crate) gc: BTreeMap<RequestId, GcRequest>,
}

/// The actual and wanted things outside.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) endpoints: Tracked<IpAddr, EndpointEntry>,
    pub(crate) ipcache: Tracked<IpNet, IpCacheEntry>,
    pub(crate) policy: Tracked<RowKey, Decision>,
    pub(crate) policy_blocks: Tracked<BlockRow, Decision>,
    pub(crate) policy_l4: Tracked<L4Row, Verdict>,
    pub(crate) services: Tracked<ServiceKey, ServiceEntry>,
    pub(crate) backends: Tracked<u32, BackendEntry>,
    pub(crate) no_masquerade: Tracked<IpNet, NoMasqueradeEntry>,
    pub(crate) routes: Tracked<IpNet, Route>,
    pub(crate) programs: Tracked<(String, Program), u32>,
    /// The base programs beside which nothing is left of an earlier agent.
    pub(crate) clean_base: Option<Vec<((String, Program), u32)>>,
    /// The programs on calls of sockets are as they shall be.
    pub(crate) sockets: bool,
    /// The row of `CONFIG`, as it was last read or written.
    pub(crate) config: Option<NodeConfig>,
    /// Rows have changed since the revision in `CONFIG` was raised, if only there and back.
    pub(crate) moved: bool,
    /// Rows that no agent of this version writes; removed once all is known.
    pub(crate) garbage: BTreeSet<(Table, Vec<u8>)>,
    /// The documents that are in the state directory, for those that are written whole.
    pub(crate) saved_ipam: IpamDocument,
    pub(crate) saved_node: Option<crate::event::NodeObject>,
    pub(crate) clock: Option<CtClock>,
}

/// Failures of what is not a row, a route or a program.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) read_back: Option<Failure>,
    pub(crate) base: Option<Failure>,
    pub(crate) config: Option<Failure>,
    pub(crate) leftovers: Option<Failure>,
    pub(crate) sockets: Option<Failure>,
    pub(crate) documents: Option<Failure>,
}

impl Failures {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Failure)> {
        let named = [
            ("read-back", &self.read_back),
            ("base-links", &self.base),
            ("CONFIG", &self.config),
            ("programs of the underlay", &self.leftovers),
            ("programs on calls of sockets", &self.sockets),
            ("state-directory", &self.documents),
        ];
        named.into_iter().filter_map(|(name, failure)| Some((name, failure.as_ref()?)))
    }
}

/// The brain of the node agent.
#[derive(Debug)]
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) plan: Plan,
    pub(crate) dirty: Dirty,
    pub(crate) outside: Outside,
    pub(crate) requests: Requests,
    pub(crate) failures: Failures,
    pub(crate) ct_gc: CtGc,
    pub(crate) staged: StagedCounts,
    /// The base links as they were last made.
    pub(crate) base_applied: Option<BaseSpec>,
    pub(crate) inspection: Inspection,
    /// What is there has been read back once.
    pub(crate) known: bool,
    /// Endpoints whose documents are to be written again.
    pub(crate) unsaved: BTreeSet<EndpointId>,
    /// Findings that do not go away: about the start.
    pub(crate) lasting_findings: Vec<Finding>,
}

impl Agent {
    /// An agent that knows what an earlier one left in the state directory, and nothing else yet.
    /// Documents that cannot be read become findings.
    pub fn new(config: Config, restored: Vec<Document>) -> Self {
        let Restored { node, ipam, endpoints, findings } = Restored::read(restored);
        let node = node.filter(|node| node.name == config.node_name);
        let mut state = State {
            nodes: Nodes::new(&config.node_name, node.as_ref()),
            endpoints: Endpoints::new(ipam.last_id),
            ipam: Ipam::new(config.quarantine, ipam.ipam.clone()),
            policy: PolicyState::new(config.policy.as_ref()),
            frontends: Frontends::new(config.kube_proxy_replacement, &config.node_name),
            underlay: None,
            base: None,
            listeners: false,
        };
        let mut lasting_findings = findings;
        for mut record in endpoints {
            let (id, name) = (record.id, record.display_name());
            if state.endpoints.get(id).is_some() || state.endpoints.by_host_name(&record.host_name).is_some()
            {
                lasting_findings.push(Finding::error(
                    format!("endpoint/{id}"),
                    format!("another document in the state directory has the same number or link; {name} is left out"),
                ));
                continue;
            }
            record.addresses.retain(|address| {
                let ours = state.ipam.restore(*address, id);
                if !ours {
                    lasting_findings.push(Finding::error(
                        format!("endpoint/{id}"),
                        format!(
                            "{address} of {name} belongs to another endpoint too and was taken from this one"
                        ),
                    ));
                }
                ours
            });
            let inserted = state.endpoints.insert(Endpoint { record, phase: Phase::Restoring });
            debug_assert!(inserted, "number and link were just seen to be free");
        }
        let routing = config.routing;
        let ct_gc = CtGc::new(&config.ct_gc);
        let mut agent = Self {
            config,
            state,
            plan: Plan::empty(routing),
            dirty: Dirty { all: true, ..Dirty::default() },
            outside: Outside {
                endpoints: Tracked::new(controllers::endpoints::hash),
                ipcache: Tracked::new(controllers::ipcache::hash),
                policy: Tracked::new(controllers::policy::hash),
                policy_blocks: Tracked::new(controllers::policy::block_hash),
                policy_l4: Tracked::new(controllers::policy::l4_hash),
                services: Tracked::new(|_, _| 0),
                backends: Tracked::new(|_, _| 0),
                no_masquerade: Tracked::new(|_, _| 0),
                routes: Tracked::new(|_, _| 0),
                programs: Tracked::new(|_, _| 0),
                clean_base: None,
                sockets: false,
                config: None,
                moved: false,
                garbage: BTreeSet::new(),
                saved_ipam: ipam,
                saved_node: node,
                clock: None,
            },
            requests: Requests::default(),
            failures: Failures::default(),
            ct_gc,
            staged: StagedCounts::default(),
            base_applied: None,
            inspection: Inspection::default(),
            known: false,
            unsaved: BTreeSet::new(),
            lasting_findings,
        };
        for (prefix, entry) in controllers::masquerade::rows(&agent.config) {
            agent.outside.no_masquerade.want(prefix, Some(entry));
        }
        agent.follow_plan();
        agent
    }

    /// Takes note of an event. No effect leaves the agent before the next [`Agent::reconcile`]; requests that need none are answered at once.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Reply> {
        match event {
            Event::NodeListStarted => self.state.nodes.list_started(),
            Event::NodeUpsert(object) => {
                let touched = self.state.nodes.upsert(&object);
                self.nodes_changed(touched);
            }
            Event::NodeDelete { name } => {
                let touched = self.state.nodes.delete(&name);
                self.nodes_changed(touched);
            }
            Event::NodeListSynced => {
                let touched = self.state.nodes.list_synced();
                self.nodes_changed(touched);
            }
            Event::ListStarted(kind) => self.state.policy.list_started(kind),
            Event::Upsert { object, version } => {
                let touched = self.state.policy.upsert(now, *object, version);
                self.identities_changed(now, touched);
            }
            Event::Unreadable { kind, name, error } => self.state.policy.unreadable(kind, name, error),
            Event::Delete { kind, name, version } => {
                let touched = self.state.policy.delete(kind, &name, version);
                self.identities_changed(now, touched);
            }
            Event::ListSynced(kind) => {
                let touched = self.state.policy.list_synced(kind);
                self.identities_changed(now, touched);
            }
            Event::Underlay(facts) => {
                if self.state.underlay.as_ref() != Some(&facts) {
                    self.state.underlay = Some(facts);
                    self.follow_plan();
                }
            }
            Event::ApiServer(servers) => self.state.policy.host.set_reached_at(servers),
            Event::Cni(request) => return self.cni(now, request),
            Event::EndpointConfig { id, change } => self.configure(now, id, change),
            Event::Listeners(any) => {
                self.state.listeners = any;
                self.state.policy.want_names(any);
            }
            Event::CtGc => self.ct_gc.start_now(now),
            Event::Tick => {}
        }
        Vec::new()
    }

    /// When [`Event::Tick`] and [`Agent::reconcile`] are due without any other event; a time in the past: at once.
    pub fn next_deadline(&self) -> Option<Now> {
        if !self.known {
            return self.failures.read_back.as_ref().map(|failure| failure.retry_at);
        }
        if !self.dirty.is_empty() {
            return Some(Now::default());
        }
        let leaving = self.state.endpoints.iter().filter_map(|endpoint| match &endpoint.phase {
            Phase::Leaving(leaving) => Some(leaving.failure.as_ref().map_or(Now::default(), |f| f.retry_at)),
            _ => None,
        });
        let outside = &self.outside;
        [
            outside.endpoints.next_retry(),
            outside.ipcache.next_retry(),
            outside.policy.next_retry(),
            outside.policy_blocks.next_retry(),
            outside.policy_l4.next_retry(),
            self.state.policy.next_wait(),
            outside.services.next_retry(),
            outside.backends.next_retry(),
            outside.no_masquerade.next_retry(),
            outside.routes.next_retry(),
            outside.programs.next_retry(),
            Some(self.ct_gc.due()),
            self.staged.due(&self.state.policy),
            self.inspection.due(self.config.inspect_interval),
        ]
        .into_iter()
        .flatten()
        .chain(self.failures.iter().map(|(_, failure)| failure.retry_at))
        .chain(leaving)
        .min()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn configure(&mut self, now: Now, id: EndpointId, change: EndpointConfigChange) {
        let Some(endpoint) = self.state.endpoints.get_mut(id) else { return };
        let config = endpoint.record.config.with(change);
        if std::mem::replace(&mut endpoint.record.config, config) == config {
            return;
        }
        self.unsaved.insert(id);
        self.state.policy.configure(now, id, config);
        self.mark_endpoint(id);
    }

    fn identities_changed(&mut self, now: Now, touched: Touched) {
        for id in touched.endpoints {
            self.state.policy.refresh(now, id);
            self.mark_endpoint(id);
        }
        self.dirty.addresses.extend(touched.addresses);
    }

    fn nodes_changed(&mut self, touched: crate::state::nodes::Touched) {
        let own = touched.own;
        if touched.any {
            self.state.policy.nodes_moved();
            self.state.frontends.nodes_moved();
        }
        for cidr in &touched.cidrs {
            self.dirty.addresses.extend(self.state.policy.addresses_in(cidr));
            let inside = self.state.policy.cidrs().keys().filter(|inside| cidr.contains(*inside));
            self.dirty.cidrs.extend(inside);
        }
        self.dirty.nodes(touched);
        if own {
            self.follow_plan();
        }
    }

    /// Computes the plan again; if it differs, so may every row.
    pub(crate) fn follow_plan(&mut self) {
        let plan = Plan::of(&self.config, &self.state);
        if plan != self.plan {
            let reserved = plan.routers().chain(plan.host_addresses.iter().copied()).collect();
            self.state.ipam.set_pools(plan.pools.clone(), reserved);
            self.plan = plan;
            self.dirty.all = true;
        }
    }

    /// Begins to take an endpoint down. `waiter` is answered when that is done.
    pub(crate) fn begin_leaving(&mut self, id: EndpointId, waiter: Option<RequestId>) {
        let Some(endpoint) = self.state.endpoints.get_mut(id) else { return };
        match &mut endpoint.phase {
            Phase::Leaving(leaving) => {
                leaving.waiters.extend(waiter);
                // Somebody asks again: try at once.
                leaving.failure = None;
            }
            phase => {
                let was_used = !matches!(phase, Phase::Creating { made: false, .. });
                *phase = Phase::Leaving(Leaving {
                    waiters: waiter.into_iter().collect(),
                    was_used,
                    ..Leaving::default()
                });
            }
        }
        let addresses = &endpoint.record.addresses;
        self.dirty.endpoint(id, addresses);
        if waiter.is_some() {
            for address in addresses {
                self.outside.endpoints.hurry(address);
                self.outside.ipcache.hurry(&host_net(*address));
            }
            if let Some(failure) = &mut self.failures.documents {
                failure.hurry();
            }
        }
    }
}
