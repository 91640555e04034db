//! The time that is handed in: nothing in this crate reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time since the machine booted, including suspend (`CLOCK_BOOTTIME`).
///
/// It is comparable across restarts of the agent, so that a quarantine outlives one, and it starts over with the kernel:
/// a stored time that lies in the future is from before a reboot and counts as now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Now(Duration);

impl Now {
    /// The moment `since_boot` after boot.
    pub const fn since_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The moment `seconds` after boot.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The moment `millis` milliseconds after boot.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Time since boot.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The moment `by` later; the end of time if that is beyond it.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Time that has passed since `earlier`, zero if that lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
