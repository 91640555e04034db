//! Loading: pins are made, taken over, and refused when they do not fit.

use dataplane_abi::conntrack::Ct4;
use dataplane_abi::program::{Program, SocketProgram};
use dataplane_abi::{TABLES, Table as _};
use dataplane_loader::object::LoadError;
use dataplane_loader::{Clock, Object, Table, TableKind, TableSpec, TestRun};

use crate::support::{in_sandbox, load, object_bytes, small, with_object};

#[test]
fn every_program_and_table_of_the_abi_is_in_the_object() {
    with_object(|_, _, object| {
        let programs = object.programs();
        let names =
            Program::ALL.map(Program::name).into_iter().chain(SocketProgram::ALL.map(SocketProgram::name));
        for program in names {
            assert!(programs.iter().any(|name| name == program), "{program}");
        }
        for spec in TABLES {
            let info = object.table(spec.name).unwrap().info();
            assert_eq!(info.kind, TableKind::from(spec.kind), "{}", spec.name);
            assert_eq!(info.key_size, spec.key_size as usize, "{}", spec.name);
            assert_eq!(info.value_size, spec.value_size as usize, "{}", spec.name);
            assert_eq!(info.flags, spec.flags, "{}", spec.name);
        }
        for stats in object.stats() {
            assert!(stats.verified_instructions.is_none_or(|count| count > 0), "{stats:?}");
        }
    });
}

#[test]
fn rows_survive_the_process_that_wrote_them() {
    with_object(|sandbox, bytes, object| {
        let pins = sandbox.pins();
        let table = object.table("CONFIG").unwrap();
        let value = vec![0x5a; table.info().value_size];
        let key = vec![0; table.info().key_size];
        table.upsert(&key, &value).unwrap();
        let id = table.info().id;
        drop(object);

        let pinned = Table::open(&pins, "CONFIG").unwrap();
        assert_eq!(pinned.info().id, id);
        assert_eq!(pinned.get(&key).unwrap(), Some(value.clone()));
        let again = load(sandbox, bytes);
        assert_eq!(again.table("CONFIG").unwrap().info().id, id);
        assert_eq!(again.table("CONFIG").unwrap().get(&key).unwrap(), Some(value));
        assert_eq!(again.kept_sizes(), []);
        assert!(Table::list(&pins).unwrap().contains(&"CONFIG".to_owned()));
    });
}

#[test]
fn without_pins_nothing_is_left_behind() {
    let Some(bytes) = object_bytes() else {
        return;
    };
    in_sandbox(|sandbox| {
        let object = Object::load_bytes(&bytes, None, &small()).unwrap();
        assert!(object.table("CONFIG").is_ok());
        drop(object);
        assert!(!sandbox.pins().dir().exists());
    });
}

#[test]
fn another_size_keeps_the_pinned_table_and_says_so() {
    with_object(|sandbox, bytes, object| {
        assert_eq!(object.table("CT4").unwrap().info().max_entries, 4096);
        drop(object);
        let options = small().conntrack_rows(8192);
        let object = Object::load_bytes(bytes, Some(&sandbox.pins()), &options).unwrap();
        let kept = object.kept_sizes();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!((kept[0].pinned, kept[0].wanted), (4096, 8192));
        assert_eq!(object.table("CT4").unwrap().info().max_entries, 4096);
    });
}

#[test]
fn another_layout_is_refused_with_a_way_out() {
    let Some(bytes) = object_bytes() else {
        return;
    };
    in_sandbox(|sandbox| {
        let pins = sandbox.pins();
        let object = load(sandbox, &bytes);
        drop(object);
        // A map of another build in CT4's place.
        std::fs::remove_file(pins.table("CT4")).unwrap();
        let foreign = Table::create(&TableSpec {
            name: "CT4",
            kind: TableKind::LruHash,
            key_size: 4,
            value_size: 4,
            max_entries: 16,
            flags: 0,
        })
        .unwrap();
        foreign.pin(&pins.table("CT4")).unwrap();
        let error = Object::load_bytes(&bytes, Some(&pins), &small()).unwrap_err();
        assert!(matches!(&error, LoadError::Layout { table, .. } if table == Ct4::SPEC.name), "{error:?}");
        assert!(error.to_string().contains("ABI version"), "{error}");
        // What another ABI version pinned is not in the way.
        Object::load_bytes(&bytes, Some(&pins.with_version(99)), &small()).unwrap();
    });
}

#[test]
fn rubbish_is_no_object() {
    in_sandbox(|_| {
        for bytes in [&b""[..], b"not an ELF file at all", &[0x7f, b'E', b'L', b'F', 2, 1, 1]] {
            let error = Object::load_bytes(bytes, None, &small()).unwrap_err();
            assert!(matches!(error, LoadError::Parse(_)), "{error:?}");
        }
    });
}

#[test]
fn the_clock_ticks_at_a_rate_that_kernels_have() {
    with_object(|_, _, object| {
        let mut clock = Clock::calibrate(&object).unwrap();
        assert!([100, 250, 300, 1000].contains(&clock.ticks_per_s()), "{clock:?}");
        let derived = clock.now();
        let read = clock.read(&object).unwrap();
        assert!(read.abs_diff(derived) <= u64::from(clock.ticks_per_s()) / 10 + 1);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let age = clock.age(read);
        assert!((30..500).contains(&age.as_millis()), "{age:?}");
    });
}

#[test]
fn a_test_run_gives_back_the_frame() {
    with_object(|_, _, object| {
        let frame = [0_u8; 64];
        let result = object.test_run("to_host", &TestRun::new(&frame).repeat(10)).unwrap();
        assert_eq!(result.frame, frame);
        assert!(object.test_run("no_such", &TestRun::new(&frame)).is_err());
        let short = object.test_run("to_host", &TestRun::new(&frame[..8]));
        assert!(short.is_err(), "{short:?}");
    });
}
