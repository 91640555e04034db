//! The operator's mind: events in, commands out. No I/O, no clock, no randomness: the same events give the same commands.

mod enforcement;
mod event;
mod identities;
mod pods;
mod policies;
mod retry;
mod table;
pub mod validity;

use std::time::Duration;

pub use event::{Action, Command, Endpoint, Event, Key, Kind, Namespace, Outcome, Pod, Policy, Seen};

use agent_crd::LabelFilter;

use enforcement::Enforcement;
use identities::Identities;
use pods::Pods;
use policies::Policies;
use retry::CommandIds;
use table::{Change, Listing, Table};

/// How the operator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the cluster; part of every identity.
    pub cluster: String,
    /// Which labels are part of identities; agents must have the same.
    pub labels: LabelFilter,
    /// How long an identity must have been unused before its object is deleted.
    pub collect_after: Duration,
    /// Most commands that are under way at a time.
    pub most_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: agent_crd::identity_labels::DEFAULT_CLUSTER.to_owned(),
            labels: LabelFilter::default(),
            collect_after: Duration::from_mins(15),
            most_in_flight: 32,
        }
    }
}

/// Figures for metrics and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Identities that exist.
    pub identities: usize,
    /// Identities that nobody uses and that wait for their end.
    pub unused: usize,
    /// Sets of labels that have no identity yet.
    pub waiting: usize,
    /// True if some of them wait because all numbers are taken.
    pub exhausted: bool,
    /// Policies that could be understood.
    pub valid_policies: usize,
    /// Policies that could not be understood.
    pub invalid_policies: usize,
    /// Commands under way.
    pub in_flight: usize,
    /// True when a complete list of every kind has been seen since the operator began to lead.
    pub synced: bool,
}

/// The operator's mind.
///
/// It acts only while it leads, and only after it has seen what it needs to see since then: what another leader did
/// in the meantime must not be missed.
#[derive(Debug)]
pub struct Operator {
    config: Config,
    leading: bool,
    pods: Pods,
    identities: Identities,
    endpoints: Table<Endpoint>,
    policies: Policies,
    enforcement: Enforcement,
    ids: CommandIds,
}

impl Operator {
    /// One that knows nothing and does not lead.
    pub fn new(config: Config) -> Self {
        Self {
            pods: Pods::new(config.cluster.clone(), config.labels.clone()),
            config,
            leading: false,
            identities: Identities::default(),
            endpoints: Table::default(),
            policies: Policies::default(),
            enforcement: Enforcement::default(),
            ids: CommandIds::default(),
        }
    }

    /// Takes note of something that happened. Times are of one clock that never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::Leading(leading) => self.lead(leading),
            Event::ListStarted(kind) => self.list_started(kind),
            Event::ListSynced(kind) => self.list_synced(kind),
            Event::Upsert(seen) => self.upsert(now, seen),
            Event::Deleted(key) => self.delete(&key),
            Event::Outcome { id, outcome } => self.outcome(now, id, &outcome),
            Event::Tick => {}
        }
        for labels in self.pods.take_changed() {
            self.identities.look_at(labels);
        }
    }

    /// What is to be done now. Every command gets its [`Event::Outcome`] later, whatever becomes of it.
    pub fn commands(&mut self, now: Duration) -> Vec<Command> {
        if !self.leading {
            return Vec::new();
        }
        let room = self.config.most_in_flight.saturating_sub(self.in_flight());
        let mut commands = Vec::new();
        if self.may_allocate() {
            let complete = self.may_collect();
            self.identities.settle(now, &self.pods, complete);
            self.identities.create(now, room, &mut self.ids, &mut commands);
            if complete {
                let before = now.checked_sub(self.config.collect_after);
                self.identities.collect(now, before, &self.pods, room, &mut self.ids, &mut commands);
            }
        }
        self.policies.review(now, &self.enforcement);
        self.policies.write(now, room, &mut self.ids, &mut commands);
        commands
    }

    /// When [`Operator::commands`] may have something to say without another event.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.leading {
            return None;
        }
        let collect = self
            .identities
            .first_unused()
            .filter(|_| self.may_collect())
            .map(|at| at + self.config.collect_after);
        [collect, self.identities.next_retry(), self.policies.next_retry()].into_iter().flatten().min()
    }

    /// Whether it leads.
    pub const fn is_leading(&self) -> bool {
        self.leading
    }

    /// True when there is nothing to do but to wait for events or for unused identities to get old.
    pub fn is_settled(&self) -> bool {
        self.figures().synced
            && self.in_flight() == 0
            && self.identities.is_settled()
            && self.policies.next_retry().is_none()
            && self.policies.is_settled()
    }

    /// Figures for metrics and reports.
    pub fn figures(&self) -> Figures {
        let (valid_policies, invalid_policies) = self.policies.counts();
        Figures {
            identities: self.identities.count(),
            unused: self.identities.count_unused(),
            waiting: self.identities.count_waiting(),
            exhausted: self.identities.is_exhausted(),
            valid_policies,
            invalid_policies,
            in_flight: self.in_flight(),
            synced: Kind::ALL.iter().all(|kind| self.listing(*kind) == Listing::Complete),
        }
    }

    fn in_flight(&self) -> usize {
        self.identities.in_flight() + self.policies.in_flight()
    }

    /// Numbers may be given out when all identities are known, and all pods and namespaces have been.
    fn may_allocate(&self) -> bool {
        self.listing(Kind::Identity) == Listing::Complete
            && self.listing(Kind::Pod) != Listing::Never
            && self.listing(Kind::Namespace) != Listing::Never
    }

    /// Identities may be deleted when nothing that could use them can be unknown.
    fn may_collect(&self) -> bool {
        [Kind::Pod, Kind::Namespace, Kind::Identity, Kind::Endpoint]
            .iter()
            .all(|kind| self.listing(*kind) == Listing::Complete)
    }

    fn listing(&self, kind: Kind) -> Listing {
        match kind {
            Kind::Pod => self.pods.listing_of_pods(),
            Kind::Namespace => self.pods.listing_of_namespaces(),
            Kind::Identity => self.identities.listing(),
            Kind::Endpoint => self.endpoints.listing(),
            Kind::NamespacedPolicy | Kind::ClusterwidePolicy | Kind::ClusterPolicy => {
                self.policies.listing(kind)
            }
            Kind::NodeStatus => self.enforcement.listing(),
        }
    }

    fn lead(&mut self, leading: bool) {
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        // What was seen before may be out of date, and outcomes of what was under way are not waited for.
        self.pods.doubt();
        self.identities.doubt();
        self.endpoints.doubt();
        self.policies.doubt();
        self.enforcement.doubt();
    }

    fn list_started(&mut self, kind: Kind) {
        match kind {
            Kind::Pod => self.pods.pods_list_started(),
            Kind::Namespace => self.pods.namespaces_list_started(),
            Kind::Identity => self.identities.list_started(),
            Kind::Endpoint => self.endpoints.start(),
            Kind::NamespacedPolicy | Kind::ClusterwidePolicy | Kind::ClusterPolicy => {
                self.policies.list_started(kind);
            }
            Kind::NodeStatus => self.enforcement.list_started(),
        }
    }

    fn list_synced(&mut self, kind: Kind) {
        match kind {
            Kind::Pod => self.pods.pods_list_synced(),
            Kind::Namespace => self.pods.namespaces_list_synced(),
            Kind::Identity => self.identities.list_synced(),
            Kind::Endpoint => {
                for endpoint in self.endpoints.sync() {
                    self.identities.endpoint_removed(endpoint.identity);
                }
            }
            Kind::NamespacedPolicy | Kind::ClusterwidePolicy | Kind::ClusterPolicy => {
                self.policies.list_synced(kind);
            }
            Kind::NodeStatus => {
                let touched = self.enforcement.list_synced();
                self.policies.touch(touched);
            }
        }
    }

    fn upsert(&mut self, now: Duration, seen: Seen) {
        match seen {
            Seen::Pod(pod) => self.pods.upsert(pod),
            Seen::Namespace(namespace) => self.pods.upsert_namespace(namespace),
            Seen::Identity(identity) => self.identities.upsert(&identity),
            Seen::Endpoint(endpoint) => {
                let number = endpoint.identity;
                let place = (endpoint.namespace.clone(), endpoint.name.clone());
                if let Change::Replaced(old) = self.endpoints.upsert(place, endpoint) {
                    self.identities.endpoint_removed(old.identity);
                }
                self.identities.endpoint_added(number);
            }
            Seen::Policy(policy) => self.policies.upsert(now, policy),
            Seen::NodeStatus(status) => {
                let touched = self.enforcement.upsert(&status);
                self.policies.touch(touched);
            }
        }
    }

    fn delete(&mut self, key: &Key) {
        let place = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Pod => self.pods.delete(&place),
            Kind::Namespace => self.pods.delete_namespace(&key.name),
            Kind::Identity => self.identities.delete(&key.name),
            Kind::Endpoint => {
                if let Some(old) = self.endpoints.delete(&place) {
                    self.identities.endpoint_removed(old.identity);
                }
            }
            Kind::NamespacedPolicy | Kind::ClusterwidePolicy | Kind::ClusterPolicy => {
                self.policies.delete(key);
            }
            Kind::NodeStatus => {
                let touched = self.enforcement.delete(&key.name);
                self.policies.touch(touched);
            }
        }
    }

    fn outcome(&mut self, now: Duration, id: u64, outcome: &Outcome) {
        // An outcome that nobody waits for any more still says something about the identity.
        match outcome {
            Outcome::Created(identity) | Outcome::Exists(identity) if self.leading => {
                self.identities.upsert(identity);
            }
            _ => {}
        }
        if !self.identities.outcome(now, id, outcome) {
            self.policies.outcome(now, id, outcome);
        }
    }
}
