//! What faults do to the events of one watch.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::faults::Effect;
use crate::object::{name, namespace};
use crate::store::{ChangeKind, WatchEvent};

/// The faults of one watch, for as long as it runs.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// How long events are gathered before they are sent in one piece.
    pub(super) gather: Duration,
    coalesce: bool,
    again: bool,
    reorder: bool,
    lag: Duration,
    late: VecDeque<(Instant, Vec<WatchEvent>)>,
}

impl Shape {
    /// Of the effects of the call that began the watch.
    pub(super) fn of(effects: &[Effect]) -> Self {
        let mut shape = Self::default();
        for effect in effects {
            match effect {
                Effect::Coalesce(time) => (shape.coalesce, shape.gather) = (true, shape.gather.max(*time)),
                Effect::Again(time) => (shape.again, shape.gather) = (true, shape.gather.max(*time)),
                Effect::Reorder(time) => (shape.reorder, shape.gather) = (true, shape.gather.max(*time)),
                Effect::Lag(time) => shape.lag = *time,
                _ => {}
            }
        }
        shape
    }

    /// Takes in events that have happened.
    pub(super) fn push(&mut self, mut events: Vec<WatchEvent>, now: Instant) {
        if self.coalesce {
            events = coalesce(events);
        }
        if self.reorder {
            events = reorder(events);
        }
        if self.again {
            events = again(events);
        }
        if !events.is_empty() {
            self.late.push_back((now + self.lag, events));
        }
    }

    /// Events whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        while let Some((_, batch)) = self.late.pop_front_if(|(due, _)| *due <= now) {
            events.extend(batch);
        }
        events
    }

    /// When the next events are due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.late.front().map(|(due, _)| *due)
    }
}

fn same(a: &WatchEvent, b: &WatchEvent) -> bool {
    (namespace(&a.object), name(&a.object)) == (namespace(&b.object), name(&b.object))
}

/// Of several updates of one object only the last; adds and deletes stay as they are.
fn coalesce(events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    let mut kept: Vec<WatchEvent> = Vec::new();
    for event in events {
        match kept.iter_mut().rev().find(|o| same(o, &event)) {
            Some(last) if event.kind == ChangeKind::Modified && last.kind != ChangeKind::Deleted => {
                last.object = event.object;
            }
            _ => kept.push(event),
        }
    }
    kept
}

/// The objects in the opposite order of their first changes; changes of one object stay in theirs.
fn reorder(events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    let mut objects: Vec<Vec<WatchEvent>> = Vec::new();
    for event in events {
        match objects.iter_mut().find(|object| same(&object[0], &event)) {
            Some(object) => object.push(event),
            None => objects.push(vec![event]),
        }
    }
    objects.into_iter().rev().flatten().collect()
}

/// Behind all of them the last event of each object once more. Not the earlier ones: no watch ever takes an object back.
fn again(events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    let last = |(at, event): (usize, &WatchEvent)| {
        let is_last = !events[at + 1..].iter().any(|later| same(later, event));
        is_last.then(|| event.clone())
    };
    let second: Vec<WatchEvent> = events.iter().enumerate().filter_map(last).collect();
    events.into_iter().chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    /// `a1` is the first version of object `a`.
    fn events(words: &str) -> Vec<WatchEvent> {
        let event = |word: &str| {
            let (name, version) = word.split_at(1);
            WatchEvent {
                kind: if version == "1" { ChangeKind::Added } else { ChangeKind::Modified },
                object: Arc::new(json!({"metadata": {"name": name, "version": version}})),
                revision: 1,
            }
        };
        words.split(' ').map(event).collect()
    }

    fn words(events: &[WatchEvent]) -> String {
        let word = |event: &WatchEvent| {
            let metadata = &event.object["metadata"];
            format!(
                "{}{}",
                metadata["name"].as_str().unwrap_or_default(),
                metadata["version"].as_str().unwrap_or_default()
            )
        };
        events.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_effect_shapes_a_batch() {
        let gather = Duration::from_millis(1);
        for (effect, expected) in [
            (Effect::Coalesce(gather), "a2 b3"),
            (Effect::Reorder(gather), "b1 b2 b3 a1 a2"),
            (Effect::Again(gather), "a1 b1 b2 a2 b3 a2 b3"),
        ] {
            let mut shape = Shape::of(&[effect]);
            let now = Instant::now();
            shape.push(events("a1 b1 b2 a2 b3"), now);
            assert_eq!(words(&shape.due(now)), expected);
            assert_eq!(shape.next_due(), None);
        }
    }

    #[test]
    fn late_events_come_in_their_order_when_their_time_has_come() {
        let lag = Duration::from_secs(5);
        let mut shape = Shape::of(&[Effect::Lag(lag)]);
        let start = Instant::now();
        shape.push(events("a1"), start);
        shape.push(events("b1"), start + Duration::from_secs(1));
        assert_eq!(shape.next_due(), Some(start + lag));
        assert!(shape.due(start).is_empty());
        assert_eq!(words(&shape.due(start + lag)), "a1");
        assert_eq!(words(&shape.due(start + lag * 2)), "b1");
    }
}
