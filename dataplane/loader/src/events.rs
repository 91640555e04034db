//! The ring buffer of events: read without copying, from any kind of event loop.
//!
//! The reader is a descriptor that becomes readable ([`EventReader::as_fd`]) and a call that takes one record
//! ([`EventReader::next`]). There should be one reader per node: readers share one position.
//!
//! The programs wake a sleeping reader only when the ring fills, because waking costs more than a packet: look into the
//! ring every now and then (50 ms) as well.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use dataplane_abi::events::{EVENTS, Event};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use zerocopy::FromBytes as _;

use crate::object::Object;
use crate::pins::Pins;
use crate::table::{Table, TableError};

/// Reads the ring buffer `EVENTS`.
pub struct EventReader {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("malformed", &self.malformed).finish_non_exhaustive()
    }
}

impl EventReader {
    /// Opens the pinned ring buffer.
    pub fn open(pins: &Pins) -> Result<Self, TableError> {
        Self::from_table(&Table::open(pins, EVENTS.name)?)
    }

    /// Reads the ring buffer of a loaded object.
    pub fn of(object: &Object) -> Result<Self, TableError> {
        Self::from_table(object.table(EVENTS.name)?)
    }

    /// Reads any ring buffer.
    pub fn from_table(table: &Table) -> Result<Self, TableError> {
        let failed = |source| TableError::Kernel {
            name: table.info().name.clone(),
            operation: "map the ring of",
            source,
        };
        let fd = table.as_fd().try_clone_to_owned().map_err(failed)?;
        let data = MapData::from_fd(fd).map_err(|error| failed(io::Error::other(error)))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self { ring, malformed: 0 })
    }

    /// Takes the next record, if there is one, and hands its bytes to `read`; `None` when the ring is empty.
    pub fn next_bytes<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let item = self.ring.next()?;
        Some(read(&item))
    }

    /// Takes the next record, if there is one. Records that are no [`Event`] (of another version) are skipped and
    /// counted.
    #[expect(clippy::should_implement_trait, reason = "an empty ring is not the end of the events")]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            match Event::read_from_prefix(&item) {
                Ok((event, _)) => return Some(event),
                Err(_) => self.malformed += 1,
            }
        }
    }

    /// How many records were skipped because they were no [`Event`].
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Waits until a record is there (true) or the time is over (false). Returns at once when one is there already; one
    /// that comes meanwhile does not always end the wait (see the module's words), so wait in short pieces.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
