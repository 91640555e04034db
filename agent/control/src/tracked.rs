//! One kind of thing outside (rows of a table, routes, programs): what it shall be, what it is, and the difference.

use std::collections::btree_map::{Entry, OccupiedEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::backoff::Failure;
use crate::ports::PortError;
use crate::time::Now;

/// What may be done to things that were found outside at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// The state is not complete yet: found things that differ or that nobody asks for stay as they are. New ones are made.
    Partial,
    /// The state is complete: found things are changed and removed as the state says.
    Full,
}

/// What one pass did.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Things written or removed.
    pub(crate) done: usize,
    /// What failed.
    pub(crate) errors: Vec<PortError>,
}

/// A thing: what it shall be, and what is there. Most are as they shall be, and there may be a million: that is held once.
#[derive(Debug, Clone)]
enum Sides<V> {
    /// It is as it shall be.
    Settled(V),
    /// It shall be, and is not there.
    Missing(V),
    /// It is there, and nobody asks for it.
    Spare(V),
    /// It shall be the first, and the second is there.
    Other(Box<[V; 2]>),
}

impl<V: Eq> Sides<V> {
    /// `None`: it is nothing.
    fn of(desired: Option<V>, actual: Option<V>) -> Option<Self> {
        Some(match (desired, actual) {
            (Some(desired), Some(actual)) if desired == actual => Self::Settled(actual),
            (Some(desired), Some(actual)) => Self::Other(Box::new([desired, actual])),
            (Some(desired), None) => Self::Missing(desired),
            (None, Some(actual)) => Self::Spare(actual),
            (None, None) => return None,
        })
    }

    fn desired(&self) -> Option<&V> {
        match self {
            Self::Settled(value) | Self::Missing(value) => Some(value),
            Self::Other(both) => both.first(),
            Self::Spare(_) => None,
        }
    }

    fn actual(&self) -> Option<&V> {
        match self {
            Self::Settled(value) | Self::Spare(value) => Some(value),
            Self::Other(both) => both.last(),
            Self::Missing(_) => None,
        }
    }

    const fn settled(&self) -> bool {
        matches!(self, Self::Settled(_))
    }
}

/// Puts other sides in the place of a thing; returns whether it is as it shall be.
fn replace<K: Ord, V: Eq>(mut place: OccupiedEntry<'_, K, Sides<V>>, sides: Option<Sides<V>>) -> bool {
    match sides {
        Some(sides) => {
            let settled = sides.settled();
            place.insert(sides);
            settled
        }
        None => {
            place.remove();
            true
        }
    }
}

/// Things of one kind by key. Only what is marked is looked at, so a pass costs what changed.
#[derive(Debug)]
pub(crate) struct Tracked<K, V> {
    /// Both sides in one place: there may be a million, and each is looked for several times when it changes.
    things: BTreeMap<K, Sides<V>>,
    /// How many of them are there.
    there: usize,
    /// Keys whose two sides differ and that may be worked on at once.
    dirty: BTreeSet<K>,
    /// Keys whose wish rests on more than what has been heard so far, so that it need not wait for full knowledge.
    firm: BTreeSet<K>,
    failures: BTreeMap<K, Failure>,
    /// Failed keys by the time at which they are due again.
    waiting: BTreeSet<(Now, K)>,
    /// Sum of `hash` over the actual things.
    digest: u64,
    hash: fn(&K, &V) -> u64,
    /// How often what is there has changed one by one.
    changes: u64,
}

impl<K: Ord + Clone, V: Eq + Clone> Tracked<K, V> {
    /// Nothing wanted, nothing there. `hash` is summed up over what is there, see [`Self::digest`].
    pub(crate) fn new(hash: fn(&K, &V) -> u64) -> Self {
        Self {
            things: BTreeMap::new(),
            there: 0,
            dirty: BTreeSet::new(),
            firm: BTreeSet::new(),
            failures: BTreeMap::new(),
            waiting: BTreeSet::new(),
            digest: 0,
            hash,
            changes: 0,
        }
    }

    /// Takes over what was found outside, in place of what was believed to be there.
    pub(crate) fn read_back(&mut self, found: impl IntoIterator<Item = (K, V)>) {
        let before = std::mem::take(&mut self.things).into_iter();
        let wanted = before.filter_map(|(key, sides)| Some((key, Sides::Missing(sides.desired()?.clone()))));
        self.things = wanted.collect();
        for (key, value) in found {
            match self.things.entry(key) {
                Entry::Occupied(place) => {
                    let desired = place.get().desired().cloned();
                    replace(place, Sides::of(desired, Some(value)));
                }
                Entry::Vacant(place) => {
                    place.insert(Sides::Spare(value));
                }
            }
        }
        let hash = self.hash;
        let there = || self.things.iter().filter_map(|(key, sides)| Some((key, sides.actual()?)));
        self.there = there().count();
        self.digest = there().fold(0, |sum, (key, value)| sum.wrapping_add(hash(key, value)));
        let differs = |(key, sides): (&K, &Sides<V>)| (!sides.settled()).then(|| key.clone());
        self.dirty = self.things.iter().filter_map(differs).collect();
    }

    /// Says what `key` shall be; `None`: it shall not be.
    ///
    /// With partial knowledge a thing that was found outside is not touched for the sake of this wish, unless it had been as wished
    /// before: then the change comes from an event, not from what is still missing.
    pub(crate) fn want(&mut self, key: K, value: Option<V>) {
        let settled = match self.things.entry(key.clone()) {
            Entry::Vacant(place) => {
                let Some(value) = value else { return };
                place.insert(Sides::Missing(value));
                false
            }
            Entry::Occupied(place) => {
                let sides = place.get();
                if sides.desired() == value.as_ref() {
                    return;
                }
                if sides.settled() {
                    self.firm.insert(key.clone());
                }
                let actual = sides.actual().cloned();
                replace(place, Sides::of(value, actual))
            }
        };
        self.forget_failure(&key);
        self.mark(key, settled);
    }

    /// As [`Self::want`], for a wish that does not depend on what is still missing.
    pub(crate) fn want_firmly(&mut self, key: K, value: Option<V>) {
        self.want(key.clone(), value);
        if !self.settled(&key) {
            self.firm.insert(key);
        }
    }

    /// Looks at `key` again in the next pass if its sides differ.
    fn mark(&mut self, key: K, settled: bool) {
        if settled {
            self.forget_failure(&key);
            self.dirty.remove(&key);
            self.firm.remove(&key);
        } else {
            self.dirty.insert(key);
        }
    }

    /// Says that what is there under `key` is gone without our doing.
    pub(crate) fn lost(&mut self, key: &K) {
        self.forget_failure(key);
        let settled = self.set_actual(key, None);
        self.mark(key.clone(), settled);
    }

    /// Takes note of what was found under `key`; returns whether that is another thing than was believed.
    ///
    /// A thing that had been as wished was changed by somebody else: it is put right without waiting for full knowledge.
    pub(crate) fn found(&mut self, key: K, value: Option<V>) -> bool {
        let sides = self.things.get(&key);
        if sides.and_then(Sides::actual) == value.as_ref() {
            return false;
        }
        if sides.is_some_and(Sides::settled) {
            self.firm.insert(key.clone());
        }
        self.forget_failure(&key);
        let settled = self.set_actual(&key, value);
        self.mark(key, settled);
        true
    }

    /// Takes note of what is there now. Returns whether that is what shall be.
    fn set_actual(&mut self, key: &K, value: Option<V>) -> bool {
        self.changes = self.changes.wrapping_add(1);
        if let Some(value) = &value {
            self.digest = self.digest.wrapping_add((self.hash)(key, value));
            self.there += 1;
        }
        match self.things.entry(key.clone()) {
            Entry::Occupied(place) => {
                let sides = place.get();
                if let Some(old) = sides.actual() {
                    self.digest = self.digest.wrapping_sub((self.hash)(key, old));
                    self.there -= 1;
                }
                let desired = sides.desired().cloned();
                replace(place, Sides::of(desired, value))
            }
            Entry::Vacant(place) => {
                let Some(value) = value else { return true };
                place.insert(Sides::Spare(value));
                false
            }
        }
    }

    fn forget_failure(&mut self, key: &K) {
        if let Some(failure) = self.failures.remove(key) {
            self.waiting.remove(&(failure.retry_at, key.clone()));
        }
    }

    /// Makes what failed and is due again workable; to be called once before the passes of a reconcile.
    pub(crate) fn wake(&mut self, now: Now) {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.waiting.pop_first().expect("the set was just seen not to be empty");
            self.dirty.insert(key);
        }
    }

    /// Makes `key` workable at once although it failed lately.
    pub(crate) fn hurry(&mut self, key: &K) {
        if let Some(failure) = self.failures.get(key)
            && self.waiting.remove(&(failure.retry_at, key.clone()))
        {
            self.dirty.insert(key.clone());
        }
    }

    /// Writes what is missing or different.
    pub(crate) fn write(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        write: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        self.write_some(now, knowledge, |_, _| true, write)
    }

    /// As [`Self::write`], for some of the keys only. The others stay marked.
    pub(crate) fn write_some(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        which: impl Fn(&K, &V) -> bool,
        write: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        self.write_range(now, knowledge, .., which, write)
    }

    /// As [`Self::write_some`], among the keys of a range: the others cost nothing.
    pub(crate) fn write_range(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        range: impl RangeBounds<K>,
        which: impl Fn(&K, &V) -> bool,
        mut write: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        let mut pass = Pass::default();
        let mut work: Vec<(K, V)> = Vec::new();
        let take = |key: &K| {
            let Some(sides) = self.things.get(key) else { return false };
            let Some(value) = sides.desired().filter(|value| which(key, value)) else { return false };
            let may = knowledge == Knowledge::Full || self.firm.contains(key) || sides.actual().is_none();
            if may {
                work.push((key.clone(), value.clone()));
            }
            may
        };
        self.dirty.extract_if(range, take).for_each(drop);
        for (key, value) in work {
            let result = write(&key, &value);
            self.note(now, key, Some(value), result, &mut pass);
        }
        pass
    }

    /// Removes what nobody asks for.
    pub(crate) fn remove(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        remove: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        self.remove_some(now, knowledge, |_, _| true, remove)
    }

    /// As [`Self::remove`], for some of the keys only. The others stay marked.
    pub(crate) fn remove_some(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        which: impl Fn(&K, &V) -> bool,
        remove: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        self.remove_range(now, knowledge, .., which, remove)
    }

    /// As [`Self::remove_some`], among the keys of a range: the others cost nothing.
    pub(crate) fn remove_range(
        &mut self,
        now: Now,
        knowledge: Knowledge,
        range: impl RangeBounds<K>,
        which: impl Fn(&K, &V) -> bool,
        mut remove: impl FnMut(&K, &V) -> Result<(), PortError>,
    ) -> Pass {
        let mut pass = Pass::default();
        let mut work: Vec<(K, Option<V>)> = Vec::new();
        let take = |key: &K| {
            let sides = self.things.get(key);
            let actual = sides.and_then(Sides::actual);
            let may = sides.is_none_or(|sides| sides.desired().is_none())
                && actual.is_none_or(|value| which(key, value))
                && (knowledge == Knowledge::Full || self.firm.contains(key));
            if may {
                work.push((key.clone(), actual.cloned()));
            }
            may
        };
        self.dirty.extract_if(range, take).for_each(drop);
        for (key, value) in work {
            let Some(value) = value else {
                self.mark(key, true);
                continue;
            };
            let result = remove(&key, &value);
            self.note(now, key, None, result, &mut pass);
        }
        pass
    }

    /// Takes note of the outcome of one act, for a key that is not marked. Marks it if it is not as it shall be.
    fn note(&mut self, now: Now, key: K, value: Option<V>, result: Result<(), PortError>, pass: &mut Pass) {
        match result {
            Ok(()) => {
                pass.done += 1;
                self.forget_failure(&key);
                if self.set_actual(&key, value) {
                    self.firm.remove(&key);
                } else {
                    self.dirty.insert(key);
                }
            }
            Err(error) => {
                let failure = Failure::again(self.failures.get(&key), now, error.clone());
                self.forget_failure(&key);
                self.waiting.insert((failure.retry_at, key.clone()));
                self.failures.insert(key, failure);
                pass.errors.push(error);
            }
        }
    }

    /// Whether what is there under `key` is what it shall be.
    pub(crate) fn settled(&self, key: &K) -> bool {
        self.things.get(key).is_none_or(Sides::settled)
    }

    /// Whether the next pass looks at `key`: it is not what it shall be, and has not just failed.
    pub(crate) fn is_due(&self, key: &K) -> bool {
        self.dirty.contains(key)
    }

    /// The last failure of `key`.
    pub(crate) fn failure(&self, key: &K) -> Option<&PortError> {
        self.failures.get(key).map(|failure| &failure.error)
    }

    /// All last failures.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&K, &PortError)> {
        self.failures.iter().map(|(key, failure)| (key, &failure.error))
    }

    /// When the first of the failed things is due again.
    pub(crate) fn next_retry(&self) -> Option<Now> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Things that still differ.
    pub(crate) fn pending(&self) -> usize {
        self.dirty.len() + self.waiting.len()
    }

    /// Keys whose two sides differ, whether they may be worked on now or wait after a failure.
    pub(crate) fn open(&self) -> impl Iterator<Item = &K> {
        self.open_range(..)
    }

    /// As [`Self::open`], among the keys of a range.
    pub(crate) fn open_range(&self, range: impl RangeBounds<K> + Clone) -> impl Iterator<Item = &K> {
        let failed = self.failures.range(range.clone()).map(|(key, _)| key);
        self.dirty.range(range).chain(failed.filter(|key| !self.dirty.contains(key)))
    }

    /// Sum of the hashes of what is there: equal contents have equal digests, whatever the order in which they came about.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// How many things are there.
    pub(crate) fn len(&self) -> usize {
        self.there
    }

    /// Their keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.all_present(..).map(|(key, _)| key)
    }

    /// Goes up whenever one of the things that are there changes.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// What `key` shall be.
    pub(crate) fn wanted(&self, key: &K) -> Option<&V> {
        self.things.get(key)?.desired()
    }

    /// All that shall be.
    pub(crate) fn all_wanted(&self) -> impl Iterator<Item = (&K, &V)> {
        self.things.iter().filter_map(|(key, sides)| Some((key, sides.desired()?)))
    }

    /// Makes what is there under `key` something else than it shall be for now; the next pass puts it right. Whether it succeeded.
    pub(crate) fn set_aside(
        &mut self,
        now: Now,
        key: K,
        value: Option<V>,
        act: impl FnOnce(&K, Option<&V>) -> Result<(), PortError>,
        pass: &mut Pass,
    ) -> bool {
        if self.present(&key) == value.as_ref() {
            return true;
        }
        let result = act(&key, value.as_ref());
        let done = result.is_ok();
        self.dirty.remove(&key);
        self.note(now, key, value, result, pass);
        done
    }

    /// What is there under `key`.
    pub(crate) fn present(&self, key: &K) -> Option<&V> {
        self.things.get(key)?.actual()
    }

    /// All that is there, among the keys of a range.
    pub(crate) fn all_present(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.things.range(range).filter_map(|(key, sides)| Some((key, sides.actual()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked() -> Tracked<u8, u8> {
        Tracked::new(|key, value| u64::from(*key) << 8 | u64::from(*value))
    }

    const OK: fn(&u8, &u8) -> Result<(), PortError> = |_, _| Ok(());

    #[test]
    fn found_things_wait_for_full_knowledge() {
        let mut t = tracked();
        t.read_back([(1, 1), (2, 2), (3, 3)]);
        t.want(1, Some(1));
        t.want(2, Some(9));
        t.want(4, Some(4));
        let now = Now::default();
        assert_eq!(t.write(now, Knowledge::Partial, OK).done, 1, "only the new one");
        assert_eq!(t.remove(now, Knowledge::Partial, OK).done, 0);
        assert_eq!(t.pending(), 2);
        assert_eq!(t.write(now, Knowledge::Full, OK).done, 1);
        assert_eq!(t.remove(now, Knowledge::Full, OK).done, 1);
        assert_eq!(t.pending(), 0);
        assert!(t.all_present(..).eq(t.all_wanted()));
        let mut again = tracked();
        again.read_back(t.all_present(..).map(|(key, value)| (*key, *value)));
        assert_eq!(again.digest(), t.digest());
    }

    #[test]
    fn a_removal_by_an_event_does_not_wait() {
        let mut t = tracked();
        t.read_back([(1, 1)]);
        t.want(1, Some(1));
        t.want(1, None);
        assert_eq!(t.remove(Now::default(), Knowledge::Partial, OK).done, 1);
        assert_eq!(t.pending(), 0);
        assert_eq!(t.digest(), 0);
    }

    #[test]
    fn what_somebody_else_changed_does_not_wait() {
        let mut t = tracked();
        t.want(1, Some(1));
        t.write(Now::default(), Knowledge::Full, OK);
        assert!(!t.found(1, Some(1)));
        for foreign in [Some(7), None] {
            assert!(t.found(1, foreign));
            assert_eq!(t.pending(), 1);
            assert_eq!(t.write(Now::default(), Knowledge::Partial, OK).done, 1, "{foreign:?}");
        }
        assert!(t.found(2, Some(2)), "a thing that nobody asked for");
        assert_eq!(t.remove(Now::default(), Knowledge::Partial, OK).done, 0);
        assert_eq!(t.remove(Now::default(), Knowledge::Full, OK).done, 1);
        assert_eq!((t.pending(), t.len()), (0, 1));
        assert!(t.all_present(..).eq(t.all_wanted()));
    }

    #[test]
    fn failures_wait_and_a_new_wish_does_not() {
        let mut t = tracked();
        t.want(1, Some(1));
        let mut now = Now::default();
        let fail = |_: &u8, _: &u8| Err(PortError::retryable("write", "busy"));
        assert_eq!(t.write(now, Knowledge::Full, fail).errors.len(), 1);
        t.wake(now);
        assert_eq!(t.write(now, Knowledge::Full, OK).done, 0, "not due yet");
        assert!(t.failure(&1).is_some());
        now = t.next_retry().unwrap();
        t.wake(now);
        assert_eq!(t.write(now, Knowledge::Full, fail).errors.len(), 1);
        t.want(1, Some(2));
        assert_eq!(t.write(now, Knowledge::Full, OK).done, 1, "another value is tried at once");
        assert_eq!((t.failure(&1), t.next_retry(), t.pending()), (None, None, 0));
    }

    #[test]
    fn a_wish_withdrawn_before_it_was_written_costs_nothing() {
        let mut t = tracked();
        t.want(1, Some(1));
        t.want(1, None);
        assert_eq!(t.pending(), 0);
        assert_eq!(t.remove(Now::default(), Knowledge::Full, OK).done, 0);
    }

    #[test]
    fn what_failed_and_is_as_wished_is_no_failure_any_more() {
        let mut t = tracked();
        let fail = |_: &u8, _: Option<&u8>| Err(PortError::retryable("write", "busy"));
        assert!(!t.set_aside(Now::default(), 1, Some(5), fail, &mut Pass::default()));
        let now = t.next_retry().unwrap();
        t.wake(now);
        t.remove(now, Knowledge::Full, OK);
        assert_eq!((t.failures().count(), t.pending()), (0, 0));
    }
}
