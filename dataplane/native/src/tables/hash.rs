//! Hash tables with a capacity: a new row does not fit a full one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use dataplane_abi::Table;
use zerocopy::{FromBytes, IntoBytes};

use super::{RawRow, RawTable, UpdateError};

/// A hash table.
#[derive(Debug)]
pub struct HashTable<T: Table> {
    rows: HashMap<T::Key, T::Value, BuildHasherDefault<Mixer>>,
    capacity: usize,
}

impl<T: Table> Clone for HashTable<T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), capacity: self.capacity }
    }
}

impl<T: Table> HashTable<T> {
    /// An empty table for that many rows.
    pub fn new(max_entries: u32) -> Self {
        Self { rows: HashMap::default(), capacity: usize::try_from(max_entries).unwrap_or(usize::MAX) }
    }

    /// A row.
    pub fn get(&self, key: &T::Key) -> Option<&T::Value> {
        self.rows.get(key)
    }

    /// Writes a row. False: the table is full.
    pub fn insert(&mut self, key: T::Key, value: T::Value) -> bool {
        if self.rows.len() >= self.capacity && !self.rows.contains_key(&key) {
            return false;
        }
        self.rows.insert(key, value);
        true
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &T::Key) -> Option<T::Value> {
        self.rows.remove(key)
    }
}

impl<T: Table> RawTable for HashTable<T> {
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        let value = T::Value::read_from_bytes(value).map_err(|_| UpdateError::Length)?;
        if self.insert(key, value) { Ok(()) } else { Err(UpdateError::Full) }
    }

    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(&T::Key::read_from_bytes(key).ok()?).map(|value| value.as_bytes().to_vec())
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
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        rows.sort();
        rows
    }
}

/// A fast hash without a random start, so that runs repeat. Keys are ours, not an attacker's choice of bucket:
/// in memory there is no attacker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    const fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        let rest = chunks.remainder().iter().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        if !chunks.remainder().is_empty() {
            self.mix(rest);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.mix(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, _len: usize) {
        // Lengths of arrays; they are the same for all keys of a table.
    }
}
