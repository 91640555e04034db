//! Numbers for things that the tables name by number.
//!
//! A number comes from a hash of what it stands for, so that an agent that starts again with the same input finds its rows as they are.
//! Where two things hash alike the later one takes the next free number.
//! A number that is given up stays taken until the caller says that the tables no longer hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// FNV-1a with 64 bits, with a last step that spreads it: stable over versions and machines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Bytes, closed by their number so that neighbours do not run together.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
        self.number(bytes.len() as u64);
    }

    pub(crate) fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn finish(self) -> u32 {
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed >> 32) as u32
    }
}

/// What can be hashed the same way for ever.
pub(crate) trait Digest {
    fn digest(&self, hash: &mut Hash);
}

struct Slot<T> {
    value: Arc<T>,
    refs: u32,
}

/// Values with numbers, counted.
pub(crate) struct Numbers<T> {
    range: RangeInclusive<u32>,
    slots: BTreeMap<u32, Slot<T>>,
    by_value: BTreeMap<Arc<T>, u32>,
    /// Without a reference, to be gone at the next [`Numbers::sweep`].
    dead: BTreeSet<u32>,
    /// Not told of yet.
    fresh: BTreeSet<u32>,
    /// Swept, but maybe still in the tables.
    gone: BTreeMap<u32, Arc<T>>,
}

/// What a sweep found.
pub(crate) struct Sweep<T> {
    /// Told of before, and gone.
    pub(crate) removed: Vec<(u32, Arc<T>)>,
    /// Gone, whether told of or not.
    pub(crate) dropped: Vec<Arc<T>>,
}

impl<T: Ord + Digest> Numbers<T> {
    pub(crate) fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            range,
            slots: BTreeMap::new(),
            by_value: BTreeMap::new(),
            dead: BTreeSet::new(),
            fresh: BTreeSet::new(),
            gone: BTreeMap::new(),
        }
    }

    /// The number of the value, with one reference more.
    pub(crate) fn acquire(&mut self, value: T) -> u32 {
        if let Some(number) = self.by_value.get(&value) {
            let number = *number;
            self.retain(number);
            return number;
        }
        let number = self.free_number(&value);
        let value = Arc::new(value);
        self.gone.remove(&number);
        self.slots.insert(number, Slot { value: Arc::clone(&value), refs: 1 });
        self.by_value.insert(value, number);
        self.fresh.insert(number);
        number
    }

    fn free_number(&self, value: &T) -> u32 {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut hash = Hash::new();
        value.digest(&mut hash);
        let size = u64::from(last - first) + 1;
        // Below `size`, which is at most 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "less than the size of the range")]
        let mut number = first + (u64::from(hash.finish()) % size) as u32;
        // There are far fewer values than numbers: tables hold a million rows, ranges sixteen millions or more.
        loop {
            let was = self.gone.get(&number);
            if !self.slots.contains_key(&number) && was.is_none_or(|was| **was == *value) {
                return number;
            }
            number = if number == last { first } else { number + 1 };
        }
    }

    /// One reference more to a number that has one, or had one since the last sweep. Other numbers are left alone.
    pub(crate) fn retain(&mut self, number: u32) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.refs += 1;
            if slot.refs == 1 {
                self.dead.remove(&number);
            }
        }
    }

    /// The number of a value.
    pub(crate) fn number(&self, value: &T) -> Option<u32> {
        self.by_value.get(value).copied()
    }

    /// Whether the value has a number.
    pub(crate) fn has(&self, value: &T) -> bool {
        self.by_value.contains_key(value)
    }

    /// One reference less. True if it was the last one.
    pub(crate) fn release(&mut self, number: u32) -> bool {
        let Some(slot) = self.slots.get_mut(&number) else { return false };
        slot.refs = slot.refs.saturating_sub(1);
        if slot.refs == 0 {
            self.dead.insert(number);
        }
        slot.refs == 0
    }

    /// One reference less to the number of a value.
    pub(crate) fn release_value(&mut self, value: &T) {
        if let Some(number) = self.by_value.get(value) {
            let number = *number;
            self.release(number);
        }
    }

    /// Not told of yet, and held.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        let held = |number: &u32| {
            self.slots.get(number).filter(|slot| slot.refs > 0).map(|slot| (*number, &slot.value))
        };
        self.fresh.iter().filter_map(held)
    }

    /// Whether the number was not told of yet.
    pub(crate) fn is_fresh(&self, number: u32) -> bool {
        self.fresh.contains(&number)
    }

    /// Nothing is to be told of, and nothing to be dropped.
    pub(crate) fn is_steady(&self) -> bool {
        self.fresh.is_empty() && self.dead.is_empty()
    }

    /// Numbers that nothing holds.
    pub(crate) fn dead(&self) -> impl Iterator<Item = u32> {
        self.dead.iter().copied()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Arc<T>> {
        self.slots.get(&number).map(|slot| &slot.value)
    }

    /// Also those that the tables may still hold.
    pub(crate) fn get_late(&self, number: u32) -> Option<&Arc<T>> {
        self.get(number).or_else(|| self.gone.get(&number))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.slots.iter().filter(|(_, slot)| slot.refs > 0).map(|(number, slot)| (*number, &slot.value))
    }

    /// What is new since the last time and held. From here on it is told of.
    pub(crate) fn publish(&mut self) -> Vec<(u32, Arc<T>)> {
        let added: Vec<(u32, Arc<T>)> =
            self.fresh().map(|(number, value)| (number, Arc::clone(value))).collect();
        self.fresh.retain(|number| self.dead.contains(number));
        added
    }

    /// Drops what has no reference.
    pub(crate) fn sweep(&mut self) -> Sweep<T> {
        let (mut removed, mut dropped) = (Vec::new(), Vec::new());
        for number in std::mem::take(&mut self.dead) {
            let Some(slot) = self.slots.remove(&number) else { continue };
            self.by_value.remove(&slot.value);
            dropped.push(Arc::clone(&slot.value));
            if !self.fresh.remove(&number) {
                self.gone.insert(number, Arc::clone(&slot.value));
                removed.push((number, slot.value));
            }
        }
        Sweep { removed, dropped }
    }

    /// Swept, but maybe still in the tables.
    pub(crate) fn late(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.gone.iter().map(|(number, value)| (*number, value))
    }

    /// The tables hold nothing any more that was swept.
    pub(crate) fn settle(&mut self) {
        self.gone.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Thing(u32);

    impl Digest for Thing {
        fn digest(&self, hash: &mut Hash) {
            hash.number(u64::from(self.0));
        }
    }

    #[test]
    fn equal_things_have_one_number_that_is_the_same_for_ever() {
        let mut one = Numbers::new(1..=u32::MAX);
        let mut other = Numbers::new(1..=u32::MAX);
        other.acquire(Thing(2));
        assert_eq!(one.acquire(Thing(1)), other.acquire(Thing(1)));
        assert_eq!(one.acquire(Thing(1)), other.acquire(Thing(1)));
    }

    #[test]
    fn a_number_is_not_given_away_while_tables_may_hold_it() {
        // Two numbers only, so that things collide.
        let mut numbers = Numbers::new(5..=6);
        let first = numbers.acquire(Thing(1));
        assert_eq!(numbers.publish().len(), 1);
        assert!(numbers.release(first));
        assert_eq!(numbers.sweep().removed.len(), 1);
        for thing in 2..20 {
            let other = numbers.acquire(Thing(thing));
            assert_ne!(other, first);
            numbers.release(other);
            assert!(numbers.publish().is_empty(), "came and went unseen");
            assert!(numbers.sweep().removed.is_empty(), "came and went unseen");
        }
        assert_eq!(numbers.acquire(Thing(1)), first, "the same thing may have it again");
        assert_eq!(numbers.publish().len(), 1);
        numbers.release(first);
        numbers.sweep();
        numbers.settle();
        let taken: BTreeSet<u32> = (2..4).map(|thing| numbers.acquire(Thing(thing))).collect();
        assert!(taken.contains(&first));
    }

    #[test]
    fn revived_before_the_sweep_it_was_never_away() {
        let mut numbers = Numbers::new(1..=u32::MAX);
        let number = numbers.acquire(Thing(1));
        numbers.publish();
        numbers.release(number);
        assert_eq!(numbers.acquire(Thing(1)), number);
        assert!(numbers.publish().is_empty() && numbers.sweep().removed.is_empty());
    }
}
