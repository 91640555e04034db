//! Tables whose rows are types.

use std::marker::PhantomData;

use zerocopy::{FromBytes, IntoBytes as _};

use super::{Table, TableError};
use crate::pins::Pins;

/// Rows as types.
pub type TypedRows<K, V> = Vec<(K, V)>;

/// A table whose rows are read and written as the types that `dataplane-abi` gives it.
///
/// Per-CPU tables: use [`TypedTable::get_each_cpu`] and [`TypedTable::rows_each_cpu`]; the other calls would see or set
/// all CPUs at once and answer [`TableError::Size`].
#[derive(Debug)]
pub struct TypedTable<T> {
    table: Table,
    spec: PhantomData<fn() -> T>,
}

impl<T: dataplane_abi::Table> TypedTable<T> {
    /// Opens the pinned table.
    pub fn open(pins: &Pins) -> Result<Self, TableError> {
        Self::from_table(Table::open(pins, T::SPEC.name)?)
    }

    /// Wraps an open table; fails when its sizes are not those of the types.
    pub fn from_table(table: Table) -> Result<Self, TableError> {
        table.check_key_size(size_of::<T::Key>())?;
        if size_of::<T::Value>() != table.info.value_size {
            let want = table.info.value_size;
            return Err(table.wrong_size("value", size_of::<T::Value>(), want));
        }
        Ok(Self { table, spec: PhantomData })
    }

    /// The table as bytes.
    pub fn raw(&self) -> &Table {
        &self.table
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &T::Key) -> Result<Option<T::Value>, TableError> {
        self.table.get(key.as_bytes())?.map(|value| self.read("value", &value)).transpose()
    }

    /// Writes a row.
    pub fn upsert(&self, key: &T::Key, value: &T::Value) -> Result<(), TableError> {
        self.table.upsert(key.as_bytes(), value.as_bytes())
    }

    /// Removes a row; false when there was none.
    pub fn delete(&self, key: &T::Key) -> Result<bool, TableError> {
        self.table.delete(key.as_bytes())
    }

    /// Every row, as [`Table::rows`].
    pub fn rows(&self) -> Result<TypedRows<T::Key, T::Value>, TableError> {
        let mut rows = Vec::new();
        for (key, value) in self.table.rows()? {
            rows.push((self.read("key", &key)?, self.read("value", &value)?));
        }
        Ok(rows)
    }

    /// The value of each CPU for `key`.
    pub fn get_each_cpu(&self, key: &T::Key) -> Result<Option<Vec<T::Value>>, TableError> {
        self.table.get(key.as_bytes())?.map(|value| self.read_each_cpu(&value)).transpose()
    }

    /// Every row with the value of each CPU.
    pub fn rows_each_cpu(&self) -> Result<TypedRows<T::Key, Vec<T::Value>>, TableError> {
        let mut rows = Vec::new();
        for (key, value) in self.table.rows()? {
            rows.push((self.read("key", &key)?, self.read_each_cpu(&value)?));
        }
        Ok(rows)
    }

    fn read_each_cpu(&self, value: &[u8]) -> Result<Vec<T::Value>, TableError> {
        self.table.split_per_cpu(value).iter().map(|value| self.read("value", value)).collect()
    }

    fn read<D: FromBytes>(&self, what: &'static str, bytes: &[u8]) -> Result<D, TableError> {
        D::read_from_bytes(bytes).map_err(|_| self.table.wrong_size(what, bytes.len(), size_of::<D>()))
    }
}
