//! The ring buffer's reader.

use std::time::Duration;

use dataplane_loader::EventReader;

use crate::support::with_object;

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
