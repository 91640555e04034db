//! Tables of every kind, made for the test.

use dataplane_loader::table::ScanPosition;
use dataplane_loader::{Table, TableError, TableKind, TableSpec, Upsert};

use crate::support::in_sandbox;

fn spec(kind: TableKind, max_entries: u32) -> TableSpec<'static> {
    TableSpec { name: "test", kind, key_size: 4, value_size: 8, max_entries, flags: 0 }
}

fn sorted(mut rows: Vec<dataplane_loader::Row>) -> Vec<dataplane_loader::Row> {
    rows.sort();
    rows
}

#[test]
fn a_hash_keeps_rows_until_they_are_deleted() {
    in_sandbox(|_| {
        let table = Table::create(&spec(TableKind::Hash, 4)).unwrap();
        assert_eq!(table.get(&[1, 0, 0, 0]).unwrap(), None);
        table.upsert(&[1, 0, 0, 0], &[7; 8]).unwrap();
        table.upsert(&[2, 0, 0, 0], &[8; 8]).unwrap();
        table.upsert(&[1, 0, 0, 0], &[9; 8]).unwrap();
        assert_eq!(table.get(&[1, 0, 0, 0]).unwrap(), Some(vec![9; 8]));
        assert_eq!(
            sorted(table.rows().unwrap()),
            [(vec![1, 0, 0, 0], vec![9; 8]), (vec![2, 0, 0, 0], vec![8; 8])]
        );
        assert!(table.delete(&[1, 0, 0, 0]).unwrap());
        assert!(!table.delete(&[1, 0, 0, 0]).unwrap());
        assert_eq!(table.count().unwrap(), 1);
        table.clear().unwrap();
        assert_eq!(table.count().unwrap(), 0);
    });
}

#[test]
fn conditions_sizes_and_a_full_table_are_told_apart() {
    in_sandbox(|_| {
        let table = Table::create(&spec(TableKind::Hash, 2)).unwrap();
        table.upsert_if(&[1; 4], &[1; 8], Upsert::New).unwrap();
        let again = table.upsert_if(&[1; 4], &[2; 8], Upsert::New);
        assert!(matches!(again, Err(TableError::Exists { .. })), "{again:?}");
        let missing = table.upsert_if(&[2; 4], &[2; 8], Upsert::Existing);
        assert!(matches!(missing, Err(TableError::Missing { .. })), "{missing:?}");
        table.upsert(&[2; 4], &[2; 8]).unwrap();
        let full = table.upsert(&[3; 4], &[3; 8]).unwrap_err();
        assert!(matches!(full, TableError::Full { max_entries: 2, .. }), "{full:?}");
        assert!(full.is_retryable());
        let short = table.get(&[1; 3]);
        assert!(matches!(short, Err(TableError::Size { what: "key", got: 3, want: 4, .. })), "{short:?}");
        let long = table.upsert(&[1; 4], &[1; 9]);
        assert!(matches!(long, Err(TableError::Size { what: "value", .. })), "{long:?}");
    });
}

#[test]
fn many_rows_are_listed_once_each() {
    in_sandbox(|_| {
        for kind in [TableKind::Hash, TableKind::LruHash, TableKind::LpmTrie] {
            let table = Table::create(&TableSpec {
                key_size: 8,
                flags: u32::from(kind == TableKind::LpmTrie),
                ..spec(kind, 20_000)
            })
            .unwrap();
            let mut wanted = Vec::new();
            for number in 0..5000_u32 {
                // 32 bits of prefix, so that the same keys fit a trie.
                let key = [32_u32.to_ne_bytes(), number.to_be_bytes()].concat();
                let value = u64::from(number).to_ne_bytes().to_vec();
                table.upsert(&key, &value).unwrap();
                wanted.push((key, value));
            }
            assert_eq!(sorted(table.rows().unwrap()), sorted(wanted), "{kind}");
        }
    });
}

#[test]
fn a_table_is_scanned_in_slices() {
    in_sandbox(|_| {
        for kind in [TableKind::Hash, TableKind::LruHash, TableKind::LpmTrie] {
            let table = Table::create(&TableSpec {
                key_size: 8,
                flags: u32::from(kind == TableKind::LpmTrie),
                ..spec(kind, 5000)
            })
            .unwrap();
            for number in 0..1000_u32 {
                let key = [32_u32.to_ne_bytes(), number.to_be_bytes()].concat();
                table.upsert(&key, &[1; 8]).unwrap();
            }
            let (mut seen, mut slices, mut position) = (Vec::new(), 0, None);
            loop {
                let (rows, next) = table.scan(position.as_ref(), 100).unwrap();
                seen.extend(rows);
                slices += 1;
                let Some(next) = next else { break };
                // A position survives those who only pass bytes on.
                position = Some(ScanPosition::from_bytes(next.as_bytes()));
            }
            assert!(slices >= 5, "{kind}: {slices} slices");
            assert_eq!(sorted(seen), sorted(table.rows().unwrap()), "{kind}");
        }
    });
}

#[test]
fn a_trie_answers_with_the_longest_prefix() {
    in_sandbox(|_| {
        let table =
            Table::create(&TableSpec { key_size: 8, flags: 1, ..spec(TableKind::LpmTrie, 16) }).unwrap();
        let key = |bits: u32, addr: [u8; 4]| [bits.to_ne_bytes(), addr].concat();
        table.upsert(&key(8, [10, 0, 0, 0]), &[8; 8]).unwrap();
        table.upsert(&key(24, [10, 1, 2, 0]), &[24; 8]).unwrap();
        assert_eq!(table.get(&key(32, [10, 1, 2, 3])).unwrap(), Some(vec![24; 8]));
        assert_eq!(table.get(&key(32, [10, 9, 9, 9])).unwrap(), Some(vec![8; 8]));
        assert_eq!(table.get(&key(32, [11, 0, 0, 1])).unwrap(), None);
        assert_eq!(table.count().unwrap(), 2);
    });
}

#[test]
fn an_array_always_has_all_rows() {
    in_sandbox(|_| {
        let table = Table::create(&spec(TableKind::Array, 3)).unwrap();
        table.upsert(&1_u32.to_ne_bytes(), &[5; 8]).unwrap();
        let rows = sorted(table.rows().unwrap());
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].1, vec![5; 8]);
        assert!(table.delete(&1_u32.to_ne_bytes()).is_err());
        table.clear().unwrap();
        assert_eq!(table.get(&1_u32.to_ne_bytes()).unwrap(), Some(vec![0; 8]));
    });
}

#[test]
fn per_cpu_values_are_split_by_cpu() {
    in_sandbox(|_| {
        for kind in [TableKind::PerCpuArray, TableKind::PerCpuHash] {
            let table = Table::create(&TableSpec { value_size: 4, ..spec(kind, 2) }).unwrap();
            let cpus = table.full_value_size() / 8;
            let mut value = Vec::new();
            for cpu in 0..cpus {
                value.extend([u8::try_from(cpu).unwrap() + 1, 0, 0, 0, 0, 0, 0, 0]);
            }
            table.upsert(&1_u32.to_ne_bytes(), &value).unwrap();
            let split = table.get_per_cpu(&1_u32.to_ne_bytes()).unwrap().unwrap();
            assert_eq!(split.len(), cpus, "{kind}");
            for (cpu, value) in split.iter().enumerate() {
                assert_eq!(value[..], [u8::try_from(cpu).unwrap() + 1, 0, 0, 0], "{kind}");
            }
        }
    });
}

#[test]
fn maps_of_maps_hand_out_their_inner_maps() {
    in_sandbox(|_| {
        let inner = Table::create(&spec(TableKind::Hash, 8)).unwrap();
        inner.upsert(&[1; 4], &[42; 8]).unwrap();
        let outer = Table::create_with_inner(
            &TableSpec { value_size: 4, ..spec(TableKind::HashOfMaps, 8) },
            Some(&inner),
        )
        .unwrap();
        outer.upsert_inner(&[9; 4], &inner).unwrap();
        assert!(outer.inner(&[8; 4]).unwrap().is_none());
        let found = outer.inner(&[9; 4]).unwrap().unwrap();
        assert_eq!(found.info().id, inner.info().id);
        assert_eq!(found.get(&[1; 4]).unwrap(), Some(vec![42; 8]));
    });
}

#[test]
fn an_unpinned_name_is_not_found() {
    in_sandbox(|sandbox| {
        let error = Table::open(&sandbox.pins(), "NOSUCH").unwrap_err();
        assert!(matches!(error, TableError::NotFound { .. }), "{error:?}");
        assert!(error.to_string().contains("bristle/v1/NOSUCH"), "{error}");
    });
}
