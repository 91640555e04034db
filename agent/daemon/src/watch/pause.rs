//! Pauses between tries.

use std::time::Duration;

use agent_api::Timestamp;
use kube::runtime::utils::Backoff;

/// Pauses between tries: doubling from a quarter second, so that a server that comes back is met soon.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) const MIN: Duration = Duration::from_millis(250);
    pub(crate) const MAX: Duration = Duration::from_secs(10);

    /// The first pause comes next.
    pub(crate) const fn new() -> Self {
        Self(Self::MIN)
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::MAX);
        // Agents of many nodes lose their server at the same moment and should not come back at the same moment.
        let spread = u64::from(std::process::id()) ^ Timestamp::now().unix_nanos();
        Some(pause.mul_f64(0.75 + f64::from(u8::try_from(spread % 64).unwrap_or_default()) / 128.0))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = Self::MIN;
    }
}
