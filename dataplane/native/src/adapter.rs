//! The adapters: what `dataplane-core` asks of a host, answered from memory.

use std::cell::{Cell, RefCell};

use dataplane_abi::conntrack::{CtEntry, CtEntry6, CtKey4, CtKey6};
use dataplane_abi::events::{Event, EventHeader, PAYLOAD_MAX};
use dataplane_abi::frags::{FragEntry, FragKey4, FragKey6};
use dataplane_abi::ipcache::IpCacheKey;
use dataplane_abi::metrics::EVENTS_LOST;
use dataplane_abi::nat::NatEntry;
use dataplane_abi::policy::{BlockKey, L4Key, PolicyEntry, PolicyKey, PolicyVerdict, StagedCount, StagedKey};
use dataplane_core::calls::Calling;
use dataplane_core::closer::Room;
use dataplane_core::ends::Meeting;
use dataplane_core::ip::{V4, V6};
use dataplane_core::nat;
use dataplane_core::{Clock, Events, Maps, Packet, Raw};

use crate::{Frame, Native, Tunnel};

/// A frame on a node.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'a> {
    pub(crate) node: &'a Native,
    pub(crate) frame: &'a RefCell<Frame>,
    pub(crate) calling: &'a Cell<Calling>,
    pub(crate) rooms: &'a (Cell<Room<V4>>, Cell<Room<V6>>),
}

impl Packet for Handle<'_> {
    fn len(self) -> u32 {
        u32::try_from(self.frame.borrow().bytes.len()).unwrap_or(u32::MAX)
    }

    fn ifindex(self) -> u32 {
        self.frame.borrow().ifindex
    }

    fn mark(self) -> u32 {
        self.frame.borrow().mark
    }

    fn is_tagged(self) -> bool {
        self.frame.borrow().tagged
    }

    fn segment_len(self) -> u32 {
        self.frame.borrow().segment_len
    }

    fn hash(self) -> u32 {
        self.frame.borrow().hash
    }

    fn load<T: Raw>(self, offset: usize) -> Option<T> {
        let frame = self.frame.borrow();
        let end = offset.checked_add(size_of::<T>())?;
        if end > frame.at_hand {
            return None;
        }
        T::read_from_bytes(frame.bytes.get(offset..end)?).ok()
    }

    fn load_at<T: Raw>(self, offset: u32) -> Option<T> {
        let frame = self.frame.borrow();
        let offset = usize::try_from(offset).ok()?;
        T::read_from_bytes(frame.bytes.get(offset..offset.checked_add(size_of::<T>())?)?).ok()
    }

    fn store<T: Raw>(self, offset: usize, value: T) -> bool {
        let mut frame = self.frame.borrow_mut();
        let Some(end) = offset.checked_add(size_of::<T>()).filter(|end| *end <= frame.at_hand) else {
            return false;
        };
        match frame.bytes.get_mut(offset..end) {
            Some(bytes) => {
                bytes.copy_from_slice(value.as_bytes());
                true
            }
            None => false,
        }
    }

    fn store_at<T: Raw>(self, offset: u32, value: T) -> bool {
        let mut frame = self.frame.borrow_mut();
        let Some(bytes) = usize::try_from(offset)
            .ok()
            .and_then(|at| frame.bytes.get_mut(at..at.checked_add(size_of::<T>())?))
        else {
            return false;
        };
        bytes.copy_from_slice(value.as_bytes());
        true
    }

    fn correct_sum(self, offset: u32, difference: u32, of_addresses: bool, may_be_absent: bool) -> bool {
        let Some(sum) = self.load_at::<u16>(offset) else { return false };
        if may_be_absent && sum == 0 {
            return true;
        }
        let mut sum = nat::corrected(sum, difference);
        if may_be_absent && sum == 0 {
            sum = u16::MAX;
        }
        // As the kernel has it, which is right for IPv4, where the header's checksum has changed too.
        if of_addresses {
            self.checksum_changed(!difference);
        }
        self.store_at(offset, sum)
    }

    fn pull(self, len: u32) -> bool {
        let mut frame = self.frame.borrow_mut();
        match usize::try_from(len) {
            Ok(len) if len <= frame.bytes.len() => {
                frame.at_hand = frame.at_hand.max(len);
                true
            }
            _ => false,
        }
    }

    fn checksum_changed(self, difference: u32) {
        let mut frame = self.frame.borrow_mut();
        if let Some(sum) = frame.device_sum {
            let (sum, carry) = sum.overflowing_add(difference);
            frame.device_sum = Some(sum.wrapping_add(u32::from(carry)));
        }
    }

    fn accept(self) {
        self.frame.borrow_mut().accepted = true;
    }

    fn tunnel_key(self) -> Option<u32> {
        self.frame.borrow().from_tunnel.map(|tunnel| tunnel.key)
    }

    fn set_tunnel(self, node: &[u8; 16], family: u8, key: u32) -> bool {
        self.frame.borrow_mut().to_tunnel = Some(Tunnel { node: *node, family, key });
        true
    }
}

places!(Handle<'_>);
services!(Handle<'_>);

impl Maps for Handle<'_> {
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        self.node.tables.policy.get(key)
    }

    fn policy_block(&self, key: &BlockKey) -> Option<&PolicyEntry> {
        self.node.tables.policy_blocks.get(key)
    }

    fn policy_l4(&self, key: &L4Key) -> Option<&PolicyVerdict> {
        self.node.tables.policy_l4.get(key)
    }

    fn count_staged(self, key: &StagedKey) {
        let mut table = self.node.tables.staged.borrow_mut();
        let count = table.get(key).map_or(0, |row| row.count).wrapping_add(1);
        // A full table counts no new ones.
        let _ = table.insert(*key, StagedCount { count });
    }

    fn ct4<R>(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry) -> R) -> Option<R> {
        self.node.tables.ct4.borrow_mut().get_mut(key).map(f)
    }

    fn ct4_create(self, key: &CtKey4, f: impl FnOnce(&mut CtEntry)) -> bool {
        let mut entry = CtEntry::default();
        f(&mut entry);
        self.node.tables.ct4.borrow_mut().insert(*key, entry)
    }

    fn ct6<R>(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry6) -> R) -> Option<R> {
        self.node.tables.ct6.borrow_mut().get_mut(key).map(f)
    }

    fn ct6_create(self, key: &CtKey6, f: impl FnOnce(&mut CtEntry)) -> bool {
        let mut entry = CtEntry::default();
        f(&mut entry);
        self.node.tables.ct6.borrow_mut().insert(*key, CtEntry6::from(entry))
    }

    fn nat4<R>(self, key: &CtKey4, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        self.node.tables.nat4.borrow_mut().get_mut(key).map(f)
    }

    fn nat4_create(self, key: &CtKey4, entry: &NatEntry) -> bool {
        self.node.tables.nat4.borrow_mut().insert_new(*key, *entry)
    }

    fn nat6<R>(self, key: &CtKey6, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R> {
        self.node.tables.nat6.borrow_mut().get_mut(key).map(f)
    }

    fn nat6_create(self, key: &CtKey6, entry: &NatEntry) -> bool {
        self.node.tables.nat6.borrow_mut().insert_new(*key, *entry)
    }

    fn is_not_masqueraded(self, key: &IpCacheKey) -> bool {
        self.node.tables.no_masquerade.get(key).is_some()
    }

    fn frag4(self, key: &FragKey4) -> Option<FragEntry> {
        self.node.tables.frags4.borrow_mut().get_mut(key).copied()
    }

    fn set_frag4(self, key: &FragKey4, entry: &FragEntry) {
        self.node.tables.frags4.borrow_mut().insert(*key, *entry);
    }

    fn frag6(self, key: &FragKey6) -> Option<FragEntry> {
        self.node.tables.frags6.borrow_mut().get_mut(key).copied()
    }

    fn set_frag6(self, key: &FragKey6, entry: &FragEntry) {
        self.node.tables.frags6.borrow_mut().insert(*key, *entry);
    }

    fn meeting<R>(self, f: impl FnOnce(&mut Meeting) -> R) -> Option<R> {
        let mut meeting = Meeting::NONE;
        Some(f(&mut meeting))
    }

    fn room4<R>(self, f: impl FnOnce(&mut Room<V4>) -> R) -> Option<R> {
        let (room, _) = self.rooms;
        Some(with(room, f))
    }

    fn room6<R>(self, f: impl FnOnce(&mut Room<V6>) -> R) -> Option<R> {
        let (_, room) = self.rooms;
        Some(with(room, f))
    }

    fn calling<R>(self, f: impl FnOnce(&mut Calling) -> R) -> Option<R> {
        Some(with(self.calling, f))
    }

    fn count(self, index: u32, bytes: u64) {
        self.node.add(index, bytes);
    }
}

/// Runs `f` on what is in a cell.
fn with<T: Copy, R>(cell: &Cell<T>, f: impl FnOnce(&mut T) -> R) -> R {
    let mut value = cell.get();
    let result = f(&mut value);
    cell.set(value);
    result
}

impl Clock for Handle<'_> {
    fn ticks(self) -> u64 {
        self.node.clock.get().ticks
    }

    fn now_ns(self) -> u64 {
        self.node.clock.get().ktime_ns
    }
}

impl Events for Handle<'_> {
    fn emit(self, len_cap: u16, fill: impl FnOnce(&mut EventHeader)) {
        let mut event = Event { header: EventHeader::default(), payload: [0; PAYLOAD_MAX] };
        fill(&mut event.header);
        let frame = self.frame.borrow();
        for (to, from) in event.payload.iter_mut().zip(frame.bytes.iter().take(usize::from(len_cap))) {
            *to = *from;
        }
        if !self.node.tables.events.borrow_mut().push(event) {
            self.count(EVENTS_LOST, 1);
        }
    }
}
