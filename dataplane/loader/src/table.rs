//! Tables: BPF maps by name, read and written as plain bytes or as the typed rows of `dataplane-abi`.
//!
//! A [`Table`] is a descriptor and what the kernel says about the map behind it. It does not need the object that made
//! the map: the command line opens pinned tables on its own.

mod scan;
mod typed;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::bpf_map_type;
use nix::libc;
use thiserror::Error;

use crate::pins::Pins;
use crate::sys;

pub use scan::ScanPosition;
pub use typed::{TypedRows, TypedTable};

/// The kernel's private word for "this map has no batches".
const ENOTSUPP: i32 = 524;

/// What kind of map a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Rows by key; a write to a full table fails.
    Hash,
    /// Rows by key; a write to a full table removes the row that was used longest ago.
    LruHash,
    /// A hash with one value per CPU.
    PerCpuHash,
    /// An LRU hash with one value per CPU.
    LruPerCpuHash,
    /// Rows by index 0..max; every row always exists.
    Array,
    /// An array with one value per CPU.
    PerCpuArray,
    /// Rows by longest prefix; the key begins with the prefix length (u32, host order).
    LpmTrie,
    /// An array whose values are maps.
    ArrayOfMaps,
    /// A hash whose values are maps.
    HashOfMaps,
    /// A ring buffer; it has no rows (see [`crate::events`]).
    RingBuf,
    /// Programs for tail calls; its values are descriptors on write and ids on read.
    ProgramArray,
    /// Any other kind, by the kernel's number.
    Other(u32),
}

impl TableKind {
    /// The kind for the kernel's number.
    pub fn from_kernel(number: u32) -> Self {
        match bpf_map_type::try_from(number) {
            Ok(bpf_map_type::BPF_MAP_TYPE_HASH) => Self::Hash,
            Ok(bpf_map_type::BPF_MAP_TYPE_LRU_HASH) => Self::LruHash,
            Ok(bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH) => Self::PerCpuHash,
            Ok(bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH) => Self::LruPerCpuHash,
            Ok(bpf_map_type::BPF_MAP_TYPE_ARRAY) => Self::Array,
            Ok(bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY) => Self::PerCpuArray,
            Ok(bpf_map_type::BPF_MAP_TYPE_LPM_TRIE) => Self::LpmTrie,
            Ok(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS) => Self::ArrayOfMaps,
            Ok(bpf_map_type::BPF_MAP_TYPE_HASH_OF_MAPS) => Self::HashOfMaps,
            Ok(bpf_map_type::BPF_MAP_TYPE_RINGBUF) => Self::RingBuf,
            Ok(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY) => Self::ProgramArray,
            _ => Self::Other(number),
        }
    }

    /// The kernel's number for this kind.
    pub fn to_kernel(self) -> u32 {
        match self {
            Self::Hash => bpf_map_type::BPF_MAP_TYPE_HASH as u32,
            Self::LruHash => bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32,
            Self::PerCpuHash => bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32,
            Self::LruPerCpuHash => bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH as u32,
            Self::Array => bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            Self::PerCpuArray => bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32,
            Self::LpmTrie => bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32,
            Self::ArrayOfMaps => bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32,
            Self::HashOfMaps => bpf_map_type::BPF_MAP_TYPE_HASH_OF_MAPS as u32,
            Self::RingBuf => bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32,
            Self::ProgramArray => bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32,
            Self::Other(number) => number,
        }
    }

    /// True when the table holds one value per CPU for each key.
    pub fn is_per_cpu(self) -> bool {
        matches!(self, Self::PerCpuHash | Self::LruPerCpuHash | Self::PerCpuArray)
    }

    /// True when rows are found by index and cannot be removed.
    pub fn is_array(self) -> bool {
        matches!(self, Self::Array | Self::PerCpuArray | Self::ArrayOfMaps)
    }
}

impl From<dataplane_abi::TableKind> for TableKind {
    fn from(kind: dataplane_abi::TableKind) -> Self {
        Self::from_kernel(kind as u32)
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Hash => "hash",
            Self::LruHash => "lru_hash",
            Self::PerCpuHash => "percpu_hash",
            Self::LruPerCpuHash => "lru_percpu_hash",
            Self::Array => "array",
            Self::PerCpuArray => "percpu_array",
            Self::LpmTrie => "lpm_trie",
            Self::ArrayOfMaps => "array_of_maps",
            Self::HashOfMaps => "hash_of_maps",
            Self::RingBuf => "ringbuf",
            Self::ProgramArray => "prog_array",
            Self::Other(number) => return write!(f, "kind {number}"),
        };
        f.write_str(name)
    }
}

/// What the kernel says about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name in the object and below the pin directory.
    pub name: String,
    /// The kind of map.
    pub kind: TableKind,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value (of one CPU, in per-CPU tables).
    pub value_size: usize,
    /// Rows that it holds at most (bytes, for a ring buffer).
    pub max_entries: u32,
    /// Creation flags (`BPF_F_…`).
    pub flags: u32,
    /// The kernel's id.
    pub id: u32,
}

/// What to make a table from, when it comes from no object (inner maps, tests).
#[derive(Clone, Copy, Debug)]
pub struct TableSpec<'a> {
    /// Name shown by bpftool; at most 15 characters count.
    pub name: &'a str,
    /// The kind of map.
    pub kind: TableKind,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Rows that it holds at most.
    pub max_entries: u32,
    /// Creation flags; an LPM trie needs `BPF_F_NO_PREALLOC` (1).
    pub flags: u32,
}

/// Which rows an upsert may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Upsert {
    /// A new row or an existing one.
    #[default]
    Any,
    /// Only a new row; otherwise [`TableError::Exists`].
    New,
    /// Only an existing row; otherwise [`TableError::Missing`].
    Existing,
}

/// Why a table operation failed. The text names the table and the operation.
#[derive(Debug, Error)]
pub enum TableError {
    /// There is no such table in the object or below the pin directory.
    #[error("table {name} is not there: {path}")]
    NotFound {
        /// Table name.
        name: String,
        /// Where it was looked for.
        path: String,
    },
    /// A key or value has not the size of the table.
    #[error("{what} of table {name} has {got} bytes, the table wants {want}")]
    Size {
        /// Table name.
        name: String,
        /// "key" or "value".
        what: &'static str,
        /// Bytes that were passed.
        got: usize,
        /// Bytes that the table has.
        want: usize,
    },
    /// The table has no room for another row.
    #[error("table {name} is full ({max_entries} rows)")]
    Full {
        /// Table name.
        name: String,
        /// Its size.
        max_entries: u32,
    },
    /// [`Upsert::New`] met an existing row.
    #[error("table {name} has the row already")]
    Exists {
        /// Table name.
        name: String,
    },
    /// [`Upsert::Existing`] met no row.
    #[error("table {name} has no such row")]
    Missing {
        /// Table name.
        name: String,
    },
    /// The kernel refused the operation.
    #[error("{operation} table {name}")]
    Kernel {
        /// Table name.
        name: String,
        /// What was tried: "open", "create", "read", "write", "delete from", "list".
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl TableError {
    /// True when trying again later may succeed (no room, no memory, interrupted).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Kernel { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR | libc::EBUSY))
            }
            _ => false,
        }
    }
}

/// A row as bytes: key and value. In per-CPU tables the value is that of all CPUs, each padded to eight bytes.
pub type Row = (Vec<u8>, Vec<u8>);

/// An open map.
#[derive(Debug)]
pub struct Table {
    fd: OwnedFd,
    info: TableInfo,
    /// Bytes of a whole value on read and write: of all CPUs in per-CPU tables.
    full_value: usize,
}

impl Table {
    /// Opens the table that is pinned as `name`.
    pub fn open(pins: &Pins, name: &str) -> Result<Self, TableError> {
        Self::open_path(&pins.table(name), name)
    }

    pub(crate) fn open_path(path: &Path, name: &str) -> Result<Self, TableError> {
        match sys::obj_get(path) {
            Ok(fd) => Self::from_fd(fd, Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(TableError::NotFound { name: name.to_owned(), path: path.display().to_string() })
            }
            Err(source) => Err(TableError::Kernel { name: name.to_owned(), operation: "open", source }),
        }
    }

    /// Every table that is pinned in the directory, by name in ascending order.
    pub fn list(pins: &Pins) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(pins.dir())? {
            let entry = entry?;
            if !entry.file_type()?.is_dir()
                && let Some(name) = entry.file_name().to_str()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a table that belongs to no object. It lives as long as a descriptor, a pin or an outer map holds it.
    pub fn create(spec: &TableSpec<'_>) -> Result<Self, TableError> {
        Self::create_with_inner(spec, None)
    }

    /// Makes a map of maps whose inner maps look like `inner`.
    pub fn create_with_inner(spec: &TableSpec<'_>, inner: Option<&Self>) -> Result<Self, TableError> {
        let kernel_size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let def = sys::MapDef {
            kind: spec.kind.to_kernel(),
            key_size: kernel_size(spec.key_size),
            value_size: kernel_size(spec.value_size),
            max_entries: spec.max_entries,
            flags: spec.flags,
        };
        let fd = sys::map_create(spec.name, &def, inner.map(|table| table.fd.as_fd())).map_err(|source| {
            TableError::Kernel { name: spec.name.to_owned(), operation: "create", source }
        })?;
        Self::from_fd(fd, Some(spec.name))
    }

    /// Takes a descriptor of a map. `name` is used for messages where the kernel's own (15 characters) may be cut.
    pub(crate) fn from_fd(fd: OwnedFd, name: Option<&str>) -> Result<Self, TableError> {
        let failed =
            |source| TableError::Kernel { name: name.unwrap_or("?").to_owned(), operation: "open", source };
        let raw = sys::map_info(fd.as_fd()).map_err(failed)?;
        let kernel_name: Vec<u8> =
            raw.name.iter().map(|&c| c.to_ne_bytes()[0]).take_while(|&c| c != 0).collect();
        let info = TableInfo {
            name: name.map_or_else(|| String::from_utf8_lossy(&kernel_name).into_owned(), ToOwned::to_owned),
            kind: TableKind::from_kernel(raw.type_),
            key_size: raw.key_size as usize,
            value_size: raw.value_size as usize,
            max_entries: raw.max_entries,
            flags: raw.map_flags,
            id: raw.id,
        };
        let full_value = if info.kind.is_per_cpu() {
            let cpus = sys::possible_cpus().map_err(failed)?;
            info.value_size.next_multiple_of(8) * cpus
        } else {
            info.value_size
        };
        Ok(Self { fd, info, full_value })
    }

    /// Kind, sizes and id.
    pub fn info(&self) -> &TableInfo {
        &self.info
    }

    /// Bytes of a whole value as [`Table::get`] returns it (of all CPUs in per-CPU tables).
    pub fn full_value_size(&self) -> usize {
        self.full_value
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let mut value = vec![0; self.full_value];
        Ok(self.get_into(key, &mut value)?.then_some(value))
    }

    /// Reads the value of `key` into `value`; false when there is none.
    pub fn get_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool, TableError> {
        self.check_key(key)?;
        self.check_value(value)?;
        match sys::map_lookup(self.fd.as_fd(), key, value) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Writes a row. In per-CPU tables the value is that of all CPUs.
    pub fn upsert(&self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        self.upsert_if(key, value, Upsert::Any)
    }

    /// Writes a row if the condition holds.
    pub fn upsert_if(&self, key: &[u8], value: &[u8], when: Upsert) -> Result<(), TableError> {
        self.check_key(key)?;
        self.check_value(value)?;
        let flags = match when {
            Upsert::Any => 0,
            Upsert::New => 1,
            Upsert::Existing => 2,
        };
        sys::map_update(self.fd.as_fd(), key, value, flags).map_err(|source| {
            let name = self.info.name.clone();
            match source.raw_os_error() {
                // A full hash answers E2BIG, a full LPM trie ENOSPC.
                Some(libc::E2BIG | libc::ENOSPC) => {
                    TableError::Full { name, max_entries: self.info.max_entries }
                }
                Some(libc::EEXIST) => TableError::Exists { name },
                Some(libc::ENOENT) => TableError::Missing { name },
                _ => self.failed("write", source),
            }
        })
    }

    /// Removes a row; false when there was none. Rows of arrays cannot be removed.
    pub fn delete(&self, key: &[u8]) -> Result<bool, TableError> {
        self.check_key(key)?;
        match sys::map_delete(self.fd.as_fd(), key) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(self.failed("delete from", source)),
        }
    }

    /// Every row. Rows that are written or removed meanwhile may or may not be seen; rows that stay are seen once.
    pub fn rows(&self) -> Result<Vec<Row>, TableError> {
        let mut rows = Vec::new();
        self.for_each(|key, value| rows.push((key.to_vec(), value.to_vec())))?;
        Ok(rows)
    }

    /// How many rows there are now (counted by walking over them).
    pub fn count(&self) -> Result<usize, TableError> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }

    /// Calls `each` with every row, in batches where the kernel has them for this kind.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), TableError> {
        if self.info.key_size == 0 {
            return Ok(());
        }
        match self.batches(&mut each) {
            Ok(true) => Ok(()),
            Ok(false) => self.walk(&mut each),
            Err(source) => Err(self.failed("list", source)),
        }
    }

    /// Walks in batches. False when the kernel has none for this kind and no row was seen.
    fn batches(&self, each: &mut impl FnMut(&[u8], &[u8])) -> io::Result<bool> {
        let (key_size, value_size) = (self.info.key_size, self.full_value);
        // A hash batch copies whole buckets, so there must be room for the fullest one: ENOSPC asks for more.
        let mut count: u32 = self.info.max_entries.clamp(1, 512);
        let token = key_size.max(4);
        let mut from: Option<sys::BatchToken> = None;
        let mut next = vec![0; token];
        let mut keys = vec![0; key_size * count as usize];
        let mut values = vec![0; value_size * count as usize];
        loop {
            let result = sys::map_lookup_batch(
                self.fd.as_fd(),
                from.as_ref(),
                &mut next,
                &mut keys,
                &mut values,
                count,
            );
            match result {
                Ok((got, end)) => {
                    for index in 0..got as usize {
                        each(
                            &keys[index * key_size..][..key_size],
                            &values[index * value_size..][..value_size],
                        );
                    }
                    if end {
                        return Ok(true);
                    }
                    from = Some(next.clone());
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && count < 1 << 20 => {
                    count *= 2;
                    keys.resize(key_size * count as usize, 0);
                    values.resize(value_size * count as usize, 0);
                }
                Err(error)
                    if from.is_none()
                        && matches!(
                            error.raw_os_error(),
                            Some(ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP)
                        ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Walks key by key. A row that is removed under the walk makes the kernel start again from the first key; rows
    /// seen before are then not reported a second time.
    fn walk(&self, each: &mut impl FnMut(&[u8], &[u8])) -> Result<(), TableError> {
        let mut seen = std::collections::HashSet::new();
        let mut key: Option<Vec<u8>> = None;
        let mut next = vec![0; self.info.key_size];
        let mut value = vec![0; self.full_value];
        loop {
            let more = sys::map_next_key(self.fd.as_fd(), key.as_deref(), &mut next)
                .map_err(|source| self.failed("list", source))?;
            if !more {
                return Ok(());
            }
            if seen.insert(next.clone()) && self.get_into(&next, &mut value)? {
                each(&next, &value);
            }
            key = Some(next.clone());
        }
    }

    /// Removes every row (sets every value to zero in arrays).
    pub fn clear(&self) -> Result<(), TableError> {
        let zero = vec![0; self.full_value];
        let mut keys = Vec::new();
        self.for_each(|key, _| keys.push(key.to_vec()))?;
        for key in keys {
            if self.info.kind.is_array() {
                self.upsert(&key, &zero)?;
            } else {
                self.delete(&key)?;
            }
        }
        Ok(())
    }

    /// The value of each CPU for `key` (one value where the table has no per-CPU values).
    pub fn get_per_cpu(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>, TableError> {
        Ok(self.get(key)?.map(|value| self.split_per_cpu(&value)))
    }

    /// Splits a whole value into that of each CPU.
    pub fn split_per_cpu(&self, value: &[u8]) -> Vec<Vec<u8>> {
        let stride = self.info.value_size.next_multiple_of(8).max(1);
        if !self.info.kind.is_per_cpu() {
            return vec![value.to_vec()];
        }
        value.chunks(stride).map(|one| one[..self.info.value_size.min(one.len())].to_vec()).collect()
    }

    /// Puts `inner` into a map of maps.
    pub fn upsert_inner(&self, key: &[u8], inner: &Self) -> Result<(), TableError> {
        use std::os::fd::AsRawFd as _;
        self.upsert(key, &inner.fd.as_raw_fd().to_ne_bytes())
    }

    /// The map that a map of maps holds for `key`.
    pub fn inner(&self, key: &[u8]) -> Result<Option<Self>, TableError> {
        let Some(value) = self.get(key)? else {
            return Ok(None);
        };
        let id: [u8; 4] = value[..].try_into().map_err(|_| TableError::Size {
            name: self.info.name.clone(),
            what: "value",
            got: value.len(),
            want: 4,
        })?;
        let fd = sys::map_by_id(u32::from_ne_bytes(id)).map_err(|source| self.failed("read", source))?;
        Self::from_fd(fd, None).map(Some)
    }

    /// Typed access; fails when the sizes of the types are not those of the table.
    pub fn typed<T: dataplane_abi::Table>(self) -> Result<TypedTable<T>, TableError> {
        TypedTable::from_table(self)
    }

    /// Pins the table at a path below a bpffs.
    pub fn pin(&self, path: &Path) -> Result<(), TableError> {
        sys::obj_pin(self.fd.as_fd(), path).map_err(|source| self.failed("pin", source))
    }

    /// A second handle on the same map.
    pub fn try_clone(&self) -> Result<Self, TableError> {
        let fd = self.fd.try_clone().map_err(|source| self.failed("open", source))?;
        Ok(Self { fd, info: self.info.clone(), full_value: self.full_value })
    }

    fn check_key(&self, key: &[u8]) -> Result<(), TableError> {
        self.check_key_size(key.len())
    }

    fn check_key_size(&self, got: usize) -> Result<(), TableError> {
        if got == self.info.key_size { Ok(()) } else { Err(self.wrong_size("key", got, self.info.key_size)) }
    }

    fn check_value(&self, value: &[u8]) -> Result<(), TableError> {
        if value.len() == self.full_value {
            Ok(())
        } else {
            Err(self.wrong_size("value", value.len(), self.full_value))
        }
    }

    fn wrong_size(&self, what: &'static str, got: usize, want: usize) -> TableError {
        TableError::Size { name: self.info.name.clone(), what, got, want }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> TableError {
        TableError::Kernel { name: self.info.name.clone(), operation, source }
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
