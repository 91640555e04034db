//! Tables of prefixes: the longest that covers a key wins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use dataplane_abi::Table;
use zerocopy::{FromBytes, IntoBytes};

use super::hash::Mixer;
use super::{RawRow, RawTable, UpdateError};

/// Bytes of a key's length, with which every key begins (`struct bpf_lpm_trie_key_u8`).
const LENGTH_BYTES: usize = size_of::<u32>();

/// Rows of one length by their keys with the bits behind the prefix cleared; each with its key as it was written.
type Rows<K, V> = HashMap<K, (K, V), BuildHasherDefault<Mixer>>;

/// Prefixes by length, the longest first.
#[derive(Debug)]
pub struct LpmTable<T: Table> {
    lengths: BTreeMap<Reverse<u32>, Rows<T::Key, T::Value>>,
    capacity: usize,
    len: usize,
    replacing_needs_room: bool,
}

impl<T: Table> Clone for LpmTable<T> {
    fn clone(&self) -> Self {
        Self { lengths: self.lengths.clone(), ..*self }
    }
}

impl<T: Table> LpmTable<T> {
    /// Most bits of a prefix.
    const BITS: u32 = T::SPEC.key_size.saturating_sub(4).saturating_mul(8);

    /// An empty table for that many rows.
    pub fn new(max_entries: u32) -> Self {
        Self {
            lengths: BTreeMap::new(),
            capacity: usize::try_from(max_entries).unwrap_or(usize::MAX),
            len: 0,
            replacing_needs_room: false,
        }
    }

    /// Whether a full table refuses even to replace a row, as kernels before 6.13 do (`ENOSPC`). At first it does not.
    pub const fn replacing_needs_room(&mut self, needs: bool) {
        self.replacing_needs_room = needs;
    }

    /// The longest prefix, not longer than the key's, that covers the key. A key that says it is longer than it is has none.
    pub fn get(&self, key: &T::Key) -> Option<&T::Value> {
        let prefixlen = prefixlen::<T>(key);
        if prefixlen > Self::BITS {
            return None;
        }
        self.lengths
            .range(Reverse(prefixlen)..)
            .find_map(|(Reverse(len), rows)| rows.get(&masked::<T>(key, *len)).map(|(_, value)| value))
    }

    /// Writes a row. Bits behind the prefix do not tell rows apart.
    pub fn insert(&mut self, key: T::Key, value: T::Value) -> Result<(), UpdateError> {
        let prefixlen = prefixlen::<T>(&key);
        if prefixlen > Self::BITS {
            return Err(UpdateError::Length);
        }
        let bits = masked::<T>(&key, prefixlen);
        let is_new = self.lengths.get(&Reverse(prefixlen)).is_none_or(|rows| !rows.contains_key(&bits));
        if self.len >= self.capacity && (is_new || self.replacing_needs_room) {
            return Err(UpdateError::Full);
        }
        self.len += usize::from(is_new);
        self.lengths.entry(Reverse(prefixlen)).or_default().insert(bits, (key, value));
        Ok(())
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &T::Key) -> Option<T::Value> {
        let prefixlen = prefixlen::<T>(key);
        let rows = self.lengths.get_mut(&Reverse(prefixlen))?;
        let (_, value) = rows.remove(&masked::<T>(key, prefixlen))?;
        if rows.is_empty() {
            self.lengths.remove(&Reverse(prefixlen));
        }
        self.len -= 1;
        Some(value)
    }
}

/// Bits of the key that count.
fn prefixlen<T: Table>(key: &T::Key) -> u32 {
    key.as_bytes().first_chunk().map_or(u32::MAX, |length| u32::from_ne_bytes(*length))
}

/// A key of that length with the bits behind it cleared.
fn masked<T: Table>(key: &T::Key, len: u32) -> T::Key {
    let mut masked = *key;
    let (length, bits) = masked.as_mut_bytes().split_at_mut(LENGTH_BYTES);
    length.copy_from_slice(&len.to_ne_bytes());
    let mut left = len;
    for byte in bits {
        let keep = left.min(8);
        *byte &= u8::MAX.checked_shl(8 - keep).unwrap_or(0);
        left -= keep;
    }
    masked
}

impl<T: Table> RawTable for LpmTable<T> {
    fn update_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        let value = T::Value::read_from_bytes(value).map_err(|_| UpdateError::Length)?;
        self.insert(key, value)
    }

    fn lookup_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(&T::Key::read_from_bytes(key).ok()?).map(|value| value.as_bytes().to_vec())
    }

    fn delete_raw(&mut self, key: &[u8]) -> Result<(), UpdateError> {
        let key = T::Key::read_from_bytes(key).map_err(|_| UpdateError::Length)?;
        if prefixlen::<T>(&key) > Self::BITS {
            return Err(UpdateError::Length);
        }
        self.remove(&key).map(drop).ok_or(UpdateError::NoRow)
    }

    fn set_capacity(&mut self, max_entries: u32) {
        self.capacity = usize::try_from(max_entries).unwrap_or(usize::MAX);
    }

    fn dump_raw(&self) -> Vec<RawRow> {
        let mut rows: Vec<RawRow> = self
            .lengths
            .values()
            .flat_map(|rows| rows.values())
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        rows.sort();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane_abi::Identity;
    use dataplane_abi::ipcache::{IpCache, IpCacheEntry, IpCacheKey};
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_longest_prefix_wins_and_families_do_not_mix() {
        let mut table = LpmTable::<IpCache>::new(IpCache::SPEC.max_entries);
        for (prefix, len, identity) in
            [("10.0.0.0", 8, 3), ("10.1.0.0", 16, 4), ("10.1.2.3", 32, 5), ("0.0.0.0", 0, 2), ("a00::", 8, 9)]
        {
            table
                .insert(IpCacheKey::prefix(ip(prefix), len), IpCacheEntry::new(Identity(identity)))
                .expect("room for it");
        }
        for (address, identity) in [
            ("10.1.2.3", Some(5)),
            ("10.1.2.4", Some(4)),
            ("10.2.0.1", Some(3)),
            ("192.0.2.1", Some(2)),
            ("a00::1", Some(9)),
            ("fd00::1", None),
        ] {
            let key = IpCacheKey::prefix(ip(address), 128);
            assert_eq!(table.get(&key).map(|row| row.identity.0), identity, "{address}");
        }
    }

    #[test]
    fn a_full_table_takes_no_new_prefix_and_keeps_nothing_of_it() {
        let mut table = LpmTable::<IpCache>::new(1);
        let (one, other) = (IpCacheKey::prefix(ip("10.0.0.0"), 8), IpCacheKey::prefix(ip("10.0.0.0"), 16));
        let row = |identity| IpCacheEntry::new(Identity(identity));
        assert_eq!(table.insert(one, row(1)), Ok(()));
        assert_eq!(table.insert(other, row(2)), Err(UpdateError::Full));
        assert_eq!(table.lengths.len(), 1);
        assert_eq!(table.insert(one, row(3)), Ok(()));
        table.replacing_needs_room(true);
        assert_eq!(table.insert(one, row(4)), Err(UpdateError::Full));
        assert_eq!(table.get(&one), Some(&row(3)));
    }

    #[test]
    fn prefixes_longer_than_an_address_are_refused_and_find_nothing() {
        let mut table = LpmTable::<IpCache>::new(2);
        let mut key = IpCacheKey::prefix(ip("::"), 0);
        let value = IpCacheEntry::new(Identity(1));
        table.insert(key, value).expect("room for it");
        key.prefixlen = LpmTable::<IpCache>::BITS;
        assert_eq!(table.get(&key), Some(&value));
        key.prefixlen = LpmTable::<IpCache>::BITS + 1;
        assert_eq!(table.get(&key), None);
        assert_eq!(table.update_raw(key.as_bytes(), value.as_bytes()), Err(UpdateError::Length));
        assert_eq!(table.delete_raw(key.as_bytes()), Err(UpdateError::Length));
    }
}
