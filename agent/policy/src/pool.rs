//! Values that many hold, each once.

use std::collections::BTreeSet;
use std::sync::Arc;

/// How many values it may have before it looks for those that nobody holds.
const FEWEST: usize = 64;

/// Of values that are equal all holders have the same one.
#[derive(Debug, Clone)]
pub(crate) struct Pool<T> {
    values: BTreeSet<Arc<T>>,
    /// With so many values it looks for those that nobody else holds any more.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), sweep_at: FEWEST }
    }
}

impl<T: Ord> Pool<T> {
    /// Puts the one that is known in the place of an equal one.
    pub(crate) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.values.get(value) {
            *value = Arc::clone(known);
            return;
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = FEWEST.max(2 * self.values.len());
        }
        self.values.insert(Arc::clone(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_go_with_their_last_holder() {
        let mut pool = Pool::default();
        let mut one = Arc::new(7);
        let mut other = Arc::new(7);
        pool.share(&mut one);
        pool.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
        for value in 100..100 + 10 * FEWEST {
            pool.share(&mut Arc::new(value));
        }
        assert!(pool.values.len() <= FEWEST + 1, "{}", pool.values.len());
        assert!(pool.values.contains(&7));
    }
}
