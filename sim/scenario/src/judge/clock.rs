//! Time as far as it is known before a run: at least so much has passed, at most so much.

use std::time::Duration;

/// Bounds of a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// A moment between steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    least: Duration,
    most: Duration,
}

/// What the steps so far take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// Sum of what passes for sure, whenever the step begins.
    least: Duration,
    /// Sum of what may pass at most.
    most: Duration,
    /// Earliest time since the start.
    earliest: Duration,
}

impl Clock {
    pub(super) const fn now(&self) -> Moment {
        Moment { least: self.least, most: self.most }
    }

    /// Exactly so much passes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.least += time;
        self.most += time;
        self.earliest += time;
    }

    /// At most so much passes.
    pub(super) fn pass_at_most(&mut self, time: Duration) {
        self.most += time;
    }

    /// It is not earlier than this. How long that takes depends on how late it is already.
    pub(super) fn at(&mut self, at: Duration) {
        self.most += at.saturating_sub(self.earliest);
        self.earliest = self.earliest.max(at);
    }

    /// How much has passed since.
    pub(super) fn since(&self, moment: Moment) -> Bounds {
        Bounds { least: self.least.saturating_sub(moment.least), most: self.most.saturating_sub(moment.most) }
    }
}
