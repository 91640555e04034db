//! What an agent hears of Node objects: a list, then changes, as an informer delivers them, with all that can go wrong.
//!
//! The contract is that of the API server's watches: changes of one object come in their order; between objects, over
//! reconnects and from replicas that lag, the past may be seen again before the present is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_control::{Event, NodeObject};
use serde_json::Value;
use sim_api::object::{at, label_map, list_at, name, str_at, uid};
use sim_scenario::model::ApiFault;

use crate::listen::OPERATOR;
use crate::queue::{NodeId, Task};
use crate::world::World;

/// Pauses between tries: doubling between these, as the daemon's.
pub(crate) const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The status with which the API server says that a position of a watch is too old (410 Gone).
pub(crate) const GONE: u16 = 410;

/// One change of a Node object, as far as agents can tell.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    object: Arc<NodeObject>,
    deleted: bool,
}

/// All changes of Node objects since the beginning.
#[derive(Debug, Default)]
pub(crate) struct NodeLog {
    changes: Vec<Change>,
    present: BTreeMap<String, Arc<NodeObject>>,
}

impl NodeLog {
    /// Takes a change in; false if agents cannot tell it from what was before.
    pub(crate) fn add(&mut self, object: &Value, deleted: bool) -> bool {
        let object = Arc::new(node_object(object));
        if deleted {
            self.present.remove(&object.name);
        } else {
            let old = self.present.insert(object.name.clone(), Arc::clone(&object));
            if old.as_deref() == Some(&*object) {
                return false;
            }
        }
        self.changes.push(Change { object, deleted });
        true
    }

    /// How many changes there have been.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The objects as they are.
    pub(crate) fn present(&self) -> impl Iterator<Item = &NodeObject> {
        self.present.values().map(|object| &**object)
    }

    /// The objects after the first `position` changes.
    fn at(&self, position: usize) -> BTreeMap<String, Arc<NodeObject>> {
        if position >= self.changes.len() {
            return self.present.clone();
        }
        let mut objects = BTreeMap::new();
        for Change { object, deleted } in &self.changes[..position] {
            if *deleted {
                objects.remove(&object.name);
            } else {
                objects.insert(object.name.clone(), Arc::clone(object));
            }
        }
        objects
    }
}

/// A core/v1 Node as the daemon reads it.
fn node_object(node: &Value) -> NodeObject {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut pod_cidrs: Vec<String> = list_at(node, &["spec", "podCIDRs"]).iter().map(text).collect();
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(at(node, &["spec", "podCIDR"]).as_str().map(str::to_owned));
    }
    let created: Option<jiff::Timestamp> = str_at(node, &["metadata", "creationTimestamp"]).parse().ok();
    NodeObject {
        name: name(node).to_owned(),
        uid: uid(node).to_owned(),
        created_s: created.map_or(0, |time| u64::try_from(time.as_second()).unwrap_or(0)),
        pod_cidrs,
        internal_ips: list_at(node, &["status", "addresses"])
            .iter()
            .filter(|address| str_at(address, &["type"]) == "InternalIP")
            .map(|address| text(&address["address"]))
            .collect(),
        labels: label_map(node),
    }
}

/// How far an agent's watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    /// It has a list and follows; without it, it lists next.
    pub(crate) following: bool,
    /// Changes that it has heard of.
    pub(crate) position: usize,
    /// When it acts next.
    pub(crate) due: Option<Duration>,
    /// Before the next try.
    pub(crate) pause: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { following: false, position: 0, due: None, pause: PAUSES.0 }
    }
}

impl World {
    /// Makes the watch of an agent act soon.
    pub(crate) fn wake_watch(&mut self, n: NodeId, after: Duration) {
        let at = self.now + after;
        let process = &mut self.nodes[n].agent;
        if !process.alive || process.watch.due.is_some_and(|due| due <= at) {
            return;
        }
        process.watch.due = Some(at);
        self.push(at, Task::Watch(n));
    }

    /// What the API server does wrong with somebody.
    pub(crate) fn api_faults(&self, who: NodeId) -> Vec<ApiFault> {
        self.cluster_faults.api(who).iter().map(|(_, fault)| fault.clone()).collect()
    }

    /// How long a change takes until somebody's watch has it.
    pub(crate) fn notice_delay(&mut self, who: NodeId) -> Duration {
        let slow = |(_, fault): &(u64, ApiFault)| match fault {
            ApiFault::Slow(by) => Some(*by),
            _ => None,
        };
        self.latency(Duration::from_millis(8))
            + self.cluster_faults.api(who).iter().filter_map(slow).sum::<Duration>()
    }

    /// Tells every agent's watch that there is something new.
    pub(crate) fn wake_watches(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].agent.watch.following {
                let after = self.notice_delay(n);
                self.wake_watch(n, after);
            }
        }
    }

    /// The connections of an agent's watch are cut.
    pub(crate) fn cut_watch(&mut self, n: NodeId, forget: bool) {
        self.cut_listens(n, forget);
        if n == OPERATOR {
            return;
        }
        let watch = &mut self.nodes[n].agent.watch;
        let pause = watch.pause;
        if forget || !watch.following {
            watch.following = false;
        }
        watch.due = None;
        self.wake_watch(n, pause);
    }

    /// The watch of an agent acts: lists, or hands on what is new.
    pub(crate) fn watch(&mut self, n: NodeId, at: Duration) {
        let process = &mut self.nodes[n].agent;
        if !process.alive || process.watch.due != Some(at) {
            return;
        }
        process.watch.due = None;
        let faults = self.api_faults(n);
        if let Some(code) = refusal(&faults) {
            let watch = &mut self.nodes[n].agent.watch;
            // Gone: what was known of the position is worth nothing, and the next list may succeed.
            let gone = code == GONE;
            let listing = !watch.following;
            if gone {
                watch.following = false;
            }
            let pause = watch.pause;
            watch.pause = (pause * 2).min(PAUSES.1);
            if !(gone && listing) {
                if listing {
                    self.tell_agent(n, Event::NodeListStarted);
                }
                self.wake_watch(n, pause);
                return;
            }
        }
        if self.nodes[n].agent.watch.following {
            self.follow(n, &faults);
        } else {
            self.list(n);
        }
    }

    fn list(&mut self, n: NodeId) {
        let lag = self.cluster_faults.take_stale(n);
        let position = self.node_log.len().saturating_sub(lag);
        let objects = self.node_log.at(position);
        let cut = self.cluster_faults.take_partial(n).then_some(objects.len() / 2);
        self.tell_agent(n, Event::NodeListStarted);
        for object in objects.values().take(cut.unwrap_or(usize::MAX)) {
            self.tell_agent(n, Event::NodeUpsert((**object).clone()));
        }
        let watch = &mut self.nodes[n].agent.watch;
        if cut.is_some() {
            let pause = watch.pause;
            self.wake_watch(n, pause);
            return;
        }
        watch.following = true;
        watch.position = position;
        watch.pause = PAUSES.0;
        self.tell_agent(n, Event::NodeListSynced);
        if position < self.node_log.len() {
            let after = self.latency(Duration::from_millis(200));
            self.wake_watch(n, after);
        }
    }

    fn follow(&mut self, n: NodeId, faults: &[ApiFault]) {
        let end = self.node_log.len();
        let mut from = self.nodes[n].agent.watch.position;
        if faults.contains(&ApiFault::Duplicate) {
            // A replica that lags tells the past again, then goes on.
            from = from.saturating_sub(usize::try_from(self.rng.below(4)).unwrap_or(0));
        }
        let mut changes: Vec<Change> = self.node_log.changes[from.min(end)..].to_vec();
        if faults.contains(&ApiFault::Coalesce) && self.rng.chance(0.3) {
            self.vanish(n);
        }
        if faults.contains(&ApiFault::Coalesce) {
            changes = coalesced(&changes, |change| change.object.name.as_str());
        }
        if faults.contains(&ApiFault::Reorder) {
            self.mix(&mut changes, |change| change.object.name.as_str());
        }
        for Change { object, deleted } in changes {
            let event = if deleted {
                Event::NodeDelete { name: object.name.clone() }
            } else {
                Event::NodeUpsert((*object).clone())
            };
            self.tell_agent(n, event);
        }
        self.nodes[n].agent.watch.position = end;
    }

    /// The node's own object seems to be deleted, then comes back as one with its pod CIDRs in another order, and is as it was soon.
    /// What the agent knew stays in force meanwhile, and so does the gateway that its pods have.
    fn vanish(&mut self, n: NodeId) {
        let own = self.nodes[n].name.clone();
        if let Some(object) = self.node_log.present.get(&own) {
            let mut other = (**object).clone();
            other.pod_cidrs.reverse();
            self.tell_agent(n, Event::NodeDelete { name: own });
            if self.rng.chance(0.7) {
                self.tell_agent(n, Event::NodeUpsert(other));
            }
            self.nodes[n].agent.watch.following = false;
            let after = self.latency(Duration::from_secs(2));
            self.wake_watch(n, after);
        }
    }

    /// Another order, but for changes of one object.
    pub(crate) fn mix<T, K: Eq + ?Sized>(&mut self, changes: &mut [T], name: impl Fn(&T) -> &K) {
        for i in 1..changes.len() {
            if name(&changes[i - 1]) != name(&changes[i]) && self.rng.chance(0.5) {
                changes.swap(i - 1, i);
            }
        }
    }
}

/// The code with which the API server refuses, if it does; 0: it does not answer.
pub(crate) fn refusal(faults: &[ApiFault]) -> Option<u16> {
    faults.iter().find_map(|fault| match fault {
        ApiFault::Down => Some(0),
        ApiFault::Error(code) => Some(*code),
        _ => None,
    })
}

/// Of each object only its last change.
pub(crate) fn coalesced<T: Clone, K: Ord + ?Sized>(changes: &[T], name: impl Fn(&T) -> &K) -> Vec<T> {
    let last: BTreeMap<&K, usize> = changes.iter().enumerate().map(|(i, change)| (name(change), i)).collect();
    let is_last = |(i, change): &(usize, &T)| last.get(name(change)) == Some(i);
    changes.iter().enumerate().filter(is_last).map(|(_, change)| change.clone()).collect()
}
