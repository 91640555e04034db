//! Commands that are under way, and pauses before they are tried again.

use std::time::Duration;

/// Numbers of commands.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandIds(u64);

impl CommandIds {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// One thing that is tried until it succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempt {
    failures: u32,
    not_before: Duration,
    in_flight: Option<u64>,
}

impl Attempt {
    const FIRST_PAUSE: Duration = Duration::from_millis(500);
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);

    /// Whether it may be tried now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.in_flight.is_none() && self.not_before <= now
    }

    pub(super) const fn start(&mut self, id: u64) {
        self.in_flight = Some(id);
    }

    pub(super) fn is(&self, id: u64) -> bool {
        self.in_flight == Some(id)
    }

    pub(super) const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// It failed; the next pause is twice as long.
    pub(super) fn failed(&mut self, now: Duration) {
        let pause = Self::FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause.min(Self::LONGEST_PAUSE);
        self.in_flight = None;
    }

    /// When it may be tried again, if it is not under way.
    pub(super) fn next(&self) -> Option<Duration> {
        self.in_flight.is_none().then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let mut attempt = Attempt::default();
        assert!(attempt.is_due(Duration::ZERO));
        attempt.start(1);
        assert!(!attempt.is_due(Duration::from_hours(1)) && attempt.is(1) && attempt.next().is_none());
        attempt.failed(Duration::ZERO);
        assert_eq!(attempt.next(), Some(Duration::from_millis(500)));
        (0..40).for_each(|_| attempt.failed(Duration::ZERO));
        assert_eq!(attempt.next(), Some(Duration::from_mins(1)));
    }
}
