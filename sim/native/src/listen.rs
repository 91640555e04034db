//! Watches of the objects that identity and policy rest on: each kind by itself, for each agent and for the operator.
//!
//! The contract is that of the watch of nodes (`watch.rs`), and so are the faults. Kinds know nothing of each other: what is
//! heard of one may be older than what is heard of another.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_control::{Event, ObjectKind};
use bristle_operator::core::Event as OperatorEvent;
use sim_scenario::model::ApiFault;
use sim_scenario::rng::Rng;

use crate::kinds::{Change, of_operator};
use crate::queue::{NodeId, Task};
use crate::watch::{GONE, PAUSES, Watch, coalesced, refusal};
use crate::world::World;

/// Stands for the operator where nodes are counted.
pub(crate) const OPERATOR: NodeId = usize::MAX;

/// More than there are kinds of objects.
pub(crate) const KINDS: u64 = 64;
/// How often a first list comes late.
const LATE_LISTS: f64 = 0.15;

/// Watches of somebody, by kind.
pub(crate) type Watches = BTreeMap<ObjectKind, Watch>;

impl World {
    /// Kinds that an agent, or the operator, watches.
    fn watched_by(&self, who: NodeId) -> Vec<ObjectKind> {
        let all = ObjectKind::ALL.into_iter();
        match who {
            _ if !self.has_identities() => Vec::new(),
            OPERATOR => all.filter(|kind| of_operator(*kind).is_some()).collect(),
            _ => all.collect(),
        }
    }

    fn listens(&mut self, who: NodeId) -> (bool, &mut Watches) {
        if who == OPERATOR {
            return (self.operator.alive, &mut self.operator.watches);
        }
        let process = &mut self.nodes[who].agent;
        (process.alive, &mut process.watches)
    }

    /// Somebody has been started and begins to list everything.
    pub(crate) fn begin_to_listen(&mut self, who: NodeId) {
        let kinds = self.watched_by(who);
        let watches = kinds.iter().map(|kind| (*kind, Watch::default())).collect();
        *self.listens(who).1 = watches;
        for (index, kind) in (0..).zip(kinds) {
            let pause = self.first_list(index);
            self.wake_listen(who, kind, pause);
        }
    }

    /// How long somebody who has just been started waits for a list of a kind, which has this index. Now and then one comes long after
    /// the others.
    pub(crate) fn first_list(&mut self, index: u64) -> Duration {
        let mut rng = Rng::stream(self.seed, "first lists", self.stats.tasks * KINDS + index);
        let late = if rng.chance(LATE_LISTS) { rng.range(100..=2000) } else { 0 };
        self.latency(Duration::from_millis(30)) + Duration::from_millis(late)
    }

    fn wake_listen(&mut self, who: NodeId, kind: ObjectKind, after: Duration) {
        let at = self.now + after;
        let (alive, watches) = self.listens(who);
        let Some(watch) = watches.get_mut(&kind) else { return };
        if !alive || watch.due.is_some_and(|due| due <= at) {
            return;
        }
        watch.due = Some(at);
        self.push(at, Task::Listen(who, kind));
    }

    /// Everybody, the operator first.
    fn listeners(&self) -> impl Iterator<Item = NodeId> + use<> {
        std::iter::once(OPERATOR).chain(0..self.nodes.len())
    }

    /// Tells everybody's watch that there is something new of a kind.
    pub(crate) fn wake_listens(&mut self, kind: ObjectKind) {
        for who in self.listeners() {
            if self.listens(who).1.get(&kind).is_some_and(|watch| watch.following) {
                let after = self.notice_delay(who);
                self.wake_listen(who, kind, after);
            }
        }
    }

    /// The connections of somebody's watches are cut.
    pub(crate) fn cut_listens(&mut self, who: NodeId, forget: bool) {
        for kind in self.watched_by(who) {
            let Some(watch) = self.listens(who).1.get_mut(&kind) else { continue };
            let pause = watch.pause;
            watch.following &= !forget;
            watch.due = None;
            self.wake_listen(who, kind, pause);
        }
    }

    /// The past is told again.
    pub(crate) fn wake_all_listens(&mut self, who: NodeId) {
        for kind in self.watched_by(who) {
            self.wake_listen(who, kind, Duration::from_millis(1));
        }
    }

    /// Whether somebody has heard everything.
    pub(crate) fn has_heard_all(&self, who: NodeId) -> bool {
        let watches = if who == OPERATOR { &self.operator.watches } else { &self.nodes[who].agent.watches };
        watches.iter().all(|(kind, watch)| watch.following && watch.position == self.kind_len(*kind))
    }

    fn kind_len(&self, kind: ObjectKind) -> usize {
        self.kinds.get(&kind).map_or(0, crate::kinds::KindLog::len)
    }

    fn list_event(&mut self, who: NodeId, kind: ObjectKind, begins: bool) {
        if who != OPERATOR {
            self.tell_agent(who, if begins { Event::ListStarted(kind) } else { Event::ListSynced(kind) });
        } else if let Some(kind) = of_operator(kind) {
            self.tell_operator(if begins {
                OperatorEvent::ListStarted(kind)
            } else {
                OperatorEvent::ListSynced(kind)
            });
        }
    }

    fn hand_out(&mut self, who: NodeId, kind: ObjectKind, change: &Change) {
        if who == OPERATOR {
            if let Some(event) = change.operator_event() {
                self.tell_operator(event);
            }
        } else if (kind != ObjectKind::Pod || change.node == self.nodes[who].name)
            && let Some(event) = change.event()
        {
            self.tell_agent(who, event);
        }
    }

    /// The watch of a kind acts: lists, or hands on what is new.
    pub(crate) fn listen(&mut self, who: NodeId, kind: ObjectKind, at: Duration) {
        let (alive, watches) = self.listens(who);
        let Some(watch) = watches.get_mut(&kind) else { return };
        if !alive || watch.due != Some(at) {
            return;
        }
        watch.due = None;
        let (following, pause) = (watch.following, watch.pause);
        let faults = self.api_faults(who);
        if let Some(code) = refusal(&faults) {
            let gone = code == GONE;
            if let Some(watch) = self.listens(who).1.get_mut(&kind) {
                watch.following &= !gone;
                watch.pause = (pause * 2).min(PAUSES.1);
            }
            if !gone || following {
                if !following {
                    self.list_event(who, kind, true);
                }
                self.wake_listen(who, kind, pause);
                return;
            }
        }
        if following {
            self.follow_kind(who, kind, &faults);
        } else {
            self.list_kind(who, kind);
        }
    }

    fn list_kind(&mut self, who: NodeId, kind: ObjectKind) {
        let lag = self.cluster_faults.take_stale_kind(who, kind);
        let end = self.kind_len(kind);
        let position = end.saturating_sub(lag);
        let objects = self.kinds.get(&kind).map(|log| log.at(position)).unwrap_or_default();
        if position < end {
            self.past_is_told(kind, position);
        }
        let cut = self.cluster_faults.take_partial_kind(who, kind).then_some(objects.len() / 2);
        self.list_event(who, kind, true);
        for change in objects.iter().take(cut.unwrap_or(usize::MAX)) {
            self.hand_out(who, kind, change);
        }
        let Some(watch) = self.listens(who).1.get_mut(&kind) else { return };
        if cut.is_some() {
            let pause = watch.pause;
            self.wake_listen(who, kind, pause);
            return;
        }
        watch.following = true;
        watch.position = position;
        watch.pause = PAUSES.0;
        self.list_event(who, kind, false);
        if position < end {
            let after = self.latency(Duration::from_millis(200));
            self.wake_listen(who, kind, after);
        }
    }

    fn follow_kind(&mut self, who: NodeId, kind: ObjectKind, faults: &[ApiFault]) {
        let end = self.kind_len(kind);
        let position = self.listens(who).1.get(&kind).map_or(end, |watch| watch.position);
        let mut from = position;
        if faults.contains(&ApiFault::Duplicate) {
            from = from.saturating_sub(usize::try_from(self.rng.below(4)).unwrap_or(0));
        }
        if from < position {
            self.past_is_told(kind, from);
        }
        let log = self.kinds.get(&kind);
        let mut changes: Vec<Change> =
            log.map(|log| log.changes[from.min(end)..].to_vec()).unwrap_or_default();
        if faults.contains(&ApiFault::Coalesce) {
            changes = coalesced(&changes, |change| &change.name);
        }
        if faults.contains(&ApiFault::Reorder) {
            self.mix(&mut changes, |change| &change.name);
        }
        for change in &changes {
            self.hand_out(who, kind, change);
        }
        if let Some(watch) = self.listens(who).1.get_mut(&kind) {
            watch.position = end;
        }
    }

    /// Somebody hears of a kind what was true before its change number `position`: it may act on it for a while.
    fn past_is_told(&mut self, kind: ObjectKind, position: usize) {
        let change = self.kinds.get(&kind).and_then(|log| log.changes.get(position));
        if let Some(at) = change.map(|change| change.at) {
            self.check.views.reach_back_to(at);
        }
    }
}
