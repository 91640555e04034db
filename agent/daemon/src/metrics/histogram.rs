//! A histogram with fixed buckets.

/// Observations counted by upper bound.
#[derive(Debug, Default, Clone)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what exceeds them all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// `bounds` ascend.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Made by `default` and not yet given bounds.
    pub(super) const fn is_unset(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.iter().position(|&bound| value <= bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    /// Bounds with how many observations were at most that, as Prometheus wants it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().zip(&self.counts).scan(0, |total, (&bound, &count)| {
            *total += count;
            Some((bound, *total))
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn buckets_are_cumulative_and_the_last_takes_the_rest() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 9.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (2.0, 3)]);
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum() - 12.0).abs() < 1e-9);
    }
}
