//! Hash tables that forget: a new row may take the place of rows that were not used for long.
//!
//! As in the kernel (`htab_lru_map_update_elem` in `kernel/bpf/hashtab.c`), a row that is replaced is a new row that counts
//! as used: its place is taken before the old one is free, so that even a replacement makes a full table forget others.
//! Which rows go, and when, is in [`order`].

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use dataplane_abi::Table;
use zerocopy::{FromBytes, IntoBytes};

use super::hash::Mixer;
use super::{RawRow, RawTable, UpdateError};

mod order;

pub use order::Batches;
use order::Order;

/// How places are taken unless somebody says otherwise. The number of CPUs tells in small tables alone: one of more than
/// 256 rows a CPU takes the largest batches anyway.
const USUAL: Batches = Batches::OfShare { cpus: 2 };

/// A hash table that forgets.
#[derive(Debug)]
pub struct LruTable<T: Table> {
    rows: HashMap<T::Key, u32, BuildHasherDefault<Mixer>>,
    /// Rows by slot; those of vacant slots are stale.
    slots: Vec<(T::Key, T::Value)>,
    order: Order,
    evicted: u64,
    to_fail: u32,
}

impl<T: Table> LruTable<T> {
    /// An empty table for that many rows.
    pub fn new(max_entries: u32) -> Self {
        Self::with_batches(max_entries, USUAL)
    }

    /// An empty table for that many rows, of which places are taken in such batches.
    pub fn with_batches(max_entries: u32, batches: Batches) -> Self {
        Self {
            rows: HashMap::default(),
            slots: Vec::new(),
            order: Order::new(usize::try_from(max_entries).unwrap_or(usize::MAX), batches),
            evicted: 0,
            to_fail: 0,
        }
    }

    /// A row, to use it.
    pub fn get_mut(&mut self, key: &T::Key) -> Option<&mut T::Value> {
        let slot = *self.rows.get(key)?;
        self.order.touch(slot);
        self.slots.get_mut(slot as usize).map(|(_, value)| value)
    }

    /// A row, without using it.
    pub fn peek(&self, key: &T::Key) -> Option<&T::Value> {
        let slot = *self.rows.get(key)?;
        self.slots.get(slot as usize).map(|(_, value)| value)
    }

    /// Writes a row, new or not. False: there is no room at all, or it is one of those that shall fail.
    pub fn insert(&mut self, key: T::Key, value: T::Value) -> bool {
        if self.to_fail > 0 {
            self.to_fail -= 1;
            return false;
        }
        let (rows, slots, evicted) = (&mut self.rows, &self.slots, &mut self.evicted);
        let taken = self.order.take(|slot| {
            if let Some((key, _)) = slots.get(slot as usize) {
                rows.remove(key);
            }
            *evicted = evicted.wrapping_add(1);
        });
        let Some(slot) = taken else { return false };
        match self.slots.get_mut(slot as usize) {
            Some(row) => *row = (key, value),
            None => self.slots.push((key, value)),
        }
        if let Some(old) = self.rows.insert(key, slot) {
            self.order.touch(slot);
            self.order.release(old);
        }
        true
    }

    /// Writes a new row (`BPF_NOEXIST`). False: there is one of that key, or no room. As in the kernel its place is taken before that
    /// is known.
    pub fn insert_new(&mut self, key: T::Key, value: T::Value) -> bool {
        let had = self.rows.get(&key).copied();
        let kept = had.and_then(|slot| self.slots.get(slot as usize).map(|(_, value)| *value));
        if !self.insert(key, value) {
            return false;
        }
        match (kept, self.rows.get(&key).copied()) {
            // It may have been the one that made room, and then it is new.
            (Some(old), Some(slot)) if had.is_some() => {
                if let Some(row) = self.slots.get_mut(slot as usize) {
                    row.1 = old;
                }
                false
            }
            _ => true,
        }
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &T::Key) -> Option<T::Value> {
        let slot = self.rows.remove(key)?;
        self.order.release(slot);
        self.slots.get(slot as usize).map(|(_, value)| *value)
    }

    /// The next `count` calls of [`LruTable::insert`] fail and change nothing: in the kernel a CPU finds no place (`ENOMEM`)
    /// while others hold the locks of all rows that could go. Zero: none does any more.
    pub const fn fail_creates(&mut self, count: u32) {
        self.to_fail = count;
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that had to make room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

impl<T: Table> RawTable for LruTable<T> {
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        let value = T::Value::read_from_bytes(value).map_err(|_| UpdateError::Length)?;
        if self.insert(key, value) { Ok(()) } else { Err(UpdateError::Memory) }
    }

    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.peek(&T::Key::read_from_bytes(key).ok()?).map(|value| value.as_bytes().to_vec())
    }

    fn delete_raw(&mut self, key: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        self.remove(&key).map(drop).ok_or(UpdateError::NoRow)
    }

    fn set_capacity(&mut self, max_entries: u32) {
        self.order.set_capacity(usize::try_from(max_entries).unwrap_or(usize::MAX));
    }

    fn dump_raw(&self) -> Vec<RawRow> {
        let row = |slot: &u32| self.slots.get(*slot as usize);
        let mut rows: Vec<RawRow> = self
            .rows
            .values()
            .filter_map(row)
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        rows.sort();
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataplane_abi::Be16;
    use dataplane_abi::frags::{FragEntry, FragKey4, Frags4};
    use proptest::prelude::*;

    use super::*;

    fn key(number: u32) -> FragKey4 {
        FragKey4 { src: number.to_be_bytes(), dst: [0; 4], id: Be16::ZERO, proto: 17, pad: 0 }
    }

    fn value(number: u16) -> FragEntry {
        FragEntry { sport: Be16::new(number), dport: Be16::ZERO, proto: 17, icmp_type: 0, pad: [0; 2] }
    }

    /// Places for rows that are kept, which may not outgrow the table.
    fn kept(table: &LruTable<Frags4>) -> usize {
        table.slots.len()
    }

    #[test]
    fn rows_go_in_batches_as_they_did_on_a_kernel() {
        // Measured on Linux 6.18 with two CPUs, one of them writing: rows allowed, the row with which the first ones went, rows left then.
        for (rows, first, left) in [(16, 17, 13), (100, 101, 76), (1000, 897, 873), (8192, 8193, 8065)] {
            let mut table = LruTable::<Frags4>::with_batches(rows, Batches::OfShare { cpus: 2 });
            let found = (1..10_000).find(|number| {
                assert!(table.insert(key(*number), value(0)));
                table.evicted() > 0
            });
            assert_eq!((found, table.len()), (Some(first), left), "of {rows} rows");
        }
        // Older kernels forget all of a table that is smaller than a batch.
        let mut table = LruTable::<Frags4>::with_batches(64, Batches::Whole);
        (0..=64).for_each(|number| assert!(table.insert(key(number), value(0))));
        assert_eq!(table.len(), 1);
        // The same row 300 times in a full table.
        let mut table = LruTable::<Frags4>::with_batches(100, Batches::OfShare { cpus: 2 });
        (0..100).for_each(|number| assert!(table.insert(key(number), value(0))));
        (0..300).for_each(|_| assert!(table.insert(key(50), value(1))));
        assert_eq!(table.len(), 75);
        assert_eq!(table.peek(&key(50)), Some(&value(1)));
    }

    #[test]
    fn coming_and_going_takes_no_more_and_more_memory() {
        let mut table = LruTable::<Frags4>::new(1000);
        for number in 0..100_000 {
            assert!(table.insert(key(number), value(0)));
            assert_eq!(table.remove(&key(number)), Some(value(0)));
        }
        assert_eq!((table.len(), table.evicted()), (0, 0));
        assert!(kept(&table) <= 2, "{}", kept(&table));
    }

    #[test]
    fn other_capacities_take_effect_with_the_next_row() {
        let mut table = LruTable::<Frags4>::new(1000);
        (0..500).for_each(|number| assert!(table.insert(key(number), value(0))));
        table.set_capacity(100);
        assert_eq!(table.len(), 500, "rows stay until others come");
        assert!(table.insert(key(1000), value(0)));
        assert!(table.len() <= 100, "{}", table.len());
        table.set_capacity(0);
        assert!(!table.insert(key(1001), value(0)) && !table.insert(key(1000), value(0)));
        table.set_capacity(1000);
        let before = table.evicted();
        let more = 1000 - u32::try_from(table.len()).expect("a few rows");
        // Seven whole batches and what is left.
        (2000..2000 + more - 128).for_each(|number| assert!(table.insert(key(number), value(0))));
        assert_eq!(table.evicted(), before, "there is room again");
    }

    proptest! {
        #[test]
        fn what_is_there_is_what_was_written_last(
            rows in 0_u32..40,
            batches in prop_oneof![Just(Batches::Whole), (0_usize..5).prop_map(|cpus| Batches::OfShare { cpus })],
            calls in prop::collection::vec((0_u8..10, 0_u32..60), 1..400),
        ) {
            let mut table = LruTable::<Frags4>::with_batches(rows, batches);
            let (mut written, mut most) = (BTreeMap::new(), rows);
            for (at, (call, number)) in (0_u16..).zip(calls) {
                match call {
                    0 => prop_assert!(table.remove(&key(number)).is_none_or(|found| written.get(&number) == Some(&found))),
                    1 => prop_assert!(table.get_mut(&key(number)).is_none_or(|found| written.get(&number) == Some(found))),
                    2 if number < 3 => {
                        most = most.max(number * 20);
                        table.set_capacity(number * 20);
                    }
                    _ => {
                        if table.insert(key(number), value(at)) {
                            written.insert(number, value(at));
                            prop_assert_eq!(table.peek(&key(number)), Some(&value(at)), "a new row is there");
                        }
                    }
                }
                if call == 0 {
                    prop_assert!(table.peek(&key(number)).is_none());
                }
                prop_assert!(table.len() <= most as usize && kept(&table) <= most as usize);
            }
            for (number, value) in &written {
                prop_assert!(table.peek(&key(*number)).is_none_or(|found| found == value));
            }
            prop_assert_eq!(table.dump_raw().len(), table.len());
        }
    }
}
