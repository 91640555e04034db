//! What a table is: its types, its name, its kind and its size.

use core::hash::Hash;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    affinity, backends, clock, config, conntrack, endpoints, events, frags, ipcache, metrics, nat,
    no_masquerade, policy, services, sock_revnat,
};

/// Longest table name: the kernel keeps 15 characters and a zero.
pub const NAME_MAX: usize = 15;

/// `BPF_F_NO_PREALLOC`: entries take memory when they are written, not when the table is made.
pub const F_NO_PREALLOC: u32 = 1;

/// Kinds of table the dataplane uses, by the kernel's map type number (`enum bpf_map_type`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum TableKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PerCpuHash = 5,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray = 6,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie = 11,
    /// `BPF_MAP_TYPE_HASH_OF_MAPS`.
    HashOfMaps = 13,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuf = 27,
}

/// One table, as data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSpec {
    /// Map symbol and pin name.
    pub name: &'static str,
    /// Kind of map.
    pub kind: TableKind,
    /// Bytes of a key; zero for ring buffers.
    pub key_size: u32,
    /// Bytes of a value; zero for ring buffers.
    pub value_size: u32,
    /// Capacity in rows; bytes for ring buffers. The loader may raise it.
    pub max_entries: u32,
    /// Creation flags of the kernel (`BPF_F_*`).
    pub flags: u32,
    /// Who writes it.
    pub writer: Writer,
}

/// The one side that writes a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The agent; the packet programs only read.
    Agent,
    /// The packet programs; the agent reads and expires.
    Programs,
}

/// A table known at compile time. Implemented by one uninhabited type per table, named for it.
pub trait Table {
    /// Type of a key.
    type Key: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Ord + Hash;
    /// Type of a value.
    type Value: FromBytes + IntoBytes + Immutable + KnownLayout + Copy;
    /// The same as data.
    const SPEC: TableSpec;
}

/// Declares a [`Table`].
macro_rules! table {
    ($(#[$doc:meta])* $ty:ident = $name:literal: $kind:ident<$key:ty, $value:ty>[$max:expr], flags $flags:expr, writer $writer:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $ty {}

        impl $crate::table::Table for $ty {
            type Key = $key;
            type Value = $value;
            const SPEC: $crate::table::TableSpec = $crate::table::TableSpec {
                name: $name,
                kind: $crate::table::TableKind::$kind,
                key_size: $crate::table::size32::<$key>(),
                value_size: $crate::table::size32::<$value>(),
                max_entries: $max,
                flags: $flags,
                writer: $crate::table::Writer::$writer,
            };
        }

        const _: () = assert!($name.len() <= $crate::table::NAME_MAX);
    };
}
pub(crate) use table;

/// `size_of` as the kernel wants it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rows are a few hundred bytes; evaluated at compile time"
)]
pub(crate) const fn size32<T>() -> u32 {
    assert!(size_of::<T>() < 4096);
    size_of::<T>() as u32
}

/// Every table, in the order in which it should be made and shown.
pub const TABLES: &[TableSpec] = &[
    config::Config::SPEC,
    endpoints::Endpoints::SPEC,
    ipcache::IpCache::SPEC,
    policy::Policy::SPEC,
    policy::PolicyBlocks::SPEC,
    policy::PolicyL4::SPEC,
    policy::StagedCounts::SPEC,
    conntrack::Ct4::SPEC,
    conntrack::Ct6::SPEC,
    frags::Frags4::SPEC,
    frags::Frags6::SPEC,
    nat::Nat4::SPEC,
    nat::Nat6::SPEC,
    no_masquerade::NoMasquerade::SPEC,
    services::Services::SPEC,
    backends::Backends::SPEC,
    affinity::Affinity::SPEC,
    sock_revnat::SockRevNat::SPEC,
    metrics::Metrics::SPEC,
    events::EVENTS,
    clock::Clock::SPEC,
];

/// The table with this name.
pub fn by_name(name: &str) -> Option<&'static TableSpec> {
    TABLES.iter().find(|t| t.name == name)
}
