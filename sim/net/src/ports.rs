//! Ephemeral ports.

use std::collections::BTreeSet;

use crate::frame::mix;

/// The range that Linux takes by default.
const FIRST: u16 = 32_768;
const LAST: u16 = 60_999;

/// Gives out source ports, each to one user at a time, in an order that a seed decides.
pub(crate) struct Ports {
    next: u16,
    last: u16,
    used: BTreeSet<u16>,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        let offset = mix(seed, 0) % u64::from(LAST - FIRST + 1);
        let next = FIRST + u16::try_from(offset).unwrap_or_default();
        Self { next, last: LAST, used: BTreeSet::new() }
    }

    /// From now on only the first `count` ports of the range, at least one.
    pub(crate) fn restrict(&mut self, count: u16) {
        self.last = FIRST.saturating_add(count.max(1) - 1).min(LAST);
        if self.next > self.last {
            self.next = FIRST;
        }
    }

    /// A port that nobody uses; nothing if all are used.
    pub(crate) fn take(&mut self, served: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in FIRST..=self.last {
            let port = self.next;
            self.next = if port >= self.last { FIRST } else { port + 1 };
            if !served(port) && self.used.insert(port) {
                return Some(port);
            }
        }
        None
    }

    pub(crate) fn give_back(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_once_and_in_range() {
        let mut ports = Ports::new(7);
        let taken: BTreeSet<u16> = std::iter::from_fn(|| ports.take(|port| port == 40_000)).collect();
        assert_eq!(taken.len(), usize::from(LAST - FIRST));
        assert_eq!((taken.first(), taken.last()), (Some(&FIRST), Some(&LAST)));
        assert!(!taken.contains(&40_000));
        ports.give_back(50_000);
        assert_eq!(ports.take(|_| false), Some(40_000).filter(|_| ports.next == 40_001).or(Some(50_000)));
    }
}
