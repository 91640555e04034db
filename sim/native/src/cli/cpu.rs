//! How long something took, by the clock and in time of the CPU: on a busy machine only the second is the same again.

use std::fmt;
use std::time::{Duration, Instant};

/// A measurement that goes on.
pub(crate) struct Stopwatch {
    started: Instant,
    cpu: Option<Duration>,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    wall: Duration,
    /// Of this thread; only Linux tells.
    cpu: Option<Duration>,
}

impl Stopwatch {
    /// Begins one.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), cpu: of_thread() }
    }

    /// How long it has been.
    pub(crate) fn read(&self) -> Took {
        let cpu = self.cpu.zip(of_thread()).map(|(then, now)| now.saturating_sub(then));
        Took { wall: self.started.elapsed(), cpu }
    }
}

impl Took {
    /// What is to be judged: time of the CPU if it is known.
    pub(crate) fn counts(self) -> Duration {
        self.cpu.unwrap_or(self.wall)
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.wall.as_secs_f64())?;
        match self.cpu {
            Some(cpu) => write!(f, ", {:.1} s of CPU", cpu.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// Time of the CPU that this thread has had (Documentation/scheduler/sched-stats.rst in the kernel's sources).
fn of_thread() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_cpu_counts_where_it_is_known() {
        let [wall, cpu] = [310, 290].map(Duration::from_secs);
        let busy = Took { wall, cpu: Some(cpu) };
        assert_eq!((busy.counts(), busy.to_string().as_str()), (cpu, "310.0 s, 290.0 s of CPU"));
        let unknown = Took { wall, cpu: None };
        assert_eq!((unknown.counts(), unknown.to_string().as_str()), (wall, "310.0 s"));
    }
}
