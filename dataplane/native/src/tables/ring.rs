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
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { records: VecDeque::new(), capacity: bytes / (RECORD_HEADER + size_of::<Event>()) }
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
