//! The tables in memory beside the kernel's: the same calls have the same answers and leave the same rows.

use std::collections::BTreeSet;
use std::fmt::Debug;

use dataplane_abi::config::{Config, ConfigFlags, NodeConfig, Routing};
use dataplane_abi::conntrack::Ct4;
use dataplane_abi::endpoints::{EndpointEntry, EndpointKey, Endpoints};
use dataplane_abi::frags::Frags4;
use dataplane_abi::ipcache::IpCache;
use dataplane_abi::policy::{PolicyBlocks, PolicyL4};
use dataplane_abi::program::Program;
use dataplane_abi::{ABI_VERSION, Table as Spec};
use dataplane_core::Verdict;
use dataplane_loader::{Context, LoadOptions, Object, Table, TableError, TableKind, TableSpec, TestRun};
use dataplane_native::craft::Craft;
use dataplane_native::tables::{ArrayTable, Batches, HashTable, LpmTable, LruTable, RawTable};
use dataplane_native::{Frame, Native, UpdateError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use zerocopy::IntoBytes as _;

use crate::support::{in_sandbox, object_bytes};

/// What a program returns when the packet goes to a device.
const TC_ACT_REDIRECT: u32 = 7;

/// One table on both sides.
struct Pair {
    kernel: Table,
    memory: Box<dyn RawTable>,
    /// Answers so far that were not the plain one.
    refused: usize,
}

impl Pair {
    fn new<T: Spec>(max_entries: u32, memory: impl RawTable + 'static) -> Self {
        let kernel = Table::create(&TableSpec {
            name: "test",
            kind: T::SPEC.kind.into(),
            key_size: size_of::<T::Key>(),
            value_size: size_of::<T::Value>(),
            max_entries,
            flags: T::SPEC.flags,
        });
        Self { kernel: kernel.unwrap(), memory: Box::new(memory), refused: 0 }
    }

    fn upsert(&mut self, key: &[u8], number: u8) {
        let value = vec![number; self.kernel.info().value_size];
        let kernel = self.kernel.upsert(key, &value).map_err(|error| reason(&error));
        self.refused += usize::from(kernel.is_err());
        assert_eq!(self.memory.update_raw(key, &value), kernel, "upsert of {key:?}");
    }

    fn delete(&mut self, key: &[u8]) {
        let kernel = match self.kernel.delete(key) {
            Ok(true) => Ok(()),
            Ok(false) => Err(UpdateError::NoRow),
            // The kernel has one number for both.
            Err(_) if self.kernel.info().kind == TableKind::Array => Err(UpdateError::Kind),
            Err(error) => Err(reason(&error)),
        };
        self.refused += usize::from(kernel.is_err());
        assert_eq!(self.memory.delete_raw(key), kernel, "delete of {key:?}");
    }

    fn get(&self, key: &[u8]) {
        assert_eq!(self.memory.lookup_raw(key), self.kernel.get(key).unwrap(), "look-up of {key:?}");
    }

    fn same_rows(&self) -> usize {
        let mut rows = self.kernel.rows().unwrap();
        rows.sort();
        let memory = self.memory.dump_raw();
        assert_eq!(memory, rows);
        rows.len()
    }
}

fn reason(error: &TableError) -> UpdateError {
    match error {
        TableError::Full { .. } => UpdateError::Full,
        TableError::Kernel { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
            UpdateError::Length
        }
        other => panic!("{other:?}"),
    }
}

/// Numbers that look random (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(end)).unwrap()
    }
}

/// The kernel keeps free places by CPU: the calling thread stays on one. Returns how the kernel takes them.
fn one_cpu() -> Batches {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    let per_cpu = TableSpec {
        name: "test",
        kind: TableKind::PerCpuArray,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: 0,
    };
    let cpus = Table::create(&per_cpu).unwrap().full_value_size() / 8;
    let lru = Table::create(&TableSpec { kind: TableKind::LruHash, max_entries: 64, ..per_cpu }).unwrap();
    (0..=64_u32).for_each(|number| lru.upsert(&number.to_ne_bytes(), &[0; 8]).unwrap());
    if lru.count().unwrap() == 1 { Batches::Whole } else { Batches::OfShare { cpus } }
}

fn row(number: u32) -> Vec<u8> {
    let mut key = vec![0; size_of::<<Frags4 as Spec>::Key>()];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

#[test]
fn tables_that_forget_forget_the_same_rows() {
    in_sandbox(|_| {
        let batches = one_cpu();
        // Rows, different keys, calls, calls between two looks at all rows.
        for (rows, keys, calls, look) in [
            (1, 3_u32, 100, 1),
            (16, 17, 500, 1),
            (16, 200, 500, 1),
            (100, 90, 2000, 10),
            (100, 130, 4000, 10),
            (300, 1000, 4000, 50),
            (1000, 1100, 20_000, 500),
        ] {
            let mut pair = Pair::new::<Frags4>(rows, LruTable::<Frags4>::with_batches(rows, batches));
            let mut numbers = Numbers(0x9E37_79B9 + u64::from(keys));
            let mut written = BTreeSet::new();
            for call in 0..calls {
                // A few keys come often.
                let often = numbers.below(3) == 0;
                let key = row(numbers.below(if often { keys.div_ceil(10) } else { keys }));
                match numbers.below(16) {
                    0 => {
                        pair.delete(&key);
                        written.remove(&key);
                    }
                    1 => pair.get(&key),
                    _ => {
                        pair.upsert(&key, 1);
                        written.insert(key);
                    }
                }
                if call % look == 0 {
                    pair.same_rows();
                }
            }
            assert!(pair.same_rows() < written.len(), "nothing was forgotten of {rows} rows");
        }
    });
}

/// Addresses and devices of a pod that sends and of one that receives. The first is on the loopback device, which is everywhere.
const PODS: [([u8; 4], u32); 2] = [([10, 1, 1, 11], 1), ([10, 1, 1, 12], 7)];

#[test]
fn connections_that_programs_use_are_kept_by_both() {
    let Some(bytes) = object_bytes() else { return };
    in_sandbox(|_| {
        let batches = one_cpu();
        // Few rows, and more than one step of the kernel's looks at.
        for rows in [64, 600] {
            use_connections(&bytes, rows, batches);
        }
    });
}

fn use_connections(object: &[u8], rows: u32, batches: Batches) {
    let options = LoadOptions::default().conntrack_rows(rows).max_entries("IPCACHE", 16);
    let kernel = Object::load_bytes(object, None, &options).unwrap();
    let mut memory = Native::new();
    *memory.tables_mut().ct4.get_mut() = LruTable::<Ct4>::with_batches(rows, batches);
    let mut write = |table: &str, key: &[u8], value: &[u8]| {
        kernel.table(table).unwrap().upsert(key, value).unwrap();
        memory.tables_mut().update(table, key, value).unwrap();
    };
    let config = NodeConfig {
        abi_version: ABI_VERSION,
        revision: 1,
        flags: ConfigFlags::IPV4,
        routing: Routing::Native as u8,
        ticks_per_s: 1000,
        ..NodeConfig::default()
    };
    write("CONFIG", &[0; 4], config.as_bytes());
    for (address, ifindex) in PODS {
        let [.., last] = address;
        let entry = EndpointEntry { ifindex, id: u16::from(last), ..EndpointEntry::default() };
        write("ENDPOINTS", EndpointKey::from_ip(address.into()).as_bytes(), entry.as_bytes());
    }

    let conntrack = kernel.table("CT4").unwrap();
    let [(from, device), (to, _)] = PODS;
    let mut numbers = Numbers(3);
    for call in 0..5000 {
        // Some connections are in use all the time, some by turns, most only once or twice.
        let port = match numbers.below(4) {
            0 => numbers.below(rows / 6),
            1 => 1000 + call / 500 * rows + numbers.below(rows),
            _ => 10_000 + numbers.below(rows * 50),
        };
        let sent = Craft::new(from.into(), to.into()).udp(u16::try_from(port).unwrap(), 53, b"");
        let run = TestRun::new(&sent).context(Context { ifindex: device, ..Context::default() });
        let verdict = kernel.test_run(Program::FromContainer.name(), &run).unwrap().verdict;
        let forwarded = memory.run(Program::FromContainer, &mut Frame::new(sent, device));
        assert_eq!((verdict, forwarded), (TC_ACT_REDIRECT, Verdict::Peer { ifindex: 7 }));
        if call % (rows / 10) == 0 {
            let keys: BTreeSet<_> = conntrack.rows().unwrap().into_iter().map(|(key, _)| key).collect();
            let memory = memory.tables().dump("CT4").unwrap();
            assert_eq!(memory.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(), keys, "{call}");
        }
    }
    assert!(memory.tables().ct4.borrow().evicted() > 1000);
}

#[test]
fn one_row_written_again_and_again_takes_the_places_of_others() {
    in_sandbox(|_| {
        let batches = one_cpu();
        // One that is among the first to go, and one that is not.
        for number in [7, 50] {
            let mut pair = Pair::new::<Frags4>(100, LruTable::<Frags4>::with_batches(100, batches));
            (0..100).for_each(|number| pair.upsert(&row(number), 1));
            assert_eq!(pair.same_rows(), 100);
            (0..300).for_each(|_| pair.upsert(&row(number), 2));
            assert!(pair.same_rows() < 100);
        }
    });
}

#[test]
fn hashes_and_arrays_answer_the_same() {
    in_sandbox(|_| {
        let mut hash = Pair::new::<Endpoints>(5, HashTable::<Endpoints>::new(5));
        let mut array = Pair::new::<Config>(3, ArrayTable::<Config>::new(3));
        let mut numbers = Numbers(7);
        for value in 0..=255 {
            let mut key = vec![0; size_of::<<Endpoints as Spec>::Key>()];
            key[0] = u8::try_from(numbers.below(8)).unwrap();
            let index = numbers.below(5).to_ne_bytes();
            match numbers.below(5) {
                0 => (hash.delete(&key), array.delete(&index)),
                1 => (hash.get(&key), array.get(&index)),
                _ => (hash.upsert(&key, value), array.upsert(&index, value)),
            };
            hash.same_rows();
            array.same_rows();
        }
        assert!(hash.refused > 10 && array.refused > 10, "{} {}", hash.refused, array.refused);
    });
}

#[test]
fn tables_of_prefixes_answer_the_same() {
    in_sandbox(|_| {
        use_prefixes::<IpCache>();
        use_prefixes::<PolicyBlocks>();
        use_prefixes::<PolicyL4>();
    });
}

fn use_prefixes<T: Spec<Key: Debug, Value: Debug> + 'static>() {
    const ROWS: u32 = 12;
    let key = |len: u32, bytes: [u8; 2]| {
        let mut key = vec![0; size_of::<T::Key>()];
        key[..4].copy_from_slice(&len.to_ne_bytes());
        key[4..6].copy_from_slice(&bytes);
        key
    };
    let mut memory = LpmTable::<T>::new(ROWS);
    let mut probe = Pair::new::<T>(1, LpmTable::<T>::new(1));
    probe.upsert(&key(8, [1, 0]), 1);
    let value = vec![2; probe.kernel.info().value_size];
    memory.replacing_needs_room(probe.kernel.upsert(&key(8, [1, 0]), &value).is_err());

    let all = (T::SPEC.key_size - 4) * 8;
    let mut pair = Pair::new::<T>(ROWS, memory);
    let mut numbers = Numbers(11);
    for value in (0..=255).cycle().take(3000) {
        let len = [0, 7, 8, 9, 12, 15, 16, all, all + 1, 1000][numbers.below(10) as usize];
        let bytes = [numbers.below(4), numbers.below(256)].map(|byte| u8::try_from(byte).unwrap());
        match numbers.below(6) {
            0 | 1 => pair.delete(&key(len, bytes)),
            2 => pair.get(&key(len, bytes)),
            _ => pair.upsert(&key(len, bytes), value),
        }
        pair.same_rows();
    }
    assert!(pair.refused > 100, "{}", pair.refused);
}
