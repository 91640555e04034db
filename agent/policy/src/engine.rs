//! The engine: changes of objects, identities and endpoints in, changes of rows out.
//!
//! Every call takes note; [`Policy::commit`] works it out. What comes out is a function of what holds now.

mod class;
mod commit;
mod nodes;
mod specs;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane_abi::Identity;
use ipnet::IpNet;

use crate::compile::{PeerIds, Peers};
use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointId};
use crate::label::LabelSet;
use crate::matcher::{Changed, Facts, Matcher, SelectorId};
use crate::numbers::{Digest, Hash, Numbers};
use crate::peers::{Families, reserved};
use crate::ports::NamedPort;
use crate::rows::{EVERYBODY, EndpointPolicy, Row};
use crate::rule::{ObjectRef, Spec};
use crate::store::{CidrGroup, Service, Store};
use crate::tables::{CookieChanges, Tables};

use class::PolicyId;
pub use nodes::Node;
pub use views::{CanonicalEndpoint, CanonicalRow, CanonicalVerdict};

/// Number of a version of a rule. It has no meaning beyond one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SpecId(u32);

/// A rule, as it is or as it was until the next commit.
struct SpecState {
    spec: Arc<Spec>,
    /// Selector of its endpoints.
    subject: SelectorId,
    /// Of most rules in a cluster no policy of this node has a use.
    used: Option<Box<Used>>,
    /// It is not in force any more; it stays until no policy uses it.
    gone: bool,
}

/// What there is of a rule while a policy uses it.
struct Used {
    /// Its peers, one for each entry.
    peers: Vec<PeerIds>,
    /// Policies that use it.
    by: BTreeSet<u32>,
}

/// A CIDR with an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(IpNet);

impl Digest for Prefix {
    fn digest(&self, hash: &mut Hash) {
        self.0.digest(hash);
    }
}

/// How much of a policy's rows is out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stale {
    All,
    Identities(BTreeSet<Identity>),
}

/// The rows of a policy in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct DirectionRows {
    /// The row of everybody; `None`: nothing is judged.
    everybody: Option<Row>,
    /// Sorted.
    identities: Vec<(Identity, Row)>,
}

impl DirectionRows {
    fn len(&self) -> usize {
        self.identities.len() + usize::from(self.everybody.is_some())
    }

    fn get(&self, identity: Identity) -> Option<Row> {
        let own = self.identities.binary_search_by_key(&identity, |(own, _)| *own);
        own.map_or(self.everybody.filter(|_| identity == EVERYBODY), |at| Some(self.identities[at].1))
    }
}

/// A policy with a number.
struct Compiled {
    id: Arc<PolicyId>,
    /// Rules from which the rows come. Empty when no endpoint asks for the policy any more.
    specs: Vec<SpecId>,
    /// By [`crate::rows::Direction`].
    rows: [DirectionRows; 2],
    /// The rows are those of the rules, now or at some earlier time.
    good: bool,
    /// Number of rows that it would have, if that is too many.
    too_many: Option<usize>,
    stale: Option<Stale>,
    /// Rules name ports of peers.
    names_peer_ports: bool,
    /// Endpoints that ask for it.
    wanted: u32,
    /// Endpoints that have it.
    used: u32,
}

/// An endpoint, and what it has.
struct EndpointState {
    endpoint: Endpoint,
    /// Number of the policy that its rules ask for; 0: none.
    wanted: u32,
    /// Number of the policy that it has. Another one only while the wanted one cannot be had.
    has: u32,
    told: Option<EndpointPolicy>,
}

/// The policy engine.
pub struct Policy {
    config: Config,
    store: Store,
    peers: Peers,
    prefixes: Numbers<Prefix>,
    nodes: nodes::Nodes,
    specs: BTreeMap<SpecId, SpecState>,
    next_spec: u32,
    current: BTreeMap<(Arc<ObjectRef>, u16), SpecId>,
    subjects: Matcher<EndpointId>,
    by_subject: BTreeMap<SelectorId, BTreeSet<SpecId>>,
    /// How many entries of a rule have a selector of peers.
    by_peer: BTreeMap<(SelectorId, SpecId), u32>,
    /// Rules with peers by way of other objects.
    with_refs: BTreeSet<SpecId>,
    endpoints: BTreeMap<EndpointId, EndpointState>,
    numbers: Numbers<PolicyId>,
    policies: BTreeMap<u32, Compiled>,
    tables: Tables,
    pending: Pending,
}

/// Noted, not yet worked out.
#[derive(Default)]
struct Pending {
    endpoints: BTreeSet<EndpointId>,
    policies: BTreeSet<u32>,
    /// Identities that are gone, and may still have rows.
    gone: BTreeSet<Identity>,
    /// Selectors that nothing needs after the commit.
    retired: Vec<SelectorId>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
            && self.policies.is_empty()
            && self.gone.is_empty()
            && self.retired.is_empty()
    }
}

impl Policy {
    /// An engine without objects, endpoints and identities other than the reserved ones.
    pub fn new(config: Config) -> Self {
        let mut matcher = Matcher::new();
        for (identity, facts) in reserved(config.families) {
            matcher.upsert(identity, facts);
        }
        Self {
            store: Store::default(),
            peers: Peers {
                families: config.families,
                matcher,
                ports: BTreeMap::new(),
                by_port_name: BTreeMap::new(),
            },
            prefixes: Numbers::new(Identity::LOCAL_CIDR_MIN.0..=Identity::LOCAL_CIDR_MAX.0),
            nodes: nodes::Nodes::new(),
            specs: BTreeMap::new(),
            next_spec: 0,
            current: BTreeMap::new(),
            subjects: Matcher::new(),
            by_subject: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            with_refs: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            numbers: Numbers::new(1..=u32::MAX),
            policies: BTreeMap::new(),
            tables: Tables::new(),
            pending: Pending::default(),
            config,
        }
    }

    /// Other families, as long as nothing rests on them: before the first commit, and before nodes and API servers are told of.
    pub fn set_families(&mut self, families: Families) {
        debug_assert!(self.policies.is_empty() && self.prefixes.is_steady(), "no CIDR has an identity yet");
        for (identity, _) in reserved(self.config.families) {
            self.peers.matcher.remove(identity);
        }
        self.config.families = families;
        self.peers.families = families;
        for (identity, facts) in reserved(families) {
            self.peers.matcher.upsert(identity, facts);
        }
    }

    /// Another configuration. Families cannot change: they are those of the start.
    pub fn set_config(&mut self, config: Config) {
        let limit_moved = config.max_rows != self.config.max_rows;
        self.config = Config { families: self.config.families, ..config };
        self.pending.endpoints.extend(self.endpoints.keys());
        if limit_moved {
            for number in self.policies.keys().copied().collect::<Vec<_>>() {
                self.make_stale(number, None);
            }
        }
    }

    /// An identity as it is now, with the ports that its pods have given names.
    ///
    /// Its addresses may go into the ipcache when the rows of the next commit are written, not before.
    /// Reserved identities may be given further labels this way.
    /// Identities of CIDRs and of single nodes are the engine's own: nothing is changed about them.
    pub fn upsert_identity(&mut self, identity: Identity, labels: LabelSet, named_ports: &[NamedPort]) {
        if identity.is_local() {
            return;
        }
        let prefix = self.peers.matcher.facts(identity).and_then(|facts| facts.prefix);
        self.pending.gone.remove(&identity);
        let changed = self.peers.matcher.upsert(identity, Facts { labels, prefix });
        self.peers_changed(&changed);
        self.set_named_ports(identity, named_ports);
    }

    /// An identity is gone. Its addresses must have left the ipcache before.
    pub fn remove_identity(&mut self, identity: Identity) {
        if identity.is_local() {
            return;
        }
        let changed = self.peers.matcher.remove(identity);
        self.peers_changed(&changed);
        self.set_named_ports(identity, &[]);
        self.pending.gone.insert(identity);
    }

    fn set_named_ports(&mut self, identity: Identity, named_ports: &[NamedPort]) {
        let sorted: BTreeSet<&NamedPort> = named_ports.iter().collect();
        let ports: Vec<NamedPort> = sorted.into_iter().cloned().collect();
        let before = self.peers.ports.remove(&identity).unwrap_or_default();
        if before == ports {
            if !ports.is_empty() {
                self.peers.ports.insert(identity, ports);
            }
            return;
        }
        for port in &before {
            if let Some(identities) = self.peers.by_port_name.get_mut(&port.name) {
                identities.remove(&identity);
                if identities.is_empty() {
                    self.peers.by_port_name.remove(&port.name);
                }
            }
        }
        for port in &ports {
            self.peers.by_port_name.entry(port.name.clone()).or_default().insert(identity);
        }
        if !ports.is_empty() {
            self.peers.ports.insert(identity, ports);
        }
        let concerned: Vec<u32> =
            self.policies.iter().filter(|(_, p)| p.names_peer_ports).map(|(number, _)| *number).collect();
        for number in concerned {
            self.make_stale(number, Some(identity));
        }
    }

    /// An endpoint of this node as it is now.
    pub fn upsert_endpoint(&mut self, id: EndpointId, endpoint: Endpoint) {
        self.subjects.upsert(id, Facts { labels: endpoint.labels.clone(), prefix: None });
        self.pending.endpoints.insert(id);
        match self.endpoints.get_mut(&id) {
            Some(state) => state.endpoint = endpoint,
            None => {
                self.endpoints.insert(id, EndpointState { endpoint, wanted: 0, has: 0, told: None });
            }
        }
    }

    /// An endpoint is gone, and so is its row.
    pub fn remove_endpoint(&mut self, id: EndpointId) {
        self.subjects.remove(id);
        self.pending.endpoints.remove(&id);
        if let Some(state) = self.endpoints.remove(&id) {
            self.unwant(state.wanted);
            self.unuse(state.has);
        }
    }

    /// A group of CIDRs as it is now; `None`: it is gone.
    pub fn set_cidr_group(&mut self, name: &str, group: Option<CidrGroup>) {
        if self.store.set_group(name, group) {
            self.follow_refs();
        }
    }

    /// A service as it is now; `None`: it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Service>) {
        if self.store.set_service(namespace, name, service) {
            self.follow_refs();
        }
    }

    /// The tables hold exactly what the commits so far have asked for: numbers that were given up are free.
    pub fn settle(&mut self) {
        self.tables.settle();
        self.numbers.settle();
        self.prefixes.settle();
        self.nodes.settle();
    }

    /// From now on it is noted what becomes of cookies, beginning with all that tables may hold now; or not any more.
    /// Before [`Policy::settle`] has been called once the tables may hold cookies of an earlier engine.
    pub fn follow_cookies(&mut self, follow: bool) {
        self.tables.follow_cookies(follow);
    }

    /// What has become of cookies since the last time, if they are followed.
    pub fn take_cookies(&mut self) -> CookieChanges {
        self.tables.take_cookies()
    }

    fn peers_changed(&mut self, changed: &[Changed<Identity>]) {
        for change in changed {
            let specs = (change.selector, SpecId(0))..=(change.selector, SpecId(u32::MAX));
            let users: BTreeSet<u32> = self
                .by_peer
                .range(specs)
                .filter_map(|((_, spec), _)| self.specs.get(spec)?.used.as_ref())
                .flat_map(|used| used.by.iter().copied())
                .collect();
            for number in users {
                self.make_stale(number, Some(change.member));
            }
        }
    }

    /// `None`: all of its rows.
    fn make_stale(&mut self, number: u32, identity: Option<Identity>) {
        let Some(policy) = self.policies.get_mut(&number) else { return };
        self.pending.policies.insert(number);
        stale_for(&mut policy.stale, identity);
    }

    fn unwant(&mut self, number: u32) {
        if let Some(policy) = self.policies.get_mut(&number) {
            policy.wanted -= 1;
            self.pending.policies.insert(number);
            self.numbers.release(number);
        }
    }

    fn unuse(&mut self, number: u32) {
        if let Some(policy) = self.policies.get_mut(&number) {
            policy.used -= 1;
            self.pending.policies.insert(number);
            self.numbers.release(number);
        }
    }
}

/// The rows of an identity are out of date too; `None`: all are.
fn stale_for(stale: &mut Option<Stale>, identity: Option<Identity>) {
    match (stale, identity) {
        (Some(Stale::All), _) => {}
        (Some(Stale::Identities(identities)), Some(identity)) => {
            identities.insert(identity);
        }
        (stale, None) => *stale = Some(Stale::All),
        (stale, Some(identity)) => *stale = Some(Stale::Identities(BTreeSet::from([identity]))),
    }
}
