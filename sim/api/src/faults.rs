//! Anomalies on demand: what a real API server shows on a bad day.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::ApiError;
use crate::resource::Gr;

/// A call as the fault rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `connect`.
    pub verb: &'static str,
    /// The resource it is for.
    pub resource: Gr,
    /// `User-Agent` of the caller, to break one client and not the other.
    pub user_agent: String,
    /// Where it comes from, if that is known.
    pub peer: Option<IpAddr>,
}

/// Which calls a rule is for; `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct CallMatch {
    /// Verb of the call.
    pub verb: Option<&'static str>,
    /// Resource of the call.
    pub resource: Option<Gr>,
    /// Text that the caller's `User-Agent` must contain.
    pub user_agent: Option<String>,
    /// Addresses of callers; empty matches all.
    pub peers: Vec<IpAddr>,
}

impl CallMatch {
    fn matches(&self, call: &Call) -> bool {
        self.verb.is_none_or(|v| v == call.verb)
            && self.resource.as_ref().is_none_or(|r| *r == call.resource)
            && self.user_agent.as_ref().is_none_or(|u| call.user_agent.contains(u.as_str()))
            && (self.peers.is_empty() || call.peer.is_some_and(|peer| self.peers.contains(&peer)))
    }
}

/// What happens to a matching call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The call fails with this HTTP code before anything is done.
    Fail(u16),
    /// The call is done, but its answer is lost: the client sees this HTTP code.
    FailAfter(u16),
    /// The call waits this long first.
    Delay(Duration),
    /// A list answers with the state it had this many revisions ago, as a stale replica would.
    StaleList(u64),
    /// A watch is refused with 410 Gone.
    Gone,
    /// A watch begins with an error event of code 410 and ends, as where its revision is too old: the client must list again.
    Expired,
    /// A watch delivers every event twice.
    Duplicate,
    /// A watch delivers only the last of the updates of an object that are waiting, gathered for this long.
    Coalesce(Duration),
    /// A watch gathers events this long and delivers the last one of each object again behind them.
    Again(Duration),
    /// A watch gathers events this long and delivers the objects in another order; each object's events keep theirs.
    Reorder(Duration),
    /// A watch delivers everything this late.
    Lag(Duration),
    /// A list breaks off half way.
    PartialList,
    /// The connection breaks instead of an answer.
    Unreachable,
}

/// Names a rule, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(u64);

#[derive(Debug)]
struct Rule {
    id: RuleId,
    calls: CallMatch,
    effect: Effect,
    /// How many calls it is still for; `None` = until cleared.
    left: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    /// Numbers rules and watches.
    next: u64,
    /// Running watches, each with whether it is to end.
    watches: BTreeMap<u64, (Call, bool)>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counted up whenever watches are to end.
    cut: watch::Sender<u64>,
}

/// The faults of one server; clones share the same rules.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Shared>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), cut: watch::Sender::new(0) }))
    }
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `effect` to the next `times` matching calls (`None`: to all until it is removed). Effects on watches last as long as a
    /// watch that began under them; end those that run with [`Faults::cut`].
    pub fn inject(&self, calls: CallMatch, effect: Effect, times: Option<u32>) -> RuleId {
        let mut state = self.state();
        state.next += 1;
        let id = RuleId(state.next);
        state.rules.push(Rule { id, calls, effect, left: times });
        id
    }

    /// Ends every watch that is running now, in the middle of the stream.
    pub fn cut_watches(&self) {
        self.cut(&CallMatch::default());
    }

    /// Ends the running watches that match, in the middle of the stream; returns their resources.
    pub fn cut(&self, calls: &CallMatch) -> BTreeSet<Gr> {
        let mut cut = BTreeSet::new();
        for (call, end) in self.state().watches.values_mut() {
            if calls.matches(call) {
                *end = true;
                cut.insert(call.resource.clone());
            }
        }
        self.0.cut.send_modify(|n| *n += 1);
        cut
    }

    /// The resources of running watches that match.
    pub fn watched(&self, calls: &CallMatch) -> BTreeSet<Gr> {
        let state = self.state();
        let matching = state.watches.values().filter(|(call, _)| calls.matches(call));
        matching.map(|(call, _)| call.resource.clone()).collect()
    }

    /// Removes a rule; one that is used up is gone already.
    pub fn remove(&self, rule: RuleId) {
        self.state().rules.retain(|r| r.id != rule);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// The effects for this call, in the order in which they were injected; uses up counted rules.
    pub(crate) fn take(&self, call: &Call) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state().rules.retain_mut(|rule| {
            if !rule.calls.matches(call) {
                return true;
            }
            effects.push(rule.effect.clone());
            match &mut rule.left {
                Some(left) => {
                    *left = left.saturating_sub(1);
                    *left > 0
                }
                None => true,
            }
        });
        effects
    }

    /// Notes that a watch runs, until the returned value is dropped.
    pub(crate) fn running(&self, call: Call) -> Running {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.watches.insert(number, (call, false));
        Running { faults: self.clone(), number, changed: self.0.cut.subscribe() }
    }
}

/// A watch that runs.
pub(crate) struct Running {
    faults: Faults,
    number: u64,
    changed: watch::Receiver<u64>,
}

impl Running {
    /// Waits until the watch is to end.
    pub(crate) async fn cut(&mut self) {
        loop {
            self.changed.mark_unchanged();
            if self.faults.state().watches.get(&self.number).is_none_or(|(_, end)| *end) {
                return;
            }
            // The sender lives as long as the faults that are held here.
            let _ = self.changed.changed().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.faults.state().watches.remove(&self.number);
    }
}

/// The error a failed call answers with.
pub(crate) fn injected(code: u16) -> ApiError {
    ApiError::with_code(code, "injected fault")
}
