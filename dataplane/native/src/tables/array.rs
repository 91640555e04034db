//! Arrays: every row is there from the start, all zero.

use dataplane_abi::Table;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{RawRow, RawTable, UpdateError};

/// An array (or one CPU's part of a per-CPU array).
#[derive(Debug)]
pub struct ArrayTable<T: Table> {
    rows: Vec<T::Value>,
}

impl<T: Table> Clone for ArrayTable<T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone() }
    }
}

impl<T: Table> ArrayTable<T> {
    /// An array of that many rows.
    pub fn new(max_entries: u32) -> Self {
        Self { rows: (0..max_entries).map(|_| T::Value::new_zeroed()).collect() }
    }

    /// A row.
    pub fn get(&self, index: u32) -> Option<&T::Value> {
        self.rows.get(usize::try_from(index).ok()?)
    }

    /// A row, to change it.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T::Value> {
        self.rows.get_mut(usize::try_from(index).ok()?)
    }

    /// Writes a row; beyond the end nothing happens.
    pub fn set(&mut self, index: u32, value: T::Value) {
        if let Some(row) = self.get_mut(index) {
            *row = value;
        }
    }
}

fn index(key: &[u8]) -> Option<u32> {
    key.try_into().ok().map(u32::from_ne_bytes)
}

impl<T: Table> RawTable for ArrayTable<T> {
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        let index = index(key).ok_or(UpdateError::Length)?;
        let value = T::Value::read_from_bytes(value).map_err(|_| UpdateError::Length)?;
        *self.get_mut(index).ok_or(UpdateError::Full)? = value;
        Ok(())
    }

    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(index(key)?).map(|value| value.as_bytes().to_vec())
    }

    fn delete_raw(&mut self, _key: &[u8]) -> Result<(), UpdateError> {
        Err(UpdateError::Kind)
    }

    fn set_capacity(&mut self, _: u32) {}

    fn dump_raw(&self) -> Vec<RawRow> {
        let keys = (0_u32..).map(|index| index.to_ne_bytes().to_vec());
        keys.zip(self.rows.iter().map(|value| value.as_bytes().to_vec())).collect()
    }
}
