//! Drawing by chance.

use serde_json::Value;
use sim_scenario::Rng;

use super::{Feature, Plan};

/// Random numbers, and what may be drawn.
pub(super) struct Draw<'a> {
    rng: Rng,
    plan: &'a Plan,
}

impl<'a> Draw<'a> {
    pub(super) fn new(rng: Rng, plan: &'a Plan) -> Self {
        Self { rng, plan }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        self.plan
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.plan.features.contains(&feature)
    }

    /// True so often of a hundred times.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// A number, ends included.
    pub(super) fn number(&mut self, least: u64, most: u64) -> u64 {
        self.rng.range(least..=most)
    }

    /// One of them. There must be one.
    pub(super) fn one<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.rng.index(items.len())]
    }

    /// A copy of one of them.
    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        self.one(items).clone()
    }

    /// One of them, each as often as its weight says in relation to the others; those with a feature only if the plan has it.
    pub(super) fn weighted<T: Copy>(&mut self, items: &[(T, u64, Option<Feature>)]) -> T {
        let items: Vec<(T, u64)> = items
            .iter()
            .filter(|(_, _, feature)| feature.is_none_or(|feature| self.has(feature)))
            .map(|(item, weight, _)| (*item, *weight))
            .collect();
        let mut place = self.rng.below(items.iter().map(|(_, weight)| weight).sum());
        for (item, weight) in &items {
            if place < *weight {
                return *item;
            }
            place -= weight;
        }
        items[0].0
    }

    /// Some values, as many as a number between two bounds.
    pub(super) fn list(
        &mut self,
        least: u64,
        most: u64,
        mut make: impl FnMut(&mut Self) -> Value,
    ) -> Vec<Value> {
        (0..self.number(least, most)).map(|_| make(self)).collect()
    }
}
