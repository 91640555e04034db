//! The adapters: a packet is an `__sk_buff`, a table is a map, time is the kernel's.
//!
//! Helpers newer than 5.10 are not used. Everything here is inlined into the programs.

use core::ffi::c_void;
use core::hint::black_box;
use core::mem::{self, MaybeUninit};
use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX,
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns, bpf_l4_csum_replace, bpf_redirect,
    bpf_redirect_neigh, bpf_redirect_peer, bpf_ringbuf_query, bpf_skb_change_type, bpf_skb_get_tunnel_key,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use dataplane_abi::affinity::{AffinityEntry, AffinityKey};
use dataplane_abi::backends::BackendEntry;
use dataplane_abi::config::NodeConfig;
use dataplane_abi::conntrack::{CtEntry, CtEntry6, CtKey4, CtKey6};
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey};
use dataplane_abi::events::{EVENTS, Event, EventHeader, PAYLOAD_MAX};
use dataplane_abi::frags::{FragEntry, FragKey4, FragKey6};
use dataplane_abi::ipcache::{IpCacheEntry, IpCacheKey};
use dataplane_abi::metrics::EVENTS_LOST;
use dataplane_abi::nat::NatEntry;
use dataplane_abi::policy::{BlockKey, L4Key, PolicyEntry, PolicyKey, PolicyVerdict, StagedCount, StagedKey};
use dataplane_abi::services::{ServiceEntry, ServiceKey};
use dataplane_core::calls::Calling;
use dataplane_core::closer::Room;
use dataplane_core::ends::Meeting;
use dataplane_core::ip;
use dataplane_core::socket::{Random, ServiceMaps};
use dataplane_core::{Clock, Events, Maps, Packet, Places, Raw, Verdict};

use crate::socket::SockAddr;
use crate::tables;

/// `BPF_NOEXIST`.
const NEW_ROW: u64 = 1;
/// `TC_ACT_OK`.
const ACT_OK: i32 = 0;
/// `TC_ACT_SHOT`.
const ACT_SHOT: i32 = 2;
/// `TC_ACT_UNSPEC`: the next program on the hook has its turn.
const ACT_UNSPEC: i32 = -1;
/// `PACKET_HOST`.
const PACKET_HOST: u32 = 0;
/// `BPF_F_INGRESS`.
const REDIRECT_INGRESS: u64 = 1;
/// `AF_INET` and `AF_INET6`.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// Bytes of `bpf_tunnel_key` that every kernel since 5.10 knows: up to the local address.
const TUNNEL_KEY_LEN: u32 = size_of::<TunnelKey>() as u32;
/// Bytes of it with the local address.
const LONG_TUNNEL_KEY_LEN: u32 = size_of::<LongTunnelKey>() as u32;
/// Bytes in the ring at which its reader is woken.
const RING_FILLS: u64 = EVENTS.max_entries as u64 / 4;
/// Bytes above [`RING_FILLS`] up to which records wake it: a few records, in case several CPUs pass the mark at once.
/// Not all above: a wake-up costs as much as fifty packets, and a reader that is behind knows.
const WAKE_SPAN: u64 = 16 * size_of::<Event>() as u64;
/// Hop limit of outer packets.
const TUNNEL_TTL: u8 = 64;

/// `struct bpf_tunnel_key` as far as every kernel since 5.10 knows it; longer ones accept this length.
#[repr(C)]
struct TunnelKey {
    id: u32,
    /// IPv4: a number in the first word. IPv6: as on the wire.
    remote: [u32; 4],
    tos: u8,
    ttl: u8,
    ext: u16,
    label: u32,
}

/// The same with the local address, which kernels know since 6.0. Zero: the route's.
#[repr(C)]
struct LongTunnelKey {
    key: TunnelKey,
    local: [u32; 4],
}

const _: () = assert!(size_of::<TunnelKey>() == 28 && size_of::<LongTunnelKey>() == 44);

/// The packet on which a program runs, and the world around it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Kernel(*mut __sk_buff);

impl Kernel {
    /// The host of a program that was started with this context.
    #[inline(always)]
    pub(crate) const fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    #[inline(always)]
    fn skb(self) -> &'static __sk_buff {
        // SAFETY: the kernel hands a valid context to the program, and it lives as long as the program runs.
        unsafe { &*self.0 }
    }

    /// Does what a program decided; the result is the program's.
    #[inline(always)]
    pub(crate) fn carry_out(self, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass => ACT_OK,
            Verdict::Skip => ACT_UNSPEC,
            Verdict::Drop(_) => ACT_SHOT,
            // SAFETY: the helpers take plain numbers and check them.
            Verdict::Peer { ifindex } => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
            // SAFETY: as above.
            Verdict::Egress { ifindex } | Verdict::Tunnel { ifindex } => unsafe {
                bpf_redirect(ifindex, 0) as i32
            },
            // SAFETY: as above.
            Verdict::Ingress { ifindex } => unsafe { bpf_redirect(ifindex, REDIRECT_INGRESS) as i32 },
            Verdict::Neighbour { ifindex, family, address } => {
                let [first, second] = halves(address);
                neighbour(ifindex, family, first, second)
            }
        }
    }
}

/// A function of its own for the same reason as [`set_tunnel`].
#[inline(never)]
fn neighbour(ifindex: u32, family: u8, first: u64, second: u64) -> i32 {
    let mut next_hop = bpf_redir_neigh {
        nh_family: if family == 2 { AF_INET6 } else { AF_INET },
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: words(first, second) },
    };
    // SAFETY: the structure is whole and lives through the call; its length is given.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut next_hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// An address in two words, in which it fits the registers of a call.
#[inline(always)]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    // SAFETY: both are sixteen bytes, and any bytes make numbers.
    unsafe { mem::transmute(address) }
}

#[inline(always)]
const fn words(first: u64, second: u64) -> [u32; 4] {
    // SAFETY: both are sixteen bytes, and any bytes make numbers.
    unsafe { mem::transmute([first, second]) }
}

impl Packet for Kernel {
    #[inline(always)]
    fn len(self) -> u32 {
        self.skb().len
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        self.skb().ifindex
    }

    #[inline(always)]
    fn mark(self) -> u32 {
        self.skb().mark
    }

    #[inline(always)]
    fn is_tagged(self) -> bool {
        self.skb().vlan_present != 0
    }

    #[inline(always)]
    fn segment_len(self) -> u32 {
        self.skb().gso_size
    }

    #[inline(always)]
    fn hash(self) -> u32 {
        // What the device or the stack has found; to find it out now would cost more than the rest of the event.
        self.skb().hash
    }

    #[inline(always)]
    fn load<T: Raw>(self, offset: usize) -> Option<T> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: the bytes lie between the packet's start and end, which the verifier checks again, and any bytes
        // make a `T`. Packets need not be aligned; the kernel and its JIT read unaligned words where the machine can.
        Some(unsafe { ptr::read(at as *const T) })
    }

    #[inline(always)]
    fn load_at<T: Raw>(self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper fills the whole value or fails.
        let failed = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: it was filled, and any bytes make a `T`.
        if failed == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }

    #[inline(always)]
    fn store<T: Raw>(self, offset: usize, value: T) -> bool {
        match self.at(offset, size_of::<T>()) {
            Some(at) => {
                // SAFETY: as for `load`.
                unsafe { ptr::write(at as *mut T, value) };
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn store_at<T: Raw>(self, offset: u32, value: T) -> bool {
        // SAFETY: the helper reads the whole value, whose length is given, and checks the offset; pointers into the packet are taken
        // anew after the call.
        unsafe {
            bpf_skb_store_bytes(self.0.cast(), offset, (&raw const value).cast(), size_of::<T>() as u32, 0)
                == 0
        }
    }

    #[inline(always)]
    fn correct_sum(self, offset: u32, difference: u32, of_addresses: bool, may_be_absent: bool) -> bool {
        let addresses = if of_addresses { u64::from(BPF_F_PSEUDO_HDR) } else { 0 };
        let absent = if may_be_absent { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: the context is valid, and the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), addresses | absent) == 0 }
    }

    #[inline(always)]
    fn pull(self, len: u32) -> bool {
        // SAFETY: the context is valid; pointers into the packet are taken anew after the call.
        unsafe { bpf_skb_pull_data(self.0, len) == 0 }
    }

    #[inline(always)]
    fn checksum_changed(self, difference: u32) {
        // SAFETY: the context is valid. Fails where no device has summed the packet, which is fine.
        let _ = unsafe { bpf_csum_update(self.0, difference) };
    }

    #[inline(always)]
    fn accept(self) {
        if self.skb().pkt_type != PACKET_HOST {
            // SAFETY: the context is valid. The helper refuses types between which it does not change; those are not ours.
            let _ = unsafe { bpf_skb_change_type(self.0, PACKET_HOST) };
        }
    }

    #[inline(always)]
    fn tunnel_key(self) -> Option<u32> {
        let mut key = TunnelKey { id: 0, remote: [0; 4], tos: 0, ttl: 0, ext: 0, label: 0 };
        // SAFETY: the helper fills the given length, which is the structure's, or fails.
        // It refuses keys of IPv6 tunnels unless they are asked for, and the other way round.
        let found = unsafe {
            bpf_skb_get_tunnel_key(self.0, (&raw mut key).cast(), TUNNEL_KEY_LEN, 0) == 0
                || bpf_skb_get_tunnel_key(
                    self.0,
                    (&raw mut key).cast(),
                    TUNNEL_KEY_LEN,
                    u64::from(BPF_F_TUNINFO_IPV6),
                ) == 0
        };
        if found { Some(key.id) } else { None }
    }

    #[inline(always)]
    fn set_tunnel(self, node: &[u8; 16], family: u8, key: u32) -> bool {
        let [first, second] = halves(*node);
        set_tunnel(self, first, second, family, key)
    }
}

/// A function of its own to keep the structure off the stack of the programs.
#[inline(never)]
fn set_tunnel(kernel: Kernel, first: u64, second: u64, family: u8, key: u32) -> bool {
    let mut remote = words(first, second);
    let mut flags = u64::from(BPF_F_ZERO_CSUM_TX);
    if family == 2 {
        flags |= u64::from(BPF_F_TUNINFO_IPV6);
    } else {
        // The kernel takes an IPv4 address as a number.
        remote[0] = u32::from_be(remote[0]);
    }
    let key = TunnelKey { id: key, remote, tos: 0, ttl: TUNNEL_TTL, ext: 0, label: 0 };
    let mut tunnel = LongTunnelKey { key, local: [0; 4] };
    let tunnel = (&raw mut tunnel).cast();
    // A kernel whose own structure is the long one copies a shorter one first (9 of 38 ns); one that does not know it refuses it.
    // SAFETY: the key lives through the calls; its length, or that of its beginning, is given.
    unsafe {
        bpf_skb_set_tunnel_key(kernel.0, tunnel, LONG_TUNNEL_KEY_LEN, flags) == 0
            || bpf_skb_set_tunnel_key(kernel.0, tunnel, TUNNEL_KEY_LEN, flags) == 0
    }
}

impl Kernel {
    /// Address of bytes of the packet that are at hand.
    #[inline(always)]
    fn at(self, offset: usize, len: usize) -> Option<usize> {
        // Read anew each time and widened on the spot: the verifier takes these fields for pointers only if nothing
        // is done with them before they are compared.
        // SAFETY: the context is valid.
        let (start, end) = unsafe {
            (ptr::read_volatile(&raw const (*self.0).data), ptr::read_volatile(&raw const (*self.0).data_end))
        };
        let start = start as usize + offset;
        if start + len > end as usize { None } else { Some(start) }
    }
}

/// Runs `f` on a value that a map look-up returned.
///
/// # Safety
/// `value` is null or points to a value of a map. Other CPUs may read and write it at the same time: fields are
/// plain words, each read or written by one instruction, and the programs bear any mixture of them.
#[inline(always)]
pub(crate) unsafe fn with<T, R>(value: Option<*mut T>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
    // SAFETY: by the caller.
    value.map(|value| f(unsafe { &mut *value }))
}

/// Tells a host who is where: every program asks the same tables.
macro_rules! places {
    ($host:ty $(, $parameter:ident: $kind:ty)?) => {
        impl $(<const $parameter: $kind>)? Places for $host {
            #[inline(always)]
            fn config(&self) -> Option<&NodeConfig> {
                tables::CONFIG.get(0)
            }

            #[inline(always)]
            fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry> {
                // SAFETY: rows are replaced whole by the agent; a reader may see an old one while it runs.
                unsafe { tables::ENDPOINTS.get(key) }
            }

            #[inline(always)]
            fn ipcache(&self, key: &IpCacheKey) -> Option<&IpCacheEntry> {
                // SAFETY: the map's key is the length of the prefix and the bytes behind it, which is what the row type is.
                let key = unsafe { &*ptr::from_ref(key).cast() };
                tables::IPCACHE.get(key)
            }
        }
    };
}

places!(Kernel);
places!(SockAddr<V6>, V6: bool);

/// Tells a host what services there are, and gives it chance.
macro_rules! services {
    ($host:ty $(, $parameter:ident: $kind:ty)?) => {
        impl $(<const $parameter: $kind>)? ServiceMaps for $host {
            #[inline(always)]
            fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
                // SAFETY: rows are replaced whole by the agent, in an order in which every mixture of old and new ones is right.
                unsafe { tables::SERVICES.get(key) }
            }

            #[inline(always)]
            fn backend(&self, number: u32) -> Option<&BackendEntry> {
                // SAFETY: as above.
                unsafe { tables::BACKENDS.get(number) }
            }

            #[inline(always)]
            fn affinity<R>(self, key: &AffinityKey, f: impl FnOnce(&mut AffinityEntry) -> R) -> Option<R> {
                // SAFETY: the pointer is from the map.
                unsafe { with(tables::AFFINITY.get_ptr_mut(key), f) }
            }

            #[inline(always)]
            fn set_affinity(self, key: &AffinityKey, entry: &AffinityEntry) {
                // Without a row the next call is sent to any backend.
                let _ = tables::AFFINITY.insert(key, entry, 0);
            }

            #[inline(always)]
            fn count_call(self, index: u32) {
                // SAFETY: the row is this CPU's.
                unsafe {
                    with(tables::METRICS.get_ptr_mut(index), |row| row.packets = row.packets.wrapping_add(1));
                }
            }
        }

        impl $(<const $parameter: $kind>)? Random for $host {
            #[inline(always)]
            fn random(self) -> u32 {
                // SAFETY: the helper takes nothing.
                unsafe { bpf_get_prandom_u32() }
            }
        }
    };
}

services!(Kernel);
services!(SockAddr<V6>, V6: bool);

impl Maps for Kernel {
    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        // SAFETY: as for endpoints; what an old row decided is judged again at the revision that the agent writes last.
        unsafe { tables::POLICY.get(key) }
    }

    #[inline(always)]
    fn policy_block(&self, key: &BlockKey) -> Option<&PolicyEntry> {
        // SAFETY: as for the ipcache.
        let key = unsafe { &*ptr::from_ref(key).cast() };
        tables::POLICY_BLOCKS.get(key)
    }

    #[inline(always)]
    fn policy_l4(&self, key: &L4Key) -> Option<&PolicyVerdict> {
        // SAFETY: as for the ipcache.
        let key = unsafe { &*ptr::from_ref(key).cast() };
        tables::POLICY_L4.get(key)
    }

    #[inline(always)]
    fn count_staged(self, key: &StagedKey) {
        let row = match tables::STAGED.get_ptr_mut(key) {
            Some(row) => row,
            None => {
                // Who comes second finds the row of the first; who finds no room is not counted.
                let _ = tables::STAGED.insert(key, &StagedCount { count: 0 }, NEW_ROW);
                let Some(row) = tables::STAGED.get_ptr_mut(key) else { return };
                row
            }
        };
        // SAFETY: the pointer is from the map, and the row is this CPU's.
        unsafe { (*row).count = (*row).count.wrapping_add(1) };
    }

    #[inline(always)]
    fn ct4<R>(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R> {
        // SAFETY: the pointer is from the map.
        unsafe { with(tables::CT4.get_ptr_mut(key), f) }
    }

    #[inline(always)]
    fn ct4_create(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry)) -> bool {
        let Some(scratch) = tables::SCRATCH.get_ptr_mut(0) else { return false };
        // SAFETY: the scratch row is this CPU's and no other program runs on it meanwhile; all zero is an entry.
        let entry = unsafe {
            zero(&raw mut (*scratch).entry);
            &mut (*scratch).entry
        };
        f(entry);
        tables::CT4.insert(key, &*entry, 0).is_ok()
    }

    #[inline(always)]
    fn ct6<R>(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry6) -> R) -> Option<R> {
        // SAFETY: the pointer is from the map.
        unsafe { with(tables::CT6.get_ptr_mut(key), f) }
    }

    #[inline(always)]
    fn ct6_create(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry)) -> bool {
        let Some(scratch) = tables::SCRATCH.get_ptr_mut(0) else { return false };
        // SAFETY: as above. What is behind the entry is never written, so it stays zero.
        let row = unsafe {
            zero(&raw mut (*scratch).entry);
            &mut *scratch
        };
        f(&mut row.entry);
        tables::CT6.insert(key, &*row, 0).is_ok()
    }

    #[inline(always)]
    fn nat4<R>(self, key: &CtKey4, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        // SAFETY: the pointer is from the map.
        unsafe { with(tables::NAT4.get_ptr_mut(key), f) }
    }

    #[inline(always)]
    fn nat4_create(self, key: &CtKey4, entry: &NatEntry) -> bool {
        tables::NAT4.insert(key, entry, NEW_ROW).is_ok()
    }

    #[inline(always)]
    fn nat6<R>(self, key: &CtKey6, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        // SAFETY: as above.
        unsafe { with(tables::NAT6.get_ptr_mut(key), f) }
    }

    #[inline(always)]
    fn nat6_create(self, key: &CtKey6, entry: &NatEntry) -> bool {
        tables::NAT6.insert(key, entry, NEW_ROW).is_ok()
    }

    #[inline(always)]
    fn is_not_masqueraded(self, key: &IpCacheKey) -> bool {
        // SAFETY: as for the ipcache, whose keys these are.
        let key = unsafe { &*ptr::from_ref(key).cast() };
        tables::NO_MASQUERADE.get(key).is_some()
    }

    #[inline(always)]
    fn frag4(self, key: &FragKey4) -> Option<FragEntry> {
        // SAFETY: a row that is reused meanwhile gives other ports, as if the fragment were of that datagram.
        unsafe { tables::FRAGS4.get(key).copied() }
    }

    #[inline(always)]
    fn set_frag4(self, key: &FragKey4, entry: &FragEntry) {
        let _ = tables::FRAGS4.insert(key, entry, 0);
    }

    #[inline(always)]
    fn frag6(self, key: &FragKey6) -> Option<FragEntry> {
        // SAFETY: as for IPv4.
        unsafe { tables::FRAGS6.get(key).copied() }
    }

    #[inline(always)]
    fn set_frag6(self, key: &FragKey6, entry: &FragEntry) {
        let _ = tables::FRAGS6.insert(key, entry, 0);
    }

    #[inline(always)]
    fn meeting<R>(self, f: impl FnOnce(&mut Meeting) -> R) -> Option<R> {
        // SAFETY: the row is this CPU's, no other program runs on it meanwhile, and zero, as it is at first, is a value.
        unsafe { with(tables::MEETING.get_ptr_mut(0), f) }
    }

    #[inline(always)]
    fn room4<R>(self, f: impl FnOnce(&mut Room<ip::V4>) -> R) -> Option<R> {
        // SAFETY: as above.
        unsafe { with(tables::ROOM4.get_ptr_mut(0), f) }
    }

    #[inline(always)]
    fn room6<R>(self, f: impl FnOnce(&mut Room<ip::V6>) -> R) -> Option<R> {
        // SAFETY: as above.
        unsafe { with(tables::ROOM6.get_ptr_mut(0), f) }
    }

    #[inline(always)]
    fn calling<R>(self, f: impl FnOnce(&mut Calling) -> R) -> Option<R> {
        // SAFETY: as above.
        unsafe { with(tables::CALLING.get_ptr_mut(0), f) }
    }

    #[inline(always)]
    fn count(self, index: u32, bytes: u64) {
        // SAFETY: the row is this CPU's.
        unsafe {
            with(tables::METRICS.get_ptr_mut(index), |row| {
                row.packets = row.packets.wrapping_add(1);
                row.bytes = row.bytes.wrapping_add(bytes);
            });
        }
    }
}

impl Clock for Kernel {
    #[inline(always)]
    fn ticks(self) -> u64 {
        // SAFETY: the helper reads a counter.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn now_ns(self) -> u64 {
        // SAFETY: the helper reads a clock.
        unsafe { bpf_ktime_get_ns() }
    }
}

impl Events for Kernel {
    #[inline(always)]
    fn emit(self, len_cap: u16, fill: impl FnOnce(&mut EventHeader)) {
        let Some(mut record) = tables::EVENTS.reserve_untyped::<Event>(0) else {
            self.count(EVENTS_LOST, 1);
            return;
        };
        let event = record.as_mut_ptr();
        // SAFETY: the reserved record is as large as an event and ours until it is submitted; any bytes make an event.
        unsafe {
            fill(&mut (*event).header);
            zero(&raw mut (*event).payload);
            if len_cap != 0 {
                // In this form the verifier sees that the length is between 1 and 128, and the compiler cannot undo it.
                let len = (black_box(u32::from(len_cap)).wrapping_sub(1) & (PAYLOAD_MAX as u32 - 1)) + 1;
                let _ =
                    bpf_skb_load_bytes(self.0.cast(), 0, (&raw mut (*event).payload).cast::<c_void>(), len);
            }
        }
        // Waking the reader for each record would cost more than the packet; it looks by itself every now and then.
        // Only a ring that fills is reason to wake it.
        let ring = (&raw const tables::EVENTS).cast_mut().cast::<c_void>();
        // SAFETY: the address of a map is what the helper wants.
        let filled = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
        let passes = filled.wrapping_sub(RING_FILLS) < WAKE_SPAN;
        let wake = if passes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        record.submit(u64::from(wake));
    }
}

/// Clears a value word by word. The compiler's way would be a call that writes bytes, or a copy through the stack.
///
/// # Safety
/// `value` is writable, aligned to eight and a multiple of eight long.
#[inline(always)]
unsafe fn zero<T>(value: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: by the caller.
        unsafe { ptr::write_volatile(value.cast::<u64>().add(word), 0) };
        word += 1;
    }
}

const _: () = assert!(PAYLOAD_MAX == 128 && core::mem::offset_of!(Event, payload).is_multiple_of(8));
