//! The tables that the dataplane reads, as raw rows.

use super::PortError;

/// A table of `dataplane-abi` that the agent reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The node's configuration, one row.
    Config,
    /// Addresses on this node: pods, the router, the node itself.
    Endpoints,
    /// Address prefix → identity and tunnel endpoint.
    Ipcache,
    /// What policies decide, by identity.
    Policy,
    /// What policies decide, by address of a pod.
    PolicyBlocks,
    /// What policies decide, by protocol and port.
    PolicyL4,
    /// Under which addresses services are reached, and how many backends they have.
    Services,
    /// Where backends of services are.
    Backends,
    /// How often staged policies would have decided otherwise; counted by the dataplane, the agent only removes.
    Staged,
    /// IPv4 connections; written by the dataplane, the agent only removes.
    Ct4,
    /// IPv6 connections; written by the dataplane, the agent only removes.
    Ct6,
    /// Ports of masqueraded IPv4 connections; written by the dataplane, the agent only removes.
    Nat4,
    /// Ports of masqueraded IPv6 connections; written by the dataplane, the agent only removes.
    Nat6,
    /// Where pods are not masqueraded.
    NoMasquerade,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Config,
        Self::Endpoints,
        Self::Ipcache,
        Self::Policy,
        Self::PolicyBlocks,
        Self::PolicyL4,
        Self::Services,
        Self::Backends,
        Self::Staged,
        Self::Ct4,
        Self::Ct6,
        Self::Nat4,
        Self::Nat6,
        Self::NoMasquerade,
    ];

    /// Whether the dataplane writes it, so that the agent only reads and removes.
    pub const fn is_the_dataplanes(self) -> bool {
        matches!(self, Self::Staged | Self::Ct4 | Self::Ct6 | Self::Nat4 | Self::Nat6)
    }

    /// Name of the map, as in `dataplane-abi` and below the pin directory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "CONFIG",
            Self::Endpoints => "ENDPOINTS",
            Self::Ipcache => "IPCACHE",
            Self::Policy => "POLICY",
            Self::PolicyBlocks => "POLICY_BLOCKS",
            Self::PolicyL4 => "POLICY_L4",
            Self::Services => "SERVICES",
            Self::Backends => "BACKENDS",
            Self::Staged => "STAGED",
            Self::Ct4 => "CT4",
            Self::Ct6 => "CT6",
            Self::Nat4 => "NAT4",
            Self::Nat6 => "NAT6",
            Self::NoMasquerade => "NO_MASQUERADE",
        }
    }
}

/// One row: the bytes of key and value as `dataplane-abi` lays them out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// A place in a table, in the store's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A slice of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Where to go on; `None` at the end of the table.
    pub next: Option<Cursor>,
}

/// The clock that conntrack entries are stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtClock {
    /// Now, in ticks (the kernel's `jiffies64`, as programs read it).
    pub ticks: u64,
    /// Ticks per second (the kernel's `HZ`), not zero.
    pub ticks_per_s: u32,
}

/// The maps. Written only by the agent, but for those of the dataplane ([`Table::is_the_dataplanes`]).
pub trait MapStore {
    /// All rows of a table, in any order. Not for conntrack, whose tables are large and change while they are read.
    /// What each CPU counts by itself is added up.
    /// A read that could not be completed is an error: rows that are missing here are taken for absent.
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError>;

    /// Writes a row, new or not. A table at its capacity answers with kind [`super::PortErrorKind::Full`].
    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError>;

    /// Removes a row. A row that is not there is success.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError>;

    /// Up to `limit` rows from `cursor` on (from the beginning without one), while packets change the table.
    /// A row may come twice or be missed. If the last row of a slice has been removed, the scan may start over;
    /// so the agent removes that one only after it has the next slice.
    fn scan(&mut self, table: Table, cursor: Option<&Cursor>, limit: usize) -> Result<Scan, PortError>;

    /// The clock that conntrack entries are stamped with.
    fn ct_clock(&mut self) -> Result<CtClock, PortError>;
}
