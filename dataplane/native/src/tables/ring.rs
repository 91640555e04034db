//! The ring buffer: what does not fit is lost.

use std::collections::VecDeque;

use dataplane_abi::events::Event;

/// Bytes that the kernel keeps before each record.
const RECORD_HEADER: usize = 8;

/// A ring of records.
#[derive(Debug)]
pub struct Ring {
    records: VecDeque<Event>,
    capacity: usize,
}

impl Ring {
    /// An empty ring of that many bytes.
    pub fn new(bytes: u32) -> Self {
        let mut ring = Self { records: VecDeque::new(), capacity: 0 };
        ring.set_capacity(Self::records(bytes));
        ring
    }

    /// Records that fit into that many bytes. The kernel never fills the last byte: a full ring would look like an empty one
    /// (`__bpf_ringbuf_reserve` in `kernel/bpf/ringbuf.c`).
    pub fn records(bytes: u32) -> u32 {
        let record = (RECORD_HEADER + size_of::<Event>()).next_multiple_of(8);
        bytes.saturating_sub(1) / u32::try_from(record).unwrap_or(u32::MAX)
    }

    /// Changes how many records it may hold.
    pub fn set_capacity(&mut self, records: u32) {
        self.capacity = usize::try_from(records).unwrap_or(usize::MAX);
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a record. False: there is no room.
    pub fn push(&mut self, event: Event) -> bool {
        if self.records.len() >= self.capacity {
            return false;
        }
        self.records.push_back(event);
        true
    }

    /// Takes all records.
    pub fn drain(&mut self) -> Vec<Event> {
        self.records.drain(..).collect()
    }
}
