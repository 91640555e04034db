//! The ring buffer's reader.

use std::time::Duration;

use dataplane_abi::config::{Config, ConfigFlags, NodeConfig};
use dataplane_abi::events::EventKind;
use dataplane_abi::metrics::{EVENTS_LOST, Metrics};
use dataplane_abi::{ABI_VERSION, DropReason};
use dataplane_loader::{EventReader, Object, TestRun, TypedTable};

use crate::support::with_object;

/// A frame that no pod may send: of a protocol that is not served.
const FOREIGN: [u8; 64] = {
    let mut frame = [0x5a; 64];
    (frame[12], frame[13]) = (0x12, 0x34);
    frame
};

fn tell_of_drops(object: &Object) {
    let config: TypedTable<Config> = object.table("CONFIG").unwrap().try_clone().unwrap().typed().unwrap();
    let row = NodeConfig {
        abi_version: ABI_VERSION,
        revision: 1,
        flags: ConfigFlags::DROP_EVENTS,
        payload_len: 32,
        ..NodeConfig::default()
    };
    config.upsert(&0, &row).unwrap();
    assert_eq!(config.get(&0).unwrap(), Some(row));
}

#[test]
fn an_empty_ring_says_so() {
    with_object(|sandbox, _, object| {
        let mut reader = EventReader::of(&object).unwrap();
        assert!(!reader.wait(Duration::from_millis(1)).unwrap());
        assert!(reader.next().is_none());
        assert_eq!(reader.malformed(), 0);
        drop(object);
        EventReader::open(&sandbox.pins()).unwrap();
    });
}

#[test]
fn a_drop_is_told_with_its_reason_and_packet() {
    with_object(|sandbox, _, object| {
        tell_of_drops(&object);
        let mut reader = EventReader::open(&sandbox.pins()).unwrap();
        let result = object.test_run("from_container", &TestRun::new(&FOREIGN)).unwrap();
        assert_eq!(result.verdict, 2);
        assert!(reader.wait(Duration::from_secs(5)).unwrap());
        let event = reader.next().unwrap();
        assert_eq!(event.header.kind, EventKind::Drop as u8);
        assert_eq!(event.header.drop_reason(), Some(DropReason::UnsupportedL3));
        assert_eq!(event.header.len_orig, 64);
        assert_eq!(event.payload[..32], FOREIGN[..32]);
        assert_eq!(event.payload[32..], [0; 96]);
        assert!(reader.next().is_none());
    });
}

#[test]
fn what_does_not_fit_the_ring_is_counted() {
    with_object(|_, _, object| {
        tell_of_drops(&object);
        let mut reader = EventReader::of(&object).unwrap();
        let metrics: TypedTable<Metrics> =
            object.table("METRICS").unwrap().try_clone().unwrap().typed().unwrap();
        let runs = 20_000;
        object.test_run("from_container", &TestRun::new(&FOREIGN).repeat(runs)).unwrap();
        let mut read = 0;
        while reader.next().is_some() {
            read += 1;
        }
        let each_cpu = metrics.get_each_cpu(&EVENTS_LOST).unwrap().unwrap();
        let lost: u64 = each_cpu.iter().map(|row| row.packets).sum();
        assert!(lost > 0);
        assert_eq!(read + lost, u64::from(runs));
        // The reader has made room again.
        object.test_run("from_container", &TestRun::new(&FOREIGN)).unwrap();
        assert!(reader.next().is_some());
    });
}

#[test]
fn a_ring_that_fills_wakes_its_reader() {
    with_object(|_, _, object| {
        tell_of_drops(&object);
        let reader = EventReader::of(&object).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Asleep before the first record comes.
                std::thread::sleep(Duration::from_millis(200));
                object.test_run("from_container", &TestRun::new(&FOREIGN).repeat(4000)).unwrap();
            });
            assert!(reader.wait(Duration::from_secs(20)).unwrap());
        });
    });
}
