//! Faults on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ports::{PortError, PortErrorKind};

/// Counts the calls to the ports of one node and decides which of them fail. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: u64,
    log: Option<Vec<String>>,
    fail: BTreeMap<u64, PortError>,
    refuse: Vec<(String, PortError)>,
    crash_after: Option<u64>,
    crashed: bool,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The `call`-th call (counted from 1, over the whole life) fails with `error` and does nothing.
    pub fn fail_call(&self, call: u64, error: PortError) {
        self.state().fail.insert(call, error);
    }

    /// Every call whose operation begins with `operation` fails with `error`, until [`Faults::accept`].
    pub fn refuse(&self, operation: impl Into<String>, error: PortError) {
        self.state().refuse.push((operation.into(), error));
    }

    /// Ends all that [`Faults::refuse`] began.
    pub fn accept(&self) {
        self.state().refuse.clear();
    }

    /// After the `call`-th call nothing has an effect any more; with 0, from the first on.
    pub fn crash_after(&self, call: u64) {
        let mut state = self.state();
        state.crash_after = Some(call);
        state.crashed = state.calls >= call;
    }

    /// Whether the agent is dead.
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// A new process begins: calls have effects again and are counted from 0.
    pub fn revive(&self) {
        *self.state() = State::default();
    }

    /// From now on the operations are written down.
    pub fn record(&self) {
        self.state().log = Some(Vec::new());
    }

    /// The operations since [`Faults::record`] or the last call of this.
    pub fn recorded(&self) -> Vec<String> {
        self.state().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// One call: `act` is done unless the call shall fail.
    pub(super) fn call<T>(
        &self,
        operation: String,
        act: impl FnOnce(&str) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let mut state = self.state();
        if state.crashed {
            return Err(
                PortError::terminal(operation, "the process has crashed").with_kind(PortErrorKind::Crashed)
            );
        }
        state.calls += 1;
        let call = state.calls;
        if let Some(log) = &mut state.log {
            log.push(operation.clone());
        }
        let mut failure = state.fail.remove(&call);
        if failure.is_none() {
            let refused = state.refuse.iter().find(|(prefix, _)| operation.starts_with(prefix));
            failure = refused.map(|(_, error)| error.clone());
        }
        state.crashed = state.crash_after == Some(call);
        drop(state);
        match failure {
            Some(error) => Err(PortError { operation, ..error }),
            None => act(&operation),
        }
    }
}
