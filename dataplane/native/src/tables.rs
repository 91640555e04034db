//! The tables in memory, by type for the programs and by name and bytes for everyone else.
//!
//! Tables that the agent writes are plain; those that the programs write are behind cells, because programs share the node.

use std::cell::RefCell;

use dataplane_abi::Table;
use dataplane_abi::affinity::Affinity;
use dataplane_abi::backends::Backends;
use dataplane_abi::clock::Clock;
use dataplane_abi::config::Config;
use dataplane_abi::conntrack::{Ct4, Ct6};
use dataplane_abi::endpoints::Endpoints;
use dataplane_abi::events;
use dataplane_abi::frags::{Frags4, Frags6};
use dataplane_abi::ipcache::IpCache;
use dataplane_abi::metrics::Metrics;
use dataplane_abi::nat::{Nat4, Nat6};
use dataplane_abi::no_masquerade::NoMasquerade;
use dataplane_abi::policy::{Policy, PolicyBlocks, PolicyL4, StagedCounts};
use dataplane_abi::services::Services;
use dataplane_abi::sock_revnat::SockRevNat;

mod array;
mod hash;
mod lpm;
mod lru;
mod ring;

pub use array::ArrayTable;
pub use hash::HashTable;
pub use lpm::LpmTable;
pub use lru::{Batches, LruTable};
pub use ring::Ring;

/// Why a row was not written or removed. The kernel's error numbers are in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no table of that name.
    #[error("no table of that name")]
    NoTable,
    /// Key or value have the wrong length, or the prefix is longer than the key (`EINVAL`).
    #[error("key or value of the wrong length")]
    Length,
    /// The table is full (`E2BIG`, of prefixes `ENOSPC`); of an array: the index is beyond its end (`E2BIG`).
    #[error("table is full")]
    Full,
    /// A table that forgets found no row to forget (`ENOMEM`).
    #[error("no place for the row")]
    Memory,
    /// There is no such row (`ENOENT`).
    #[error("no such row")]
    NoRow,
    /// The kind of table does not allow it (`EINVAL`).
    #[error("not possible with this kind of table")]
    Kind,
}

/// A row as bytes.
pub type RawRow = (Vec<u8>, Vec<u8>);

/// What every kind of table can do with bytes.
pub trait RawTable {
    /// Writes a row, new or not.
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError>;
    /// Reads a row; does not count as use.
    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Removes a row.
    fn delete_raw(&mut self, key: &[u8]) -> Result<(), UpdateError>;
    /// Every row, ordered by the bytes of its key.
    fn dump_raw(&self) -> Vec<RawRow>;
    /// Changes how many rows it may hold; rows beyond that stay until they are removed or, in tables that forget, make room.
    fn set_capacity(&mut self, max_entries: u32);
}

/// All tables of a node.
#[derive(Debug)]
pub struct Tables {
    /// `CONFIG`
    pub config: ArrayTable<Config>,
    /// `ENDPOINTS`
    pub endpoints: HashTable<Endpoints>,
    /// `IPCACHE`
    pub ipcache: LpmTable<IpCache>,
    /// `POLICY`
    pub policy: HashTable<Policy>,
    /// `POLICY_BLOCKS`
    pub policy_blocks: LpmTable<PolicyBlocks>,
    /// `POLICY_L4`
    pub policy_l4: LpmTable<PolicyL4>,
    /// `STAGED`
    pub staged: RefCell<HashTable<StagedCounts>>,
    /// `CT4`
    pub ct4: RefCell<LruTable<Ct4>>,
    /// `CT6`
    pub ct6: RefCell<LruTable<Ct6>>,
    /// `FRAGS4`
    pub frags4: RefCell<LruTable<Frags4>>,
    /// `FRAGS6`
    pub frags6: RefCell<LruTable<Frags6>>,
    /// `NAT4`
    pub nat4: RefCell<LruTable<Nat4>>,
    /// `NAT6`
    pub nat6: RefCell<LruTable<Nat6>>,
    /// `NO_MASQUERADE`
    pub no_masquerade: LpmTable<NoMasquerade>,
    /// `SERVICES`
    pub services: HashTable<Services>,
    /// `BACKENDS`
    pub backends: HashTable<Backends>,
    /// `AFFINITY`
    pub affinity: RefCell<LruTable<Affinity>>,
    /// `SOCK_REVNAT`
    pub sock_revnat: RefCell<LruTable<SockRevNat>>,
    /// `METRICS`, of the one CPU there is.
    pub metrics: RefCell<ArrayTable<Metrics>>,
    /// `EVENTS`
    pub events: RefCell<Ring>,
    /// `CLOCK`
    pub clock: RefCell<ArrayTable<Clock>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            config: ArrayTable::new(Config::SPEC.max_entries),
            endpoints: HashTable::new(Endpoints::SPEC.max_entries),
            ipcache: LpmTable::new(IpCache::SPEC.max_entries),
            policy: HashTable::new(Policy::SPEC.max_entries),
            policy_blocks: LpmTable::new(PolicyBlocks::SPEC.max_entries),
            policy_l4: LpmTable::new(PolicyL4::SPEC.max_entries),
            staged: RefCell::new(HashTable::new(StagedCounts::SPEC.max_entries)),
            ct4: RefCell::new(LruTable::new(Ct4::SPEC.max_entries)),
            ct6: RefCell::new(LruTable::new(Ct6::SPEC.max_entries)),
            frags4: RefCell::new(LruTable::new(Frags4::SPEC.max_entries)),
            frags6: RefCell::new(LruTable::new(Frags6::SPEC.max_entries)),
            nat4: RefCell::new(LruTable::new(Nat4::SPEC.max_entries)),
            nat6: RefCell::new(LruTable::new(Nat6::SPEC.max_entries)),
            no_masquerade: LpmTable::new(NoMasquerade::SPEC.max_entries),
            services: HashTable::new(Services::SPEC.max_entries),
            backends: HashTable::new(Backends::SPEC.max_entries),
            affinity: RefCell::new(LruTable::new(Affinity::SPEC.max_entries)),
            sock_revnat: RefCell::new(LruTable::new(SockRevNat::SPEC.max_entries)),
            metrics: RefCell::new(ArrayTable::new(Metrics::SPEC.max_entries)),
            events: RefCell::new(Ring::new(events::EVENTS.max_entries)),
            clock: RefCell::new(ArrayTable::new(Clock::SPEC.max_entries)),
        }
    }
}

impl Tables {
    /// The same rows of what an agent writes, without connections, counters and events.
    #[must_use]
    pub fn copy_of_config(&self) -> Self {
        Self {
            config: self.config.clone(),
            endpoints: self.endpoints.clone(),
            ipcache: self.ipcache.clone(),
            policy: self.policy.clone(),
            policy_blocks: self.policy_blocks.clone(),
            policy_l4: self.policy_l4.clone(),
            no_masquerade: self.no_masquerade.clone(),
            ..Self::default()
        }
    }

    /// Runs `f` on the table of a name. The ring buffer is no table of rows.
    fn with<R>(&self, name: &str, f: impl FnOnce(&dyn RawTable) -> R) -> Option<R> {
        Some(match name {
            "CONFIG" => f(&self.config),
            "ENDPOINTS" => f(&self.endpoints),
            "IPCACHE" => f(&self.ipcache),
            "POLICY" => f(&self.policy),
            "POLICY_BLOCKS" => f(&self.policy_blocks),
            "POLICY_L4" => f(&self.policy_l4),
            "STAGED" => f(&*self.staged.borrow()),
            "CT4" => f(&*self.ct4.borrow()),
            "CT6" => f(&*self.ct6.borrow()),
            "FRAGS4" => f(&*self.frags4.borrow()),
            "FRAGS6" => f(&*self.frags6.borrow()),
            "NAT4" => f(&*self.nat4.borrow()),
            "NAT6" => f(&*self.nat6.borrow()),
            "NO_MASQUERADE" => f(&self.no_masquerade),
            "SERVICES" => f(&self.services),
            "BACKENDS" => f(&self.backends),
            "AFFINITY" => f(&*self.affinity.borrow()),
            "SOCK_REVNAT" => f(&*self.sock_revnat.borrow()),
            "METRICS" => f(&*self.metrics.borrow()),
            "CLOCK" => f(&*self.clock.borrow()),
            _ => return None,
        })
    }

    fn with_mut<R>(&mut self, name: &str, f: impl FnOnce(&mut dyn RawTable) -> R) -> Option<R> {
        Some(match name {
            "CONFIG" => f(&mut self.config),
            "ENDPOINTS" => f(&mut self.endpoints),
            "IPCACHE" => f(&mut self.ipcache),
            "POLICY" => f(&mut self.policy),
            "POLICY_BLOCKS" => f(&mut self.policy_blocks),
            "POLICY_L4" => f(&mut self.policy_l4),
            "STAGED" => f(self.staged.get_mut()),
            "CT4" => f(self.ct4.get_mut()),
            "CT6" => f(self.ct6.get_mut()),
            "FRAGS4" => f(self.frags4.get_mut()),
            "FRAGS6" => f(self.frags6.get_mut()),
            "NAT4" => f(self.nat4.get_mut()),
            "NAT6" => f(self.nat6.get_mut()),
            "NO_MASQUERADE" => f(&mut self.no_masquerade),
            "SERVICES" => f(&mut self.services),
            "BACKENDS" => f(&mut self.backends),
            "AFFINITY" => f(self.affinity.get_mut()),
            "SOCK_REVNAT" => f(self.sock_revnat.get_mut()),
            "METRICS" => f(self.metrics.get_mut()),
            "CLOCK" => f(self.clock.get_mut()),
            _ => return None,
        })
    }

    /// Writes a row, new or not (`BPF_ANY`).
    pub fn update(&mut self, name: &str, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        self.with_mut(name, |table| table.update_raw(key, value)).unwrap_or(Err(UpdateError::NoTable))
    }

    /// Reads a row.
    pub fn lookup(&self, name: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.with(name, |table| table.lookup_raw(key)).flatten()
    }

    /// Removes a row.
    pub fn delete(&mut self, name: &str, key: &[u8]) -> Result<(), UpdateError> {
        self.with_mut(name, |table| table.delete_raw(key)).unwrap_or(Err(UpdateError::NoTable))
    }

    /// Changes how many rows a table (or records the ring) may hold; `None`: as many as the ABI says. Arrays keep their size.
    pub fn set_capacity(&mut self, name: &str, max_entries: Option<u32>) {
        if name == events::EVENTS.name {
            let records = max_entries.unwrap_or_else(|| Ring::records(events::EVENTS.max_entries));
            self.events.get_mut().set_capacity(records);
            return;
        }
        let usual = dataplane_abi::table::by_name(name).map_or(u32::MAX, |spec| spec.max_entries);
        self.with_mut(name, |table| table.set_capacity(max_entries.unwrap_or(usual)));
    }

    /// Lets the next `count` rows that programs or the agent write into a table that forgets fail (`ENOMEM`), as they do
    /// in the kernel when CPUs contend for it. False: the table is of another kind, or there is none of that name.
    pub fn refuse_creates(&mut self, name: &str, count: u32) -> bool {
        match name {
            "CT4" => self.ct4.get_mut().fail_creates(count),
            "CT6" => self.ct6.get_mut().fail_creates(count),
            "FRAGS4" => self.frags4.get_mut().fail_creates(count),
            "FRAGS6" => self.frags6.get_mut().fail_creates(count),
            "NAT4" => self.nat4.get_mut().fail_creates(count),
            "NAT6" => self.nat6.get_mut().fail_creates(count),
            "AFFINITY" => self.affinity.get_mut().fail_creates(count),
            "SOCK_REVNAT" => self.sock_revnat.get_mut().fail_creates(count),
            _ => return false,
        }
        true
    }

    /// Every row of a table, ordered by the bytes of its key; arrays with all their rows.
    pub fn dump(&self, name: &str) -> Option<Vec<RawRow>> {
        self.with(name, |table| table.dump_raw())
    }
}
