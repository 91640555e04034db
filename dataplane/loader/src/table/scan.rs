//! Reading a large table in slices, so that nobody waits for the whole of it.

use std::os::fd::AsFd as _;

use nix::libc;

use super::{Row, Table, TableError};
use crate::sys;

/// Where a scan goes on. It means something only to the table that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPosition(Vec<u8>);

/// First byte of a position: the kernel's token of a batch follows.
const BATCH: u8 = 0;
/// First byte of a position: the last key that was read follows.
const KEY: u8 = 1;

impl ScanPosition {
    /// The position as bytes, to be kept by those who do not know this type.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A position from [`ScanPosition::as_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Table {
    /// Up to about `limit` rows from a position on (from the beginning without one), and the position after them; `None` at the end.
    ///
    /// A slice is longer than `limit` where the kernel cannot divide a bucket. Rows that come or go meanwhile may be
    /// seen twice or not at all.
    pub fn scan(
        &self,
        from: Option<&ScanPosition>,
        limit: usize,
    ) -> Result<(Vec<Row>, Option<ScanPosition>), TableError> {
        match from.map(|position| position.0.split_first()) {
            Some(Some((&KEY, key))) => self.scan_keys(Some(key), limit),
            Some(Some((_, token))) => self.scan_batch(Some(token), limit),
            None | Some(None) => self.scan_batch(None, limit),
        }
    }

    fn scan_batch(
        &self,
        from: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<Row>, Option<ScanPosition>), TableError> {
        let (key_size, value_size) = (self.info.key_size, self.full_value);
        let width = key_size.max(4);
        // A position of another table must not make the kernel read past the token.
        let from = from.map(|token| {
            let mut token = token.to_vec();
            token.resize(width, 0);
            token
        });
        let mut count = u32::try_from(limit).unwrap_or(u32::MAX).clamp(1, 1 << 16);
        let mut next = vec![0; width];
        loop {
            let mut keys = vec![0; key_size * count as usize];
            let mut values = vec![0; value_size * count as usize];
            match sys::map_lookup_batch(
                self.fd.as_fd(),
                from.as_ref(),
                &mut next,
                &mut keys,
                &mut values,
                count,
            ) {
                Ok((got, end)) => {
                    let row = |index: usize| -> Row {
                        (
                            keys[index * key_size..][..key_size].to_vec(),
                            values[index * value_size..][..value_size].to_vec(),
                        )
                    };
                    let rows = (0..got as usize).map(row).collect();
                    let position = (!end).then(|| ScanPosition([&[BATCH], &next[..]].concat()));
                    return Ok((rows, position));
                }
                // The fullest bucket does not fit.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && count < 1 << 20 => count *= 2,
                Err(error)
                    if from.is_none()
                        && matches!(
                            error.raw_os_error(),
                            Some(super::ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP)
                        ) =>
                {
                    return self.scan_keys(None, limit);
                }
                Err(source) => return Err(self.failed("list", source)),
            }
        }
    }

    fn scan_keys(
        &self,
        from: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<Row>, Option<ScanPosition>), TableError> {
        if let Some(key) = from {
            self.check_key(key)?;
        }
        let mut rows: Vec<Row> = Vec::new();
        let mut key = from.map(<[u8]>::to_vec);
        let mut next = vec![0; self.info.key_size];
        while rows.len() < limit.max(1) {
            let more = sys::map_next_key(self.fd.as_fd(), key.as_deref(), &mut next)
                .map_err(|source| self.failed("list", source))?;
            if !more {
                return Ok((rows, None));
            }
            if let Some(value) = self.get(&next)? {
                rows.push((next.clone(), value));
            }
            key = Some(next.clone());
        }
        Ok((rows, key.map(|key| ScanPosition([&[KEY], &key[..]].concat()))))
    }
}
