//! Anomalies on demand: what a real API server shows on a bad day.

use std::collections::VecDeque;
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
}

impl CallMatch {
    fn matches(&self, call: &Call) -> bool {
        self.verb.is_none_or(|v| v == call.verb)
            && self.resource.as_ref().is_none_or(|r| *r == call.resource)
            && self.user_agent.as_ref().is_none_or(|u| call.user_agent.contains(u.as_str()))
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
    /// A watch ends with 410 Gone at once.
    Gone,
    /// A watch delivers every event twice.
    Duplicate,
    /// A watch delivers only the last of the updates of an object that are waiting, gathered for this long.
    Coalesce(Duration),
}

#[derive(Debug)]
struct Rule {
    calls: CallMatch,
    effect: Effect,
    /// How many calls it is still for; `None` = until cleared.
    left: Option<u32>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<VecDeque<Rule>>,
    /// Counted up to end every running watch.
    cut: watch::Sender<u64>,
}

/// The faults of one server; clones share the same rules.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Shared>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Shared { rules: Mutex::default(), cut: watch::Sender::new(0) }))
    }
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, VecDeque<Rule>> {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `effect` to the next `times` matching calls (`None`: to all until [`Faults::clear`]).
    pub fn inject(&self, calls: CallMatch, effect: Effect, times: Option<u32>) {
        self.rules().push_back(Rule { calls, effect, left: times });
    }

    /// Ends every watch that is running now, in the middle of the stream.
    pub fn cut_watches(&self) {
        self.0.cut.send_modify(|n| *n += 1);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules().clear();
    }

    /// The effects for this call, in the order in which they were injected; uses up counted rules.
    pub(crate) fn take(&self, call: &Call) -> Vec<Effect> {
        let mut rules = self.rules();
        let mut effects = Vec::new();
        rules.retain_mut(|rule| {
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

    /// Changes whenever watches are to be cut.
    pub(crate) fn cuts(&self) -> watch::Receiver<u64> {
        self.0.cut.subscribe()
    }
}

/// The error a failed call answers with.
pub(crate) fn injected(code: u16) -> ApiError {
    ApiError::with_code(code, "injected fault")
}
