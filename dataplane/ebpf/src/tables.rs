//! The tables of `dataplane-abi` as the kernel's maps. Names, types and sizes are taken from there.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use dataplane_abi::Table;
use dataplane_abi::affinity::{Affinity, AffinityEntry, AffinityKey};
use dataplane_abi::backends::{BackendEntry, Backends};
use dataplane_abi::clock::{Clock, ClockEntry};
use dataplane_abi::config::{Config, NodeConfig};
use dataplane_abi::conntrack::{Ct4, Ct6, CtEntry, CtEntry6, CtKey4, CtKey6};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey, Endpoints};
use dataplane_abi::events;
use dataplane_abi::frags::{FragEntry, FragKey4, FragKey6, Frags4, Frags6};
use dataplane_abi::ipcache::{IpCache, IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::{Metrics, MetricsEntry};
use dataplane_abi::nat::{Nat4, Nat6, NatEntry};
use dataplane_abi::no_masquerade::{NoMasquerade, NoMasqueradeEntry};
use dataplane_abi::policy::{
    BlockKey, L4Key, Policy, PolicyBlocks, PolicyEntry, PolicyKey, PolicyL4, PolicyVerdict, StagedCount,
    StagedCounts, StagedKey,
};
use dataplane_abi::services::{ServiceEntry, ServiceKey, Services};
use dataplane_abi::sock_revnat::{SockRevNat, SockRevNatEntry, SockRevNatKey};
use dataplane_core::calls::Calling;
use dataplane_core::closer::Room;
use dataplane_core::ends::Meeting;
use dataplane_core::ip::{V4, V6};

/// Capacity of a table.
const fn rows<T: Table>() -> usize {
    T::SPEC.max_entries as usize
}

/// Creation flags of a table.
const fn flags<T: Table>() -> usize {
    T::SPEC.flags as usize
}

/// Bytes of the keys of tables of prefixes behind the length, with which such keys begin.
const PREFIX_BYTES: usize = size_of::<IpCacheKey>() - 4;
const BLOCK_BYTES: usize = size_of::<BlockKey>() - 4;
const L4_BYTES: usize = size_of::<L4Key>() - 4;

#[btf_map]
pub(crate) static CONFIG: Array<NodeConfig, { rows::<Config>() }> = Array::new();

#[btf_map]
pub(crate) static ENDPOINTS: HashMap<
    EndpointKey,
    EndpointEntry,
    { rows::<Endpoints>() },
    { flags::<Endpoints>() },
> = HashMap::new();

#[btf_map]
pub(crate) static IPCACHE: LpmTrie<
    [u8; PREFIX_BYTES],
    IpCacheEntry,
    { rows::<IpCache>() },
    { flags::<IpCache>() },
> = LpmTrie::new();

#[btf_map]
pub(crate) static POLICY: HashMap<PolicyKey, PolicyEntry, { rows::<Policy>() }, { flags::<Policy>() }> =
    HashMap::new();

#[btf_map]
pub(crate) static POLICY_BLOCKS: LpmTrie<
    [u8; BLOCK_BYTES],
    PolicyEntry,
    { rows::<PolicyBlocks>() },
    { flags::<PolicyBlocks>() },
> = LpmTrie::new();

#[btf_map]
pub(crate) static POLICY_L4: LpmTrie<
    [u8; L4_BYTES],
    PolicyVerdict,
    { rows::<PolicyL4>() },
    { flags::<PolicyL4>() },
> = LpmTrie::new();

#[btf_map]
pub(crate) static STAGED: PerCpuHashMap<
    StagedKey,
    StagedCount,
    { rows::<StagedCounts>() },
    { flags::<StagedCounts>() },
> = PerCpuHashMap::new();

#[btf_map]
pub(crate) static CT4: LruHashMap<CtKey4, CtEntry, { rows::<Ct4>() }, { flags::<Ct4>() }> = LruHashMap::new();

#[btf_map]
pub(crate) static CT6: LruHashMap<CtKey6, CtEntry6, { rows::<Ct6>() }, { flags::<Ct6>() }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static FRAGS4: LruHashMap<FragKey4, FragEntry, { rows::<Frags4>() }, { flags::<Frags4>() }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static FRAGS6: LruHashMap<FragKey6, FragEntry, { rows::<Frags6>() }, { flags::<Frags6>() }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static NAT4: LruHashMap<CtKey4, NatEntry, { rows::<Nat4>() }, { flags::<Nat4>() }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static NAT6: LruHashMap<CtKey6, NatEntry, { rows::<Nat6>() }, { flags::<Nat6>() }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static NO_MASQUERADE: LpmTrie<
    [u8; PREFIX_BYTES],
    NoMasqueradeEntry,
    { rows::<NoMasquerade>() },
    { flags::<NoMasquerade>() },
> = LpmTrie::new();

#[btf_map]
pub(crate) static SERVICES: HashMap<
    ServiceKey,
    ServiceEntry,
    { rows::<Services>() },
    { flags::<Services>() },
> = HashMap::new();

#[btf_map]
pub(crate) static BACKENDS: HashMap<u32, BackendEntry, { rows::<Backends>() }, { flags::<Backends>() }> =
    HashMap::new();

#[btf_map]
pub(crate) static AFFINITY: LruHashMap<
    AffinityKey,
    AffinityEntry,
    { rows::<Affinity>() },
    { flags::<Affinity>() },
> = LruHashMap::new();

#[btf_map]
pub(crate) static SOCK_REVNAT: LruHashMap<
    SockRevNatKey,
    SockRevNatEntry,
    { rows::<SockRevNat>() },
    { flags::<SockRevNat>() },
> = LruHashMap::new();

#[btf_map]
pub(crate) static METRICS: PerCpuArray<MetricsEntry, { rows::<Metrics>() }> = PerCpuArray::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<[u8; 0], { events::EVENTS.max_entries as usize }> = RingBuf::new();

#[btf_map]
pub(crate) static CLOCK: Array<ClockEntry, { rows::<Clock>() }> = Array::new();

/// Where a row of conntrack is built before it is written: it would not fit the stack. Not part of the ABI.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<CtEntry6, 1> = PerCpuArray::new();

/// Where it is kept what is found out about a packet. Not part of the ABI.
#[btf_map]
pub(crate) static MEETING: PerCpuArray<Meeting, 1> = PerCpuArray::new();

/// Where a packet is kept that is looked at closely. Not part of the ABI.
#[btf_map]
pub(crate) static ROOM4: PerCpuArray<Room<V4>, 1> = PerCpuArray::new();

/// The same for IPv6.
#[btf_map]
pub(crate) static ROOM6: PerCpuArray<Room<V6>, 1> = PerCpuArray::new();

/// Where a call to a service is kept that is being translated. Not part of the ABI.
#[btf_map]
pub(crate) static CALLING: PerCpuArray<Calling, 1> = PerCpuArray::new();
