//! Hash tables that forget: a new row in a full one takes the place of a row that was not used for long.
//!
//! Which one it is, is the kernel's secret (per-CPU lists, batches); here it is the oldest that was not used since the
//! last search for one (second chance).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use dataplane_abi::Table;
use zerocopy::{FromBytes, IntoBytes};

use super::hash::Mixer;
use super::{RawRow, RawTable, UpdateError};

/// A hash table that forgets.
#[derive(Debug)]
pub struct LruTable<T: Table> {
    rows: HashMap<T::Key, Row<T::Value>, BuildHasherDefault<Mixer>>,
    /// Rows in the order of their making; removed ones stay until they are met.
    queue: VecDeque<(T::Key, u64)>,
    capacity: usize,
    made: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Row<V> {
    value: V,
    used: bool,
    /// Tells a row from an earlier one with its key.
    serial: u64,
}

impl<T: Table> LruTable<T> {
    /// An empty table for that many rows.
    pub fn new(max_entries: u32) -> Self {
        Self {
            rows: HashMap::default(),
            queue: VecDeque::new(),
            capacity: usize::try_from(max_entries).unwrap_or(usize::MAX),
            made: 0,
            evicted: 0,
        }
    }

    /// A row, to use it.
    pub fn get_mut(&mut self, key: &T::Key) -> Option<&mut T::Value> {
        let row = self.rows.get_mut(key)?;
        row.used = true;
        Some(&mut row.value)
    }

    /// A row, without using it.
    pub fn peek(&self, key: &T::Key) -> Option<&T::Value> {
        self.rows.get(key).map(|row| &row.value)
    }

    /// Writes a row. False only where there is no room at all.
    pub fn insert(&mut self, key: T::Key, value: T::Value) -> bool {
        if let Entry::Occupied(mut row) = self.rows.entry(key) {
            row.get_mut().value = value;
            return true;
        }
        while self.rows.len() >= self.capacity {
            if !self.evict() {
                return false;
            }
        }
        self.made = self.made.wrapping_add(1);
        self.rows.insert(key, Row { value, used: false, serial: self.made });
        self.queue.push_back((key, self.made));
        true
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &T::Key) -> Option<T::Value> {
        self.rows.remove(key).map(|row| row.value)
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

    fn evict(&mut self) -> bool {
        while let Some((key, serial)) = self.queue.pop_front() {
            match self.rows.get_mut(&key) {
                Some(row) if row.serial == serial && row.used => {
                    row.used = false;
                    self.queue.push_back((key, serial));
                }
                Some(row) if row.serial == serial => {
                    self.rows.remove(&key);
                    self.evicted = self.evicted.wrapping_add(1);
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

impl<T: Table> RawTable for LruTable<T> {
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        let value = T::Value::read_from_bytes(value).map_err(|_| UpdateError::Length)?;
        if self.insert(key, value) { Ok(()) } else { Err(UpdateError::Full) }
    }

    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.peek(&T::Key::read_from_bytes(key).ok()?).map(|value| value.as_bytes().to_vec())
    }

    fn delete_raw(&mut self, key: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        self.remove(&key).map(drop).ok_or(UpdateError::NoRow)
    }

    fn set_capacity(&mut self, max_entries: u32) {
        self.capacity = usize::try_from(max_entries).unwrap_or(usize::MAX);
    }

    fn dump_raw(&self) -> Vec<RawRow> {
        let mut rows: Vec<RawRow> = self
            .rows
            .iter()
            .map(|(key, row)| (key.as_bytes().to_vec(), row.value.as_bytes().to_vec()))
            .collect();
        rows.sort();
        rows
    }
}
