//! When to try again what failed.

use std::time::Duration;

use crate::ports::{PortError, Retry};
use crate::time::Now;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// Pause after a failure that repeating cannot mend; something outside may have changed by then all the same.
const TERMINAL: Duration = Duration::from_mins(5);

/// The last failure of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) error: PortError,
    /// How often in a row, at least once.
    tries: u32,
    /// When to try again.
    pub(crate) retry_at: Now,
}

impl Failure {
    /// Another failure at `now`, after `earlier` if there was one.
    pub(crate) fn again(earlier: Option<&Self>, now: Now, error: PortError) -> Self {
        let tries = earlier.map_or(1, |failure| failure.tries.saturating_add(1));
        let pause = match error.retry {
            Retry::Later => FIRST.saturating_mul(1 << (tries - 1).min(16)).min(LONGEST),
            Retry::Never => TERMINAL,
        };
        Self { error, tries, retry_at: now.plus(pause) }
    }

    /// Makes it due at once: somebody waits for it.
    pub(crate) fn hurry(&mut self) {
        self.retry_at = Now::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let now = Now::from_secs(100);
        let error = PortError::retryable("upsert", "busy");
        let first = Failure::again(None, now, error.clone());
        assert_eq!(first.retry_at, now.plus(FIRST));
        let mut last = first;
        for _ in 0..100 {
            last = Failure::again(Some(&last), now, error.clone());
        }
        assert_eq!(last.retry_at, now.plus(LONGEST));
        let terminal = Failure::again(None, now, PortError::terminal("upsert", "no"));
        assert_eq!(terminal.retry_at, now.plus(TERMINAL));
    }
}
